//! Timers of a process that send signals: `setitimer(ITIMER_REAL)`, `alarm(2)`, `timer_create(2)`.
//!
//! Absent: `ITIMER_VIRTUAL`, `ITIMER_PROF` and processor-time clocks.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use abi::Errno;
use abi::limits::Resource;
use abi::signal::{SI_KERNEL, SI_TIMER, SigInfo, Signal};
use ktime::{Expire, Interval, TimerId};
use sync::{Mutex, order};

use crate::group::ThreadGroup;
use crate::kernel::Kernel;
use crate::task::Task;

/// Whom an expiry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerNotify {
    /// Nobody (`SIGEV_NONE`).
    Nobody,
    /// The process (`SIGEV_SIGNAL`), with this `sigval`.
    Process(Signal, u64),
    /// The process with `SIGALRM` and the timer's id: what a timer without `sigevent` does.
    Alarm,
    /// A thread of it (`SIGEV_THREAD_ID`).
    Thread(i32, Signal, u64),
}

/// Time left and period; zero time left: not armed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerSetting {
    /// Until the next expiry.
    pub left: Duration,
    /// Period; zero for one shot.
    pub period: Duration,
}

/// One timer.
pub(crate) struct SignalTimer {
    kernel: Weak<Kernel>,
    group: Weak<ThreadGroup>,
    queue_id: TimerId,
    /// Its number in the process; `None` for `ITIMER_REAL`.
    id: Option<i32>,
    /// Its clock, as the guest named it.
    clock: i32,
    notify: TimerNotify,
    state: Mutex<order::Leaf, (Option<Interval>, u64)>,
}

/// The timers of a process.
#[derive(Default)]
pub(crate) struct Timers {
    real: Option<Arc<SignalTimer>>,
    posix: BTreeMap<i32, Arc<SignalTimer>>,
    next: i32,
}

impl Timers {
    /// POSIX timers do not outlive a program; the interval timer does (`execve(2)`).
    pub(crate) fn at_exec(&mut self) -> BTreeMap<i32, Arc<SignalTimer>> {
        std::mem::take(&mut self.posix)
    }
}

impl Expire for SignalTimer {
    fn expire(&self, now: Instant) -> Option<Instant> {
        let (next, overrun) = {
            let mut state = self.state.lock();
            let (count, next) = state.0?.advance(now);
            if count == 0 {
                return next.map(|timer| timer.next);
            }
            *state = (next, count - 1);
            (next.map(|timer| timer.next), count - 1)
        };
        self.tell(overrun);
        next
    }
}

impl SignalTimer {
    fn tell(&self, overrun: u64) {
        let (Some(kernel), Some(group)) = (self.kernel.upgrade(), self.group.upgrade()) else { return };
        let info = |signal, value: u64| {
            let Some(id) = self.id else { return SigInfo::new(signal, SI_KERNEL) };
            let mut info = SigInfo::new(signal, SI_TIMER).with_value(value);
            info.put(0, &id.to_le_bytes());
            info.put(4, &i32::try_from(overrun).unwrap_or(i32::MAX).to_le_bytes());
            info
        };
        // A full queue loses the expiry, as in Linux it becomes an overrun.
        match self.notify {
            TimerNotify::Nobody => {}
            TimerNotify::Alarm => {
                let value = u64::from(self.id.unwrap_or_default().unsigned_abs());
                let _ = kernel.send_to_group(&group, Signal::SIGALRM, info(Signal::SIGALRM, value));
            }
            TimerNotify::Process(signal, value) => {
                let _ = kernel.send_to_group(&group, signal, info(signal, value));
            }
            TimerNotify::Thread(tid, signal, value) => {
                if let Some(task) = kernel.task(tid).filter(|task| task.tgid() == group.tgid()) {
                    let _ = kernel.send_to_task(&task, signal, info(signal, value));
                }
            }
        }
    }

    fn setting(&self, now: Instant) -> TimerSetting {
        match self.state.lock().0 {
            Some(timer) => TimerSetting { left: timer.remaining(now), period: timer.period },
            None => TimerSetting::default(),
        }
    }

