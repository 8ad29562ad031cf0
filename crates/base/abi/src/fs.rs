//! Files: types, modes, open and lookup flags, `stat` layouts (`open(2)`, `stat(2)`, `inode(7)`).

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::time::Timespec;

/// Longest path, with its NUL (`PATH_MAX`).
pub const PATH_MAX: usize = 4096;
/// Longest component of a path (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Symbolic links followed in one walk before `ELOOP`.
pub const MAX_SYMLINKS: u32 = 40;

/// What kind of object an inode is (`inode(7)`, `S_IFMT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Unix-domain socket.
    Socket,
}

impl FileType {
    /// Mask of the type bits in `st_mode`.
    pub const MASK: u32 = 0o170000;

    /// The `S_IF*` bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Fifo => 0o010000,
            Self::CharDevice => 0o020000,
            Self::Directory => 0o040000,
            Self::BlockDevice => 0o060000,
            Self::Regular => 0o100000,
            Self::Symlink => 0o120000,
            Self::Socket => 0o140000,
        }
    }

    /// The type in a `st_mode`; `None` for bits Linux does not use.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & Self::MASK {
            0o010000 => Self::Fifo,
            0o020000 => Self::CharDevice,
            0o040000 => Self::Directory,
            0o060000 => Self::BlockDevice,
            0o100000 => Self::Regular,
            0o120000 => Self::Symlink,
            0o140000 => Self::Socket,
            _ => return None,
        })
    }

    /// The `DT_*` value of a directory entry (`getdents(2)`).
    pub const fn dirent_type(self) -> u8 {
        (self.bits() >> 12) as u8
    }
}

bitflags! {
    /// Permission bits of a mode: `0o7777`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Permissions: u16 {
        /// Set user id on execution.
        const SETUID = 0o4000;
        /// Set group id on execution; on directories, group inheritance.
        const SETGID = 0o2000;
        /// Sticky: restricted deletion.
        const STICKY = 0o1000;
        /// Owner read, write, execute.
        const OWNER = 0o700;
        /// Group read, write, execute.
        const GROUP = 0o070;
        /// Group execute.
        const GROUP_EXECUTE = 0o010;
        /// Others read, write, execute.
        const OTHER = 0o007;
        /// Any of the three execute bits.
        const EXECUTE = 0o111;
    }
}

bitflags! {
    /// Flags of `open(2)` and of an open file description.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct OpenFlags: u32 {
        /// Write only (access mode 1).
        const WRONLY = 0o1;
        /// Read and write (access mode 2).
        const RDWR = 0o2;
        /// Create when missing.
        const CREAT = 0o100;
        /// Fail when it exists.
        const EXCL = 0o200;
        /// Do not become the controlling terminal.
        const NOCTTY = 0o400;
        /// Truncate to nothing.
        const TRUNC = 0o1000;
        /// Every write goes to the end.
        const APPEND = 0o2000;
        /// Never block.
        const NONBLOCK = 0o4000;
        /// Data-synchronous writes.
        const DSYNC = 0o10000;
        /// Signal-driven I/O.
        const ASYNC = 0o20000;
        /// Direct I/O; accepted, without effect on caching.
        const DIRECT = 0o40000;
        /// Large files; always so here.
        const LARGEFILE = 0o100000;
        /// Must be a directory.
        const DIRECTORY = 0o200000;
        /// Last component must not be a symbolic link.
        const NOFOLLOW = 0o400000;
        /// Do not update access times.
        const NOATIME = 0o1000000;
        /// Close on exec (a flag of the descriptor).
        const CLOEXEC = 0o2000000;
        /// Synchronous writes (the bit beside `DSYNC`).
        const SYNC_BIT = 0o4000000;
        /// A handle for the path only.
        const PATH = 0o10000000;
        /// The temporary-file bit of `O_TMPFILE` (which also has `DIRECTORY`).
        const TMPFILE_BIT = 0o20000000;
    }
}

impl OpenFlags {
    /// Mask of the access mode.
    pub const ACCESS_MODE: u32 = 0o3;

    /// May data be read? (`O_RDONLY` or `O_RDWR`.)
    pub const fn readable(self) -> bool {
        matches!(self.bits() & Self::ACCESS_MODE, 0 | 2) && !self.contains(Self::PATH)
    }

    /// May data be written? (`O_WRONLY` or `O_RDWR`.)
    pub const fn writable(self) -> bool {
        matches!(self.bits() & Self::ACCESS_MODE, 1 | 2) && !self.contains(Self::PATH)
    }
}

bitflags! {
    /// `AT_*` flags of the `*at` calls. One type for all; a handler masks what its call accepts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct AtFlags: u32 {
        /// Do not follow a symbolic link in the last component.
        const SYMLINK_NOFOLLOW = 0x100;
        /// `unlinkat`: remove a directory. `faccessat2`: effective ids (`EACCESS`).
        const REMOVEDIR = 0x200;
        /// Follow a symbolic link in the last component (`linkat`).
        const SYMLINK_FOLLOW = 0x400;
        /// Do not trigger an automount; nothing to trigger here.
        const NO_AUTOMOUNT = 0x800;
        /// An empty path means the descriptor itself.
        const EMPTY_PATH = 0x1000;
        /// `statx`: force a synchronisation with the server.
        const STATX_FORCE_SYNC = 0x2000;
        /// `statx`: do not synchronise.
        const STATX_DONT_SYNC = 0x4000;
        /// `open_tree`, `mount_setattr`: whole subtree.
        const RECURSIVE = 0x8000;
    }
}

impl AtFlags {
    /// `faccessat2(2)`: check with the effective ids. Shares its bit with `REMOVEDIR`.
    pub const EACCESS: Self = Self::REMOVEDIR;
}

/// The descriptor that means "the working directory" in the `*at` calls.
pub const AT_FDCWD: i32 = -100;

/// Packs a device number as Linux does for user space (`makedev(3)`).
pub const fn make_dev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
}

/// Major number of a packed device number.
pub const fn dev_major(dev: u64) -> u32 {
    (((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff)) as u32
}

/// Minor number of a packed device number.
pub const fn dev_minor(dev: u64) -> u32 {
    ((dev & 0xff) | ((dev >> 12) & !0xff)) as u32
}

/// `struct stat` of x86-64 (`stat(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stat {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Hard links.
    pub nlink: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Padding.
    pub pad0: u32,
    /// Device, for device nodes.
    pub rdev: u64,
    /// Size in bytes.
    pub size: i64,
    /// Preferred I/O block in bytes.
    pub blksize: i64,
    /// 512-byte blocks allocated.
    pub blocks: i64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of data.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Reserved.
    pub unused: [i64; 3],
}

/// `struct statfs` of x86-64 (`statfs(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StatFs {
    /// Magic number of the file system type.
    pub fs_type: i64,
    /// Block size in bytes.
    pub bsize: i64,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for the unprivileged.
    pub bavail: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// File system id.
    pub fsid: [i32; 2],
    /// Longest name.
    pub namelen: i64,
    /// Fragment size.
    pub frsize: i64,
    /// Mount flags (`ST_*`).
    pub flags: i64,
    /// Reserved.
    pub spare: [i64; 4],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<Stat>(), 144);
        assert_eq!(size_of::<StatFs>(), 120);
    }

    #[test]
    fn device_numbers_round_trip() {
        for (major, minor) in [(1, 3), (136, 0), (0xfff, 0xfffff), (5, 2)] {
            let dev = make_dev(major, minor);
            assert_eq!((dev_major(dev), dev_minor(dev)), (major, minor));
        }
    }
}
