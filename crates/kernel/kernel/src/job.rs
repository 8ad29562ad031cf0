//! Job control: stop and continue, process groups and sessions (`setpgid(2)`, `setsid(2)`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use abi::poll::PollEvents;
use abi::process::WaitStatus;
use abi::signal::{SI_KERNEL, SigInfo, Signal};
use signal::action::SA_NOCLDSTOP;

use crate::group::ThreadGroup;
use crate::kernel::Kernel;
use crate::task::Task;

impl Kernel {
    /// Begins the end of a whole process; the first reason counts.
    pub fn end_group(&self, group: &Arc<ThreadGroup>, status: WaitStatus) {
        {
            let mut life = group.life.lock();
            life.ending.get_or_insert(status);
            life.stopped = None;
        }
        group.ending.store(true, Ordering::SeqCst);
        let members = self.table.lock().members(group.tgid());
        for task in members {
            task.interrupt();
        }
    }

    /// Stops a process. Its parent hears of it at once, not when the last thread has stopped.
    pub(crate) fn stop_group(&self, group: &Arc<ThreadGroup>, signal: Signal) {
        {
            let mut life = group.life.lock();
            if life.ending.is_some() || life.stopped.is_some() {
                return;
            }
            life.stopped = Some(signal);
        }
        self.report(group, WaitStatus::Stopped(signal));
        let members = self.table.lock().members(group.tgid());
        for task in members {
            task.interrupt();
        }
    }

    /// Lets a stopped process go on.
    pub(crate) fn continue_group(&self, group: &Arc<ThreadGroup>, members: &[Arc<Task>]) {
        if group.life.lock().stopped.take().is_none() {
            return;
        }
        self.report(group, WaitStatus::Continued);
        for task in members {
            task.parker().notify();
        }
    }

    /// Tells the parent of a stop or continuation.
    fn report(&self, group: &Arc<ThreadGroup>, status: WaitStatus) {
        let (parent, uid) = {
            let mut table = self.table.lock();
            let uid = table.members(group.tgid()).first().map_or(0, |task| task.cred().uid);
            let Some(node) = table.groups.get_mut(&group.tgid()) else { return };
            node.report = Some(status);
            node.uid = uid;
            let parent = node.parent;
            (table.groups.get(&parent).map(|node| Arc::clone(&node.group)), uid)
        };
        let Some(parent) = parent else { return };
        let quiet = parent.actions().lock().get(Signal::SIGCHLD).flags & SA_NOCLDSTOP != 0;
        if !quiet {
            let (code, value) = status.child_code();
            let pid = parent.pid_ns().number(group.tgid());
            let info = SigInfo::child(code, pid, uid, value, 0, 0);
            let _ = self.send_to_group(&parent, Signal::SIGCHLD, info);
        }
        parent.child_events.notify(PollEvents::IN);
    }

    /// Is the process's group orphaned?
    pub(crate) fn in_orphaned_group(&self, tgid: i32) -> bool {
        let table = self.table.lock();
        table.groups.get(&tgid).is_none_or(|node| table.is_orphaned(node.pgrp))
    }

    /// Sends a signal of the kernel's to a process group (a terminal's `SIGINT`, `SIGHUP`...).
    pub fn signal_pgrp(&self, pgrp: i32, signal: Signal) {
        let targets = self.table.lock().in_pgrp(pgrp);
        for group in targets {
            let _ = self.send_to_group(&group, signal, SigInfo::new(signal, SI_KERNEL));
        }
    }

    /// Process group of a process (`getpgid(2)`).
    pub fn pgrp_of(&self, tgid: i32) -> Option<i32> {
        self.table.lock().groups.get(&tgid).map(|node| node.pgrp)
    }

    /// Session of a process (`getsid(2)`).
    pub fn session_of(&self, tgid: i32) -> Option<i32> {
        self.table.lock().groups.get(&tgid).map(|node| node.session)
    }

    /// Parent of a process (`getppid(2)`): 0 when the kernel started it.
    pub fn parent_of(&self, tgid: i32) -> i32 {
        self.table.lock().groups.get(&tgid).map_or(0, |node| node.parent)
    }

    /// Is the process group orphaned (a background read of the terminal fails then)?
    pub fn is_orphaned(&self, pgrp: i32) -> bool {
        self.table.lock().is_orphaned(pgrp)
    }
}

impl Task {
    /// `setpgid(2)`; zeros mean the caller and its own group.
    pub fn setpgid(&self, pid: i32, pgrp: i32) -> Result<(), Errno> {
        let own = self.tgid();
        let pid = if pid == 0 { own } else { pid };
        let pgrp = if pgrp == 0 { pid } else { pgrp };
        if pgrp < 0 {
            return Err(Errno::EINVAL);
        }
        let mut table = self.kernel().table.lock();
        let session = table.groups.get(&own).ok_or(Errno::ESRCH)?.session;
        let node = table.groups.get(&pid).ok_or(Errno::ESRCH)?;
        if pid != own {
            if node.parent != own {
                return Err(Errno::ESRCH);
            }
            if node.session != session {
                return Err(Errno::EPERM);
            }
            if node.executed {
                return Err(Errno::EACCES);
            }
        }
        if node.session == pid {
            return Err(Errno::EPERM);
        }
        let joins = |n: &crate::table::Node| n.pgrp == pgrp && n.session == session;
        if pgrp != pid && !table.groups.values().any(joins) {
            return Err(Errno::EPERM);
        }
        if let Some(node) = table.groups.get_mut(&pid) {
            let old = std::mem::replace(&mut node.pgrp, pgrp);
            table.release(old);
        }
        Ok(())
    }

    /// `setsid(2)`: `EPERM` for the leader of a process group.
    pub fn setsid(&self) -> Result<i32, Errno> {
        let own = self.tgid();
        {
            let mut table = self.kernel().table.lock();
            if table.groups.values().any(|node| node.pgrp == own) {
                return Err(Errno::EPERM);
            }
            let node = table.groups.get_mut(&own).ok_or(Errno::ESRCH)?;
            let old = [std::mem::replace(&mut node.pgrp, own), std::mem::replace(&mut node.session, own)];
            old.into_iter().for_each(|id| table.release(id));
        }
        self.group().set_terminal(None);
        Ok(own)
    }

    /// `PR_SET_CHILD_SUBREAPER`.
    pub fn set_subreaper(&self, on: bool) {
        if let Some(node) = self.kernel().table.lock().groups.get_mut(&self.tgid()) {
            node.subreaper = on;
        }
    }

    /// `PR_GET_CHILD_SUBREAPER`.
    pub fn is_subreaper(&self) -> bool {
        self.kernel().table.lock().groups.get(&self.tgid()).is_some_and(|node| node.subreaper)
    }
}
