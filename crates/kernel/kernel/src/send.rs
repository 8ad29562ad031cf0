//! Signals on their way out: permission, the queues, waking; masks and actions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use abi::limits::Resource;
use abi::poll::PollEvents;
use abi::process::WaitStatus;
use abi::signal::{SI_TKILL, SI_USER, SigAction, SigInfo, SigSet, Signal};
use abi::{Errno, Restart, SysResult};
use cred::{CapSet, Credentials};
use signal::action::STOPS;

use crate::group::ThreadGroup;
use crate::kernel::Kernel;
use crate::task::{BlockError, Task};

impl Kernel {
    /// Is `signal` without effect on the first process of a pid namespace, which has not asked for it? From outside
    /// (no pid there) only those reach it that no process can refuse (`pid_namespaces(7)`).
    pub(crate) fn shields(&self, group: &ThreadGroup, signal: Signal, info: &SigInfo) -> bool {
        // Faults have a positive code, and the kernel's own are SI_KERNEL.
        info.code <= 0
            && signal != Signal::SIGSYS
            && group.is_init()
            && (info.pid() != 0 || !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP))
    }

    /// Sends to a process.
    pub fn send_to_group(
        &self,
        group: &Arc<ThreadGroup>,
        signal: Signal,
        info: SigInfo,
    ) -> Result<(), Errno> {
        if group.ended().is_some() {
            return Ok(());
        }
        let members = self.table.lock().members(group.tgid());
        self.prepare(group, &members, signal);
        if signal == Signal::SIGKILL {
            if !self.shields(group, signal, &info) {
                self.end_group(group, WaitStatus::Signaled(signal, false));
            }
            return Ok(());
        }
        let ignored = group.actions().lock().ignores(signal);
        if ignored && !members.iter().any(|task| task.blocks(signal)) {
            return Ok(());
        }
        let limit = group.limit(Resource::PendingSignals).cur;
        if group.queue.lock().push(signal, info, limit)? {
            group.signal_events.notify(PollEvents::IN);
            if let Some(task) = members.iter().find(|task| task.wants(signal)) {
                task.interrupt();
            }
        }
        Ok(())
    }

    /// Sends to one thread.
    pub fn send_to_task(&self, task: &Arc<Task>, signal: Signal, info: SigInfo) -> Result<(), Errno> {
        let group = task.group();
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            return self.send_to_group(group, signal, info);
        }
        let members = self.table.lock().members(group.tgid());
        self.prepare(group, &members, signal);
        if group.actions().lock().ignores(signal) && !task.blocks(signal) {
            return Ok(());
        }
        let limit = group.limit(Resource::PendingSignals).cur;
        let pushed = task.signals.lock().queue.push(signal, info, limit)?;
        if pushed {
            group.signal_events.notify(PollEvents::IN);
            if task.wants(signal) {
                task.interrupt();
            }
        }
        Ok(())
    }

    /// What sending does whatever becomes of the signal: stops and continuations cancel each other.
    fn prepare(&self, group: &Arc<ThreadGroup>, members: &[Arc<Task>], signal: Signal) {
        let cancelled = match signal {
            Signal::SIGCONT => STOPS,
            _ if STOPS.contains(signal) => SigSet::of(Signal::SIGCONT),
            _ => return,
        };
        group.queue.lock().discard(cancelled);
        for task in members {
            task.signals.lock().queue.discard(cancelled);
        }
        if signal == Signal::SIGCONT {
            self.continue_group(group, members);
        }
    }

    /// `kill(2)` with all its meanings of `pid`, which is a kernel-wide id; signal 0 only checks.
    pub fn kill(&self, sender: &Task, pid: i32, signal: Option<Signal>) -> Result<(), Errno> {
        let targets = self.kill_targets(sender, pid)?;
        let cred = sender.cred();
        let broadcast = pid <= 0;
        let (mut done, mut refused) = (false, false);
        for group in targets {
            if !self.may_signal(sender, &cred, &group, signal) {
                refused = true;
                continue;
            }
            done = true;
            if let Some(signal) = signal {
                let pid = group.pid_ns().number(sender.tgid());
                let info = SigInfo::from_sender(signal, SI_USER, pid, cred.uid);
                let sent = self.send_to_group(&group, signal, info);
                if !broadcast {
                    sent?;
                }
            }
        }
        match (done, refused) {
            (true, _) => Ok(()),
            (false, true) => Err(Errno::EPERM),
            (false, false) => Err(Errno::ESRCH),
        }
    }

    fn kill_targets(&self, sender: &Task, pid: i32) -> Result<Vec<Arc<ThreadGroup>>, Errno> {
        let namespace = sender.group().pid_ns();
        let table = self.table.lock();
        Ok(match pid {
            1.. => {
                let node = table.groups.get(&pid).ok_or(Errno::ESRCH)?;
                vec![Arc::clone(&node.group)]
            }
            0 => {
                let own = table.groups.get(&sender.tgid()).ok_or(Errno::ESRCH)?.pgrp;
                table.in_pgrp(own)
            }
            -1 => table
                .groups
                .values()
                .map(|node| &node.group)
                .filter(|group| {
                    let known = namespace.number(group.tgid()) != 0;
                    known && group.tgid() != namespace.init() && group.tgid() != sender.tgid()
                })
                .cloned()
                .collect(),
            _ => table.in_pgrp(pid.checked_neg().ok_or(Errno::ESRCH)?),
        })
    }

    /// May `sender` send it (`kill(2)`, "the real or effective user ID...")?
    pub fn may_signal(
        &self,
        sender: &Task,
        cred: &Credentials,
        target: &Arc<ThreadGroup>,
        signal: Option<Signal>,
    ) -> bool {
        if sender.tgid() == target.tgid() || cred.capable(CapSet::KILL) {
            return true;
        }
        let table = self.table.lock();
        let session = |tgid: i32| table.groups.get(&tgid).map(|node| node.session);
        if signal == Some(Signal::SIGCONT) && session(sender.tgid()) == session(target.tgid()) {
            return true;
        }
        let their = table.members(target.tgid()).first().map(|task| task.cred());
        match their {
            Some(their) => [their.uid, their.suid].iter().any(|id| *id == cred.euid || *id == cred.uid),
            None => table.groups.get(&target.tgid()).is_some_and(|node| node.uid == cred.uid),
        }
    }

    /// `tgkill(2)`, and `tkill(2)` with `tgid` `None`.
    pub fn tgkill(
        &self,
        sender: &Task,
        tgid: Option<i32>,
        tid: i32,
        signal: Option<Signal>,
    ) -> Result<(), Errno> {
        let task = self.task_in(tgid, tid)?;
        let cred = sender.cred();
        if !self.may_signal(sender, &cred, task.group(), signal) {
            return Err(Errno::EPERM);
        }
        let Some(signal) = signal else { return Ok(()) };
        let pid = task.group().pid_ns().number(sender.tgid());
        self.send_to_task(&task, signal, SigInfo::from_sender(signal, SI_TKILL, pid, cred.uid))
    }

    /// `rt_sigqueueinfo(2)` and, with `tgid`, `rt_tgsigqueueinfo(2)`. `EPERM` when the record claims to
    /// come from the kernel or from `kill` and goes to another process.
    pub fn sigqueue(
        &self,
        sender: &Task,
        tgid: Option<i32>,
        id: i32,
        signal: Option<Signal>,
        info: SigInfo,
    ) -> Result<(), Errno> {
        let task = tgid.map(|tgid| self.task_in(Some(tgid), id)).transpose()?;
        let group = match &task {
            Some(task) => Arc::clone(task.group()),
            None => self.process(id).ok_or(Errno::ESRCH)?,
        };
        if (info.code >= 0 || info.code == SI_TKILL) && group.tgid() != sender.tgid() {
            return Err(Errno::EPERM);
        }
        if !self.may_signal(sender, &sender.cred(), &group, signal) {
            return Err(Errno::EPERM);
        }
        let Some(signal) = signal else { return Ok(()) };
        let mut info = SigInfo { signo: i32::from(signal.number()), ..info };
        if group.pid_ns().number(sender.tgid()) == 0 {
            // Nobody there knows the sender.
            info.put(0, &0i32.to_le_bytes());
        }
        match task {
            Some(task) => self.send_to_task(&task, signal, info),
            None => self.send_to_group(&group, signal, info),
        }
    }

    fn task_in(&self, tgid: Option<i32>, tid: i32) -> Result<Arc<Task>, Errno> {
        if tid <= 0 || tgid.is_some_and(|tgid| tgid <= 0) {
            return Err(Errno::EINVAL);
        }
        let task = self.task(tid).ok_or(Errno::ESRCH)?;
        if tgid.is_some_and(|tgid| tgid != task.tgid()) { Err(Errno::ESRCH) } else { Ok(task) }
    }
}

