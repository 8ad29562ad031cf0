//! Reading and writing (`read(2)`, `write(2)`, `preadv2(2)`, `lseek(2)` and their kin).

use std::sync::Arc;

use abi::fs::FileType;
use abi::limits::{INFINITY, Resource};
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::{Errno, SysError, SysResult};
use bitflags::bitflags;
use guestmem::{IoSource, MemExt, UserAddr, UserIo, UserMem, UserPtr, UserSlice};
use socket::SocketFile;
use vfs::{OpenFile, SeekFrom};

use crate::args::Fd;
use crate::blocking::{Patience, until_ready};
use crate::cx::Cx;

/// Most bytes one call moves (`MAX_RW_COUNT`).
pub(crate) const MAX_RW_COUNT: usize = 0x7fff_f000;
/// Most segments of one call (`UIO_MAXIOV`).
const MAX_SEGMENTS: usize = 1024;

/// `struct iovec`: address and length.
pub(crate) type IoVec = [u64; 2];

bitflags! {
    /// Flags of `preadv2(2)` and `pwritev2(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct RwFlags: u32 {
        /// High priority; no effect.
        const HIPRI = 1;
        /// As if opened with `O_DSYNC`.
        const DSYNC = 2;
        /// As if opened with `O_SYNC`.
        const SYNC = 4;
        /// Do not wait.
        const NOWAIT = 8;
    }
}

/// Segments of guest memory, within the limits of one call.
pub(crate) struct Segments(Vec<UserSlice>);

impl Segments {
    pub(crate) fn one(addr: UserAddr, len: usize) -> Self {
        Self(vec![UserSlice { addr, len: len.min(MAX_RW_COUNT) }])
    }

    /// Reads an `iovec` array: `EINVAL` for too many or a negative length.
    pub(crate) fn load(mem: &dyn UserMem, iov: UserPtr<IoVec>, count: usize) -> SysResult<Self> {
        if count > MAX_SEGMENTS {
            return Err(Errno::EINVAL.into());
        }
        if count == 0 {
            return Ok(Self(Vec::new()));
        }
        let mut room = MAX_RW_COUNT;
        let mut segments = Vec::with_capacity(count);
        for [addr, len] in mem.load_array(iov, count)? {
            let len = i64::try_from(len).map_err(|_| Errno::EINVAL)? as usize;
            let len = len.min(room);
            room -= len;
            segments.push(UserSlice { addr: UserAddr(addr), len });
        }
        Ok(Self(segments))
    }

    pub(crate) fn total(&self) -> usize {
        self.0.iter().map(|segment| segment.len).sum()
    }

    /// Keeps the first `len` bytes only.
    fn truncate(&mut self, len: u64) {
        let mut room = usize::try_from(len).unwrap_or(usize::MAX);
        for segment in &mut self.0 {
            segment.len = segment.len.min(room);
            room -= segment.len;
        }
    }

    /// As a source or sink, without the first `skip` bytes.
    pub(crate) fn io<'a>(&self, mem: &'a dyn UserMem, mut skip: usize) -> UserIo<'a> {
        let mut rest = Vec::with_capacity(self.0.len());
        for segment in &self.0 {
            let cut = segment.len.min(skip);
            skip -= cut;
            let addr = segment.addr.checked_add(cut as u64).unwrap_or_default();
            rest.push(UserSlice { addr, len: segment.len - cut });
        }
        UserIo::new(mem, rest)
    }
}

/// `read(2)`.
pub(crate) fn read(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize) -> SysResult<usize> {
    let file = cx.io_file(fd)?;
    let patience = Patience::of(&file);
    read_segments(cx, &file, None, &Segments::one(buf, count), patience)
}

/// `write(2)`.
pub(crate) fn write(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize) -> SysResult<usize> {
    let file = cx.io_file(fd)?;
    let patience = Patience::of(&file);
    write_segments(cx, &file, None, Segments::one(buf, count), patience)
}

/// `pread64(2)`.
pub(crate) fn pread64(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize, offset: i64) -> SysResult<usize> {
    let offset = position(offset)?;
    let file = cx.io_file(fd)?;
    let patience = Patience::of(&file);
    read_segments(cx, &file, Some(offset), &Segments::one(buf, count), patience)
}

/// `pwrite64(2)`.
pub(crate) fn pwrite64(
    cx: &mut Cx<'_>,
    fd: Fd,
    buf: UserAddr,
    count: usize,
    offset: i64,
) -> SysResult<usize> {
    let offset = position(offset)?;
    let file = cx.io_file(fd)?;
    let patience = Patience::of(&file);
    write_segments(cx, &file, Some(offset), Segments::one(buf, count), patience)
}

/// `readv(2)`.
pub(crate) fn readv(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<IoVec>, count: usize) -> SysResult<usize> {
    preadv2(cx, fd, iov, count, -1, 0, 0)
}

/// `writev(2)`.
pub(crate) fn writev(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<IoVec>, count: usize) -> SysResult<usize> {
    pwritev2(cx, fd, iov, count, -1, 0, 0)
}

/// `preadv(2)`. The offset fits one register; the second is for 32-bit machines.
pub(crate) fn preadv(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    offset: i64,
) -> SysResult<usize> {
    position(offset)?;
    preadv2(cx, fd, iov, count, offset, 0, 0)
}

/// `pwritev(2)`.
pub(crate) fn pwritev(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    offset: i64,
) -> SysResult<usize> {
    position(offset)?;
    pwritev2(cx, fd, iov, count, offset, 0, 0)
}

