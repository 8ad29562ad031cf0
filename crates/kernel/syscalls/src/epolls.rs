//! `epoll_create(2)`, `epoll_ctl(2)`, `epoll_wait(2)`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::fs::OpenFlags;
use abi::poll::{EpollEvent, PollEvents};
use abi::signal::SigSet;
use abi::time::Timespec;
use abi::{Errno, SysResult};
use anonfs::Epoll;
use guestmem::{MemExt, UserPtr};
use kernel::BlockError;
use vfs::{File, OpenFile};

use crate::anon::{creation_flags, install};
use crate::arch::USER_END;
use crate::args::Fd;
use crate::cx::Cx;
use crate::poll::{TemporaryMask, deadline_in_millis};

/// Most events one call asks for (`EP_MAX_EVENTS`).
const MAX_EVENTS: i32 = i32::MAX / size_of::<EpollEvent>() as i32;
/// Most gathered before they are copied out.
const BATCH: usize = 4096;

/// `epoll_create(2)`.
pub(crate) fn epoll_create(cx: &mut Cx<'_>, size: i32) -> SysResult<Fd> {
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    epoll_create1(cx, 0)
}

/// `epoll_create1(2)`.
pub(crate) fn epoll_create1(cx: &mut Cx<'_>, flags: u32) -> SysResult<Fd> {
    let flags = creation_flags(flags, OpenFlags::empty())?;
    if flags.contains(OpenFlags::NONBLOCK) {
        return Err(Errno::EINVAL.into());
    }
    install(cx, "[eventpoll]", Arc::new(Epoll::new()), flags | OpenFlags::RDWR)
}

/// The epoll behind a description; `EINVAL` for another kind of file.
fn epoll(file: &OpenFile) -> SysResult<&Epoll> {
    Ok(file.file().as_any().downcast_ref().ok_or(Errno::EINVAL)?)
}

/// `epoll_ctl(2)`.
pub(crate) fn epoll_ctl(
    cx: &mut Cx<'_>,
    epfd: Fd,
    operation: i32,
    fd: Fd,
    event: UserPtr<EpollEvent>,
) -> SysResult<()> {
    const ADD: i32 = 1;
    const DELETE: i32 = 2;
    const MODIFY: i32 = 3;
    let event = if operation == DELETE { EpollEvent::default() } else { cx.mm().load(event)? };
    let set = cx.io_file(epfd)?;
    let file = cx.io_file(fd)?;
    if file.file().wait_queue().is_none() {
        return Err(Errno::EPERM.into());
    }
    if epfd == fd {
        return Err(Errno::EINVAL.into());
    }
    let set = epoll(&set)?;
    Ok(match operation {
        ADD => set.add(fd.0, file.file(), &event),
        DELETE => set.remove(fd.0, file.file()),
        MODIFY => set.modify(fd.0, file.file(), &event),
        _ => Err(Errno::EINVAL),
    }?)
}

/// `epoll_wait(2)`.
pub(crate) fn epoll_wait(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    millis: i32,
) -> SysResult<usize> {
    wait(cx, epfd, events, max, deadline_in_millis(millis))
}

/// `epoll_pwait(2)`.
pub(crate) fn epoll_pwait(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    millis: i32,
    mask: UserPtr<SigSet>,
    size: usize,
) -> SysResult<usize> {
    let mask = TemporaryMask::load(cx, mask, size)?;
    mask.during(cx, |cx| wait(cx, epfd, events, max, deadline_in_millis(millis)))
}

/// `epoll_pwait2(2)`.
pub(crate) fn epoll_pwait2(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<SigSet>,
    size: usize,
) -> SysResult<usize> {
    let timeout = match timeout.non_null() {
        Some(timeout) => Some(cx.mm().load(timeout)?.to_duration().ok_or(Errno::EINVAL)?),
        None => None,
    };
    let deadline = match timeout {
        Some(Duration::ZERO) => Deadline::Now,
        Some(timeout) => Instant::now().checked_add(timeout).map_or(Deadline::Never, Deadline::At),
        None => Deadline::Never,
    };
    let mask = TemporaryMask::load(cx, mask, size)?;
    mask.during(cx, |cx| wait(cx, epfd, events, max, deadline))
}

/// When a wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// At once.
    Now,
    /// Then.
    At(Instant),
    /// Only by what is waited for.
    Never,
}

fn wait(
    cx: &Cx<'_>,
    epfd: Fd,
    events: UserPtr<EpollEvent>,
    max: i32,
    deadline: Deadline,
) -> SysResult<usize> {
    if max <= 0 || max > MAX_EVENTS {
        return Err(Errno::EINVAL.into());
    }
    // Whether they could be there is looked at even when there are none.
    let end = events.element(max as u64).ok_or(Errno::EFAULT)?;
    if end.addr().0 > USER_END {
        return Err(Errno::EFAULT.into());
    }
    let file = cx.io_file(epfd)?;
    let set = epoll(&file)?;
    let max = (max as usize).min(BATCH);
    let ready = || Some(set.collect(max)).filter(|found| !found.is_empty());
    let found = match (ready(), deadline) {
        (Some(found), _) => found,
        (None, Deadline::Now) => return Ok(0),
        (None, deadline) => {
            let queue = set.wait_queue().ok_or(Errno::EINVAL)?;
            let until = if let Deadline::At(at) = deadline { Some(at) } else { None };
            match cx.task.wait_for(queue, PollEvents::IN, until, ready) {
                Ok(found) => found,
                Err(BlockError::TimedOut) => return Ok(0),
                // Never restarted (signal(7)).
                Err(BlockError::Interrupted) => return Err(Errno::EINTR.into()),
            }
        }
    };
    cx.mm().store_array(events, &found)?;
    Ok(found.len())
}
