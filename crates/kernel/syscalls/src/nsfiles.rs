//! Namespaces as files: what the links in `/proc/PID/ns` lead to (`namespaces(7)`), for `setns(2)`.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags, Permissions, StatFs};
use abi::process::CloneFlags;
use abi::time::Timespec;
use kernel::{PidNamespace, Task};
use vfs::{Attr, File, FileContext, FileSystem, Inode, MountNamespace, Result, SetAttr, VfsPath};

/// `NSFS_MAGIC`.
const MAGIC: i64 = 0x6e73_6673;

/// A namespace that can be held by a file.
#[derive(Clone)]
pub(crate) enum Namespace {
    /// Of process ids.
    Pid(Arc<PidNamespace>),
    /// Of mounts.
    Mount(Arc<MountNamespace>),
    /// Of a kind of which there is one: the flag of `clone(2)`, and its number among files.
    Only(CloneFlags, u64),
}

impl Namespace {
    /// The flag of `clone(2)` for its kind.
    pub(crate) fn kind(&self) -> CloneFlags {
        match self {
            Self::Pid(_) => CloneFlags::NEWPID,
            Self::Mount(_) => CloneFlags::NEWNS,
            Self::Only(kind, _) => *kind,
        }
    }

    fn inode(&self) -> u64 {
        match self {
            Self::Pid(namespace) => namespace.inode(),
            Self::Mount(namespace) => namespace.inode(),
            Self::Only(_, inode) => *inode,
        }
    }
}

/// Kinds of which there is one, by their names in `/proc/PID/ns`, with the numbers that Linux gives the first.
const ONLY: [(&str, CloneFlags, u64); 6] = [
    ("cgroup", CloneFlags::NEWCGROUP, 0xefff_fffb),
    ("ipc", CloneFlags::NEWIPC, 0xefff_ffff),
    ("net", CloneFlags::NEWNET, 0xf000_0098),
    ("time", CloneFlags::empty(), 0xefff_fffa),
    ("user", CloneFlags::NEWUSER, 0xefff_fffd),
    ("uts", CloneFlags::NEWUTS, 0xefff_fffe),
];

/// The namespace of `task` that `/proc/PID/ns` has under `name`: what the link says, and where it leads.
///
/// # Errors
/// `ENOENT` for an unknown name, `ESRCH` for a task that has ended.
pub fn link(task: &Task, name: &str) -> Result<(Vec<u8>, VfsPath)> {
    let namespace = match name {
        "pid" => Namespace::Pid(Arc::clone(task.group().pid_ns())),
        "mnt" => Namespace::Mount(task.fs_context()?.get().mounts),
        _ => {
            let (_, kind, inode) = ONLY.iter().find(|(known, ..)| *known == name).ok_or(Errno::ENOENT)?;
            Namespace::Only(*kind, *inode)
        }
    };
    let text = format!("{name}:[{}]", namespace.inode()).into_bytes();
    let path = VfsPath::anonymous(Arc::new(NsInode(Some(namespace))), &text);
    Ok((text, path))
}

/// The namespace that `file` holds.
pub(crate) fn of_file(file: &dyn File) -> Option<Namespace> {
    file.as_any().downcast_ref::<NsFile>().map(|file| file.0.clone())
}

/// The file system such files are in.
struct NsFs;

impl FileSystem for NsFs {
    fn type_name(&self) -> &'static str {
        "nsfs"
    }

    fn dev(&self) -> u64 {
        abi::fs::make_dev(0, 4)
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(NsInode(None))
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { fs_type: MAGIC, bsize: 4096, frsize: 4096, namelen: 255, ..StatFs::default() })
    }
}

/// A namespace, or the root of the file system that nobody sees.
struct NsInode(Option<Namespace>);

impl Inode for NsInode {
    fn kind(&self) -> FileType {
        if self.0.is_some() { FileType::Regular } else { FileType::Directory }
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::new(NsFs)
    }

    fn attr(&self) -> Result<Attr> {
        Ok(Attr {
            ino: self.0.as_ref().map_or(1, Namespace::inode),
            kind: self.kind(),
            perm: Permissions::from_bits_truncate(0o444),
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: abi::PAGE_SIZE as u32,
            atime: Timespec::default(),
            mtime: Timespec::default(),
            ctime: Timespec::default(),
            btime: None,
        })
    }

    fn set_attr(&self, _change: &SetAttr) -> Result<()> {
        Err(Errno::EPERM)
    }

    fn open(&self, _cx: &FileContext<'_>, _flags: OpenFlags) -> Result<Arc<dyn File>> {
        Ok(Arc::new(NsFile(self.0.clone().ok_or(Errno::EISDIR)?)))
    }
}

/// An open one.
struct NsFile(Namespace);

impl File for NsFile {
    fn is_seekable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
