//! `timerfd_create(2)` and its kin.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use abi::fs::OpenFlags;
use abi::time::Itimerspec;
use abi::{Errno, SysResult};
use anonfs::TimerFd;
use anonfs::timerfd::{Start, TimerSource};
use cred::CapSet;
use guestmem::{MemExt, UserPtr};
use ktime::{Clock, Expire, TimerId, TimerQueue};
use sync::{Mutex, order};
use vfs::OpenFile;

use crate::anon::{creation_flags, install};
use crate::args::Fd;
use crate::cx::Cx;

/// Clocks a timerfd can be on.
#[derive(Clone, Copy)]
enum Kind {
    Realtime,
    Monotonic,
    Boottime,
}

/// A clock for one timerfd, with its place in the timer queue.
struct Source {
    clock: Arc<dyn Clock>,
    kind: Kind,
    queue: Arc<TimerQueue>,
    id: TimerId,
    bell: Arc<Bell>,
}

/// What the queue keeps hold of, and rings.
#[derive(Default)]
struct Bell(Mutex<order::Leaf, Weak<TimerFd>>);

impl Expire for Bell {
    /// The timer asks for its next expiry itself.
    fn expire(&self, _: Instant) -> Option<Instant> {
        let target = self.0.lock().upgrade();
        if let Some(target) = target {
            target.expire();
        }
        None
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

impl TimerSource for Source {
    fn now(&self) -> i64 {
        nanos(match self.kind {
            Kind::Realtime => self.clock.realtime(),
            Kind::Monotonic => self.clock.monotonic(),
            Kind::Boottime => self.clock.boottime(),
        })
    }

    fn call_at(&self, at: Option<i64>, target: Weak<TimerFd>) {
        let left = at.map(|at| at.saturating_sub(self.now()).max(0) as u64);
        let deadline = left.and_then(|left| Instant::now().checked_add(Duration::from_nanos(left)));
        let Some(deadline) = deadline else { return self.queue.disarm(self.id) };
        *self.bell.0.lock() = target;
        let bell: Arc<dyn Expire> = self.bell.clone();
        self.queue.arm(self.id, deadline, Arc::downgrade(&bell));
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.queue.disarm(self.id);
    }
}

/// `timerfd_create(2)`.
pub(crate) fn timerfd_create(cx: &mut Cx<'_>, clock: i32, flags: u32) -> SysResult<Fd> {
    let flags = creation_flags(flags, OpenFlags::empty())?;
    let kind = match clock {
        0 | 8 => Kind::Realtime,
        1 => Kind::Monotonic,
        7 | 9 => Kind::Boottime,
        _ => return Err(Errno::EINVAL.into()),
    };
    if matches!(clock, 8 | 9) && !cx.task.cred().capable(CapSet::WAKE_ALARM) {
        return Err(Errno::EPERM.into());
    }
    let queue = Arc::clone(cx.task.kernel().timers());
    let id = queue.allocate();
    let clock = Arc::clone(&cx.services.clock);
    let timer = TimerFd::new(Arc::new(Source { clock, kind, queue, id, bell: Arc::default() }));
    install(cx, "[timerfd]", timer, flags | OpenFlags::RDWR)
}

fn timer(file: &OpenFile) -> SysResult<&TimerFd> {
    Ok(file.file().as_any().downcast_ref().ok_or(Errno::EINVAL)?)
}

/// `timerfd_settime(2)`.
pub(crate) fn timerfd_settime(
    cx: &mut Cx<'_>,
    fd: Fd,
    flags: u32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> SysResult<()> {
    /// `TFD_TIMER_ABSTIME`, `TFD_TIMER_CANCEL_ON_SET`.
    const KNOWN: u32 = 1 | 2;
    let mm = cx.mm();
    let new = mm.load(new)?;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.io_file(fd)?;
    let start = if flags & 1 != 0 { Start::Absolute } else { Start::Relative };
    let was = timer(&file)?.set(new, start)?;
    match old.non_null() {
        Some(old) => Ok(mm.store(old, &was)?),
        None => Ok(()),
    }
}

/// `timerfd_gettime(2)`.
pub(crate) fn timerfd_gettime(cx: &mut Cx<'_>, fd: Fd, out: UserPtr<Itimerspec>) -> SysResult<()> {
    let file = cx.io_file(fd)?;
    Ok(cx.mm().store(out, &timer(&file)?.setting())?)
}
