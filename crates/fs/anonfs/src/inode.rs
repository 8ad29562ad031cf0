//! The inodes behind files without a name (`pipefs`, `sockfs`, `anon_inodefs`).

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use abi::fs::{FileType, OpenFlags, Permissions, StatFs};
use abi::time::Timespec;
use sync::{Mutex, order};
use vfs::{Attr, File, FileContext, FileSystem, Inode, Result, SetAttr, SetTime};

/// A file system that is never mounted where a path could reach it.
#[derive(Debug)]
pub struct AnonFs {
    me: Weak<Self>,
    type_name: &'static str,
    magic: i64,
    dev: u64,
    next_ino: AtomicU64,
}

impl AnonFs {
    /// Where pipes live; `dev` is the device number `fstat(2)` shows.
    pub fn pipefs(dev: u64) -> Arc<Self> {
        Self::new("pipefs", 0x5049_5045, dev)
    }

    /// Where eventfd, epoll, timerfd and their like live.
    pub fn anon_inodefs(dev: u64) -> Arc<Self> {
        Self::new("anon_inodefs", 0x0904_1934, dev)
    }

    /// Where sockets live.
    pub fn sockfs(dev: u64) -> Arc<Self> {
        Self::new("sockfs", 0x534f_434b, dev)
    }

    fn new(type_name: &'static str, magic: i64, dev: u64) -> Arc<Self> {
        Arc::new_cyclic(|me| Self { me: me.clone(), type_name, magic, dev, next_ino: AtomicU64::new(1) })
    }

    /// A new inode. `label` is what `/proc/PID/fd/N` shows: with `None`, `kind:[ino]` as pipes and
    /// sockets have it.
    pub fn inode(self: &Arc<Self>, label: Option<&'static str>, new: AnonAttr) -> Arc<AnonInode> {
        let ino = self.next_ino.fetch_add(1, Ordering::Relaxed);
        let attr = Attr {
            ino,
            kind: new.kind,
            perm: Permissions::from_bits_truncate(if new.kind == FileType::Socket { 0o777 } else { 0o600 }),
            nlink: 1,
            uid: new.uid,
            gid: new.gid,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: abi::PAGE_SIZE as u32,
            atime: new.now,
            mtime: new.now,
            ctime: new.now,
            btime: None,
        };
        Arc::new(AnonInode { fs: Arc::clone(self), label, attr: Mutex::new(attr), kind: new.kind })
    }
}

/// What a new [`AnonInode`] reports.
#[derive(Clone, Copy, Debug)]
pub struct AnonAttr {
    /// Type: fifo for pipes, socket for sockets, regular for the rest.
    pub kind: FileType,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// All three times.
    pub now: Timespec,
}

impl FileSystem for AnonFs {
    fn type_name(&self) -> &'static str {
        self.type_name
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn root(&self) -> Arc<dyn Inode> {
        let root = AnonInode {
            // The file system asks through its own Arc, so the upgrade always succeeds; a new one would
            // be as good, for nothing is reached through the root.
            fs: self.me.upgrade().unwrap_or_else(|| Self::new(self.type_name, self.magic, self.dev)),
            label: None,
            kind: FileType::Directory,
            attr: Mutex::new(Attr {
                ino: 0,
                kind: FileType::Directory,
                perm: Permissions::from_bits_truncate(0o555),
                nlink: 2,
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
            }),
        };
        Arc::new(root)
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { fs_type: self.magic, bsize: 4096, frsize: 4096, namelen: 255, ..StatFs::default() })
    }
}

/// One inode without a name.
#[derive(Debug)]
pub struct AnonInode {
    fs: Arc<AnonFs>,
    label: Option<&'static str>,
    kind: FileType,
    attr: Mutex<order::Inode, Attr>,
}

impl AnonInode {
    /// What `readlink("/proc/PID/fd/N")` says: `pipe:[7]`, `anon_inode:[eventpoll]`.
    pub fn name(&self) -> Vec<u8> {
        match self.label {
            Some(label) => format!("anon_inode:{label}").into_bytes(),
            None => {
                let kind = if self.kind == FileType::Socket { "socket" } else { "pipe" };
                format!("{kind}:[{}]", self.attr.lock().ino).into_bytes()
            }
        }
    }
}

impl Inode for AnonInode {
    fn kind(&self) -> FileType {
        self.kind
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::<AnonFs>::clone(&self.fs)
    }

    fn attr(&self) -> Result<Attr> {
        Ok(*self.attr.lock())
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        if change.size.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut attr = self.attr.lock();
        attr.perm = change.perm.unwrap_or(attr.perm);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        if let Some(SetTime::At(time)) = change.atime {
            attr.atime = time;
        }
        if let Some(SetTime::At(time)) = change.mtime {
            attr.mtime = time;
        }
        Ok(())
    }

    /// `ENXIO`: reopening through `/proc/PID/fd` is the pipe's and decided by its owner.
    fn open(&self, _cx: &FileContext<'_>, _flags: OpenFlags) -> Result<Arc<dyn File>> {
        Err(Errno::ENXIO)
    }
}
