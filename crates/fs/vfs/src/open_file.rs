//! Open file descriptions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use guestmem::{IoSink, IoSource};
use memmap::Mappable;

use crate::locks::Owner;
use crate::mount::VfsPath;
use crate::ops::cleared_by_write;
use crate::watch::{self, WatchMask};
use crate::{DirEntry, DirSink, File, FileContext, Inode, Result, Seals, SeekFrom, SetAttr};

/// Status flags `fcntl(F_SETFL)` may change.
const SETTABLE: OpenFlags = OpenFlags::APPEND
    .union(OpenFlags::NONBLOCK)
    .union(OpenFlags::ASYNC)
    .union(OpenFlags::DIRECT)
    .union(OpenFlags::NOATIME);

/// Flags that mean something at the moment of opening only.
const TRANSIENT: OpenFlags = OpenFlags::CREAT
    .union(OpenFlags::EXCL)
    .union(OpenFlags::NOCTTY)
    .union(OpenFlags::TRUNC)
    .union(OpenFlags::CLOEXEC);

/// What descriptors share after `dup(2)` and `fork(2)`: a file, its status flags, its offset.
pub struct OpenFile {
    path: VfsPath,
    file: Arc<dyn File>,
    flags: AtomicU32,
    /// Held over the whole of a read or write that uses the offset, so that two of them do not see the
    /// same bytes. Not one of the ordered locks, because file systems take theirs meanwhile; nothing
    /// waits for a guest under it, and no other offset is taken under it.
    offset: Mutex<u64>,
    /// What whoever handles `fcntl(F_SETOWN)` keeps with the description; goes with it.
    extra: sync::Mutex<sync::order::Leaf, Extra>,
}

/// State of a description that the VFS does not look into.
pub type Extra = Option<Box<dyn std::any::Any + Send + Sync>>;

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile")
            .field("path", &self.path)
            .field("flags", &self.flags())
            .finish_non_exhaustive()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        crate::locks::release_all(self.path.inode(), Owner::Description(self.id()));
        self.path.dentry.opens.fetch_sub(1, Ordering::SeqCst);
        if !self.flags().contains(OpenFlags::PATH) {
            let wrote = self.flags().writable();
            self.happened(if wrote { WatchMask::CLOSE_WRITE } else { WatchMask::CLOSE_NOWRITE });
            watch::ended(&self.path.dentry);
        }
    }
}

impl OpenFile {
    /// A description of `file`, at `path`.
    pub fn new(path: VfsPath, file: Arc<dyn File>, flags: OpenFlags) -> Arc<Self> {
        path.dentry.opens.fetch_add(1, Ordering::SeqCst);
        let flags = AtomicU32::new((flags - TRANSIENT).bits());
        Arc::new(Self { path, file, flags, offset: Mutex::new(0), extra: sync::Mutex::new(None) })
    }

    /// A description of what has no path; `name` is what `/proc/PID/fd/N` shows.
    pub fn anonymous(inode: Arc<dyn Inode>, name: &[u8], file: Arc<dyn File>, flags: OpenFlags) -> Arc<Self> {
        Self::new(VfsPath::anonymous(inode, name), file, flags)
    }

    /// Identity, for locks and epoll: unique among live descriptions.
    pub fn id(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Where it was opened.
    pub fn path(&self) -> &VfsPath {
        &self.path
    }

    /// Changes what is kept with the description beside its flags and offset. What is taken out must be
    /// returned, to be dropped without the lock.
    pub fn with_extra<T>(&self, change: impl FnOnce(&mut Extra) -> T) -> T {
        change(&mut self.extra.lock())
    }

    /// The inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.path.inode()
    }

    /// The file itself.
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// Access mode and status flags now (`F_GETFL`).
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// `F_SETFL`: changes those flags that can be.
    pub fn set_flags(&self, flags: OpenFlags) -> Result<()> {
        self.require_io()?;
        let new = (self.flags() - SETTABLE) | (flags & SETTABLE);
        self.file.set_flags(new)?;
        self.flags.store(new.bits(), Ordering::Relaxed);
        Ok(())
    }

    /// `EBADF` for a handle of a path only.
    pub fn require_io(&self) -> Result<()> {
        if self.flags().contains(OpenFlags::PATH) { Err(Errno::EBADF) } else { Ok(()) }
    }

    /// `EBADF` unless open for reading; `EISDIR` for directories.
    fn require_read(&self) -> Result<()> {
        if !self.flags().readable() {
            return Err(Errno::EBADF);
        }
        if self.inode().kind() == FileType::Directory { Err(Errno::EISDIR) } else { Ok(()) }
    }

    fn require_write(&self) -> Result<()> {
        if self.flags().writable() { Ok(()) } else { Err(Errno::EBADF) }
    }

    fn position(&self) -> MutexGuard<'_, u64> {
        self.offset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `read(2)`, `readv(2)`.
    pub fn read(&self, cx: &FileContext<'_>, sink: &mut dyn IoSink) -> Result<usize> {
        self.require_read()?;
        if !self.file.is_seekable() {
            return self.file.read(cx, 0, sink).inspect(|n| self.was_read(*n));
        }
        let mut position = self.position();
        let n = self.file.read(cx, *position, sink)?;
        *position += n as u64;
        drop(position);
        self.was_read(n);
        self.accessed();
        Ok(n)
    }

