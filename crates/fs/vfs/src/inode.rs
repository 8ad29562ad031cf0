//! Inodes and the file systems they belong to.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags, Permissions, StatFs};
use abi::time::Timespec;
use bitflags::bitflags;
use cred::Credentials;

use crate::file::File;
use crate::{FileContext, Result};

/// Attributes of an inode (`inode(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number, unique in its file system.
    pub ino: u64,
    /// Type.
    pub kind: FileType,
    /// Permission bits.
    pub perm: Permissions,
    /// Hard links.
    pub nlink: u32,
    /// Owner (kernel id: of the root user namespace).
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device a device node names (`abi::fs::make_dev`), else 0.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks in use.
    pub blocks: u64,
    /// Preferred I/O size in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Timespec,
    /// Last change of data.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Birth, where known.
    pub btime: Option<Timespec>,
}

/// A new timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The file system's now.
    Now,
    /// This.
    At(Timespec),
}

/// A change of attributes; what is `None` stays. Permission has been checked by the caller, the
/// consequences (clearing set-id bits) are in it already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// `chmod`.
    pub perm: Option<Permissions>,
    /// `chown`.
    pub uid: Option<u32>,
    /// `chgrp`.
    pub gid: Option<u32>,
    /// `truncate`, in bytes.
    pub size: Option<u64>,
    /// `utimensat`.
    pub atime: Option<SetTime>,
    /// `utimensat`.
    pub mtime: Option<SetTime>,
}

/// An object to create: owner and mode are settled (umask, set-gid directory) by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Type; not a symbolic link.
    pub kind: FileType,
    /// Permission bits.
    pub perm: Permissions,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// For device nodes.
    pub rdev: u64,
}

/// Where a symbolic link leads.
#[derive(Clone)]
pub enum LinkTarget {
    /// An ordinary path, walked from the link's directory.
    Path(Vec<u8>),
    /// A magic link: straight to an object (`/proc/PID/fd/N`, `exe`, `cwd`, `root`, `ns/*`).
    Jump(Arc<dyn Any + Send + Sync>),
}

impl std::fmt::Debug for LinkTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(&String::from_utf8_lossy(path)).finish(),
            Self::Jump(_) => f.write_str("Jump"),
        }
    }
}

bitflags! {
    /// Flags of `renameat2(2)`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        /// Fail with `EEXIST` when the target exists.
        const NOREPLACE = 1;
        /// Exchange the two.
        const EXCHANGE = 2;
        /// Leave a whiteout behind (overlays).
        const WHITEOUT = 4;
    }
}

/// How `setxattr(2)` treats an attribute that exists or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrSet {
    /// Either way.
    Any,
    /// Must not exist (`XATTR_CREATE`).
    Create,
    /// Must exist (`XATTR_REPLACE`).
    Replace,
}

/// A mounted file system (a superblock).
pub trait FileSystem: Send + Sync {
    /// Type, as in `/proc/mounts`.
    fn type_name(&self) -> &'static str;

    /// Device number its inodes report.
    fn dev(&self) -> u64;

    /// Its root.
    fn root(&self) -> Arc<dyn Inode>;

    /// `statfs(2)`.
    fn statfs(&self) -> Result<StatFs>;

    /// Options after the generic ones in `/proc/mounts`, without a leading comma.
    fn options(&self) -> String {
        String::new()
    }

    /// May a dentry, positive or negative, be believed without asking again? False for trees that change
    /// by themselves (`/proc`) or behind our back (a shared Gofer mount).
    fn caches_lookups(&self) -> bool {
        true
    }

    /// Writes everything back (`syncfs(2)`).
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// One object of a file system. Methods take single names, never paths, and do not check permissions:
/// the walk has. All are safe to call at the same time; two directories are locked by the caller for a
/// rename only. Names are bytes without `/` or NUL, at most `NAME_MAX`, never `.` or `..`.
pub trait Inode: Send + Sync + Any {
    /// Type; never changes.
    fn kind(&self) -> FileType;

    /// The file system it belongs to.
    fn fs(&self) -> Arc<dyn FileSystem>;

    /// Attributes now.
    fn attr(&self) -> Result<Attr>;

    /// Changes attributes.
    fn set_attr(&self, change: &SetAttr) -> Result<()>;

    /// Data, names or target were read: the access time may have to follow (`relatime`). For file systems
    /// that keep it themselves; never an error.
    fn accessed(&self) {}

    /// Child called `name`; `ENOENT` when there is none.
    fn lookup(&self, _name: &[u8]) -> Result<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }

    /// Makes a file, directory, fifo, socket or device node; `EEXIST` when there is one.
    fn create(&self, _name: &[u8], _node: &NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }

    /// Makes an unnamed regular file in this directory (`O_TMPFILE`).
    fn create_unnamed(&self, _node: &NewNode) -> Result<Arc<dyn Inode>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes a symbolic link.
    fn symlink(&self, _name: &[u8], _target: &[u8], _uid: u32, _gid: u32) -> Result<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }

    /// Makes `name` another name of `target`, an inode of the same file system.
    fn link(&self, _name: &[u8], _target: &Arc<dyn Inode>) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Removes a name that is not a directory.
    fn unlink(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Removes an empty directory.
    fn rmdir(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Moves `name` to `new_name` in `new_parent`, a directory of the same file system. The caller has
    /// checked types, ancestry and sticky bits, and holds both directories against other renames.
    fn rename(
        &self,
        _name: &[u8],
        _new_parent: &Arc<dyn Inode>,
        _new_name: &[u8],
        _flags: RenameFlags,
    ) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Target of a symbolic link, as `readlink(2)` shows it.
    fn readlink(&self) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// Target of a symbolic link, as a walk follows it; `cred` decides for magic links.
    fn follow(&self, _cred: &Credentials) -> Result<LinkTarget> {
        self.readlink().map(LinkTarget::Path)
    }

    /// Opens it. `flags` has no `CREAT`, `EXCL`, `PATH`; `TRUNC` has been carried out. Fifos, sockets and
    /// device nodes are opened by the VFS through its registries unless the inode does so itself.
    fn open(&self, cx: &FileContext<'_>, flags: OpenFlags) -> Result<Arc<dyn File>>;

    /// Extended attribute `name`.
    fn xattr(&self, _name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets an extended attribute.
    fn set_xattr(&self, _name: &[u8], _value: &[u8], _how: XattrSet) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Removes an extended attribute.
    fn remove_xattr(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Names of all extended attributes.
    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        Err(Errno::EOPNOTSUPP)
    }
}