/// `preadv2(2)`; offset -1 means the file's own.
pub(crate) fn preadv2(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    offset: i64,
    _offset_high: u64,
    flags: u32,
) -> SysResult<usize> {
    let offset = optional_position(offset)?;
    let file = cx.io_file(fd)?;
    let segments = Segments::load(cx.mm().as_ref(), iov, count)?;
    let flags = RwFlags::from_bits(flags).ok_or(Errno::EOPNOTSUPP)?;
    let patience = Patience::of(&file).unless(flags.contains(RwFlags::NOWAIT));
    read_segments(cx, &file, offset, &segments, patience)
}

/// `pwritev2(2)`.
pub(crate) fn pwritev2(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    offset: i64,
    _offset_high: u64,
    flags: u32,
) -> SysResult<usize> {
    let offset = optional_position(offset)?;
    let file = cx.io_file(fd)?;
    let segments = Segments::load(cx.mm().as_ref(), iov, count)?;
    let flags = RwFlags::from_bits(flags).ok_or(Errno::EOPNOTSUPP)?;
    let patience = Patience::of(&file).unless(flags.contains(RwFlags::NOWAIT));
    let written = write_segments(cx, &file, offset, segments, patience)?;
    if flags.intersects(RwFlags::DSYNC | RwFlags::SYNC) {
        file.file().fsync(!flags.contains(RwFlags::SYNC))?;
    }
    Ok(written)
}

/// `lseek(2)`.
pub(crate) fn lseek(cx: &mut Cx<'_>, fd: Fd, offset: i64, whence: u32) -> SysResult<u64> {
    let file = cx.io_file(fd)?;
    let hole = |offset| u64::try_from(offset).map_err(|_| Errno::ENXIO);
    let to = match whence {
        0 => SeekFrom::Start(position(offset)?),
        1 => SeekFrom::Current(offset),
        2 => SeekFrom::End(offset),
        3 => SeekFrom::Data(hole(offset)?),
        4 => SeekFrom::Hole(hole(offset)?),
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(file.seek(to)?)
}

fn position(offset: i64) -> Result<u64, Errno> {
    u64::try_from(offset).map_err(|_| Errno::EINVAL)
}

fn optional_position(offset: i64) -> Result<Option<u64>, Errno> {
    if offset == -1 { Ok(None) } else { position(offset).map(Some) }
}

/// Reads into `segments`: what is there, waiting for the first of it.
pub(crate) fn read_segments(
    cx: &Cx<'_>,
    file: &Arc<OpenFile>,
    offset: Option<u64>,
    segments: &Segments,
    patience: Patience,
) -> SysResult<usize> {
    let (who, mm) = (cx.who(), cx.mm());
    let limit = SocketFile::of(file).and_then(SocketFile::receive_timeout);
    let patience = if offset.is_some() { Patience::Never } else { patience.at_most(limit) };
    until_ready(cx.task, file, PollEvents::IN, patience, || {
        let mut sink = segments.io(mm.as_ref(), 0);
        match offset {
            Some(offset) => file.pread(&who.cx(), offset, &mut sink),
            None => file.read(&who.cx(), &mut sink),
        }
    })
}

/// Writes all of `segments`, waiting for room in what has no offset (pipes, sockets, terminals).
pub(crate) fn write_segments(
    cx: &Cx<'_>,
    file: &Arc<OpenFile>,
    offset: Option<u64>,
    mut segments: Segments,
    patience: Patience,
) -> SysResult<usize> {
    let (who, mm) = (cx.who(), cx.mm());
    limit_size(cx, file, offset, &mut segments)?;
    let socket = SocketFile::of(file);
    let patience = patience.at_most(socket.and_then(SocketFile::send_timeout));
    let total = segments.total();
    let mut done = 0;
    let mut faulted = false;
    loop {
        let step = until_ready(cx.task, file, PollEvents::OUT, patience, || {
            let mut source = segments.io(mm.as_ref(), done);
            let wanted = source.remaining();
            let n = match offset {
                Some(offset) => file.pwrite(&who.cx(), offset, &mut source)?,
                None => file.write(&who.cx(), &mut source)?,
            };
            faulted = n < wanted && source.remaining() == 0;
            Ok(n)
        });
        let broken = step == Err(SysError::Errno(Errno::EPIPE));
        if broken && socket.is_none_or(|socket| socket.socket().raises_sigpipe()) {
            cx.task.signal_self(Signal::SIGPIPE);
        }
        match step {
            Ok(n) => done += n,
            Err(_) if done > 0 => return Ok(done),
            Err(error) => return Err(error),
        }
        let streams = matches!(file.inode().kind(), FileType::Fifo | FileType::Socket | FileType::CharDevice);
        if done >= total || !streams || faulted || step == Ok(0) || patience == Patience::Never {
            return Ok(done);
        }
    }
}

/// `RLIMIT_FSIZE`: a write beyond it is cut, one that begins beyond it gets `SIGXFSZ` and `EFBIG`.
fn limit_size(
    cx: &Cx<'_>,
    file: &Arc<OpenFile>,
    offset: Option<u64>,
    segments: &mut Segments,
) -> SysResult<()> {
    let limit = cx.task.group().limit(Resource::FileSize).cur;
    if limit == INFINITY || file.inode().kind() != FileType::Regular || !file.file().is_seekable() {
        return Ok(());
    }
    let at = if file.flags().contains(abi::fs::OpenFlags::APPEND) {
        file.inode().attr()?.size
    } else {
        match offset {
            Some(offset) => offset,
            None => file.seek(SeekFrom::Current(0))?,
        }
    };
    if segments.total() > 0 && at >= limit {
        cx.task.signal_self(Signal::SIGXFSZ);
        return Err(Errno::EFBIG.into());
    }
    segments.truncate(limit.saturating_sub(at));
    Ok(())
}
