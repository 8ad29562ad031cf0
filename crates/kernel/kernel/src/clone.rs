//! New tasks (`clone(2)`, `clone3(2)`, `fork(2)`, `vfork(2)`).

use std::sync::Arc;

use abi::limits::Resource;
use abi::poll::PollEvents;
use abi::process::CloneFlags;
use abi::signal::Signal;
use abi::{Errno, SysResult};
use cred::CapSet;
use guestmem::{MemExt, UserAddr, UserPtr};
use mm::MemoryManager;
use platform::{GuestThread, NewThread, PlatformError, Registers};
use sync::wait::{Parker, Wake};

use crate::group::ThreadGroup;
use crate::kernel::Kernel;
use crate::pidns::PidNamespace;
use crate::task::{Task, TaskSeed};

/// What the caller asked for, parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneRequest {
    /// What is shared.
    pub flags: CloneFlags,
    /// Signal at the end; zero for none.
    pub exit_signal: u64,
    /// Initial stack pointer; zero for the caller's.
    pub stack: u64,
    /// Where the id goes in the parent (`CLONE_PARENT_SETTID`).
    pub parent_tid: u64,
    /// Where the id goes in the child, and what is cleared (`CLONE_CHILD_SETTID`, `_CLEARTID`).
    pub child_tid: u64,
    /// Thread-local storage (`CLONE_SETTLS`).
    pub tls: u64,
}

impl CloneRequest {
    /// `fork(2)`.
    pub fn fork() -> Self {
        Self { exit_signal: u64::from(Signal::SIGCHLD.number()), ..Self::default() }
    }

    /// `vfork(2)`.
    pub fn vfork() -> Self {
        Self { flags: CloneFlags::VM.union(CloneFlags::VFORK), ..Self::fork() }
    }

