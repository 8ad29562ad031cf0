//! Copies between descriptors: `sendfile(2)`, `splice(2)`, `tee(2)`, `copy_file_range(2)`.
//!
//! Bytes go through a buffer of the kernel's. No byte is lost when the destination takes less than was
//! offered: what has an offset is read by offset, and pipes and sockets hand out only what the other side
//! has made room for (`pipes`).

mod pipes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use abi::fs::{FileType, OpenFlags};
use abi::limits::{INFINITY, Resource};
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::{Errno, SysError, SysResult};
use guestmem::{MemExt, SliceSink, SliceSource, UserMem, UserPtr};
use socket::SocketFile;
use vfs::{OpenFile, SeekFrom};

use crate::args::Fd;
use crate::blocking::{Patience, until_ready};
use crate::cx::Cx;
use crate::io::MAX_RW_COUNT;

pub(crate) use pipes::{splice, tee, vmsplice};

/// Bytes moved at a time.
const CHUNK: usize = 1 << 17;

/// Where a copy reads: a guest's variable, or the file's own offset.
struct Position {
    at: u64,
    variable: Option<UserPtr<i64>>,
}

impl Position {
    /// `EFAULT`; `EINVAL` for one below zero.
    fn load(mem: &dyn UserMem, file: &OpenFile, variable: UserPtr<i64>) -> SysResult<Self> {
        let variable = variable.non_null();
        let at = match variable {
            Some(variable) => u64::try_from(mem.load(variable)?).map_err(|_| Errno::EINVAL)?,
            None if file.file().is_seekable() => file.seek(SeekFrom::Current(0))?,
            None => 0,
        };
        Ok(Self { at, variable })
    }

    /// Puts the position where it came from.
    fn store(&self, mem: &dyn UserMem, file: &OpenFile) -> SysResult<()> {
        match self.variable {
            Some(variable) => mem.store(variable, &(self.at as i64))?,
            None if file.file().is_seekable() => drop(file.seek(SeekFrom::Start(self.at))?),
            None => {}
        }
        Ok(())
    }
}

/// What `RLIMIT_FSIZE` leaves of `count` bytes written at `at`; `SIGXFSZ` and `EFBIG` for none.
fn limit_size(cx: &Cx<'_>, file: &OpenFile, at: u64, count: usize) -> SysResult<usize> {
    let limit = cx.task.group().limit(Resource::FileSize).cur;
    if limit == INFINITY || file.inode().kind() != FileType::Regular || count == 0 {
        return Ok(count);
    }
    if at >= limit {
        cx.task.signal_self(Signal::SIGXFSZ);
        return Err(Errno::EFBIG.into());
    }
    Ok(count.min(usize::try_from(limit - at).unwrap_or(usize::MAX)))
}

/// `SIGPIPE` for an error that means it.
fn note_broken(cx: &Cx<'_>, file: &OpenFile, error: SysError) {
    let stream = SocketFile::of(file).is_none_or(|socket| socket.socket().raises_sigpipe());
    if error == SysError::Errno(Errno::EPIPE) && stream {
        cx.task.signal_self(Signal::SIGPIPE);
    }
}

/// Copies up to `count` bytes from `from`, by offset, to `to`: at an offset too, or wherever it writes.
/// Ends at the end of the file, or where the destination takes no more; an error only when nothing was
/// copied.
fn copy(
    cx: &Cx<'_>,
    from: &OpenFile,
    from_at: &mut u64,
    to: &Arc<OpenFile>,
    mut to_at: Option<&mut u64>,
    count: usize,
) -> SysResult<usize> {
    let who = cx.who();
    let mut buffer = vec![0; count.min(CHUNK)];
    let patience = Patience::of(to);
    let mut done = 0;
    while done < count {
        let want = buffer.len().min(count - done);
        let part = buffer.get_mut(..want).unwrap_or_default();
        let got = match from.pread(&who.cx(), *from_at, &mut SliceSink::new(part)) {
            Ok(0) => break,
            Ok(n) => n,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno.into()),
        };
        let mut rest = buffer.get(..got).unwrap_or_default();
        while !rest.is_empty() {
            let step = until_ready(cx.task, to, PollEvents::OUT, patience, || match to_at.as_deref() {
                Some(at) => to.pwrite(&who.cx(), *at, &mut SliceSource(rest)),
                None => to.write(&who.cx(), &mut SliceSource(rest)),
            });
            let n = match step {
                Ok(0) => return Ok(done),
                Ok(n) => n,
                Err(error) => {
                    note_broken(cx, to, error);
                    return if done > 0 { Ok(done) } else { Err(error) };
                }
            };
            done += n;
            *from_at += n as u64;
            if let Some(at) = to_at.as_deref_mut() {
                *at += n as u64;
            }
            rest = rest.get(n..).unwrap_or_default();
        }
    }
    Ok(done)
}

