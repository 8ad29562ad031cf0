//! What a timer goes by: the time that passes, or the processor time that somebody uses.
//!
//! Nothing tells the Sentry when a guest has used so much of a processor, so a timer on processor time asks
//! when it could have at the earliest, and again until it has.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::group::ThreadGroup;
use crate::kernel::Kernel;
use crate::task::Task;

/// The soonest to ask again.
const PATIENCE: Duration = Duration::from_millis(1);
/// So many processors may count at once, at most: then one asks more often than need be.
const MOST_AT_ONCE: u32 = 64;

/// What counts towards a timer.
#[derive(Clone)]
pub enum Counted {
    /// Time as it passes.
    Wall,
    /// Time in user mode of a process (`ITIMER_VIRTUAL`).
    User(Weak<ThreadGroup>),
    /// Processor time of a process (`ITIMER_PROF`, `CLOCK_PROCESS_CPUTIME_ID`).
    Process(Weak<ThreadGroup>),
    /// Processor time of a thread (`CLOCK_THREAD_CPUTIME_ID`).
    Thread(Weak<Task>),
}

/// [`Counted`] as a clock that shows instants. On processor time they count from when the timer was made,
/// and mean nothing elsewhere.
pub(super) struct CountedClock {
    counted: Counted,
    zero: Instant,
}

impl CountedClock {
    pub(super) fn new(counted: Counted) -> Self {
        Self { counted, zero: Instant::now() }
    }

    /// Now; `None` when who was counted is gone.
    pub(super) fn now(&self, kernel: &Kernel) -> Option<Instant> {
        let used = match &self.counted {
            Counted::Wall => return Some(Instant::now()),
            Counted::User(group) => usage(kernel, group)?.0,
            Counted::Process(group) => total(usage(kernel, group)?),
            Counted::Thread(task) => total(task.upgrade()?.times()),
        };
        self.zero.checked_add(used)
    }

    /// When it shows so much processor time; on the time that passes, so long from now.
    pub(super) fn shows(&self, time: Duration) -> Option<Instant> {
        match self.counted {
            Counted::Wall => Instant::now().checked_add(time),
            _ => self.zero.checked_add(time),
        }
    }

    /// The real instant to look whether it shows `next`, when it shows `now`.
    pub(super) fn look_at(&self, kernel: &Kernel, now: Instant, next: Instant) -> Option<Instant> {
        let at_once = match &self.counted {
            Counted::Wall => return Some(next),
            Counted::User(group) | Counted::Process(group) => {
                let threads = kernel.threads(group.upgrade()?.tgid()).len();
                u32::try_from(threads).unwrap_or(MOST_AT_ONCE).clamp(1, MOST_AT_ONCE)
            }
            Counted::Thread(_) => 1,
        };
        let left = next.saturating_duration_since(now) / at_once;
        Instant::now().checked_add(left.max(PATIENCE))
    }
}

fn usage(kernel: &Kernel, group: &Weak<ThreadGroup>) -> Option<(Duration, Duration)> {
    let group: Arc<ThreadGroup> = group.upgrade()?;
    let task = kernel.threads(group.tgid()).into_iter().next()?;
    // The id may be another process's by now.
    Arc::ptr_eq(task.group(), &group).then(|| task.mm().space().cpu_time())
}

fn total((user, system): (Duration, Duration)) -> Duration {
    user.saturating_add(system)
}
