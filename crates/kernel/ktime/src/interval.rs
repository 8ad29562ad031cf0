//! The arithmetic of timers that may repeat (`setitimer(2)`, `timer_settime(2)`).

use std::time::{Duration, Instant};

/// An armed timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Next expiry.
    pub next: Instant,
    /// Period; zero for one shot.
    pub period: Duration,
}

impl Interval {
    /// Time left at `now`; at least a nanosecond while it is armed, as `getitimer(2)` says.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now).max(Duration::from_nanos(1))
    }

    /// Counts the expiries up to `now`, and moves on. The timer is `None` when it was one shot, or its
    /// next expiry lies beyond what the clock can say.
    pub fn advance(self, now: Instant) -> (u64, Option<Self>) {
        if now < self.next {
            return (0, Some(self));
        }
        if self.period.is_zero() {
            return (1, None);
        }
        let late = now.saturating_duration_since(self.next);
        let missed = late.as_nanos() / self.period.as_nanos();
        let missed = u64::try_from(missed).unwrap_or(u64::MAX);
        let next = step(self.period, missed.saturating_add(1)).and_then(|by| self.next.checked_add(by));
        (missed.saturating_add(1), next.map(|next| Self { next, ..self }))
    }
}

/// `period * count`, when that is a duration.
fn step(period: Duration, count: u64) -> Option<Duration> {
    let nanos = period.as_nanos().checked_mul(u128::from(count))?;
    let secs = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(secs, (nanos % 1_000_000_000) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_timers_count_what_they_missed_and_keep_their_phase() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let timer = Interval { next: start, period: ms(10) };
        let (count, next) = timer.advance(start + ms(35));
        assert_eq!(count, 4);
        assert_eq!(next, Some(Interval { next: start + ms(40), period: ms(10) }));
        assert_eq!(Interval { next: start, period: Duration::ZERO }.advance(start), (1, None));
        assert_eq!(timer.advance(start + ms(0)).0, 1);
        let early = Interval { next: start + ms(5), ..timer };
        assert_eq!(early.advance(start), (0, Some(early)));
        assert_eq!(early.remaining(start + ms(9)), Duration::from_nanos(1));
    }
}
