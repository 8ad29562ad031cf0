//! Sleeping (`nanosleep(2)`, `clock_nanosleep(2)`).

use std::time::{Duration, Instant};

use abi::time::Timespec;
use abi::{Errno, Restart, SysResult};
use cred::CapSet;
use guestmem::{MemExt, UserPtr};
use sync::wait::deadline_after;

use crate::clocks::{Clock, Kind};
use crate::cx::Cx;
use crate::restart::later;

/// `TIMER_ABSTIME`.
const ABSOLUTE: u32 = 1;

/// `nanosleep(2)`.
pub(crate) fn nanosleep(
    cx: &mut Cx<'_>,
    wanted: UserPtr<Timespec>,
    rest: UserPtr<Timespec>,
) -> SysResult<u64> {
    let wanted = cx.task.mm().load(wanted)?.to_duration().ok_or(Errno::EINVAL)?;
    for_a_while(cx, deadline_after(wanted), rest)
}

/// `clock_nanosleep(2)`.
pub(crate) fn clock_nanosleep(
    cx: &mut Cx<'_>,
    clock: i32,
    flags: u32,
    wanted: UserPtr<Timespec>,
    rest: UserPtr<Timespec>,
) -> SysResult<u64> {
    let clock = Clock::from_raw(clock)?;
    check_clock(cx, clock)?;
    let wanted = cx.task.mm().load(wanted)?.to_duration().ok_or(Errno::EINVAL)?;
    match clock {
        Clock::Process(_) | Clock::Thread(_) if flags & ABSOLUTE != 0 => used(cx, clock, wanted, None),
        Clock::Process(_) | Clock::Thread(_) => {
            let at = clock.now(cx)?.saturating_add(wanted);
            used(cx, clock, at, Some(rest))
        }
        _ if flags & ABSOLUTE != 0 => until(cx, clock, wanted),
        _ => for_a_while(cx, deadline_after(wanted), rest),
    }
}

/// Until so much processor time has been used: looks when it could have been, at the earliest. What is left
/// is stored at `rest`, as [`for_a_while`] does, unless the time was absolute.
fn used(cx: &Cx<'_>, clock: Clock, at: Duration, rest: Option<UserPtr<Timespec>>) -> SysResult<u64> {
    const PATIENCE: Duration = Duration::from_millis(1);
    let counted = clock.counted(cx)?;
    loop {
        let left = at.saturating_sub(clock.now(cx)?);
        if left.is_zero() {
            return Ok(0);
        }
        let threads = match clock {
            Clock::Process(_) => cx.task.kernel().threads(counted.tgid()).len(),
            _ => 1,
        };
        let soonest = left / u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
        if cx.task.sleep_until(deadline_after(soonest.max(PATIENCE))).is_ok() {
            continue;
        }
        let Some(rest) = rest else { return Err(Restart::NoHandler.into()) };
        if let Some(rest) = rest.non_null() {
            cx.task.mm().store(rest, &Timespec::from(at.saturating_sub(clock.now(cx)?)))?;
        }
        return Err(later(cx, move |cx| used(cx, clock, at, Some(rest))));
    }
}

fn check_clock(cx: &Cx<'_>, clock: Clock) -> SysResult<()> {
    match clock {
        // One cannot use processor time while asleep.
        Clock::Thread(tid) if tid == 0 || tid == cx.task.number() => Err(Errno::EINVAL.into()),
        Clock::Process(_) | Clock::Thread(_) => clock.counted(cx).map(drop),
        Clock::Realtime(kind) | Clock::Monotonic(kind) | Clock::Boottime(kind) => match kind {
            Kind::Plain => Ok(()),
            Kind::Alarm if cx.task.cred().capable(CapSet::WAKE_ALARM) => Ok(()),
            Kind::Alarm => Err(Errno::EPERM.into()),
            Kind::Raw | Kind::Coarse => Err(Errno::EOPNOTSUPP.into()),
        },
    }
}

/// Until `at` on `clock`, also when the clock is set back meanwhile.
fn until(cx: &Cx<'_>, clock: Clock, at: Duration) -> SysResult<u64> {
    while clock.now(cx)? < at {
        if cx.task.sleep_until(clock.instant(cx, at)?).is_err() {
            return Err(Restart::NoHandler.into());
        }
    }
    Ok(0)
}