    fn check(&self) -> Result<(), Errno> {
        let f = self.flags;
        let need = |has: CloneFlags, wants: CloneFlags| !f.contains(has) || f.contains(wants);
        if !need(CloneFlags::SIGHAND, CloneFlags::VM)
            || !need(CloneFlags::THREAD, CloneFlags::SIGHAND)
            || f.contains(CloneFlags::NEWNS | CloneFlags::FS)
            || f.contains(CloneFlags::CLEAR_SIGHAND | CloneFlags::SIGHAND)
            || self.exit_signal > u64::from(Signal::MAX)
        {
            return Err(Errno::EINVAL);
        }
        // Others than these are not made yet: as a kernel built without them says.
        let made = CloneFlags::NEWPID.union(CloneFlags::NEWNS);
        if f.intersects(CloneFlags::NAMESPACES.difference(made)) { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

impl Task {
    /// Makes a task. Returns its id in the parent; with `CLONE_VFORK` only after the child has executed
    /// a program or ended.
    pub fn clone_task(
        self: &Arc<Self>,
        thread: &mut dyn GuestThread,
        request: &CloneRequest,
    ) -> SysResult<i32> {
        self.clone_task_with(thread, request, |_| Ok(()))
    }

    /// As [`clone_task`](Self::clone_task); `made` is told of the child's process before the child runs,
    /// with a descriptor table of its own already (`CLONE_PIDFD`). Its error undoes the child.
    pub fn clone_task_with(
        self: &Arc<Self>,
        thread: &mut dyn GuestThread,
        request: &CloneRequest,
        made: impl FnOnce(&Arc<ThreadGroup>) -> Result<(), Errno>,
    ) -> SysResult<i32> {
        request.check()?;
        let kernel = Arc::clone(self.kernel());
        let child = self.make_child(&kernel, request)?;
        let tid = self.group().pid_ns().number(child.tid());
        if let Err(errno) = made(child.group()) {
            kernel.remove_unstarted(&child);
            return Err(errno.into());
        }
        let vfork = request.flags.contains(CloneFlags::VFORK).then(Parker::new);
        child.holdings.lock().vfork = vfork.clone();
        if request.flags.contains(CloneFlags::PARENT_SETTID) {
            // As Linux: a fault here is ignored.
            let _ = self.mm().store(UserPtr::new(UserAddr(request.parent_tid)), &tid);
        }
        let started = match self.child_registers(thread, request) {
            Ok(registers) => self.start_child(thread, request, &child, registers),
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            kernel.remove_unstarted(&child);
            return Err(Errno::from(error).into());
        }
        if let Some(done) = vfork {
            self.wait_for_vfork(&done);
        }
        Ok(tid)
    }

    /// The child's kernel side, in the table.
    fn make_child(
        self: &Arc<Self>,
        kernel: &Arc<Kernel>,
        request: &CloneRequest,
    ) -> Result<Arc<Self>, Errno> {
        let flags = request.flags;
        let cred = self.cred();
        let privileged = cred.capable(CapSet::SYS_RESOURCE) || cred.capable(CapSet::SYS_ADMIN);
        let limit = self.group().limit(Resource::Processes).cur;
        if !privileged && cred.uid != 0 && kernel.live_tasks() as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
        let namespace = self.pid_ns_of_child(flags)?;
        let (fds, fs) = (self.fds()?, self.fs()?);
        let fs = match (flags.contains(CloneFlags::NEWNS), flags.contains(CloneFlags::FS)) {
            (true, _) => fs.fork_apart(),
            (false, true) => fs,
            (false, false) => fs.fork(),
        };
        let seed = TaskSeed {
            mm: self.mm(),
            fds: if flags.contains(CloneFlags::FILES) { fds } else { fds.fork() },
            fs,
            cred,
            name: self.name(),
            exe: self.exe(),
            settings: self.settings().inherited(),
        };
        let group_actions = self.child_actions(flags);
        let mut table = kernel.table.lock();
        // A process that is ending makes no more tasks.
        if self.must_exit() {
            return Err(Errno::EAGAIN);
        }
        let own = table.groups.get(&self.tgid()).ok_or(Errno::EAGAIN)?;
        let (pgrp, session, own_parent) = (own.pgrp, own.session, own.parent);
        let own_signal = own.exit_signal;
        let tid = table.allocate_in(kernel.max_tasks(), &namespace)?;
        let child = if flags.contains(CloneFlags::THREAD) {
            let child = Self::new(kernel, self.group(), tid, seed);
            table.tasks.insert(tid, Arc::clone(&child));
            if let Some(node) = table.groups.get_mut(&self.tgid()) {
                node.members.push(tid);
            }
            child
        } else {
            let group =
                ThreadGroup::with_actions(tid, Arc::clone(&namespace), group_actions, self.group().limits());
            if namespace.init() == 0 {
                namespace.set_init(tid);
            }
            group.set_terminal(self.group().terminal());
            group.set_dumpable(self.group().is_dumpable());
            group.set_oom_score_adj(self.group().oom_score_adj());
            group.set_huge_pages(self.group().huge_pages());
            let child = Self::new(kernel, &group, tid, seed);
            let (parent, signal) = if flags.contains(CloneFlags::PARENT) {
                (own_parent, own_signal)
            } else {
                (self.tgid(), Signal::new(request.exit_signal as i32))
            };
            table.add_process(&group, &child, parent, pgrp, session, signal);
            child
        };
        child.seccomp.copy_from(&self.seccomp);
        drop(table);
        kernel.count_live(1);
        self.inherit_signals(&child, flags);
        if !flags.contains(CloneFlags::THREAD) {
            child.group().watch_processor_time(kernel);
        }
        Ok(child)
    }

    /// Where a child goes. `EPERM` without the capability, `EINVAL` for a thread of another namespace than its
    /// process's, and for a sibling of a first process.
    fn pid_ns_of_child(&self, flags: CloneFlags) -> Result<Arc<PidNamespace>, Errno> {
        let namespace = self.children_pid_ns();
        let elsewhere = !Arc::ptr_eq(&namespace, self.group().pid_ns());
        let new = flags.contains(CloneFlags::NEWPID);
        if (flags.contains(CloneFlags::THREAD) && (new || elsewhere))
            || (flags.contains(CloneFlags::PARENT) && self.group().is_init())
        {
            return Err(Errno::EINVAL);
        }
        if flags.intersects(CloneFlags::NAMESPACES) && !self.cred().capable(CapSet::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        match new {
            // As Linux: what was unshared and not entered yet is in the way.
            true if elsewhere => Err(Errno::EINVAL),
            true => PidNamespace::below(&namespace),
            false => Ok(namespace),
        }
    }

    fn child_actions(&self, flags: CloneFlags) -> crate::group::SharedActions {
        let actions = self.group().actions();
        if flags.contains(CloneFlags::SIGHAND) {
            return actions;
        }
        let mut own = actions.lock().clone();
        if flags.contains(CloneFlags::CLEAR_SIGHAND) {
            own.reset_handlers();
        }
        Arc::new(sync::Mutex::new(own))
    }

    /// The mask is inherited, pending signals are not; the alternate stack only without shared memory.
    fn inherit_signals(&self, child: &Self, flags: CloneFlags) {
        let (mask, stack) = {
            let own = self.signals.lock();
            (own.saved_mask.unwrap_or(own.mask), own.stack)
        };
        let mut signals = child.signals.lock();
        signals.mask = mask;
        if !flags.contains(CloneFlags::VM) || flags.contains(CloneFlags::VFORK) {
            signals.stack = stack;
        }
    }

    fn child_registers(
        &self,
        thread: &mut dyn GuestThread,
        request: &CloneRequest,
    ) -> Result<Registers, PlatformError> {
        let mut registers = thread.registers()?;
        registers.rax = 0;
        registers.orig_rax = u64::MAX;
        if request.stack != 0 {
            registers.rsp = request.stack;
        }
        if request.flags.contains(CloneFlags::SETTLS) {
            registers.fs_base = request.tls;
        }
        Ok(registers)
    }

    fn start_child(
        self: &Arc<Self>,
        thread: &mut dyn GuestThread,
        request: &CloneRequest,
        child: &Arc<Self>,
        registers: Registers,
    ) -> Result<(), PlatformError> {
        let flags = request.flags;
        let shares = flags.contains(CloneFlags::VM);
        let clears = flags.contains(CloneFlags::CHILD_CLEARTID) && shares;
        let clear_tid = if clears { request.child_tid } else { 0 };
        // Whoever has the waiters clears the word.
        let ours = !self.kernel().platform().features().native_futex;
        let (ours, clear_tid) = if ours { (clear_tid, 0) } else { (0, clear_tid) };
        child.holdings.lock().clear_tid = ours;
        let new = NewThread { registers, fp_state: None, handler: child.clone(), clear_tid };
        // The word is written before the child can run. Without shared memory it travels in the copy,
        // and the parent gets its own back: nothing of the parent's that it names runs meanwhile.
        let at = UserPtr::<i32>::new(UserAddr(request.child_tid));
        let sets = flags.contains(CloneFlags::CHILD_SETTID);
        let mem = self.mm();
        let old = if sets { mem.load(at).ok() } else { None };
        if sets {
            let _ = mem.store(at, &child.number());
        }
        let started = if flags.contains(CloneFlags::THREAD) {
            thread.clone_thread(new).map(|handle| child.adopt(handle))
        } else if shares {
            thread.clone_shared(new).map(|handle| child.adopt(handle))
        } else {
            self.mm()
                .fork(|mm: &Arc<MemoryManager>| {
                    // Before it can trap.
                    let shared = std::mem::replace(&mut child.holdings.lock().mm, Arc::clone(mm));
                    drop(shared);
                    let (space, handle) = thread.fork(new)?;
                    child.adopt(handle);
                    Ok::<_, PlatformError>(space)
                })
                .map(drop)
        };
        if let Some(old) = old
            && (!shares || started.is_err())
        {
            let _ = mem.store(at, &old);
        }
        started
    }

    fn adopt(&self, handle: Arc<dyn platform::ThreadHandle>) {
        self.keep_handle(handle);
        if self.must_exit() {
            self.interrupt();
        }
    }

    /// Only a kill ends it early; other signals wait.
    fn wait_for_vfork(&self, done: &Arc<Parker>) {
        // The child tells `done`, a kill of ours tells our own parker: so sleep in slices.
        let slice = std::time::Duration::from_millis(50);
        loop {
            if done.park(sync::wait::deadline_after(slice)) == Wake::Notified || self.must_exit() {
                return;
            }
        }
    }
}

impl Kernel {
    /// Takes a child that never ran out of the table.
    fn remove_unstarted(&self, child: &Arc<Task>) {
        use std::sync::atomic::Ordering;
        child.exited.store(true, Ordering::SeqCst);
        let parent = {
            let mut table = self.table.lock();
            let (tid, tgid) = (child.tid(), child.tgid());
            if tid == tgid {
                let parent = table.groups.get(&tgid).map(|node| node.parent);
                table.forget(tgid);
                parent.and_then(|parent| table.groups.get(&parent)).map(|node| Arc::clone(&node.group))
            } else {
                table.tasks.remove(&tid);
                table.release(tid);
                if let Some(node) = table.groups.get_mut(&tgid) {
                    node.members.retain(|member| *member != tid);
                }
                None
            }
        };
        // Whoever cloned may have ended meanwhile, and another wait for its children by now: for none, maybe.
        if let Some(parent) = parent {
            parent.child_events.notify(PollEvents::IN);
        }
        self.count_live(-1);
        let mut holdings = child.holdings.lock();
        let (fds, fs) = (holdings.fds.take(), holdings.fs.take());
        drop(holdings);
        drop((fds, fs));
    }
}
