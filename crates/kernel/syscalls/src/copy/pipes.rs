//! Copies with a pipe at one end: `splice(2)`, `tee(2)`, `vmsplice(2)`.

use std::sync::Arc;

use abi::fs::{FileType, OpenFlags};
use abi::poll::PollEvents;
use abi::{Errno, SysResult};
use anonfs::{Pipe, PipeEnd};
use bitflags::bitflags;
use guestmem::{IoSink, IoSource, SliceSink, SliceSource, UserPtr};
use vfs::{FileContext, OpenFile};

use super::{Position, limit_size, note_broken};
use crate::args::Fd;
use crate::blocking::{Patience, until_ready};
use crate::cx::Cx;
use crate::io::{IoVec, MAX_RW_COUNT, Segments, read_segments, write_segments};

bitflags! {
    /// Flags of `splice(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct SpliceFlags: u32 {
        /// Move pages; no effect.
        const MOVE = 1;
        /// Do not wait for the pipe.
        const NONBLOCK = 2;
        /// More will come; no effect.
        const MORE = 4;
        /// Give pages away; no effect.
        const GIFT = 8;
    }
}

/// The pipe behind a description.
fn pipe(file: &OpenFile) -> Option<&Arc<Pipe>> {
    file.file().as_any().downcast_ref::<PipeEnd>().map(PipeEnd::pipe)
}

/// Takes up to `left` bytes out of a pipe, as they are asked for: a file asks for what it has room for.
struct FromPipe<'a> {
    file: &'a OpenFile,
    cx: FileContext<'a>,
    left: usize,
}

impl IoSource for FromPipe<'_> {
    fn remaining(&self) -> usize {
        self.left.min(pipe(self.file).map_or(0, |pipe| pipe.len()))
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let want = buf.len().min(self.left);
        let Some(buf) = buf.get_mut(..want) else { return Ok(0) };
        match self.file.read(&self.cx, &mut SliceSink::new(buf)) {
            Ok(n) => {
                self.left -= n;
                Ok(n)
            }
            // Another was faster.
            Err(Errno::EAGAIN) => Ok(0),
            Err(errno) => Err(errno),
        }
    }
}

/// Puts up to `left` bytes into a pipe, no more than there is room for.
struct IntoPipe<'a> {
    file: &'a OpenFile,
    cx: FileContext<'a>,
    left: usize,
}

impl IoSink for IntoPipe<'_> {
    fn remaining(&self) -> usize {
        self.left.min(pipe(self.file).map_or(0, |pipe| pipe.room()))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut rest = bytes.get(..self.remaining()).unwrap_or(bytes);
        let mut done = 0;
        while !rest.is_empty() {
            let n = match self.file.write(&self.cx, &mut SliceSource(rest)) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(n) => n,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            };
            (done, rest) = (done + n, rest.get(n..).unwrap_or_default());
        }
        self.left -= done;
        Ok(done)
    }
}

/// Waits until one of `events`, or an end, is there.
fn wait(cx: &Cx<'_>, file: &OpenFile, events: PollEvents, patience: Patience) -> SysResult<()> {
    until_ready(cx.task, file, events, patience, || {
        let ready = file.file().poll();
        if ready.intersects(events | PollEvents::ALWAYS) { Ok(()) } else { Err(Errno::EAGAIN) }
    })
}

/// How long to wait for a pipe at one end, where `SPLICE_F_NONBLOCK` and `O_NONBLOCK` say the same.
fn patience(file: &OpenFile, flags: SpliceFlags) -> Patience {
    Patience::of(file).unless(flags.contains(SpliceFlags::NONBLOCK))
}

/// `splice(2)`.
pub(crate) fn splice(
    cx: &mut Cx<'_>,
    from: Fd,
    from_offset: UserPtr<i64>,
    to: Fd,
    to_offset: UserPtr<i64>,
    count: usize,
    flags: u32,
) -> SysResult<usize> {
    if count == 0 {
        return Ok(0);
    }
    let flags = SpliceFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let (from, to) = (cx.io_file(from)?, cx.io_file(to)?);
    let (source, sink) = (pipe(&from), pipe(&to));
    if (source.is_some() && !from_offset.is_null()) || (sink.is_some() && !to_offset.is_null()) {
        return Err(Errno::ESPIPE.into());
    }
    let mm = cx.mm();
    let mut write = Position::load(mm.as_ref(), &to, to_offset)?;
    let mut read = Position::load(mm.as_ref(), &from, from_offset)?;
    if !from.flags().readable() || !to.flags().writable() {
        return Err(Errno::EBADF.into());
    }
    let count = count.min(MAX_RW_COUNT);
    let moved = match (source, sink) {
        (Some(source), Some(sink)) if Arc::ptr_eq(source, sink) => return Err(Errno::EINVAL.into()),
        (Some(_), Some(_)) => out_of_pipe(cx, &from, &to, None, count, flags)?,
        (Some(_), None) => {
            let seekable = to.file().is_seekable();
            if (!to_offset.is_null() && !seekable) || to.flags().contains(OpenFlags::APPEND) {
                return Err(Errno::EINVAL.into());
            }
            let count = limit_size(cx, &to, write.at, count)?;
            let n = out_of_pipe(cx, &from, &to, seekable.then_some(write.at), count, flags)?;
            write.at += n as u64;
            write.store(mm.as_ref(), &to)?;
            n
        }
        (None, Some(_)) => {
            let seekable = from.file().is_seekable();
            if (!from_offset.is_null() && !seekable) || from.inode().kind() == FileType::Directory {
                return Err(Errno::EINVAL.into());
            }
            let n = into_pipe(cx, &from, &to, seekable.then_some(read.at), count, flags)?;
            read.at += n as u64;
            read.store(mm.as_ref(), &from)?;
            n
        }
        (None, None) => return Err(Errno::EINVAL.into()),
    };
    Ok(moved)
}

