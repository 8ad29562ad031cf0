//! `execve(2)`, after the loader has made the new memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::poll::PollEvents;
use abi::signal::SigAltStack;
use abi::{Errno, SysResult};
use mm::MemoryManager;
use obs::Counter;
use platform::{GuestThread, Registers};
use vfs::VfsPath;

use crate::task::{BlockError, Task};

/// A loaded program.
pub struct NewProgram {
    /// Its memory, over a fresh address space.
    pub mm: Arc<MemoryManager>,
    /// Entry and stack.
    pub registers: Registers,
    /// Short name: the last component of the path.
    pub name: Vec<u8>,
    /// Where the program is (`/proc/PID/exe`).
    pub exe: Option<VfsPath>,
}

static EXECUTED: Counter = Counter::new("programs.executed", "Programs that processes became");

impl Task {
    /// Becomes `program`: ends the other threads, moves into the new memory, closes close-on-exec
    /// descriptors, resets handlers. Set-id bits are not honoured: credentials stay, but ambient rules
    /// for capabilities are the caller's.
    ///
    /// Errors only before anything changed, except that a failure of the backend kills the process.
    pub fn exec(self: &Arc<Self>, thread: &mut dyn GuestThread, program: NewProgram) -> SysResult<u64> {
        self.end_other_threads()?;
        if thread.exec_into(Arc::clone(program.mm.space())).is_err()
            || thread.set_registers(&program.registers).is_err()
            || thread.reset_fp_state().is_err()
        {
            let status = abi::process::WaitStatus::Signaled(abi::signal::Signal::SIGKILL, false);
            self.kernel().end_group(self.group(), status);
            return Ok(0);
        }
        self.registers_replaced();
        self.set_name(&program.name);
        self.group().set_dumpable(true);
        let (old_mm, old_exe, vfork, fds) = {
            let mut holdings = self.holdings.lock();
            holdings.clear_tid = 0;
            holdings.robust_list = 0;
            let old = std::mem::replace(&mut holdings.mm, program.mm);
            let old_exe = std::mem::replace(&mut holdings.exe, program.exe);
            (old, old_exe, holdings.vfork.take(), holdings.fds.clone())
        };
        drop((old_mm, old_exe));
        let group = self.group();
        let mut actions = group.actions().lock().clone();
        actions.reset_handlers();
        group.unshare_actions(actions);
        let timers = group.timers.lock().at_exec();
        drop(timers);
        self.signals.lock().stack = SigAltStack::default();
        if let Some(node) = self.kernel().table.lock().groups.get_mut(&self.tgid()) {
            node.executed = true;
        }
        // A descriptor table shared with another process is not touched by this one's exec.
        if let Some(fds) = fds {
            let own = if Arc::strong_count(&fds) > 2 { fds.fork() } else { fds };
            own.close_on_exec(self.tgid());
            self.set_fds(own);
        }
        if let Some(parent) = vfork {
            parent.notify();
        }
        EXECUTED.increment();
        Ok(0)
    }

    /// Ends all other threads and takes the leader's id. `EAGAIN` when another thread is at it.
    fn end_other_threads(self: &Arc<Self>) -> Result<(), Errno> {
        let (group, kernel) = (Arc::clone(self.group()), Arc::clone(self.kernel()));
        {
            let mut life = group.life.lock();
            if life.exec_by.is_some() || life.ending.is_some() {
                return Err(Errno::EAGAIN);
            }
            life.exec_by = Some(self.tid());
        }
        let others = kernel.table.lock().members(self.tgid());
        for task in others.iter().filter(|task| !Arc::ptr_eq(task, self)) {
            task.doomed.store(true, Ordering::SeqCst);
            task.interrupt();
        }
        drop(others);
        let done = self.wait_alone();
        group.life.lock().exec_by = None;
        done?;
        let mut table = kernel.table.lock();
        let (tid, tgid) = (self.tid(), self.tgid());
        if tid != tgid {
            table.tasks.remove(&tid);
            table.release(tid);
            table.tasks.insert(tgid, Arc::clone(self));
            if let Some(node) = table.groups.get_mut(&tgid) {
                node.members = vec![tgid];
            }
            self.set_tid(tgid);
        }
        Ok(())
    }

    /// Waits until it is the only thread; only a kill interrupts.
    fn wait_alone(&self) -> Result<(), Errno> {
        let group = self.group();
        loop {
            let alone = || {
                let table = self.kernel().table.lock();
                table.groups.get(&self.tgid()).is_none_or(|node| node.members.len() <= 1).then_some(())
            };
            match self.wait_for(&group.end_events, PollEvents::OUT, None, alone) {
                Ok(()) => return Ok(()),
                Err(BlockError::Interrupted) if !self.must_exit() => self.parker().clear_interrupt(),
                Err(_) => return Err(Errno::EINTR),
            }
        }
    }
}
