//! Timers that send signals: `setitimer(2)`, `alarm(2)`, `timer_create(2)`.

use std::sync::Arc;
use std::time::Duration;

use abi::signal::Signal;
use abi::time::{Itimerspec, Itimerval, Timespec, Timeval};
use abi::{Errno, SysResult};
use cred::CapSet;
use guestmem::{MemExt, UserPtr};
use kernel::{Counted, First, IntervalTimer, TimerNotify, TimerSetting};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::clocks::{Clock, Kind};
use crate::cx::Cx;

/// `TIMER_ABSTIME`.
const ABSOLUTE: u32 = 1;

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

fn interval_timer(which: i32) -> SysResult<IntervalTimer> {
    match which {
        0 => Ok(IntervalTimer::Real),
        1 => Ok(IntervalTimer::Virtual),
        2 => Ok(IntervalTimer::Prof),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `getitimer(2)`.
pub(crate) fn getitimer(cx: &mut Cx<'_>, which: i32, out: UserPtr<Itimerval>) -> SysResult<()> {
    let which = interval_timer(which)?;
    Ok(cx.mm().store(out, &itimerval(cx.task.interval_timer(which)))?)
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
    let which = interval_timer(which)?;
    let duration = |time: Timeval| time.to_duration().ok_or(Errno::EINVAL);
    let new = TimerSetting { left: duration(new.value)?, period: duration(new.interval)? };
    let was = cx.task.set_interval_timer(which, new);
    match old.non_null() {
        Some(old) => Ok(mm.store(old, &itimerval(was))?),
        None => Ok(()),
    }
}

/// `alarm(2)`: seconds that were left, rounded, at least one.
pub(crate) fn alarm(cx: &mut Cx<'_>, seconds: u32) -> SysResult<u64> {
    let new = TimerSetting { left: Duration::from_secs(u64::from(seconds)), period: Duration::ZERO };
    let left = cx.task.set_interval_timer(IntervalTimer::Real, new).left;
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
    let counted = counted(cx, Clock::from_raw(id)?)?;
    let notify = match event.non_null() {
        Some(event) => notification(cx, &cx.mm().load(event)?)?,
        None => TimerNotify::Alarm,
    };
    let timer = cx.task.timer_create(id, counted, notify)?;
    if let Err(fault) = cx.mm().store(out, &timer) {
        cx.task.timer_delete(timer)?;
        return Err(fault.into());
    }
    Ok(())
}

/// What a timer on `clock` goes by.
fn counted(cx: &Cx<'_>, clock: Clock) -> SysResult<Counted> {
    match clock {
        Clock::Realtime(kind) | Clock::Monotonic(kind) | Clock::Boottime(kind) => match kind {
            Kind::Plain => Ok(Counted::Wall),
            Kind::Alarm if cx.task.cred().capable(CapSet::WAKE_ALARM) => Ok(Counted::Wall),
            Kind::Alarm => Err(Errno::EPERM.into()),
            Kind::Raw | Kind::Coarse => Err(Errno::EOPNOTSUPP.into()),
        },
        Clock::Process(_) => Ok(Counted::Process(Arc::downgrade(clock.counted(cx)?.group()))),
        Clock::Thread(_) => Ok(Counted::Thread(Arc::downgrade(&clock.counted(cx)?))),
    }
}

fn notification(cx: &Cx<'_>, event: &SigEvent) -> SysResult<TimerNotify> {
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
        THREAD_ID => {
            Ok(TimerNotify::Thread(cx.id(event.tid).map_err(|_| Errno::EINVAL)?, signal, event.value))
        }
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
    let first = if value.is_zero() {
        None
    } else if flags & ABSOLUTE == 0 {
        Some(First::After(value))
    } else {
        match Clock::from_raw(cx.task.timer_clock(timer)?)? {
            Clock::Process(_) | Clock::Thread(_) => Some(First::Used(value)),
            clock => clock.instant(cx, value)?.map(First::At),
        }
    };
    let was = cx.task.timer_settime(timer, first, period)?;
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

#[cfg(test)]
mod tests {
    use abi::Errno;
    use abi::syscall as nr;
    use abi::time::{Itimerspec, Itimerval, Timespec, Timeval};
    use zerocopy::IntoBytes;

    use crate::testkit::{DATA, Guest};

    #[test]
    fn every_interval_timer_is_set_and_told() {
        let mut guest = Guest::new();
        let value = Timeval { sec: 60, usec: 0 };
        guest.put(DATA, Itimerval { interval: value, value }.as_bytes());
        for which in 0..3 {
            assert_eq!(guest.call(nr::setitimer, [which, DATA, DATA + 64]), Ok(0));
            assert_eq!(guest.bytes(DATA + 64, 32), [0; 32]);
            assert_eq!(guest.call(nr::getitimer, [which, DATA + 64]), Ok(0));
            assert_eq!(guest.bytes(DATA + 64, 8), 60i64.to_le_bytes());
            assert_eq!(guest.bytes(DATA + 80, 8), 59i64.to_le_bytes());
        }
        assert_eq!(guest.call(nr::setitimer, [3, DATA, 0]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::alarm, [0]), Ok(60));
        assert_eq!(guest.call(nr::alarm, [0]), Ok(0));
    }

    #[test]
    fn timers_go_by_processor_time_too() {
        let mut guest = Guest::new();
        let value = Timespec { sec: 60, nsec: 0 };
        guest.put(DATA, Itimerspec { value, ..Itimerspec::default() }.as_bytes());
        for clock in [1, 2, 3] {
            assert_eq!(guest.call(nr::timer_create, [clock, 0, DATA + 128]), Ok(0));
            let id = u64::from(guest.bytes(DATA + 128, 1)[0]);
            assert_eq!(guest.call(nr::timer_settime, [id, 0, DATA, 0]), Ok(0));
            assert_eq!(guest.call(nr::timer_gettime, [id, DATA + 64]), Ok(0));
            assert!(matches!(guest.bytes(DATA + 80, 1)[0], 59 | 60));
            assert_eq!(guest.call(nr::timer_getoverrun, [id]), Ok(0));
            assert_eq!(guest.call(nr::timer_delete, [id]), Ok(0));
        }
        assert_eq!(guest.call(nr::timer_create, [4, 0, DATA]), Err(Errno::EOPNOTSUPP));
        assert_eq!(guest.call(nr::timer_create, [10, 0, DATA]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::timer_settime, [0, 0, DATA, 0]), Err(Errno::EINVAL));
    }
}
