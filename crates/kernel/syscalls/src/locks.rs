//! Advisory locks: `flock(2)`, and those of `fcntl(2)`.

use std::sync::Arc;

use abi::poll::PollEvents;
use abi::{Errno, SysError, SysResult};
use guestmem::{MemExt, UserPtr};
use vfs::locks::{Conflict, Family, Owner, Record, Waiting, acquire, release, wait_queue};
use vfs::{OpenFile, SeekFrom};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Fd;
use crate::cx::Cx;

const F_RDLCK: i16 = 0;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;

/// `struct flock` of x86-64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Flock {
    kind: i16,
    whence: i16,
    pad0: u32,
    start: i64,
    len: i64,
    pid: i32,
    pad1: u32,
}

/// `flock(2)`.
pub(crate) fn flock(cx: &mut Cx<'_>, fd: Fd, operation: u32) -> SysResult<()> {
    const NONBLOCK: u32 = 4;
    let file = cx.io_file(fd)?;
    let owner = Owner::Description(file.id());
    let exclusive = match operation & !NONBLOCK {
        1 => false,
        2 => true,
        8 => return Ok(release(file.inode(), Family::Flock, owner, 0, u64::MAX)?),
        _ => return Err(Errno::EINVAL.into()),
    };
    let wanted = Record { owner, exclusive, start: 0, end: u64::MAX };
    take(cx, &file, Family::Flock, wanted, operation & NONBLOCK == 0)
}

/// `F_GETLK`, `F_OFD_GETLK`: the lock in the way, or `F_UNLCK`.
pub(crate) fn test(cx: &Cx<'_>, file: &Arc<OpenFile>, at: UserPtr<Flock>, owner: Owner) -> SysResult<u64> {
    let mm = cx.mm();
    let mut lock = mm.load(at)?;
    if matches!(owner, Owner::Description(_)) && lock.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let Some(exclusive) = exclusive(lock.kind)? else { return Err(Errno::EINVAL.into()) };
    let (start, end) = range(file, &lock)?;
    let wanted = Record { owner, exclusive, start, end };
    match vfs::locks::test(file.inode(), Family::Record, &wanted)? {
        None => lock.kind = F_UNLCK,
        Some(held) => {
            lock.kind = if held.exclusive { F_WRLCK } else { F_RDLCK };
            lock.whence = 0;
            lock.start = held.start as i64;
            let to_the_end = held.end == u64::MAX;
            lock.len = if to_the_end { 0 } else { (held.end - held.start + 1) as i64 };
            lock.pid = match held.owner {
                Owner::Process(pid) => cx.number(pid),
                Owner::Description(_) => -1,
            };
        }
    }
    mm.store(at, &lock)?;
    Ok(0)
}

/// `F_SETLK`, `F_SETLKW` and their `OFD` forms.
pub(crate) fn set(
    cx: &Cx<'_>,
    file: &Arc<OpenFile>,
    at: UserPtr<Flock>,
    owner: Owner,
    wait: bool,
) -> SysResult<u64> {
    let lock = cx.mm().load(at)?;
    if matches!(owner, Owner::Description(_)) && lock.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (start, end) = range(file, &lock)?;
    let Some(exclusive) = exclusive(lock.kind)? else {
        release(file.inode(), Family::Record, owner, start, end)?;
        return Ok(0);
    };
    let fits = if exclusive { file.flags().writable() } else { file.flags().readable() };
    if !fits {
        return Err(Errno::EBADF.into());
    }
    take(cx, file, Family::Record, Record { owner, exclusive, start, end }, wait)?;
    Ok(0)
}

/// `None` to unlock.
fn exclusive(kind: i16) -> Result<Option<bool>, Errno> {
    match kind {
        F_RDLCK => Ok(Some(false)),
        F_WRLCK => Ok(Some(true)),
        F_UNLCK => Ok(None),
        _ => Err(Errno::EINVAL),
    }
}

/// First and last byte; `u64::MAX` stands for "to the end".
fn range(file: &OpenFile, lock: &Flock) -> SysResult<(u64, u64)> {
    let base = match lock.whence {
        0 => 0,
        1 => file.seek(SeekFrom::Current(0))? as i64,
        2 => file.inode().attr()?.size as i64,
        _ => return Err(Errno::EINVAL.into()),
    };
    let start = base.checked_add(lock.start).ok_or(Errno::EOVERFLOW)?;
    // A negative length means the bytes before.
    let (start, len) = if lock.len < 0 {
        (start.checked_add(lock.len).ok_or(Errno::EINVAL)?, lock.len.unsigned_abs())
    } else {
        (start, lock.len as u64)
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    if len == 0 {
        return Ok((start, u64::MAX));
    }
    let end = start.checked_add(len - 1).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
    Ok((start, end))
}

fn take(cx: &Cx<'_>, file: &Arc<OpenFile>, family: Family, wanted: Record, wait: bool) -> SysResult<()> {
    let inode = file.inode();
    let mut waiting = Waiting::new(inode, wanted.owner);
    let mut attempt = || match acquire(inode, family, wanted) {
        Ok(Some(_)) if !wait => Some(Err(Errno::EAGAIN)),
        Ok(Some(Conflict(held))) => waiting.behind(&held).err().map(Err),
        Ok(None) => Some(Ok(())),
        Err(error) => Some(Err(error)),
    };
    if let Some(result) = attempt() {
        return Ok(result?);
    }
    let queue = wait_queue(inode)?;
    let result = cx.task.wait_for(&queue, PollEvents::OUT, None, attempt).map_err(SysError::from)?;
    Ok(result?)
}