/// Until `deadline`; what is left when a signal comes is stored at `rest`, and the sleep goes on unless a
/// handler runs.
fn for_a_while(cx: &Cx<'_>, deadline: Option<Instant>, rest: UserPtr<Timespec>) -> SysResult<u64> {
    if cx.task.sleep_until(deadline).is_ok() {
        return Ok(0);
    }
    if let Some(rest) = rest.non_null() {
        let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        cx.task.mm().store(rest, &Timespec::from(left))?;
    }
    Err(later(cx, move |cx| for_a_while(cx, deadline, rest)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use abi::Errno;
    use abi::signal::{SigAction, Signal};
    use abi::syscall as nr;
    use abi::time::Timespec;
    use platform::Resume;
    use zerocopy::IntoBytes;

    use crate::testkit::{DATA, Guest};

    fn time(guest: &Guest, sec: i64, nsec: i64) -> u64 {
        guest.put(DATA, Timespec { sec, nsec }.as_bytes())
    }

    #[test]
    fn a_sleep_lasts() {
        let mut guest = Guest::new();
        let at = time(&guest, 0, 20_000_000);
        let start = Instant::now();
        assert_eq!(guest.call(nr::nanosleep, [at, 0]), Ok(0));
        assert_eq!(guest.call(nr::clock_nanosleep, [0, 0, at, 0]), Ok(0));
        assert!(start.elapsed() >= Duration::from_millis(40));
        assert_eq!(guest.call(nr::clock_nanosleep, [1, 1, at, 0]), Ok(0));
        // The fake's process uses a processor all the time.
        assert_eq!(guest.call(nr::clock_nanosleep, [2, 0, at, 0]), Ok(0));
        assert_eq!(guest.call(nr::clock_nanosleep, [3, 0, at, 0]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::clock_nanosleep, [4, 0, at, 0]), Err(Errno::EOPNOTSUPP));
        assert_eq!(guest.call(nr::nanosleep, [0, 0]), Err(Errno::EFAULT));
        let at = time(&guest, 0, 1_000_000_000);
        assert_eq!(guest.call(nr::nanosleep, [at, 0]), Err(Errno::EINVAL));
        let at = time(&guest, -1, 0);
        assert_eq!(guest.call(nr::nanosleep, [at, 0]), Err(Errno::EINVAL));
    }

    #[test]
    fn a_handler_ends_it_and_the_rest_is_told() {
        let mut guest = Guest::new();
        let handler = SigAction { handler: 0x5000, flags: 0x0400_0000, ..SigAction::default() };
        guest.task.sigaction(Signal::SIGUSR1, Some(handler)).expect("may be handled");
        let at = time(&guest, 60, 0);
        // The signal is there when the sleep begins.
        guest.task.signal_self(Signal::SIGUSR1);
        let resume = guest.thread.call(nr::nanosleep.into(), [at, DATA + 16, 0, 0, 0, 0]);
        assert_eq!(resume, Resume::Continue);
        assert_eq!(guest.thread.registers.rip, 0x5000);
        assert_eq!(guest.bytes(DATA + 16, 8), 59i64.to_le_bytes());
        assert_eq!(guest.call(nr::restart_syscall, []), Err(Errno::EINTR));
    }

    #[test]
    fn a_signal_nobody_handles_only_restarts_it() {
        let mut guest = Guest::new();
        let ip = guest.thread.registers.rip;
        let at = time(&guest, 0, 100_000_000);
        let start = Instant::now();
        // As a stop and a continuation would.
        guest.task.parker().interrupt();
        let resume = guest.thread.call(nr::nanosleep.into(), [at, 0, 0, 0, 0, 0]);
        assert_eq!(resume, Resume::Continue);
        assert_eq!((guest.thread.registers.rip, guest.thread.registers.rax), (ip, 219));
        assert_eq!(guest.call(nr::restart_syscall, []), Ok(0));
        assert!(start.elapsed() >= Duration::from_millis(100));
    }
}