impl Task {
    /// Does it block `signal`?
    pub(crate) fn blocks(&self, signal: Signal) -> bool {
        self.signals.lock().mask.contains(signal)
    }

    /// Would it do something with `signal` now?
    pub(crate) fn wants(&self, signal: Signal) -> bool {
        if self.exited.load(Ordering::SeqCst) {
            return false;
        }
        let signals = self.signals.lock();
        !signals.mask.contains(signal) || signals.awaited.contains(signal)
    }

    /// A fault's signal: reaches the task even when it blocks or ignores it (the default action then).
    pub fn force_signal(self: &Arc<Self>, signal: Signal, info: SigInfo) {
        let blocked = self.blocks(signal);
        let actions = self.group().actions();
        {
            let mut actions = actions.lock();
            if blocked || actions.ignores(signal) {
                actions.set(signal, SigAction::default());
            }
        }
        let mut signals = self.signals.lock();
        signals.mask.remove(signal);
        // A standard signal always finds room.
        let _ = signals.queue.push(signal, info, u64::MAX);
    }

    /// Sends a signal of the kernel's to the task itself (`SIGPIPE`, `SIGXFSZ`).
    pub fn signal_self(self: &Arc<Self>, signal: Signal) {
        let info = SigInfo::from_sender(signal, SI_USER, self.tgid(), self.cred().uid);
        let _ = self.kernel().send_to_task(self, signal, info);
    }