    /// Arms or disarms; returns what was.
    fn set(self: &Arc<Self>, kernel: &Kernel, next: Option<Instant>, period: Duration) -> TimerSetting {
        let now = Instant::now();
        let old = self.setting(now);
        *self.state.lock() = (next.map(|next| Interval { next, period }), 0);
        match next {
            Some(next) => {
                let me: Arc<dyn Expire> = self.clone();
                kernel.timers.arm(self.queue_id, next, Arc::downgrade(&me));
            }
            None => kernel.timers.disarm(self.queue_id),
        }
        old
    }
}

impl Task {
    fn new_timer(&self, id: Option<i32>, clock: i32, notify: TimerNotify) -> Arc<SignalTimer> {
        Arc::new(SignalTimer {
            kernel: Arc::downgrade(self.kernel()),
            group: Arc::downgrade(self.group()),
            queue_id: self.kernel().timers.allocate(),
            id,
            clock,
            notify,
            state: Mutex::default(),
        })
    }

    /// `setitimer(ITIMER_REAL)` and `alarm(2)`: a zero time left disarms. Returns what was.
    pub fn set_real_timer(&self, new: TimerSetting) -> TimerSetting {
        let fresh = self.new_timer(None, 0, TimerNotify::Process(Signal::SIGALRM, 0));
        let timer = Arc::clone(self.group().timers.lock().real.get_or_insert(fresh));
        let next = if new.left.is_zero() { None } else { Instant::now().checked_add(new.left) };
        timer.set(self.kernel(), next, new.period)
    }

    /// `getitimer(ITIMER_REAL)`.
    pub fn real_timer(&self) -> TimerSetting {
        let timer = self.group().timers.lock().real.clone();
        timer.map(|timer| timer.setting(Instant::now())).unwrap_or_default()
    }

    /// `timer_create(2)`; `clock` is kept for the caller. `EAGAIN` past `RLIMIT_SIGPENDING` timers, `EINVAL` for a foreign thread.
    pub fn timer_create(&self, clock: i32, notify: TimerNotify) -> Result<i32, Errno> {
        if let TimerNotify::Thread(tid, ..) = notify {
            let fits = self.kernel().task(tid).is_some_and(|task| task.tgid() == self.tgid());
            if !fits {
                return Err(Errno::EINVAL);
            }
        }
        // Unlimited for a guest would be unbounded for us.
        let limit = self.group().limit(Resource::PendingSignals).cur.min(65536);
        let id = {
            let mut timers = self.group().timers.lock();
            if timers.posix.len() as u64 >= limit {
                return Err(Errno::EAGAIN);
            }
            let mut id = timers.next;
            while timers.posix.contains_key(&id) {
                id = if id == i32::MAX { 0 } else { id + 1 };
            }
            timers.next = if id == i32::MAX { 0 } else { id + 1 };
            id
        };
        // Another thread may make one meanwhile: it has another id.
        let timer = self.new_timer(Some(id), clock, notify);
        self.group().timers.lock().posix.insert(id, timer);
        Ok(id)
    }

    fn posix_timer(&self, id: i32) -> Result<Arc<SignalTimer>, Errno> {
        self.group().timers.lock().posix.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// `timer_settime(2)`: the caller has turned clock and flags into an instant; `None` disarms.
    pub fn timer_settime(
        &self,
        id: i32,
        next: Option<Instant>,
        period: Duration,
    ) -> Result<TimerSetting, Errno> {
        Ok(self.posix_timer(id)?.set(self.kernel(), next, period))
    }

    /// The clock it was made with.
    pub fn timer_clock(&self, id: i32) -> Result<i32, Errno> {
        Ok(self.posix_timer(id)?.clock)
    }

    /// `timer_gettime(2)`.
    pub fn timer_gettime(&self, id: i32) -> Result<TimerSetting, Errno> {
        Ok(self.posix_timer(id)?.setting(Instant::now()))
    }

    /// `timer_getoverrun(2)`.
    pub fn timer_getoverrun(&self, id: i32) -> Result<i32, Errno> {
        let overrun = self.posix_timer(id)?.state.lock().1;
        Ok(i32::try_from(overrun).unwrap_or(i32::MAX))
    }

    /// `timer_delete(2)`.
    pub fn timer_delete(&self, id: i32) -> Result<(), Errno> {
        let timer = self.group().timers.lock().posix.remove(&id).ok_or(Errno::EINVAL)?;
        self.kernel().timers.disarm(timer.queue_id);
        Ok(())
    }
}
