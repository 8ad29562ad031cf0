//! `timerfd_create(2)`: a timer as a file.
//!
//! Expirations are computed from the clock when somebody asks, so a late timer thread loses none.

use std::any::Any;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::poll::PollEvents;
use abi::time::{Itimerspec, Timespec};
use guestmem::IoSink;
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::{File, FileContext, Result};

/// A clock that can also call back. Times are nanoseconds of that clock.
pub trait TimerSource: Send + Sync {
    /// Now.
    fn now(&self) -> i64;

    /// Calls [`TimerFd::expire`] at `at` or soon after, with no lock held. Replaces the request made
    /// before for the same target; `None` takes it back. A call too many or too early does no harm.
    fn call_at(&self, at: Option<i64>, target: Weak<TimerFd>);
}

/// How `timerfd_settime(2)` reads its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From now.
    Relative,
    /// On the clock (`TFD_TIMER_ABSTIME`).
    Absolute,
}

/// A timer as a file.
pub struct TimerFd {
    me: Weak<Self>,
    source: Arc<dyn TimerSource>,
    state: Mutex<order::FileState, State>,
    queue: WaitQueue,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// First expiry not read yet; `None` when disarmed.
    next: Option<i64>,
    /// Period in nanoseconds, 0 for one shot.
    interval: i64,
}

impl State {
    /// Expirations up to `now` that nobody has read.
    fn expired(&self, now: i64) -> u64 {
        match self.next {
            Some(next) if next <= now && self.interval > 0 => {
                // Both are in range: `next <= now` and the interval is positive.
                (now.saturating_sub(next) / self.interval) as u64 + 1
            }
            Some(next) if next <= now => 1,
            _ => 0,
        }
    }

    /// First expiry after `now`.
    fn upcoming(&self, now: i64) -> Option<i64> {
        let next = self.next?;
        match self.expired(now) {
            0 => Some(next),
            _ if self.interval == 0 => None,
            n => {
                let passed = i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(self.interval);
                Some(next.saturating_add(passed))
            }
        }
    }

    fn setting(&self, now: i64) -> Itimerspec {
        let left = self.upcoming(now).map_or(0, |at| at.saturating_sub(now).max(1));
        Itimerspec { interval: Timespec::from_nanos(self.interval), value: Timespec::from_nanos(left) }
    }
}

impl std::fmt::Debug for TimerFd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimerFd").field("state", &self.state).finish_non_exhaustive()
    }
}

impl TimerFd {
    /// A disarmed timer on `source`.
    pub fn new(source: Arc<dyn TimerSource>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            source,
            state: Mutex::default(),
            queue: WaitQueue::new(),
        })
    }

    /// `timerfd_settime(2)`; returns the old setting. `EINVAL` for a time that is none. The system clock
    /// is never set here, so `TFD_TIMER_CANCEL_ON_SET` has nothing to cancel.
    pub fn set(&self, new: Itimerspec, start: Start) -> Result<Itimerspec> {
        let nanos = |time: Timespec| time.to_duration().map(|_| time.to_nanos()).ok_or(Errno::EINVAL);
        let (value, interval) = (nanos(new.value)?, nanos(new.interval)?);
        let now = self.source.now();
        let first = match start {
            Start::Relative => now.saturating_add(value),
            Start::Absolute => value,
        };
        let next = (value != 0).then_some(first);
        let old = {
            let mut state = self.state.lock();
            std::mem::replace(&mut *state, State { next, interval }).setting(now)
        };
        self.source.call_at(next, self.me.clone());
        Ok(old)
    }

    /// `timerfd_gettime(2)`.
    pub fn setting(&self) -> Itimerspec {
        let now = self.source.now();
        self.state.lock().setting(now)
    }

    /// The timer source calls: wakes whoever waits, and asks for the next period.
    pub fn expire(&self) {
        let now = self.source.now();
        let (expired, upcoming) = {
            let state = self.state.lock();
            (state.expired(now), state.upcoming(now))
        };
        if upcoming.is_some() {
            self.source.call_at(upcoming, self.me.clone());
        }
        if expired > 0 {
            self.queue.notify(PollEvents::READABLE);
        }
    }

    fn take(&self, now: i64) -> Result<u64> {
        let mut state = self.state.lock();
        match state.expired(now) {
            0 => Err(Errno::EAGAIN),
            expired => {
                state.next = state.upcoming(now);
                Ok(expired)
            }
        }
    }
}

impl File for TimerFd {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let expired = self.take(self.source.now())?;
        match sink.put(&expired.to_ne_bytes())? {
            8 => Ok(8),
            _ => Err(Errno::EFAULT),
        }
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        let now = self.source.now();
        if self.state.lock().expired(now) > 0 { PollEvents::READABLE } else { PollEvents::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cred::Credentials;
    use guestmem::VecSink;
    use std::sync::atomic::{AtomicI64, Ordering};

    /// A clock set by hand, which remembers what it was asked for.
    #[derive(Default)]
    struct Hand {
        now: AtomicI64,
        asked: AtomicI64,
    }

    impl TimerSource for Hand {
        fn now(&self) -> i64 {
            self.now.load(Ordering::SeqCst)
        }

        fn call_at(&self, at: Option<i64>, _target: Weak<TimerFd>) {
            self.asked.store(at.unwrap_or(-1), Ordering::SeqCst);
        }
    }

    fn read(fd: &TimerFd) -> Result<u64> {
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let mut sink = VecSink::new(8);
        fd.read(&cx, 0, &mut sink)?;
        Ok(u64::from_ne_bytes(sink.bytes.as_slice().try_into().unwrap_or_default()))
    }

    fn spec(value: i64, interval: i64) -> Itimerspec {
        Itimerspec { value: Timespec::from_nanos(value), interval: Timespec::from_nanos(interval) }
    }

    #[test]
    fn a_period_counts_what_was_missed() {
        let hand = Arc::new(Hand::default());
        let fd = TimerFd::new(hand.clone());
        assert_eq!(fd.set(spec(100, 10), Start::Relative), Ok(spec(0, 0)));
        assert_eq!(hand.asked.load(Ordering::SeqCst), 100);
        assert_eq!(read(&fd), Err(Errno::EAGAIN));
        hand.now.store(125, Ordering::SeqCst);
        fd.expire();
        assert_eq!(hand.asked.load(Ordering::SeqCst), 130);
        assert_eq!(read(&fd), Ok(3));
        assert_eq!(fd.setting(), spec(5, 10));
        assert_eq!(read(&fd), Err(Errno::EAGAIN));
    }

    #[test]
    fn one_shot_expires_once_and_zero_disarms() {
        let hand = Arc::new(Hand::default());
        let fd = TimerFd::new(hand.clone());
        hand.now.store(50, Ordering::SeqCst);
        assert_eq!(fd.set(spec(40, 0), Start::Absolute), Ok(spec(0, 0)));
        assert_eq!((read(&fd), read(&fd)), (Ok(1), Err(Errno::EAGAIN)));
        assert_eq!(fd.set(spec(40, 0), Start::Relative), Ok(spec(0, 0)));
        assert_eq!(fd.set(spec(0, 0), Start::Relative), Ok(spec(40, 0)));
        hand.now.store(500, Ordering::SeqCst);
        assert_eq!(read(&fd), Err(Errno::EAGAIN));
        let bad = Itimerspec { value: Timespec { sec: 0, nsec: -1 }, ..Itimerspec::default() };
        assert_eq!(fd.set(bad, Start::Relative), Err(Errno::EINVAL));
    }
}
