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
    /// The instant now, by which deadlines are told.
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// The host's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostClock;

impl Clock for HostClock {
    fn realtime(&self) -> Duration {
        // A host clock before 1970 reads as 1970.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}
