//! Times: `timespec`, `timeval`, clock ids (`clock_gettime(2)`).

use core::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Nanoseconds in a second.
pub const NSEC_PER_SEC: i64 = 1_000_000_000;

/// `struct timespec`. A claim until checked: see [`Timespec::to_duration`].
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, `0..1_000_000_000` when valid.
    pub nsec: i64,
}

impl Timespec {
    /// As a duration, when it is one: not negative, nanoseconds in range.
    pub fn to_duration(self) -> Option<Duration> {
        let sec = u64::try_from(self.sec).ok()?;
        (0..NSEC_PER_SEC).contains(&self.nsec).then(|| Duration::new(sec, self.nsec as u32))
    }

    /// From nanoseconds since the clock's zero; negative values round towards the past.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { sec: nanos.div_euclid(NSEC_PER_SEC), nsec: nanos.rem_euclid(NSEC_PER_SEC) }
    }

    /// Nanoseconds since the clock's zero, saturating.
    pub const fn to_nanos(self) -> i64 {
        self.sec.saturating_mul(NSEC_PER_SEC).saturating_add(self.nsec)
    }
}

impl From<Duration> for Timespec {
    fn from(d: Duration) -> Self {
        Self { sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nsec: i64::from(d.subsec_nanos()) }
    }
}

/// `struct timeval`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timeval {
    /// Seconds.
    pub sec: i64,
    /// Microseconds, `0..1_000_000` when valid.
    pub usec: i64,
}

impl Timeval {
    /// As a duration, when it is one.
    pub fn to_duration(self) -> Option<Duration> {
        let sec = u64::try_from(self.sec).ok()?;
        (0..1_000_000).contains(&self.usec).then(|| Duration::new(sec, self.usec as u32 * 1000))
    }
}

impl From<Duration> for Timeval {
    fn from(d: Duration) -> Self {
        Self { sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), usec: i64::from(d.subsec_micros()) }
    }
}

/// `struct itimerspec` (`timer_settime(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Itimerspec {
    /// Period; zero for one shot.
    pub interval: Timespec,
    /// First expiry; zero disarms.
    pub value: Timespec,
}

/// `struct itimerval` (`setitimer(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Itimerval {
    /// Period; zero for one shot.
    pub interval: Timeval,
    /// First expiry; zero disarms.
    pub value: Timeval,
}
