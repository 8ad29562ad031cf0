//! Clocks by their numbers (`clock_gettime(2)`), and the calls that read and set them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::process::Rusage;
use abi::time::{Timespec, Timeval};
use abi::{Errno, SysResult};
use cred::CapSet;
use guestmem::{MemExt, UserPtr};
use kernel::Task;

use crate::cx::Cx;

/// A clock. The coarse ones and `CLOCK_MONOTONIC_RAW` tell what the fine ones tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Since the epoch; `CLOCK_TAI` too, as on a host that was not told the leap seconds.
    Realtime(Kind),
    /// Since some start.
    Monotonic(Kind),
    /// Since the host's start.
    Boottime(Kind),
    /// Processor time of a process; 0 for the caller's.
    Process(i32),
    /// Processor time of a thread; 0 for the caller.
    Thread(i32),
}

/// What may be done with a clock beside reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Sleeping and timers.
    Plain,
    /// The same, for who may wake the machine.
    Alarm,
    /// Nothing.
    Raw,
    /// Nothing, and it ticks coarsely.
    Coarse,
}

impl Clock {
    /// `EINVAL` for a number that is none. Whether the process of a processor clock exists is asked when
    /// the clock is read.
    pub(crate) fn from_raw(raw: i32) -> SysResult<Self> {
        match raw {
            0 => Ok(Self::Realtime(Kind::Plain)),
            1 => Ok(Self::Monotonic(Kind::Plain)),
            2 => Ok(Self::Process(0)),
            3 => Ok(Self::Thread(0)),
            4 => Ok(Self::Monotonic(Kind::Raw)),
            5 => Ok(Self::Realtime(Kind::Coarse)),
            6 => Ok(Self::Monotonic(Kind::Coarse)),
            7 => Ok(Self::Boottime(Kind::Plain)),
            8 => Ok(Self::Realtime(Kind::Alarm)),
            9 => Ok(Self::Boottime(Kind::Alarm)),
            11 => Ok(Self::Realtime(Kind::Plain)),
            // `~pid << 3`, a bit for threads, and what is counted: all of it, the user's part, or as
            // scheduled. Three would be a device.
            raw if raw < 0 && raw & 3 != 3 => match (!(raw >> 3), raw & 4) {
                (id, 0) => Ok(Self::Process(id)),
                (id, _) => Ok(Self::Thread(id)),
            },
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// What it shows now.
    pub(crate) fn now(self, cx: &Cx<'_>) -> SysResult<Duration> {
        let clock = &cx.services.clock;
        match self {
            Self::Realtime(_) => Ok(clock.realtime()),
            Self::Monotonic(_) => Ok(clock.monotonic()),
            Self::Boottime(_) => Ok(clock.boottime()),
            Self::Process(_) => Ok(total(&self.counted(cx)?.process_usage())),
            Self::Thread(_) => Ok(total(&self.counted(cx)?.thread_usage())),
        }
    }

    /// Whose processor time it counts: any process, or a thread of the caller's (`EINVAL`).
    pub(crate) fn counted(self, cx: &Cx<'_>) -> SysResult<Arc<Task>> {
        let found = match self {
            Self::Process(0) | Self::Thread(0) => Some(Arc::clone(cx.task)),
            Self::Process(id) => cx.task_of(id).ok().filter(|task| task.tgid() == task.tid()),
            Self::Thread(id) => cx.task_of(id).ok().filter(|task| task.tgid() == cx.task.tgid()),
            _ => None,
        };
        found.ok_or(Errno::EINVAL.into())
    }

    /// When it will show `at`; `None` for never. Not for processor clocks.
    pub(crate) fn instant(self, cx: &Cx<'_>, at: Duration) -> SysResult<Option<Instant>> {
        let left = at.saturating_sub(self.now(cx)?);
        Ok(Instant::now().checked_add(left))
    }

    fn is_coarse(self) -> bool {
        matches!(self, Self::Realtime(Kind::Coarse) | Self::Monotonic(Kind::Coarse))
    }
}

/// User and system time together.
pub(crate) fn total(usage: &Rusage) -> Duration {
    let time = |time: Timeval| time.to_duration().unwrap_or_default();
    time(usage.utime).saturating_add(time(usage.stime))
}

/// `clock_gettime(2)`.
pub(crate) fn clock_gettime(cx: &mut Cx<'_>, clock: i32, out: UserPtr<Timespec>) -> SysResult<()> {
    let now = Clock::from_raw(clock)?.now(cx)?;
    Ok(cx.task.mm().store(out, &Timespec::from(now))?)
}

/// `clock_getres(2)`.
pub(crate) fn clock_getres(cx: &mut Cx<'_>, clock: i32, out: UserPtr<Timespec>) -> SysResult<()> {
    let clock = Clock::from_raw(clock)?;
    if matches!(clock, Clock::Process(_) | Clock::Thread(_)) {
        clock.counted(cx)?;
    }
    let nanos = if clock.is_coarse() { 4_000_000 } else { 1 };
    if let Some(out) = out.non_null() {
        cx.task.mm().store(out, &Timespec::from_nanos(nanos))?;
    }
    Ok(())
}

/// `clock_settime(2)`: `EPERM` even for who has `CAP_SYS_TIME`, as the clock is the host's.
pub(crate) fn clock_settime(cx: &mut Cx<'_>, clock: i32, new: UserPtr<Timespec>) -> SysResult<()> {
    match Clock::from_raw(clock)? {
        Clock::Realtime(Kind::Plain) if clock == 0 => {
            let new = cx.task.mm().load(new)?;
            check_setting(cx, new.to_duration())
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn check_setting(cx: &Cx<'_>, new: Option<Duration>) -> SysResult<()> {
    new.ok_or(Errno::EINVAL)?;
    if cx.task.cred().capable(CapSet::SYS_TIME) {
        tracing::debug!("a guest wanted to set the clock");
    }
    Err(Errno::EPERM.into())
}

/// `gettimeofday(2)`. The time zone is UTC, as on any system that keeps its own in files.
pub(crate) fn gettimeofday(cx: &mut Cx<'_>, out: UserPtr<Timeval>, zone: UserPtr<[i32; 2]>) -> SysResult<()> {
    let mem = cx.task.mm();
    if let Some(out) = out.non_null() {
        mem.store(out, &Timeval::from(cx.services.clock.realtime()))?;
    }
    if let Some(zone) = zone.non_null() {
        mem.store(zone, &[0, 0])?;
    }
    Ok(())
}

/// `settimeofday(2)`: as [`clock_settime`].
pub(crate) fn settimeofday(cx: &mut Cx<'_>, new: UserPtr<Timeval>, zone: UserPtr<[i32; 2]>) -> SysResult<()> {
    let mem = cx.task.mm();
    let new = new.non_null().map(|new| mem.load(new)).transpose()?;
    if let Some(zone) = zone.non_null() {
        mem.load(zone)?;
    }
    check_setting(cx, new.map_or(Some(Duration::ZERO), Timeval::to_duration))
}

/// `time(2)`.
pub(crate) fn time(cx: &mut Cx<'_>, out: UserPtr<i64>) -> SysResult<i64> {
    let now = Timespec::from(cx.services.clock.realtime()).sec;
    if let Some(out) = out.non_null() {
        cx.task.mm().store(out, &now)?;
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use abi::syscall as nr;

    use crate::testkit::{DATA, Guest};

    fn raw(clock: i32) -> u64 {
        clock as i64 as u64
    }

    #[test]
    fn every_clock_is_told() {
        let mut guest = Guest::new();
        let own = (!1 << 3) | 2;
        for clock in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, own, own | 4] {
            assert_eq!(guest.call(nr::clock_gettime, [raw(clock), DATA]), Ok(0), "clock {clock}");
            assert_eq!(guest.call(nr::clock_getres, [raw(clock), 0]), Ok(0), "clock {clock}");
        }
        for clock in [10, 12, !5 << 3, own | 3] {
            assert_eq!(guest.call(nr::clock_gettime, [raw(clock), DATA]), Err(Errno::EINVAL), "{clock}");
        }
        assert_eq!(guest.call(nr::clock_gettime, [0, 0]), Err(Errno::EFAULT));
        let now = guest.call(nr::time, [0]).expect("a time");
        assert!(now > 1_700_000_000);
        assert_eq!(guest.call(nr::gettimeofday, [DATA, DATA + 16]), Ok(0));
        let later = guest.bytes(DATA, 8).try_into().map(u64::from_le_bytes);
        assert!(later.is_ok_and(|later| (now..now + 60).contains(&later)));
    }

    #[test]
    fn the_clock_is_the_hosts() {
        let mut guest = Guest::new();
        guest.put(DATA, &[0; 16]);
        assert_eq!(guest.call(nr::clock_settime, [0, DATA]), Err(Errno::EPERM));
        assert_eq!(guest.call(nr::clock_settime, [1, DATA]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::settimeofday, [DATA, 0]), Err(Errno::EPERM));
        guest.put(DATA + 8, &[0xff; 8]);
        assert_eq!(guest.call(nr::settimeofday, [DATA, 0]), Err(Errno::EINVAL));
    }
}