/// Moves what is in the pipe `from`, waiting for the first of it.
fn out_of_pipe(
    cx: &Cx<'_>,
    from: &OpenFile,
    to: &OpenFile,
    mut at: Option<u64>,
    count: usize,
    flags: SpliceFlags,
) -> SysResult<usize> {
    let who = cx.who();
    let mut done = 0;
    while done < count {
        let empty = pipe(from).is_none_or(|pipe| pipe.is_empty());
        if empty && done > 0 {
            break;
        }
        wait(cx, from, PollEvents::IN, patience(from, flags))?;
        let mut source = FromPipe { file: from, cx: who.cx(), left: count - done };
        if source.remaining() == 0 && !from.file().poll().contains(PollEvents::IN) {
            // No writer is left.
            break;
        }
        let step = match at {
            Some(at) => to.pwrite(&who.cx(), at, &mut source),
            None => to.write(&who.cx(), &mut source),
        };
        match step {
            Ok(n) => {
                done += n;
                at = at.map(|at| at + n as u64);
            }
            Err(_) if done > 0 => break,
            Err(Errno::EAGAIN) => wait(cx, to, PollEvents::OUT, patience(to, flags))?,
            Err(errno) => {
                note_broken(cx, to, errno.into());
                return Err(errno.into());
            }
        }
    }
    Ok(done)
}

/// Moves what `from` has into the pipe `to`, as far as there is room.
fn into_pipe(
    cx: &Cx<'_>,
    from: &OpenFile,
    to: &OpenFile,
    at: Option<u64>,
    count: usize,
    flags: SpliceFlags,
) -> SysResult<usize> {
    let who = cx.who();
    loop {
        wait(cx, to, PollEvents::OUT, patience(to, flags))?;
        if to.file().poll().contains(PollEvents::ERR) {
            // Nobody reads.
            note_broken(cx, to, Errno::EPIPE.into());
            return Err(Errno::EPIPE.into());
        }
        let mut sink = IntoPipe { file: to, cx: who.cx(), left: count };
        if sink.remaining() == 0 {
            continue;
        }
        let step = match at {
            Some(at) => from.pread(&who.cx(), at, &mut sink),
            None => from.read(&who.cx(), &mut sink),
        };
        match step {
            Err(Errno::EAGAIN) => wait(cx, from, PollEvents::IN, patience(from, flags))?,
            other => return Ok(other?),
        }
    }
}

/// `tee(2)`.
pub(crate) fn tee(cx: &mut Cx<'_>, from: Fd, to: Fd, count: usize, flags: u32) -> SysResult<usize> {
    let flags = SpliceFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if count == 0 {
        return Ok(0);
    }
    let (from, to) = (cx.io_file(from)?, cx.io_file(to)?);
    if !from.flags().readable() || !to.flags().writable() {
        return Err(Errno::EBADF.into());
    }
    let (Some(source), Some(sink)) = (pipe(&from), pipe(&to)) else { return Err(Errno::EINVAL.into()) };
    if Arc::ptr_eq(source, sink) {
        return Err(Errno::EINVAL.into());
    }
    let who = cx.who();
    loop {
        wait(cx, &from, PollEvents::IN, patience(&from, flags))?;
        wait(cx, &to, PollEvents::OUT, patience(&to, flags))?;
        let bytes = source.peek(count.min(sink.room().max(1)));
        if bytes.is_empty() {
            return Ok(0);
        }
        match to.write(&who.cx(), &mut SliceSource(&bytes)) {
            Err(Errno::EAGAIN) if patience(&to, flags) != Patience::Never => {}
            Err(errno) => {
                note_broken(cx, &to, errno.into());
                return Err(errno.into());
            }
            Ok(n) => return Ok(n),
        }
    }
}

/// `vmsplice(2)`: copies.
pub(crate) fn vmsplice(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<IoVec>,
    count: usize,
    flags: u32,
) -> SysResult<usize> {
    let flags = SpliceFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let file = cx.io_file(fd)?;
    let segments = Segments::load(cx.mm().as_ref(), iov, count)?;
    if pipe(&file).is_none() {
        return Err(Errno::EBADF.into());
    }
    let patience = patience(&file, flags);
    if segments.total() == 0 {
        Ok(0)
    } else if file.flags().writable() {
        write_segments(cx, &file, None, segments, patience)
    } else {
        read_segments(cx, &file, None, &segments, patience)
    }
}
