//! Timers of a process that send signals: `setitimer(2)`, `alarm(2)`, `timer_create(2)`, and the limit on
//! its processor time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use abi::Errno;
use abi::limits::{INFINITY, Resource};
use abi::signal::Signal;

use crate::group::ThreadGroup;
use crate::kernel::Kernel;
use crate::task::Task;

mod counted;
mod timer;

pub use counted::Counted;
pub use timer::First;
pub(crate) use timer::SignalTimer;

/// Most timers of a process whose limit is higher, or none.
const MAX_TIMERS: u64 = 65_536;

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
    /// The process with `SIGXCPU`, and in the end `SIGKILL` (`RLIMIT_CPU`).
    Limit,
}

/// Time left and period; zero time left: not armed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerSetting {
    /// Until the next expiry.
    pub left: Duration,
    /// Period; zero for one shot.
    pub period: Duration,
}

/// A timer that every process has one of (`setitimer(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IntervalTimer {
    /// `ITIMER_REAL`: `SIGALRM`, by the time that passes.
    Real,
    /// `ITIMER_VIRTUAL`: `SIGVTALRM`, by time in user mode.
    Virtual,
    /// `ITIMER_PROF`: `SIGPROF`, by processor time.
    Prof,
}

/// The timers of a process.
#[derive(Default)]
pub(crate) struct Timers {
    interval: BTreeMap<IntervalTimer, Arc<SignalTimer>>,
    limit: Option<Arc<SignalTimer>>,
    /// By number, with the clock as the guest named it.
    posix: BTreeMap<i32, (i32, Arc<SignalTimer>)>,
    next: i32,
}

impl Timers {
    /// POSIX timers do not outlive a program; interval timers do (`execve(2)`).
    pub(crate) fn at_exec(&mut self) -> impl Sized + use<> {
        std::mem::take(&mut self.posix)
    }
}

/// Interval timers.
impl Task {
    /// `setitimer(2)` and `alarm(2)`: a zero time left disarms. Returns what was.
    pub fn set_interval_timer(&self, which: IntervalTimer, new: TimerSetting) -> TimerSetting {
        let own = Arc::downgrade(self.group());
        let (signal, counted) = match which {
            IntervalTimer::Real => (Signal::SIGALRM, Counted::Wall),
            IntervalTimer::Virtual => (Signal::SIGVTALRM, Counted::User(own)),
            IntervalTimer::Prof => (Signal::SIGPROF, Counted::Process(own)),
        };
        let notify = TimerNotify::Process(signal, 0);
        let fresh = SignalTimer::new(self.kernel(), self.group(), None, counted, notify);
        let timer = Arc::clone(self.group().timers.lock().interval.entry(which).or_insert(fresh));
        let first = (!new.left.is_zero()).then_some(First::After(new.left));
        timer.set(self.kernel(), first, new.period)
    }

    /// `getitimer(2)`.
    pub fn interval_timer(&self, which: IntervalTimer) -> TimerSetting {
        let timer = self.group().timers.lock().interval.get(&which).cloned();
        timer.map(|timer| timer.setting(self.kernel())).unwrap_or_default()
    }
}

/// POSIX timers.
impl Task {
    /// `timer_create(2)`; `clock` is kept for the caller. `EAGAIN` past `RLIMIT_SIGPENDING` timers,
    /// `EINVAL` for a foreign thread.
    pub fn timer_create(&self, clock: i32, counted: Counted, notify: TimerNotify) -> Result<i32, Errno> {
        if let TimerNotify::Thread(tid, ..) = notify {
            let fits = self.kernel().task(tid).is_some_and(|task| task.tgid() == self.tgid());
            if !fits {
                return Err(Errno::EINVAL);
            }
        }
        // Unlimited for a guest would be unbounded for us.
        let limit = self.group().limit(Resource::PendingSignals).cur.min(MAX_TIMERS);
        let mut timers = self.group().timers.lock();
        if timers.posix.len() as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
        let mut id = timers.next;
        while timers.posix.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(0);
        }
        timers.next = id.checked_add(1).unwrap_or(0);
        drop(timers);
        // Another thread may make one meanwhile: it has another id.
        let timer = SignalTimer::new(self.kernel(), self.group(), Some(id), counted, notify);
        self.group().timers.lock().posix.insert(id, (clock, timer));
        Ok(id)
    }

    fn posix_timer(&self, id: i32) -> Result<Arc<SignalTimer>, Errno> {
        let timers = self.group().timers.lock();
        timers.posix.get(&id).map(|(_, timer)| Arc::clone(timer)).ok_or(Errno::EINVAL)
    }

    /// The clock it was made with.
    pub fn timer_clock(&self, id: i32) -> Result<i32, Errno> {
        self.group().timers.lock().posix.get(&id).map(|(clock, _)| *clock).ok_or(Errno::EINVAL)
    }

    /// `timer_settime(2)`: the caller has turned clock and flags into `first`; `None` disarms.
    pub fn timer_settime(
        &self,
        id: i32,
        first: Option<First>,
        period: Duration,
    ) -> Result<TimerSetting, Errno> {
        Ok(self.posix_timer(id)?.set(self.kernel(), first, period))
    }

    /// `timer_gettime(2)`.
    pub fn timer_gettime(&self, id: i32) -> Result<TimerSetting, Errno> {
        Ok(self.posix_timer(id)?.setting(self.kernel()))
    }

    /// `timer_getoverrun(2)`.
    pub fn timer_getoverrun(&self, id: i32) -> Result<i32, Errno> {
        Ok(i32::try_from(self.posix_timer(id)?.overrun()).unwrap_or(i32::MAX))
    }

    /// `timer_delete(2)`.
    pub fn timer_delete(&self, id: i32) -> Result<(), Errno> {
        let (_, timer) = self.group().timers.lock().posix.remove(&id).ok_or(Errno::EINVAL)?;
        timer.disarm(self.kernel());
        Ok(())
    }
}

impl ThreadGroup {
    /// Counts towards `RLIMIT_CPU`, when there is such a limit: after it was set, and in a new process.
    pub fn watch_processor_time(self: &Arc<Self>, kernel: &Arc<Kernel>) {
        let limit = self.limit(Resource::Cpu);
        if limit.cur == INFINITY && limit.max == INFINITY {
            let timer = self.timers.lock().limit.take();
            if let Some(timer) = timer {
                timer.disarm(kernel);
            }
            return;
        }
        let counted = Counted::Process(Arc::downgrade(self));
        let fresh = SignalTimer::new(kernel, self, None, counted, TimerNotify::Limit);
        let timer = Arc::clone(self.timers.lock().limit.get_or_insert(fresh));
        // Told every second from then on. A limit of nothing is one of a second.
        let first = First::Used(Duration::from_secs(limit.cur.max(1)));
        timer.set(kernel, Some(first), Duration::from_secs(1));
    }
}
