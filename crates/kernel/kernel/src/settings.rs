//! What a task only keeps for its own calls to set and read: scheduling, priorities, personality.
//!
//! The Sentry has no say in the host's scheduling, so policies and priorities are remembered, inherited
//! and reported, and have no other effect.

use crate::task::Task;

/// Most processors an affinity mask can name.
pub const MAX_CPUS: usize = 1024;

/// A set of processors (`cpu_set_t`), a bit each.
pub type CpuMask = [u64; MAX_CPUS / 64];

/// How a task wants to be scheduled (`sched(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u32,
    /// Real-time priority, 0 for the policies that have none.
    pub priority: u32,
    /// Children start with the default policy (`SCHED_RESET_ON_FORK`).
    pub reset_on_fork: bool,
    /// `-20..=19`.
    pub nice: i32,
}

impl Scheduling {
    /// What a child starts with.
    fn inherited(self) -> Self {
        match self.reset_on_fork {
            true => Self { nice: self.nice.max(0), ..Self::default() },
            false => self,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How it wants to be scheduled.
    pub scheduling: Scheduling,
    /// Processors it may run on; `None` for all.
    pub affinity: Option<Box<CpuMask>>,
    /// Nanoseconds (`PR_SET_TIMERSLACK`).
    pub timer_slack: u64,
    /// What the slack goes back to.
    pub default_slack: u64,
    /// `ioprio_set(2)`.
    pub io_priority: u16,
    /// `personality(2)`.
    pub personality: u32,
}

impl Default for Settings {
    fn default() -> Self {
        /// What Linux gives to the first process.
        const SLACK: u64 = 50_000;
        Self {
            scheduling: Scheduling::default(),
            affinity: None,
            timer_slack: SLACK,
            default_slack: SLACK,
            io_priority: 0,
            personality: 0,
        }
    }
}

impl Settings {
    /// What a child starts with.
    pub(crate) fn inherited(&self) -> Self {
        Self { scheduling: self.scheduling.inherited(), default_slack: self.timer_slack, ..self.clone() }
    }
}

impl Task {
    /// Its settings.
    pub fn settings(&self) -> Settings {
        self.holdings.lock().settings.clone()
    }

    /// Changes them. `change` must be short: a lock is held.
    pub fn change_settings<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        change(&mut self.holdings.lock().settings)
    }
}

#[cfg(test)]
mod tests {
    use super::{Scheduling, Settings};

    #[test]
    fn a_child_inherits_unless_told_to_start_afresh() {
        let own = Scheduling { policy: 1, priority: 5, reset_on_fork: false, nice: -3 };
        assert_eq!(own.inherited(), own);
        let fresh = Scheduling { reset_on_fork: true, ..own };
        assert_eq!(fresh.inherited(), Scheduling::default());
        let settings = Settings { timer_slack: 7, ..Settings::default() };
        assert_eq!(settings.inherited().default_slack, 7);
    }
}
