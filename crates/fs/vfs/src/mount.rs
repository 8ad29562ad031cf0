//! Mounts, mount namespaces, and paths in them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use bitflags::bitflags;
use sync::{Mutex, order};

mod namespace;

pub use namespace::MountNamespace;

use crate::dentry::Dentry;
use crate::{FileSystem, Inode, Result};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

bitflags! {
    /// Per-mount options (`mount(2)`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MountFlags: u32 {
        /// Read-only.
        const RDONLY = 1;
        /// Set-id bits have no effect.
        const NOSUID = 2;
        /// Device nodes cannot be opened.
        const NODEV = 4;
        /// Nothing can be executed.
        const NOEXEC = 8;
        /// Access times stay.
        const NOATIME = 1024;
    }
}

/// A place where a mount hangs.
struct Point {
    parent: Weak<Mount>,
    dentry: Arc<Dentry>,
}

/// A tree attached somewhere.
pub struct Mount {
    id: u64,
    fs: Arc<dyn FileSystem>,
    root: Arc<Dentry>,
    source: String,
    flags: AtomicU32,
    point: Mutex<order::Leaf, Option<Point>>,
    /// What is mounted on dentries of this mount, by the dentry's address (it is kept alive by the
    /// child's `point`).
    children: Mutex<order::Leaf, HashMap<usize, Arc<Mount>>>,
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount")
            .field("id", &self.id)
            .field("type", &self.fs.type_name())
            .finish_non_exhaustive()
    }
}

fn key(dentry: &Arc<Dentry>) -> usize {
    Arc::as_ptr(dentry) as usize
}

impl Mount {
    /// The whole of `fs`, attached nowhere. `source` is the first column of `/proc/mounts`.
    pub fn new(fs: Arc<dyn FileSystem>, source: &str, flags: MountFlags) -> Arc<Self> {
        let root = Dentry::root_of(&*fs);
        Self::of(fs, root, source, flags)
    }

    /// The tree at `path` once more (`MS_BIND`).
    pub fn bind(path: &VfsPath) -> Arc<Self> {
        Self::of(Arc::clone(&path.mount.fs), Arc::clone(&path.dentry), &path.mount.source, path.mount.flags())
    }

    fn of(fs: Arc<dyn FileSystem>, root: Arc<Dentry>, source: &str, flags: MountFlags) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            fs,
            root,
            source: source.to_owned(),
            flags: AtomicU32::new(flags.bits()),
            point: Mutex::new(None),
            children: Mutex::default(),
        })
    }

    /// Unique number (`mountinfo`).
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file system.
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// Its root.
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }

    /// What was mounted, as the mounter called it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Options now.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// Changes options (`MS_REMOUNT`).
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// `inode`, which was reached through here, was read.
    pub(crate) fn accessed(&self, inode: &Arc<dyn Inode>) {
        if !self.flags().intersects(MountFlags::NOATIME | MountFlags::RDONLY) {
            inode.accessed();
        }
    }

    /// `EROFS` on a read-only mount.
    pub fn want_write(&self) -> Result<()> {
        if self.flags().contains(MountFlags::RDONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Where it hangs; `None` for the root of a namespace and for what is detached.
    pub fn point(&self) -> Option<VfsPath> {
        let point = self.point.lock();
        let point = point.as_ref()?;
        Some(VfsPath { mount: point.parent.upgrade()?, dentry: Arc::clone(&point.dentry) })
    }

    fn child_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Self>> {
        self.children.lock().get(&key(dentry)).cloned()
    }

    fn child_list(&self) -> Vec<Arc<Self>> {
        self.children.lock().values().cloned().collect()
    }
}

/// An object in the tree of mounts: what a path leads to.
#[derive(Clone, Debug)]
pub struct VfsPath {
    /// The mount it was reached through.
    pub mount: Arc<Mount>,
    /// The name there.
    pub dentry: Arc<Dentry>,
}

impl PartialEq for VfsPath {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }
}

impl Eq for VfsPath {}

impl VfsPath {
    /// The root of a mount.
    pub fn root_of(mount: &Arc<Mount>) -> Self {
        Self { mount: Arc::clone(mount), dentry: Arc::clone(&mount.root) }
    }

    /// A path for what has none: a pipe, a socket, an eventfd. `name` is what `/proc/PID/fd/N` shows.
    pub fn anonymous(inode: Arc<dyn Inode>, name: &[u8]) -> Self {
        let fs = inode.fs();
        let dentry = Dentry::root(inode, true, name);
        Self { mount: Mount::of(fs, Arc::clone(&dentry), "none", MountFlags::empty()), dentry }
    }

    /// The inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }

    /// Is it the root of its mount?
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, &self.mount.root)
    }

    /// Goes up through whatever is mounted here.
    pub fn topmost(mut self) -> Self {
        while self.dentry.mounts.load(Ordering::Relaxed) > 0
            && let Some(above) = self.mount.child_at(&self.dentry)
        {
            self = Self::root_of(&above);
        }
        self
    }

    /// `..`, never above `root`.
    pub fn parent(&self, root: &Self) -> Self {
        let mut at = self.clone();
        loop {
            if at == *root {
                return at;
            }
            if !at.is_mount_root() {
                let Some(parent) = at.dentry.parent() else { return at };
                return Self { mount: at.mount, dentry: parent }.topmost();
            }
            match at.mount.point() {
                Some(point) => at = point,
                None => return at,
            }
        }
    }

    /// The path from `root`, and whether `root` was met on the way (`getcwd(2)` says `(unreachable)`
    /// when not).
    pub fn components(&self, root: &Self) -> (Vec<u8>, bool) {
        let mut names = Vec::new();
        let mut at = self.clone();
        let reachable = loop {
            if at == *root {
                break true;
            }
            if at.is_mount_root() {
                match at.mount.point() {
                    Some(point) => at = point,
                    None => break false,
                }
                continue;
            }
            let Some(parent) = at.dentry.parent() else { break false };
            names.push(at.dentry.name());
            at = Self { mount: at.mount, dentry: parent };
        };
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        (path, reachable)
    }

    /// The path as `/proc/PID/fd/N` shows it, with ` (deleted)` for a removed name.
    pub fn display(&self, root: &Self) -> Vec<u8> {
        // What has no path (pipes, sockets) is a root by itself, with a telling name.
        if self.is_mount_root() && self.dentry.parent().is_none() && *self.dentry.name() != *b"/" {
            return self.dentry.name().to_vec();
        }
        let (mut path, _) = self.components(root);
        if self.dentry.is_unlinked() {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }
}
