//! Clocks and timers: the clock trait, and one timer thread for all deadlines.
//!
//! - [`Clock`]: where the sandbox's time comes from; [`HostClock`] is the host's.
//! - [`timers`]: [`TimerQueue`](timers::TimerQueue), one OS thread with a heap of deadlines, started at the
//!   first of them; it serves interval timers, POSIX timers and timerfd. A sleep does not need it: it parks
//!   with a deadline.
//! - [`interval`]: the arithmetic of periodic timers, apart from any thread.
#![forbid(unsafe_code)]

pub mod interval;
pub mod timers;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use interval::Interval;
pub use timers::{Expire, TimerId, TimerQueue};

/// A source of time.
pub trait Clock: Send + Sync {
    /// Since the epoch (`CLOCK_REALTIME`).
    fn realtime(&self) -> Duration;
    /// `CLOCK_MONOTONIC`: the host's own where guests also meet it past the Sentry (futex deadlines, vDSO).
    fn monotonic(&self) -> Duration;
    /// `CLOCK_BOOTTIME`.
    fn boottime(&self) -> Duration;
    /// When `CLOCK_MONOTONIC` shows `at`; `None` when that is beyond what an instant can say. What has
    /// passed may be told as any instant that has passed.
    fn instant(&self, at: Duration) -> Option<Instant> {
        Instant::now().checked_add(at.saturating_sub(self.monotonic()))
    }
}

/// The host's clocks. An [`Instant`] is its monotonic clock without its zero, which is told once.
#[derive(Clone, Copy, Debug)]
pub struct HostClock {
    then: Instant,
    monotonic: Duration,
    boottime: Duration,
}

impl HostClock {
    /// With the host's `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME`, read just now.
    pub fn new(monotonic: Duration, boottime: Duration) -> Self {
        Self { then: Instant::now(), monotonic, boottime }
    }
}

impl Default for HostClock {
    /// Both clocks start now.
    fn default() -> Self {
        Self::new(Duration::ZERO, Duration::ZERO)
    }
}

impl Clock for HostClock {
    fn realtime(&self) -> Duration {
        // A host clock before 1970 reads as 1970.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.monotonic.saturating_add(self.then.elapsed())
    }

    fn boottime(&self) -> Duration {
        self.boottime.saturating_add(self.then.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, HostClock};
    use std::time::{Duration, Instant};

    #[test]
    fn a_clock_goes_on_from_where_it_was_read() {
        let clock = HostClock::new(Duration::from_secs(7), Duration::from_secs(9));
        assert!(clock.monotonic() >= Duration::from_secs(7) && clock.boottime() >= Duration::from_secs(9));
        let soon = clock.instant(clock.monotonic() + Duration::from_secs(5)).expect("soon");
        assert!(soon > Instant::now() + Duration::from_secs(4));
        assert!(clock.instant(Duration::ZERO).expect("past") <= Instant::now());
        assert_eq!(clock.instant(Duration::MAX), None);
    }
}