/// Where a write without an offset begins, where that means anything.
fn write_position(file: &OpenFile) -> u64 {
    if file.file().is_seekable() { file.seek(SeekFrom::Current(0)).unwrap_or(0) } else { 0 }
}

/// `sendfile(2)`.
pub(crate) fn sendfile(
    cx: &mut Cx<'_>,
    to: Fd,
    from: Fd,
    offset: UserPtr<i64>,
    count: usize,
) -> SysResult<usize> {
    let mm = cx.mm();
    // The offset is looked at before the descriptors.
    if let Some(offset) = offset.non_null() {
        mm.load(offset)?;
    }
    let from = cx.io_file(from)?;
    if !from.flags().readable() {
        return Err(Errno::EBADF.into());
    }
    if !offset.is_null() && !from.file().is_seekable() {
        return Err(Errno::ESPIPE.into());
    }
    let mut position = Position::load(mm.as_ref(), &from, offset)?;
    let to = cx.io_file(to)?;
    if !to.flags().writable() {
        return Err(Errno::EBADF.into());
    }
    let last = i64::MAX as u64;
    if position.at > last - count.min(MAX_RW_COUNT) as u64 {
        return Err(Errno::EOVERFLOW.into());
    }
    let seekable = from.file().is_seekable() && from.inode().kind() != FileType::Directory;
    if !seekable || to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL.into());
    }
    let count = limit_size(cx, &to, write_position(&to), count.min(MAX_RW_COUNT))?;
    let copied = copy(cx, &from, &mut position.at, &to, None, count)?;
    position.store(mm.as_ref(), &from)?;
    Ok(copied)
}

/// `copy_file_range(2)`.
pub(crate) fn copy_file_range(
    cx: &mut Cx<'_>,
    from: Fd,
    from_offset: UserPtr<i64>,
    to: Fd,
    to_offset: UserPtr<i64>,
    count: usize,
    flags: u32,
) -> SysResult<usize> {
    let mm = cx.mm();
    let (from, to) = (cx.io_file(from)?, cx.io_file(to)?);
    let mut read = Position::load(mm.as_ref(), &from, from_offset)?;
    let mut write = Position::load(mm.as_ref(), &to, to_offset)?;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let kinds = [from.inode().kind(), to.inode().kind()];
    if kinds.contains(&FileType::Directory) {
        return Err(Errno::EISDIR.into());
    }
    if kinds != [FileType::Regular; 2] || !from.file().is_seekable() || !to.file().is_seekable() {
        return Err(Errno::EINVAL.into());
    }
    if !from.flags().readable() || !to.flags().writable() || to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF.into());
    }
    if from.inode().fs().dev() != to.inode().fs().dev() {
        return Err(Errno::EXDEV.into());
    }
    let overflows = |at: u64| at.checked_add(count as u64).is_none_or(|end| i64::try_from(end).is_err());
    if overflows(read.at) || overflows(write.at) {
        return Err(Errno::EOVERFLOW.into());
    }
    let left = from.inode().attr()?.size.saturating_sub(read.at);
    let count = count.min(MAX_RW_COUNT).min(usize::try_from(left).unwrap_or(usize::MAX));
    let count = limit_size(cx, &to, write.at, count)?;
    let distance = read.at.abs_diff(write.at);
    if Arc::ptr_eq(from.inode(), to.inode()) && distance < count as u64 {
        return Err(Errno::EINVAL.into());
    }
    let copied = copy(cx, &from, &mut read.at, &to, Some(&mut write.at), count)?;
    read.store(mm.as_ref(), &from)?;
    write.store(mm.as_ref(), &to)?;
    Ok(copied)
}
