//! [`ThreadGroup`]: a process, as its threads share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use abi::limits::{Limits, Resource, Rlimit};
use abi::process::WaitStatus;
use abi::signal::Signal;
use signal::{Actions, SignalQueue};
use sync::wait::WaitQueue;
use sync::{Mutex, order};

use crate::pidns::PidNamespace;
use crate::slots::Terminal;
use crate::timers::Timers;

/// Actions, shared by tasks cloned with `CLONE_SIGHAND`.
pub(crate) type SharedActions = Arc<Mutex<order::SignalHandlers, Actions>>;

/// A process. Its place in the tree is in the kernel's table.
pub struct ThreadGroup {
    tgid: i32,
    pid_ns: Arc<PidNamespace>,
    /// Its number there.
    number: i32,
    actions: Mutex<order::Leaf, SharedActions>,
    pub(crate) queue: Mutex<order::TaskSignals, SignalQueue>,
    limits: Mutex<order::Leaf, Limits>,
    pub(crate) life: Mutex<order::Leaf, Life>,
    /// `life.ending` is set; read at every trap.
    pub(crate) ending: AtomicBool,
    /// Woken when a child ends, stops or goes on.
    pub(crate) child_events: WaitQueue,
    /// Woken when a signal arrives (`signalfd`).
    pub(crate) signal_events: WaitQueue,
    /// Woken when the process has ended (`pidfd`) or a thread has left it.
    pub(crate) end_events: WaitQueue,
    pub(crate) timers: Mutex<order::Leaf, Timers>,
    terminal: Mutex<order::Leaf, Option<Arc<dyn Terminal>>>,
    /// `PR_SET_DUMPABLE`.
    dumpable: AtomicBool,
    oom_score_adj: AtomicI32,
    /// Not `PR_SET_THP_DISABLE`.
    huge_pages: AtomicBool,
}

/// Ending and stopping.
#[derive(Default)]
pub(crate) struct Life {
    /// How the whole process is ending.
    pub(crate) ending: Option<WaitStatus>,
    /// What was given to `exit(2)` last: the process's status, when no thread ends it whole.
    pub(crate) last_code: i32,
    /// It is over.
    pub(crate) ended: Option<WaitStatus>,
    /// Stopped by this signal.
    pub(crate) stopped: Option<Signal>,
    /// A thread is executing a program: the others must end.
    pub(crate) exec_by: Option<i32>,
}

impl ThreadGroup {
    /// A process that is in no table yet.
    pub(crate) fn new(tgid: i32, pid_ns: Arc<PidNamespace>, actions: Actions, limits: Limits) -> Arc<Self> {
        Self::with_actions(tgid, pid_ns, Arc::new(Mutex::new(actions)), limits)
    }

    /// As [`new`](Self::new). It has entered `pid_ns` already.
    pub(crate) fn with_actions(
        tgid: i32,
        pid_ns: Arc<PidNamespace>,
        actions: SharedActions,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Self {
            number: pid_ns.number(tgid),
            pid_ns,
            tgid,
            actions: Mutex::new(actions),
            queue: Mutex::default(),
            limits: Mutex::new(limits),
            life: Mutex::default(),
            ending: AtomicBool::new(false),
            child_events: WaitQueue::new(),
            signal_events: WaitQueue::new(),
            end_events: WaitQueue::new(),
            timers: Mutex::default(),
            terminal: Mutex::new(None),
            dumpable: AtomicBool::new(true),
            oom_score_adj: AtomicI32::new(0),
            huge_pages: AtomicBool::new(true),
        })
    }

    /// Its id.
    pub fn tgid(&self) -> i32 {
        self.tgid
    }

    /// Its pid namespace, for life.
    pub fn pid_ns(&self) -> &Arc<PidNamespace> {
        &self.pid_ns
    }

    /// Its id as it knows it itself (`getpid(2)`).
    pub fn number(&self) -> i32 {
        self.number
    }

    /// Is it the first process of its pid namespace?
    pub fn is_init(&self) -> bool {
        self.pid_ns.init() == self.tgid
    }

    /// The actions' lock, as shared with `CLONE_SIGHAND`.
    pub(crate) fn actions(&self) -> SharedActions {
        Arc::clone(&self.actions.lock())
    }

    /// Gives the group actions of its own (`exec`).
    pub(crate) fn unshare_actions(&self, own: Actions) {
        let old = std::mem::replace(&mut *self.actions.lock(), Arc::new(Mutex::new(own)));
        drop(old);
    }

    /// One limit.
    pub fn limit(&self, resource: Resource) -> Rlimit {
        self.limits.lock().of(resource)
    }

    /// All limits.
    pub fn limits(&self) -> Limits {
        self.limits.lock().clone()
    }

    /// Sets one limit and returns the old one. `EINVAL` when soft is above hard, `EPERM` when the hard
    /// limit would rise and `may_raise` is false.
    pub fn set_limit(&self, resource: Resource, new: Rlimit, may_raise: bool) -> Result<Rlimit, abi::Errno> {
        if new.cur > new.max {
            return Err(abi::Errno::EINVAL);
        }
        let mut limits = self.limits.lock();
        let old = limits.of(resource);
        if new.max > old.max && !may_raise {
            return Err(abi::Errno::EPERM);
        }
        limits.set(resource, new);
        Ok(old)
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> Option<WaitStatus> {
        self.life.lock().ended
    }

    /// Is it on its way out?
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// The signal that stopped it, while stopped.
    pub fn stopped(&self) -> Option<Signal> {
        self.life.lock().stopped
    }

    /// Woken when the process has ended (what a pidfd polls).
    pub fn end_events(&self) -> &WaitQueue {
        &self.end_events
    }

    /// Woken when a child changes state.
    pub fn child_events(&self) -> &WaitQueue {
        &self.child_events
    }

    /// Woken when a signal becomes pending (what a signalfd polls).
    pub fn signal_events(&self) -> &WaitQueue {
        &self.signal_events
    }

    /// May it be traced and dumped by its user (`PR_GET_DUMPABLE`)?
    pub fn is_dumpable(&self) -> bool {
        self.dumpable.load(Ordering::Relaxed)
    }

    /// `PR_SET_DUMPABLE`; also when its ids change, and at an exec.
    pub fn set_dumpable(&self, dumpable: bool) {
        self.dumpable.store(dumpable, Ordering::Relaxed);
    }

    /// How much rather it is to be killed than others when memory runs out, -1000 to 1000
    /// (`/proc/PID/oom_score_adj`). Only kept: the host chooses among sandboxes.
    pub fn oom_score_adj(&self) -> i32 {
        self.oom_score_adj.load(Ordering::Relaxed)
    }

    /// Changes it.
    pub fn set_oom_score_adj(&self, value: i32) {
        self.oom_score_adj.store(value, Ordering::Relaxed);
    }

    /// Does it want huge pages (not `PR_GET_THP_DISABLE`)?
    pub fn huge_pages(&self) -> bool {
        self.huge_pages.load(Ordering::Relaxed)
    }

    /// `PR_SET_THP_DISABLE`: kept, inherited, and without effect on the host's pages.
    pub fn set_huge_pages(&self, wants: bool) {
        self.huge_pages.store(wants, Ordering::Relaxed);
    }

    /// The controlling terminal.
    pub fn terminal(&self) -> Option<Arc<dyn Terminal>> {
        self.terminal.lock().clone()
    }

    /// Sets or drops the controlling terminal.
    pub fn set_terminal(&self, terminal: Option<Arc<dyn Terminal>>) {
        let old = std::mem::replace(&mut *self.terminal.lock(), terminal);
        drop(old);
    }
}
