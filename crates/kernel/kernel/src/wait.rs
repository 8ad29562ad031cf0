//! Waiting for children (`wait4(2)`, `waitid(2)`).

use std::sync::Arc;
use std::time::Duration;

use abi::poll::PollEvents;
use abi::process::{Rusage, WaitOptions, WaitStatus};
use abi::signal::Signal;
use abi::time::Timeval;
use abi::{Errno, SysError, SysResult};

use crate::table::{Node, Table};
use crate::task::Task;

/// Which children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitTarget {
    /// Any.
    Any,
    /// This process.
    Process(i32),
    /// Of this process group.
    Group(i32),
}

/// A child that changed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Its id, as the caller knows it: here, because it may be nobody's by now.
    pub pid: i32,
    /// Its real user id.
    pub uid: u32,
    /// How.
    pub status: WaitStatus,
    /// What it used: processor time and peak memory; zero while it lives.
    pub usage: Rusage,
}

impl Task {
    /// Waits for a child. `options` says which changes count: [`EXITED`](WaitOptions::EXITED) must be
    /// set for `wait4`. `Ok(None)`: nothing yet, with `NOHANG`. `ECHILD` when no child can ever match.
    pub fn wait(self: &Arc<Self>, target: WaitTarget, options: WaitOptions) -> SysResult<Option<Waited>> {
        let group = Arc::clone(self.group());
        let look = || match self.look_for_child(target, options) {
            Ok(None) => None,
            other => Some(other),
        };
        if options.contains(WaitOptions::NOHANG) {
            return look().unwrap_or(Ok(None)).map_err(SysError::from);
        }
        let found = self.wait_for(&group.child_events, PollEvents::IN, None, look)?;
        found.map_err(SysError::from)
    }

    fn look_for_child(&self, target: WaitTarget, options: WaitOptions) -> Result<Option<Waited>, Errno> {
        let mut table = self.kernel().table.lock();
        let own = table.groups.get(&self.tgid()).ok_or(Errno::ECHILD)?;
        let fits = |node: &Node| {
            let clone = node.exit_signal != Some(Signal::SIGCHLD);
            let kind = options.contains(WaitOptions::ALL) || clone == options.contains(WaitOptions::CLONE);
            kind && match target {
                WaitTarget::Any => true,
                WaitTarget::Process(pid) => node.group.tgid() == pid,
                WaitTarget::Group(pgrp) => node.pgrp == pgrp,
            }
        };
        let candidates: Vec<i32> =
            own.children.iter().copied().filter(|id| table.groups.get(id).is_some_and(fits)).collect();
        if candidates.is_empty() {
            return Err(Errno::ECHILD);
        }
        let keep = options.contains(WaitOptions::NOWAIT);
        let caller = self.group().pid_ns();
        let changed = |id| {
            let number = caller.number(id);
            take_change(&mut table, id, options, keep).map(|found| Waited { pid: number, ..found })
        };
        Ok(candidates.into_iter().find_map(changed))
    }
}

/// The change of `id` that `options` asks for; taken unless `keep`.
fn take_change(table: &mut Table, id: i32, options: WaitOptions, keep: bool) -> Option<Waited> {
    let node = table.groups.get_mut(&id)?;
    let usage = node.usage;
    let waited = |status, uid| Waited { pid: id, uid, status, usage };
    if let Some(status) = node.zombie {
        if !options.contains(WaitOptions::EXITED) {
            return None;
        }
        let found = waited(status, node.uid);
        if !keep {
            let (parent, all) = (node.parent, add(node.usage, node.children_usage));
            if let Some(parent) = table.groups.get_mut(&parent) {
                parent.children_usage = add(parent.children_usage, all);
            }
            table.forget(id);
        }
        return Some(found);
    }
    let status = node.report.filter(|status| match status {
        WaitStatus::Stopped(_) => options.contains(WaitOptions::UNTRACED),
        WaitStatus::Continued => options.contains(WaitOptions::CONTINUED),
        _ => false,
    })?;
    if !keep {
        node.report = None;
    }
    Some(waited(status, node.uid))
}

fn add(a: Rusage, b: Rusage) -> Rusage {
    let sum = |a: Timeval, b: Timeval| {
        let usec = a.usec + b.usec;
        Timeval { sec: a.sec.saturating_add(b.sec) + usec / 1_000_000, usec: usec % 1_000_000 }
    };
    Rusage {
        utime: sum(a.utime, b.utime),
        stime: sum(a.stime, b.stime),
        maxrss: a.maxrss.max(b.maxrss),
        ..Rusage::default()
    }
}

impl Task {
    /// What the process has used so far (`getrusage(RUSAGE_SELF)`).
    pub fn process_usage(&self) -> Rusage {
        let mm = self.mm();
        let (user, system) = mm.space().cpu_time();
        let maxrss = i64::try_from(mm.space().memory_use().peak_resident / 1024).unwrap_or(i64::MAX);
        Rusage { utime: user.into(), stime: system.into(), maxrss, ..Rusage::default() }
    }

    /// What this thread has used (`getrusage(RUSAGE_THREAD)`).
    pub fn thread_usage(&self) -> Rusage {
        let (user, system) = self.times();
        Rusage { utime: user.into(), stime: system.into(), ..Rusage::default() }
    }

    /// User and system time of this thread.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        self.handle().map(|handle| handle.cpu_time()).unwrap_or_default()
    }

    /// What the children used that were waited for (`getrusage(RUSAGE_CHILDREN)`).
    pub fn children_usage(&self) -> Rusage {
        let table = self.kernel().table.lock();
        table.groups.get(&self.tgid()).map(|node| node.children_usage).unwrap_or_default()
    }
}
