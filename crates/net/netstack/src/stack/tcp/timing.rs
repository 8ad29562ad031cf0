//! How long it takes to the other end and back, as a connection sees it (RFC 6298).
//!
//! smoltcp keeps an estimate for its own timer and does not tell; this one is only for who asks. One segment at a
//! time is timed, and none that was sent twice (Karn).

use std::time::Duration;

/// Round trips of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrip {
    /// Smoothed.
    pub smoothed: Duration,
    /// How far single ones are from it.
    pub variance: Duration,
    /// The shortest.
    pub least: Duration,
}

/// What is measured.
#[derive(Debug, Default)]
pub(super) struct Timing {
    /// Bytes that were ever queued.
    queued: u64,
    /// A byte whose acknowledgement is awaited, and when it was sent.
    probe: Option<(u64, Duration)>,
    known: Option<RoundTrip>,
}

impl Timing {
    /// What is known.
    pub(super) fn known(&self) -> Option<RoundTrip> {
        self.known
    }

    /// A SYN is on its way.
    pub(super) fn began(&mut self, now: Duration) {
        self.probe = Some((0, now));
    }

    /// `bytes` more are queued behind `waiting` others.
    pub(super) fn queues(&mut self, bytes: usize, waiting: usize, now: Duration) {
        self.queued += bytes as u64;
        if waiting == 0 && bytes > 0 && self.probe.is_none() {
            self.probe = Some((self.queued - bytes as u64 + 1, now));
        }
    }

    /// Something may have been sent again.
    pub(super) fn repeated(&mut self) {
        self.probe = None;
    }

    /// `waiting` bytes are not acknowledged yet.
    pub(super) fn acknowledged(&mut self, waiting: usize, now: Duration) {
        let done = self.queued.saturating_sub(waiting as u64);
        let Some((_, sent)) = self.probe.take_if(|(byte, _)| *byte <= done) else { return };
        let one = now.saturating_sub(sent);
        let next = match self.known {
            None => RoundTrip { smoothed: one, variance: one / 2, least: one },
            Some(old) => RoundTrip {
                smoothed: (old.smoothed * 7 + one) / 8,
                variance: (old.variance * 3 + old.smoothed.abs_diff(one)) / 4,
                least: old.least.min(one),
            },
        };
        self.known = Some(next);
    }
}

#[cfg(test)]
mod tests {
    use super::Timing;
    use std::time::Duration;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn what_was_sent_once_is_timed() {
        let mut timing = Timing::default();
        timing.began(ms(0));
        timing.acknowledged(0, ms(8));
        timing.queues(1000, 0, ms(10));
        timing.queues(1000, 1000, ms(11));
        timing.acknowledged(2000, ms(12));
        timing.acknowledged(1000, ms(34));
        let known = timing.known().expect("two round trips");
        assert_eq!((known.smoothed, known.variance, known.least), (ms(10), ms(7), ms(8)));
        timing.acknowledged(0, ms(40));
        timing.queues(10, 0, ms(50));
        timing.repeated();
        timing.acknowledged(0, ms(1050));
        assert_eq!(timing.known(), Some(known));
    }
}