    /// `write(2)`, `writev(2)`.
    pub fn write(&self, cx: &FileContext<'_>, source: &mut dyn IoSource) -> Result<usize> {
        self.require_write()?;
        self.clear_set_id(cx)?;
        if !self.file.is_seekable() {
            return self.file.write(cx, 0, source).inspect(|n| self.wrote(*n));
        }
        let mut position = self.position();
        let n = if self.flags().contains(OpenFlags::APPEND) {
            let (n, end) = self.file.append(cx, source)?;
            if n > 0 {
                *position = end;
            }
            n
        } else {
            let n = self.file.write(cx, *position, source)?;
            *position += n as u64;
            n
        };
        drop(position);
        self.wrote(n);
        Ok(n)
    }

    /// `pread(2)`: `ESPIPE` for what has no offset.
    pub fn pread(&self, cx: &FileContext<'_>, offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        if !self.file.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        self.require_read()?;
        let n = self.file.read(cx, offset, sink)?;
        self.was_read(n);
        self.accessed();
        Ok(n)
    }

    /// Tells who watches the file, or the directory it is in.
    pub(crate) fn happened(&self, what: WatchMask) {
        watch::happened(&self.path.dentry, what);
    }

    fn wrote(&self, n: usize) {
        if n > 0 {
            self.happened(WatchMask::MODIFY);
        }
    }

    fn was_read(&self, n: usize) {
        if n > 0 {
            self.happened(WatchMask::ACCESS);
        }
    }

    /// Was read, though there may have been nothing.
    fn accessed(&self) {
        if !self.flags().contains(OpenFlags::NOATIME) {
            self.path.mount.accessed(self.inode());
        }
    }

    /// `pwrite(2)`. With `O_APPEND` the data goes to the end, as on Linux.
    pub fn pwrite(&self, cx: &FileContext<'_>, offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        if !self.file.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        self.require_write()?;
        self.clear_set_id(cx)?;
        let n = if self.flags().contains(OpenFlags::APPEND) {
            self.file.append(cx, source)?.0
        } else {
            self.file.write(cx, offset, source)?
        };
        self.wrote(n);
        Ok(n)
    }

    /// A write by the unprivileged takes set-id bits away.
    fn clear_set_id(&self, cx: &FileContext<'_>) -> Result<()> {
        if self.inode().kind() != FileType::Regular || cx.cred.capable(cred::CapSet::FSETID) {
            return Ok(());
        }
        match cleared_by_write(&self.inode().attr()?, cx.cred) {
            Some(perm) => self.inode().set_attr(&SetAttr { perm: Some(perm), ..SetAttr::default() }),
            None => Ok(()),
        }
    }

    /// `lseek(2)`.
    pub fn seek(&self, to: SeekFrom) -> Result<u64> {
        self.require_io()?;
        if !self.file.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        let mut position = self.position();
        let new = match (self.inode().kind(), to) {
            // A directory's positions are its file system's cookies: they are only given back.
            (FileType::Directory, SeekFrom::Start(at)) => at,
            (FileType::Directory, SeekFrom::Current(0)) => *position,
            (FileType::Directory, _) => return Err(Errno::EINVAL),
            _ => self.file.seek(*position, to)?,
        };
        if i64::try_from(new).is_err() {
            return Err(Errno::EINVAL);
        }
        *position = new;
        Ok(new)
    }

    /// `getdents(2)`: entries from the offset on, `.` and `..` first. `root` bounds `..`.
    pub fn read_dir(&self, cx: &FileContext<'_>, root: &VfsPath, sink: &mut dyn DirSink) -> Result<()> {
        self.require_io()?;
        if self.inode().kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if self.path.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        let mut position = self.position();
        for (at, name) in [(0, &b"."[..]), (1, b"..")] {
            if *position != at {
                continue;
            }
            let path = if at == 0 { self.path.clone() } else { self.path.parent(root) };
            let ino = path.inode().attr()?.ino;
            let entry = DirEntry { ino, next: at + 1, kind: Some(FileType::Directory), name };
            if !sink.entry(entry) {
                return Ok(());
            }
            *position = at + 1;
        }
        let mut shifted = Shifted(sink);
        *position = self.file.read_dir(cx, *position - 2, &mut shifted)?.saturating_add(2);
        drop(position);
        self.happened(WatchMask::ACCESS);
        self.accessed();
        Ok(())
    }

    /// `fcntl(F_ADD_SEALS)`: `EPERM` unless open for writing.
    pub fn add_seals(&self, seals: Seals) -> Result<()> {
        self.require_io()?;
        if !self.flags().writable() {
            return Err(Errno::EPERM);
        }
        self.file.add_seals(seals)
    }

    /// `fcntl(F_GET_SEALS)`.
    pub fn seals(&self) -> Result<Seals> {
        self.require_io()?;
        self.file.seals()
    }

    /// `mmap(2)`: how it is mapped. `EACCES` unless open for reading.
    pub fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        self.require_io()?;
        if !self.flags().readable() {
            return Err(Errno::EACCES);
        }
        let mappable = self.file.mappable().ok_or(Errno::ENODEV)?;
        self.path.mount.accessed(self.inode());
        Ok(mappable)
    }
}

/// Makes room for `.` and `..` in the positions of a listing.
struct Shifted<'a>(&'a mut dyn DirSink);

impl DirSink for Shifted<'_> {
    fn entry(&mut self, entry: DirEntry<'_>) -> bool {
        self.0.entry(DirEntry { next: entry.next.saturating_add(2), ..entry })
    }
}
