//! Open files.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use abi::fs::FileType;
use abi::poll::PollEvents;
use bitflags::bitflags;
use cred::Credentials;
use guestmem::{IoSink, IoSource, UserAddr, UserMem};
use memmap::Mappable;
use sync::wait::WaitQueue;

use crate::Result;

/// Who is asking: what an operation may need to know of the calling task.
#[derive(Clone, Copy)]
pub struct FileContext<'a> {
    /// Credentials of the caller.
    pub cred: &'a Credentials,
    /// Thread-group id and thread id in the caller's pid namespace, for locks, terminals and signals.
    pub pid: i32,
    /// Thread id.
    pub tid: i32,
}

/// `lseek(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekFrom {
    /// From the start.
    Start(u64),
    /// From the current offset.
    Current(i64),
    /// From the end.
    End(i64),
    /// To the next data at or after (`SEEK_DATA`).
    Data(u64),
    /// To the next hole at or after (`SEEK_HOLE`).
    Hole(u64),
}

/// An `ioctl(2)`: number, argument, and the memory the argument may point into.
pub struct IoctlRequest<'a> {
    /// Request number.
    pub cmd: u32,
    /// Third argument.
    pub arg: u64,
    /// Memory of the caller.
    pub mem: &'a dyn UserMem,
}

impl IoctlRequest<'_> {
    /// The argument as an address.
    pub fn addr(&self) -> UserAddr {
        UserAddr(self.arg)
    }
}

/// A directory entry on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Position *behind* this entry: a read that starts there gives the next.
    pub next: u64,
    /// Type, where known without a look at the inode.
    pub kind: Option<FileType>,
    /// Name.
    pub name: &'a [u8],
}

/// Takes directory entries until it is full.
pub trait DirSink {
    /// Takes one; `false` when it did not fit, and the listing stops before it.
    fn entry(&mut self, entry: DirEntry<'_>) -> bool;
}

bitflags! {
    /// Promises about a file that nobody can take back (`fcntl(2)`, `F_ADD_SEALS`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Seals: u32 {
        /// There will be no more seals.
        const SEAL = 1;
        /// It does not shrink.
        const SHRINK = 2;
        /// It does not grow.
        const GROW = 4;
        /// Its data does not change.
        const WRITE = 8;
        /// Its data changes through mappings there are already only.
        const FUTURE_WRITE = 16;
        /// Its execute bits do not change.
        const EXEC = 32;
    }
}

/// What an open file can do. No method blocks for a time a guest decides: one that cannot go on says
/// `EAGAIN`, and the caller waits on [`wait_queue`](Self::wait_queue) for [`poll`](Self::poll).
///
/// Offsets are the caller's: a seekable file gets the position with each call (the open file description
/// keeps it under its own lock); one that is not ([`is_seekable`](Self::is_seekable)) ignores it.
pub trait File: Send + Sync + Any {
    /// Reads at `offset` into `sink`; `Ok(0)` at the end.
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, _sink: &mut dyn IoSink) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// Writes from `source` at `offset`.
    fn write(&self, _cx: &FileContext<'_>, _offset: u64, _source: &mut dyn IoSource) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// Writes at the end, atomically as to other appenders (`O_APPEND`); returns bytes and the new end.
    fn append(&self, _cx: &FileContext<'_>, _source: &mut dyn IoSource) -> Result<(usize, u64)> {
        Err(Errno::EINVAL)
    }

    /// Has it an offset? Pipes, sockets and terminals have none (`ESPIPE`).
    fn is_seekable(&self) -> bool {
        true
    }

    /// New offset for a seek from `current`.
    fn seek(&self, _current: u64, _to: SeekFrom) -> Result<u64> {
        Err(Errno::ESPIPE)
    }

    /// Directory entries from `position` (0: the start) on; `.` and `..` are the VFS's. Returns the
    /// position to go on from.
    fn read_dir(&self, _cx: &FileContext<'_>, _position: u64, _sink: &mut dyn DirSink) -> Result<u64> {
        Err(Errno::ENOTDIR)
    }

    /// Which events are ready now. Ordinary files always are.
    fn poll(&self) -> PollEvents {
        PollEvents::READABLE | PollEvents::WRITABLE
    }

    /// Where to wait for them; `None` when readiness never changes.
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// Device- or file-specific requests; the generic ones have been dealt with.
    fn ioctl(&self, _cx: &FileContext<'_>, _request: &IoctlRequest<'_>) -> Result<u64> {
        Err(Errno::ENOTTY)
    }

    /// How it is mapped, when it can be.
    fn mappable(&self) -> Option<Arc<dyn Mappable>> {
        None
    }

    /// Writes data (and, unless `data_only`, attributes) back.
    fn fsync(&self, _data_only: bool) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// `fallocate(2)` with its mode bits.
    fn allocate(&self, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Its seals; `EINVAL` for what cannot have any.
    fn seals(&self) -> Result<Seals> {
        Err(Errno::EINVAL)
    }

    /// Adds seals. `EPERM` when it is sealed against that, `EBUSY` for [`Seals::WRITE`] while it is mapped
    /// shared and writable.
    fn add_seals(&self, _seals: Seals) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// Status flags changed by `fcntl(F_SETFL)`, for files that must know (host descriptors).
    fn set_flags(&self, _flags: abi::fs::OpenFlags) -> Result<()> {
        Ok(())
    }

    /// One descriptor of it was closed by the calling process (`flush`), before the last `Drop`.
    fn flush(&self, _cx: &FileContext<'_>) -> Result<()> {
        Ok(())
    }

    /// As [`Any`], for the few callers that know the concrete type (epoll, sockets).
    fn as_any(&self) -> &dyn Any;
}