    /// The mask.
    pub fn mask(&self) -> SigSet {
        self.signals.lock().mask
    }

    /// Sets the mask (`rt_sigprocmask(2)`); what it unblocks is delivered when the call returns.
    pub fn set_mask(&self, mask: SigSet) {
        self.change_mask(|signals| signals.mask = mask.difference(SigSet::UNBLOCKABLE));
    }

    /// Sets a mask for the duration of one call (`pselect(2)`, `ppoll(2)`, `sigsuspend(2)`).
    pub fn set_temporary_mask(&self, mask: SigSet) {
        self.change_mask(|signals| {
            let old = signals.mask;
            signals.saved_mask.get_or_insert(old);
            signals.mask = mask.difference(SigSet::UNBLOCKABLE);
        });
        if self.has_work() {
            self.parker().interrupt();
        }
    }

    /// Takes back a temporary mask (the call succeeded, no handler is to run).
    pub fn clear_temporary_mask(&self) {
        self.restore_mask();
    }

    /// Blocked and pending (`rt_sigpending(2)`).
    pub fn pending(&self) -> SigSet {
        let (own, mask) = {
            let signals = self.signals.lock();
            (signals.queue.pending(), signals.mask)
        };
        own.union(self.group().queue.lock().pending()).intersection(mask)
    }

    /// Pending, blocked or not (what a `signalfd(2)` polls).
    pub fn all_pending(&self) -> SigSet {
        let own = self.signals.lock().queue.pending();
        own.union(self.group().queue.lock().pending())
    }

    /// `rt_sigaction(2)`. `EINVAL` for a change of `SIGKILL` or `SIGSTOP`.
    pub fn sigaction(&self, signal: Signal, new: Option<SigAction>) -> Result<SigAction, Errno> {
        let actions = self.group().actions();
        let Some(new) = new else { return Ok(actions.lock().get(signal)) };
        if SigSet::UNBLOCKABLE.contains(signal) {
            return Err(Errno::EINVAL);
        }
        let (old, ignored) = {
            let mut actions = actions.lock();
            (actions.set(signal, new), actions.ignores(signal))
        };
        if ignored {
            // Ignoring discards what is pending, blocked or not (POSIX.1, sigaction).
            self.group().queue.lock().discard(SigSet::of(signal));
            for task in self.kernel().table.lock().members(self.tgid()) {
                task.signals.lock().queue.discard(SigSet::of(signal));
            }
        }
        Ok(old)
    }

    /// `rt_sigsuspend(2)`: always ends by a signal.
    pub fn sigsuspend(&self, mask: SigSet) -> SysResult<u64> {
        self.set_temporary_mask(mask);
        while !self.has_work() {
            if self.block(None) == Err(BlockError::Interrupted) {
                break;
            }
        }
        Err(Restart::NoHandler.into())
    }

    /// `pause(2)`.
    pub fn pause(&self) -> SysResult<u64> {
        while self.block(None) != Err(BlockError::Interrupted) {}
        Err(Restart::NoHandler.into())
    }

    /// Takes a pending signal of `set`, blocked or not (`signalfd(2)`).
    pub fn dequeue(&self, set: SigSet) -> Option<(Signal, SigInfo)> {
        let own = self.signals.lock().queue.take(set);
        own.or_else(|| self.group().queue.lock().take(set))
    }

    /// `rt_sigtimedwait(2)`: `EAGAIN` at the deadline, `EINTR` by another signal.
    pub fn sigtimedwait(&self, set: SigSet, deadline: Option<Instant>) -> Result<(Signal, SigInfo), Errno> {
        let set = set.difference(SigSet::UNBLOCKABLE);
        self.signals.lock().awaited = set;
        let found = loop {
            if let Some(found) = self.dequeue(set) {
                break Ok(found);
            }
            if self.has_work() {
                break Err(Errno::EINTR);
            }
            match self.block(deadline) {
                Ok(()) => {}
                Err(BlockError::TimedOut) => break Err(Errno::EAGAIN),
                // May be one of ours: look again.
                Err(BlockError::Interrupted) => self.parker().clear_interrupt(),
            }
        };
        self.signals.lock().awaited = SigSet::EMPTY;
        found
    }
}
