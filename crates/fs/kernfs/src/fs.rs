//! The file system object.

use std::sync::{Arc, Weak};

use abi::fs::StatFs;
use abi::time::Timespec;
use vfs::{FileSystem, Inode, Result};

use crate::node::{Content, Node, Spec};

/// What `statfs(2)` and `stat(2)` say of the whole tree.
#[derive(Clone, Copy, Debug)]
pub struct FsInfo {
    /// Type, as in `/proc/filesystems`.
    pub type_name: &'static str,
    /// Magic number (`statfs(2)`).
    pub magic: i64,
    /// Device number.
    pub dev: u64,
    /// Time of the mount; all times of all inodes.
    pub now: Timespec,
    /// Does the tree stay as it is? Else the VFS asks for every name again.
    pub stable: bool,
}

/// A mounted pseudo file system.
pub struct KernFs {
    me: Weak<Self>,
    info: FsInfo,
    root: Spec,
}

impl KernFs {
    /// The file system of the tree below `root`, which is a directory.
    pub fn new(info: FsInfo, root: Spec) -> Arc<Self> {
        Arc::new_cyclic(|me| Self { me: me.clone(), info, root })
    }

    pub(crate) fn info(&self) -> &FsInfo {
        &self.info
    }
}

impl std::fmt::Debug for KernFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernFs").field("info", &self.info).finish_non_exhaustive()
    }
}

impl FileSystem for KernFs {
    fn type_name(&self) -> &'static str {
        self.info.type_name
    }

    fn dev(&self) -> u64 {
        self.info.dev
    }

    fn root(&self) -> Arc<dyn Inode> {
        // We are asked through an Arc, so the upgrade succeeds; another copy would serve as well.
        let fs = self.me.upgrade().unwrap_or_else(|| Self::new(self.info, self.root.clone()));
        Arc::new(Node::new(fs, 1, self.root.clone()))
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs {
            fs_type: self.info.magic,
            bsize: abi::PAGE_SIZE as i64,
            frsize: abi::PAGE_SIZE as i64,
            namelen: abi::fs::NAME_MAX as i64,
            ..StatFs::default()
        })
    }

    fn caches_lookups(&self) -> bool {
        self.info.stable && matches!(self.root.content, Content::Dir(_))
    }
}
