//! Job control between terminals and the process table.
//!
//! `devfs` and `kernel` do not know each other; here the kernel becomes the [`JobControl`] of terminals,
//! and a terminal the [`kernel::Terminal`] of a process.

use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use abi::signal::Signal;
use devfs::job::{Job, JobControl};
use devfs::tty::Tty;
use kernel::{Kernel, Task, Terminal};
use vfs::{FileContext, Result};

/// `SIG_IGN`.
const IGNORED: u64 = 1;

/// The process table, as terminals see it. Terminals are made before the kernel has its file systems, so
/// it is told of the kernel later; until then it knows no process.
#[derive(Default)]
pub(crate) struct Jobs {
    kernel: OnceLock<Weak<Kernel>>,
}

impl Jobs {
    /// Of `kernel`.
    pub(crate) fn new(kernel: &Arc<Kernel>) -> Arc<Self> {
        Arc::new(Self { kernel: OnceLock::from(Arc::downgrade(kernel)) })
    }

    fn kernel(&self) -> Option<Arc<Kernel>> {
        self.kernel.get()?.upgrade()
    }

    fn task(&self, cx: &FileContext<'_>) -> Option<Arc<Task>> {
        self.kernel()?.task(cx.tid)
    }
}

/// The controlling terminal of a session.
struct Controlling {
    tty: Arc<Tty>,
    session: i32,
    kernel: Weak<Kernel>,
}

impl Terminal for Controlling {
    fn disassociate(&self) {
        let foreground = self.tty.foreground();
        self.tty.disassociate(self.session);
        // The end of a session leader hangs the terminal up (credentials(7), setsid(2)).
        if let (Some(group), Some(kernel)) = (foreground, self.kernel.upgrade()) {
            kernel.signal_pgrp(group, Signal::SIGHUP);
            kernel.signal_pgrp(group, Signal::SIGCONT);
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl JobControl for Jobs {
    fn job(&self, cx: &FileContext<'_>) -> Option<Job> {
        let kernel = self.kernel()?;
        let task = self.task(cx)?;
        let (tgid, session) = (task.tgid(), kernel.session_of(task.tgid())?);
        Some(Job {
            session,
            group: kernel.pgrp_of(tgid)?,
            is_leader: session == tgid,
            has_terminal: task.group().terminal().is_some(),
        })
    }

    fn group_in_session(&self, group: i32, session: i32) -> bool {
        let Some(kernel) = self.kernel() else { return false };
        let member =
            |pid: &i32| kernel.pgrp_of(*pid) == Some(group) && kernel.session_of(*pid) == Some(session);
        kernel.processes().iter().any(member)
    }

    fn number(&self, cx: &FileContext<'_>, id: i32) -> i32 {
        self.task(cx).map_or(id, |task| task.group().pid_ns().number(id))
    }

    fn id(&self, cx: &FileContext<'_>, number: i32) -> Option<i32> {
        match self.task(cx) {
            Some(task) => task.group().pid_ns().id(number),
            None => Some(number),
        }
    }

    fn signal_group(&self, group: i32, signal: Signal) {
        if let Some(kernel) = self.kernel() {
            kernel.signal_pgrp(group, signal);
        }
    }

    fn background(&self, cx: &FileContext<'_>, signal: Signal) -> Result<bool> {
        let (Some(kernel), Some(task)) = (self.kernel(), self.task(cx)) else { return Ok(true) };
        let handler = task.sigaction(signal, None)?.handler;
        let passes = handler == IGNORED || task.mask().contains(signal);
        if passes {
            return if signal == Signal::SIGTTIN { Err(Errno::EIO) } else { Ok(true) };
        }
        let group = kernel.pgrp_of(task.tgid()).ok_or(Errno::EIO)?;
        if kernel.is_orphaned(group) {
            return Err(Errno::EIO);
        }
        kernel.signal_pgrp(group, signal);
        Ok(false)
    }

    fn attach(&self, cx: &FileContext<'_>, tty: &Arc<Tty>) -> Result<()> {
        let (Some(kernel), Some(task)) = (self.kernel(), self.task(cx)) else { return Ok(()) };
        let session = kernel.session_of(task.tgid()).ok_or(Errno::ESRCH)?;
        let controlling = Controlling { tty: Arc::clone(tty), session, kernel: Arc::downgrade(&kernel) };
        task.group().set_terminal(Some(Arc::new(controlling)));
        Ok(())
    }

    fn detach(&self, session: i32, foreground: Option<i32>, hangup: bool) {
        let Some(kernel) = self.kernel() else { return };
        for pid in kernel.processes() {
            if kernel.session_of(pid) == Some(session)
                && let Some(group) = kernel.process(pid)
            {
                group.set_terminal(None);
            }
        }
        if !hangup {
            return;
        }
        // The leader first, then the foreground group, unless they are the same.
        let leader_group = kernel.pgrp_of(session);
        for group in
            [leader_group, foreground.filter(|group| Some(*group) != leader_group)].into_iter().flatten()
        {
            kernel.signal_pgrp(group, Signal::SIGHUP);
            kernel.signal_pgrp(group, Signal::SIGCONT);
        }
    }

    fn terminal(&self, cx: &FileContext<'_>) -> Option<Arc<Tty>> {
        let terminal = self.task(cx)?.group().terminal()?;
        let controlling = terminal.as_any().downcast::<Controlling>().ok()?;
        Some(Arc::clone(&controlling.tty))
    }
}
