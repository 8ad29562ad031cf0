//! Timers that send signals: `setitimer(2)`, `alarm(2)`, `timer_create(2)`.

use std::time::{Duration, Instant};

use abi::signal::Signal;
use abi::time::{Itimerspec, Itimerval, Timespec, Timeval};
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserPtr};
use kernel::{TimerNotify, TimerSetting};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::clocks::{Clock, Kind};
use crate::cx::Cx;

/// `TIMER_ABSTIME`.
const ABSOLUTE: u32 = 1;
/// `ITIMER_REAL`.
const REAL: i32 = 0;

/// `struct sigevent` of x86-64.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SigEvent {
    value: u64,
    signo: i32,
    notify: i32,
    tid: i32,
    pad: [u8; 44],
}

fn itimerval(setting: TimerSetting) -> Itimerval {
    // What is left is never shown as nothing while the timer runs.
    let left = if setting.left.is_zero() { setting.left } else { setting.left.max(Duration::from_micros(1)) };
    Itimerval { interval: setting.period.into(), value: Timeval::from(left) }
}

fn itimerspec(setting: TimerSetting) -> Itimerspec {
    Itimerspec { interval: Timespec::from(setting.period), value: Timespec::from(setting.left) }
}

/// `ITIMER_VIRTUAL` and `ITIMER_PROF` are missing.
fn check_which(which: i32) -> SysResult<()> {
    match which {
        REAL => Ok(()),
        1 | 2 => {
            obs::stub!("setitimer of processor time", "nothing counts it down");
            Err(Errno::EINVAL.into())
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `getitimer(2)`.
pub(crate) fn getitimer(cx: &mut Cx<'_>, which: i32, out: UserPtr<Itimerval>) -> SysResult<()> {
    check_which(which)?;
    Ok(cx.mm().store(out, &itimerval(cx.task.real_timer()))?)
}

/// `setitimer(2)`.
pub(crate) fn setitimer(
    cx: &mut Cx<'_>,
    which: i32,
    new: UserPtr<Itimerval>,
    old: UserPtr<Itimerval>,
) -> SysResult<()> {
    let mm = cx.mm();
    let new = match new.non_null() {
        Some(new) => mm.load(new)?,
        // As Linux still does: null disarms.
        None => Itimerval::default(),
    };
    check_which(which)?;
    let duration = |time: Timeval| time.to_duration().ok_or(Errno::EINVAL);
    let new = TimerSetting { left: duration(new.value)?, period: duration(new.interval)? };
    let was = cx.task.set_real_timer(new);
    match old.non_null() {
        Some(old) => Ok(mm.store(old, &itimerval(was))?),
        None => Ok(()),
    }
}

/// `alarm(2)`: seconds that were left, rounded, at least one.
pub(crate) fn alarm(cx: &mut Cx<'_>, seconds: u32) -> SysResult<u64> {
    let new = TimerSetting { left: Duration::from_secs(u64::from(seconds)), period: Duration::ZERO };
    let left = cx.task.set_real_timer(new).left;
    if left.is_zero() {
        return Ok(0);
    }
    Ok((left + Duration::from_millis(500)).as_secs().max(1))
}

/// `timer_create(2)`.
pub(crate) fn timer_create(
    cx: &mut Cx<'_>,
    id: i32,
    event: UserPtr<SigEvent>,
    out: UserPtr<i32>,
) -> SysResult<()> {
    check_clock(Clock::from_raw(id)?)?;
    let notify = match event.non_null() {
        Some(event) => notification(&cx.mm().load(event)?)?,
        None => TimerNotify::Alarm,
    };
    let timer = cx.task.timer_create(id, notify)?;
    if let Err(fault) = cx.mm().store(out, &timer) {
        cx.task.timer_delete(timer)?;
        return Err(fault.into());
    }
    Ok(())
}

/// Clocks a timer can be on.
fn check_clock(clock: Clock) -> SysResult<()> {
    match clock {
        Clock::Realtime(kind) | Clock::Monotonic(kind) | Clock::Boottime(kind) => match kind {
            Kind::Plain | Kind::Alarm => Ok(()),
            Kind::Raw | Kind::Coarse => Err(Errno::EOPNOTSUPP.into()),
        },
        Clock::Process(_) | Clock::Thread(_) => {
            obs::stub!("timer_create on a processor-time clock", "nothing counts it down");
            Err(Errno::EOPNOTSUPP.into())
        }
    }
}

fn notification(event: &SigEvent) -> SysResult<TimerNotify> {
    const SIGNAL: i32 = 0;
    const NONE: i32 = 1;
    const THREAD: i32 = 2;
    const THREAD_ID: i32 = 4;
    if event.notify == NONE {
        return Ok(TimerNotify::Nobody);
    }
    let signal = Signal::new(event.signo).ok_or(Errno::EINVAL)?;
    match event.notify {
        SIGNAL | THREAD => Ok(TimerNotify::Process(signal, event.value)),
        THREAD_ID => Ok(TimerNotify::Thread(event.tid, signal, event.value)),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `timer_settime(2)`.
pub(crate) fn timer_settime(
    cx: &mut Cx<'_>,
    timer: i32,
    flags: u32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> SysResult<()> {
    let mm = cx.mm();
    let new = mm.load(new)?;
    let duration = |time: Timespec| time.to_duration().ok_or(Errno::EINVAL);
    let (value, period) = (duration(new.value)?, duration(new.interval)?);
    let next = if value.is_zero() {
        None
    } else if flags & ABSOLUTE == 0 {
        Instant::now().checked_add(value)
    } else {
        Clock::from_raw(cx.task.timer_clock(timer)?)?.instant(cx, value)?
    };
    let was = cx.task.timer_settime(timer, next, period)?;
    match old.non_null() {
        Some(old) => Ok(mm.store(old, &itimerspec(was))?),
        None => Ok(()),
    }
}

/// `timer_gettime(2)`.
pub(crate) fn timer_gettime(cx: &mut Cx<'_>, timer: i32, out: UserPtr<Itimerspec>) -> SysResult<()> {
    let setting = cx.task.timer_gettime(timer)?;
    Ok(cx.mm().store(out, &itimerspec(setting))?)
}

/// `timer_getoverrun(2)`.
pub(crate) fn timer_getoverrun(cx: &mut Cx<'_>, timer: i32) -> SysResult<i32> {
    Ok(cx.task.timer_getoverrun(timer)?)
}

/// `timer_delete(2)`.
pub(crate) fn timer_delete(cx: &mut Cx<'_>, timer: i32) -> SysResult<()> {
    Ok(cx.task.timer_delete(timer)?)
}
