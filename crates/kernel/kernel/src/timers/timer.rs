//! [`SignalTimer`]: one timer that sends a signal.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use abi::limits::Resource;
use abi::signal::{SI_KERNEL, SI_TIMER, SigInfo, Signal};
use ktime::{Expire, Interval, TimerId};
use sync::{Mutex, order};

use super::counted::{Counted, CountedClock};
use super::{TimerNotify, TimerSetting};
use crate::group::ThreadGroup;
use crate::kernel::Kernel;

/// When a timer is to expire first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// After so long.
    After(Duration),
    /// At an instant; for timers on the time that passes.
    At(Instant),
    /// When so much processor time has been used; for the others.
    Used(Duration),
}

/// One timer.
pub(crate) struct SignalTimer {
    kernel: Weak<Kernel>,
    group: Weak<ThreadGroup>,
    queue_id: TimerId,
    /// Its number in the process; `None` for those that have none.
    id: Option<i32>,
    clock: CountedClock,
    notify: TimerNotify,
    state: Mutex<order::Leaf, State>,
}

#[derive(Default)]
struct State {
    armed: Option<Interval>,
    /// Expiries beyond the one whose signal was sent last.
    overrun: u64,
}

impl Expire for SignalTimer {
    fn expire(&self, _: Instant) -> Option<Instant> {
        let kernel = self.kernel.upgrade()?;
        let now = self.clock.now(&kernel)?;
        let (count, next) = {
            let mut state = self.state.lock();
            let (count, next) = state.armed?.advance(now);
            state.armed = next;
            (count, next)
        };
        if count > 0 {
            self.tell(&kernel, count - 1);
        }
        self.clock.look_at(&kernel, now, next?.next)
    }
}

impl SignalTimer {
    pub(super) fn new(
        kernel: &Arc<Kernel>,
        group: &Arc<ThreadGroup>,
        id: Option<i32>,
        counted: Counted,
        notify: TimerNotify,
    ) -> Arc<Self> {
        Arc::new(Self {
            kernel: Arc::downgrade(kernel),
            group: Arc::downgrade(group),
            queue_id: kernel.timers.allocate(),
            id,
            clock: CountedClock::new(counted),
            notify,
            state: Mutex::default(),
        })
    }

    /// An expiry, and `missed` more. One whose signal is still pending is an overrun too.
    fn tell(&self, kernel: &Kernel, missed: u64) {
        let Some(group) = self.group.upgrade() else { return };
        let (signal, value) = match self.notify {
            TimerNotify::Nobody => return,
            TimerNotify::Alarm => (Signal::SIGALRM, u64::from(self.id.unwrap_or_default().unsigned_abs())),
            TimerNotify::Process(signal, value) | TimerNotify::Thread(_, signal, value) => (signal, value),
            TimerNotify::Limit => return spend(kernel, &group),
        };
        let task = match self.notify {
            TimerNotify::Thread(tid, ..) => {
                let task = kernel.task(tid).filter(|task| Arc::ptr_eq(task.group(), &group));
                let Some(task) = task else { return };
                Some(task)
            }
            _ => None,
        };
        let Some(id) = self.id else {
            let _ = kernel.send_to_group(&group, signal, SigInfo::new(signal, SI_KERNEL));
            return;
        };
        let more = |queue: &mut signal::SignalQueue| queue.add_overrun(signal, id, missed.saturating_add(1));
        let pending = match &task {
            Some(task) => more(&mut task.signals.lock().queue),
            None => more(&mut group.queue.lock()),
        };
        self.state.lock().overrun = pending.unwrap_or(missed);
        if pending.is_some() {
            return;
        }
        let overrun = i32::try_from(missed).unwrap_or(i32::MAX);
        let mut info = SigInfo::new(signal, SI_TIMER).with_value(value);
        info.put(0, &id.to_le_bytes());
        info.put(4, &overrun.to_le_bytes());
        // A full queue loses the expiry.
        let _ = match task {
            Some(task) => kernel.send_to_task(&task, signal, info),
            None => kernel.send_to_group(&group, signal, info),
        };
    }

    pub(super) fn setting(&self, kernel: &Kernel) -> TimerSetting {
        let Some(now) = self.clock.now(kernel) else { return TimerSetting::default() };
        match self.state.lock().armed {
            Some(timer) => TimerSetting { left: timer.remaining(now), period: timer.period },
            None => TimerSetting::default(),
        }
    }

    pub(super) fn overrun(&self) -> u64 {
        self.state.lock().overrun
    }

    /// Arms, or disarms without `first`; returns what was.
    pub(super) fn set(
        self: &Arc<Self>,
        kernel: &Kernel,
        first: Option<First>,
        period: Duration,
    ) -> TimerSetting {
        let old = self.setting(kernel);
        let now = self.clock.now(kernel);
        let next = first.zip(now).and_then(|(first, now)| match first {
            First::After(time) => now.checked_add(time),
            First::At(instant) => Some(instant),
            First::Used(time) => self.clock.shows(time),
        });
        *self.state.lock() = State { armed: next.map(|next| Interval { next, period }), overrun: 0 };
        match next.zip(now).and_then(|(next, now)| self.clock.look_at(kernel, now, next)) {
            Some(look) => {
                let me: Arc<dyn Expire> = self.clone();
                kernel.timers.arm(self.queue_id, look, Arc::downgrade(&me));
            }
            None => kernel.timers.disarm(self.queue_id),
        }
        old
    }

    pub(super) fn disarm(&self, kernel: &Kernel) {
        kernel.timers.disarm(self.queue_id);
    }
}

/// A process has used as much processor time as `RLIMIT_CPU` allows, or a second more since it was told.
fn spend(kernel: &Kernel, group: &Arc<ThreadGroup>) {
    let limit = group.limit(Resource::Cpu);
    let Some(task) = kernel.threads(group.tgid()).into_iter().next() else { return };
    let (user, system) = task.mm().space().cpu_time();
    let signal =
        if user.saturating_add(system).as_secs() >= limit.max { Signal::SIGKILL } else { Signal::SIGXCPU };
    let _ = kernel.send_to_group(group, signal, SigInfo::new(signal, SI_KERNEL));
}
