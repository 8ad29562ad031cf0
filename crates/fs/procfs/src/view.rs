//! The kernel's tasks as a source for `/proc`.
//!
//! What concerns open files and mounts is asked of [`FileView`], because descriptor tables are opaque to
//! the kernel; arguments, environment and auxiliary vector are read from the guest's initial stack, as
//! claims. Times and counts the kernel does not keep are zero.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use abi::Errno;
use abi::signal::{SigSet, Signal};
use cred::Credentials;
use guestmem::{MemExt, UserAddr, UserCStr, UserMem, UserPtr};
use kernel::{Kernel, PidNamespace, Task, ThreadGroup};
use mm::MemoryManager;
use vfs::Result;

use crate::source::{Facts, FdFacts, LinkFacts, Process, Processes, State, SystemFacts, Which};

/// Most strings of one kind that are shown, and most bytes of them.
const MAX_STRINGS: usize = 4096;
const MAX_BYTES: usize = 1 << 20;
/// `SIG_IGN` as a handler.
const IGNORED: u64 = 1;

thread_local! {
    static CURRENT: Cell<Option<(i32, i32)>> = const { Cell::new(None) };
}

/// Runs `call` as the system call of a task, which `/proc/self` then means.
pub fn with_current<T>(task: &Task, call: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(Some((task.tgid(), task.tid())));
    let result = call();
    CURRENT.set(before);
    result
}

/// What of a task's files `/proc` shows; implemented where descriptor tables are known.
pub trait FileView: Send + Sync {
    /// Where a link leads; `ENOENT`.
    fn link(&self, task: &Task, which: Which) -> Result<LinkFacts>;
    /// Open descriptors, ascending.
    fn fds(&self, task: &Task) -> Result<Vec<i32>>;
    /// One open file; `ENOENT`.
    fn fd(&self, task: &Task, fd: i32) -> Result<FdFacts>;
    /// `mounts`.
    fn mounts(&self, task: &Task) -> Result<Vec<u8>>;
    /// `mountinfo`.
    fn mountinfo(&self, task: &Task) -> Result<Vec<u8>>;
    /// `umask(2)` of the task.
    fn umask(&self, task: &Task) -> u32;
}

/// What the kernel does not know of its machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Start of the sandbox in seconds since the epoch.
    pub boot_time: i64,
    /// Host name.
    pub hostname: Vec<u8>,
}

/// The kernel as the process table of a `/proc`: as it is seen from one pid namespace.
pub struct KernelView {
    kernel: Arc<Kernel>,
    pid_ns: Arc<PidNamespace>,
    files: Arc<dyn FileView>,
    machine: Machine,
}

impl KernelView {
    /// A view of `kernel` from `pid_ns`.
    pub fn new(
        kernel: Arc<Kernel>,
        pid_ns: Arc<PidNamespace>,
        files: Arc<dyn FileView>,
        machine: Machine,
    ) -> Self {
        Self { kernel, pid_ns, files, machine }
    }
}

impl Processes for KernelView {
    fn current(&self) -> Option<(i32, i32)> {
        let (pid, tid) = CURRENT.get()?;
        let pid = self.pid_ns.number(pid);
        (pid != 0).then(|| (pid, self.pid_ns.number(tid)))
    }

    fn pids(&self) -> Vec<i32> {
        let mut pids = self.kernel.processes();
        if !self.pid_ns.is_first() {
            pids = pids.into_iter().map(|id| self.pid_ns.number(id)).filter(|pid| *pid != 0).collect();
            pids.sort_unstable();
        }
        pids
    }

    fn process(&self, pid: i32) -> Option<Arc<dyn Process>> {
        let pid = self.pid_ns.id(pid)?;
        let group = match self.kernel.process(pid) {
            Some(group) => group,
            None => Arc::clone(self.kernel.task(pid)?.group()),
        };
        let task =
            self.kernel.task(group.tgid()).or_else(|| self.kernel.threads(group.tgid()).into_iter().next());
        let (kernel, files) = (Arc::clone(&self.kernel), Arc::clone(&self.files));
        let pid_ns = Arc::clone(&self.pid_ns);
        Some(Arc::new(View { kernel, pid_ns, files, group, task }))
    }

    fn system(&self) -> SystemFacts {
        let pids = self.pids();
        SystemFacts {
            uptime: self.kernel.started().elapsed(),
            boot_time: self.machine.boot_time,
            cpus: self.machine.cpus,
            memory: self.machine.memory,
            memory_free: self.machine.memory / 2,
            running: 1,
            tasks: u32::try_from(self.kernel.live_tasks()).unwrap_or_default(),
            last_pid: pids.last().copied().unwrap_or_default(),
            forks: pids.len() as u64,
            hostname: self.machine.hostname.clone(),
            domainname: b"(none)".to_vec(),
        }
    }
}

/// One process or thread.
struct View {
    kernel: Arc<Kernel>,
    pid_ns: Arc<PidNamespace>,
    files: Arc<dyn FileView>,
    group: Arc<ThreadGroup>,
    /// The thread, or the leader; `None` once it has ended.
    task: Option<Arc<Task>>,
}

impl View {
    fn task(&self) -> Result<&Arc<Task>> {
        self.task.as_ref().filter(|_| self.group.ended().is_none()).ok_or(Errno::ESRCH)
    }

    fn state(&self) -> State {
        if self.group.ended().is_some() {
            State::Zombie
        } else if self.group.stopped().is_some() {
            State::Stopped
        } else if CURRENT.get().is_some_and(|(_, tid)| self.task.as_ref().is_some_and(|t| t.tid() == tid)) {
            State::Running
        } else {
            State::Sleeping
        }
    }

    /// Kernel-wide ids as the namespaces call them that the process is in, from below the one shown to its own.
    fn inner(&self, ids: [i32; 4]) -> Vec<[i32; 4]> {
        let mut rows = Vec::new();
        let mut at = Some(self.group.pid_ns());
        while let Some(namespace) = at.filter(|at| at.level() > self.pid_ns.level()) {
            rows.push(ids.map(|id| namespace.number(id)));
            at = namespace.parent();
        }
        rows.reverse();
        rows
    }

    fn stack(&self) -> Result<InitialStack> {
        let task = self.task()?;
        let sp = task.mm().stack_start();
        let mem = task.mm();
        InitialStack::read(&*mem, UserAddr(sp))
    }

    fn strings(&self, of: impl FnOnce(&InitialStack) -> &[u64]) -> Result<Vec<u8>> {
        if self.group.ended().is_some() {
            return Ok(Vec::new());
        }
        let stack = self.stack()?;
        let mem = self.task()?.mm();
        let mut out = Vec::new();
        for addr in of(&stack) {
            let left = MAX_BYTES - out.len();
            let Ok(string) = mem.load_cstr(UserCStr(UserAddr(*addr)), left) else { break };
            out.extend_from_slice(&string);
            out.push(0);
            if out.len() >= MAX_BYTES {
                break;
            }
        }
        Ok(out)
    }
}

/// What the loader put on the stack: pointers to strings, and the auxiliary vector.
#[derive(Default)]
struct InitialStack {
    argv: Vec<u64>,
    envp: Vec<u64>,
    auxv: Vec<u8>,
}

impl InitialStack {
    fn read<M: UserMem + ?Sized>(mem: &M, sp: UserAddr) -> Result<Self> {
        let mut at = sp;
        let mut word = || -> Result<u64> {
            let value = mem.load(UserPtr::<u64>::new(at))?;
            at = at.checked_add(8).ok_or(Errno::EFAULT)?;
            Ok(value)
        };
        let mut stack = Self::default();
        word()?;
        for list in [&mut stack.argv, &mut stack.envp] {
            loop {
                match word()? {
                    0 => break,
                    _ if list.len() >= MAX_STRINGS => return Err(Errno::E2BIG),
                    addr => list.push(addr),
                }
            }
        }
        // Pairs up to `AT_NULL`; there are some thirty kinds.
        for _ in 0..64 {
            let (kind, value) = (word()?, word()?);
            stack.auxv.extend_from_slice(&kind.to_ne_bytes());
            stack.auxv.extend_from_slice(&value.to_ne_bytes());
            if kind == 0 {
                break;
            }
        }
        Ok(stack)
    }
}

impl Process for View {
    fn facts(&self) -> Result<Facts> {
        let pid = self.group.tgid();
        let task = self.task.as_ref();
        let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
        for signal in Signal::all() {
            match task.and_then(|task| task.sigaction(signal, None).ok()).map(|action| action.handler) {
                None | Some(0) => {}
                Some(IGNORED) => ignored.insert(signal),
                Some(_) => caught.insert(signal),
            }
        }
        let ids = [
            pid,
            task.map_or(pid, |task| task.tid()),
            self.kernel.pgrp_of(pid).unwrap_or_default(),
            self.kernel.session_of(pid).unwrap_or_default(),
        ];
        let [shown, tid, group, session] = ids.map(|id| self.pid_ns.number(id));
        Ok(Facts {
            pid: shown,
            tid,
            ppid: self.pid_ns.number(self.kernel.parent_of(pid)),
            group,
            session,
            inner: self.inner(ids),
            terminal: 0,
            foreground: -1,
            tracer: 0,
            state: self.state(),
            name: task.map(|task| task.name()).unwrap_or_default(),
            cred: task.map_or_else(|| Arc::new(Credentials::user(0, 0)), |task| task.cred()),
            threads: u32::try_from(self.threads().len()).unwrap_or(u32::MAX),
            user_time: Duration::ZERO,
            system_time: Duration::ZERO,
            children_time: (Duration::ZERO, Duration::ZERO),
            start: Duration::ZERO,
            nice: task.map_or(0, |task| task.settings().scheduling.nice),
            pending: task.map(|task| task.pending()).unwrap_or_default(),
            shared_pending: SigSet::EMPTY,
            blocked: task.map(|task| task.mask()).unwrap_or_default(),
            ignored,
            caught,
            umask: task.map_or(0, |task| self.files.umask(task)),
            fd_size: 64,
            seccomp: task.map_or(0, |task| task.seccomp_mode() as u32),
            exit_signal: i32::from(Signal::SIGCHLD.number()),
            limits: self.group.limits(),
            oom_score_adj: self.group.oom_score_adj(),
        })
    }

    fn mm(&self) -> Option<Arc<MemoryManager>> {
        self.task().ok().map(|task| task.mm())
    }

    fn threads(&self) -> Vec<i32> {
        let threads = self.kernel.threads(self.group.tgid());
        let mut numbers: Vec<i32> = threads.iter().map(|task| self.pid_ns.number(task.tid())).collect();
        numbers.sort_unstable();
        numbers
    }

    fn thread(&self, tid: i32) -> Option<Arc<dyn Process>> {
        let task = self.kernel.task(self.pid_ns.id(tid)?).filter(|task| task.tgid() == self.group.tgid())?;
        let (kernel, files) = (Arc::clone(&self.kernel), Arc::clone(&self.files));
        let pid_ns = Arc::clone(&self.pid_ns);
        Some(Arc::new(Self { kernel, pid_ns, files, group: Arc::clone(&self.group), task: Some(task) }))
    }

    fn cmdline(&self) -> Result<Vec<u8>> {
        self.strings(|stack| &stack.argv)
    }

    fn environ(&self) -> Result<Vec<u8>> {
        self.strings(|stack| &stack.envp)
    }

    fn auxv(&self) -> Result<Vec<u8>> {
        Ok(self.stack()?.auxv)
    }

    fn link(&self, which: Which) -> Result<LinkFacts> {
        self.files.link(self.task()?, which)
    }

    fn fds(&self) -> Result<Vec<i32>> {
        self.files.fds(self.task()?)
    }

    fn fd(&self, fd: i32) -> Result<FdFacts> {
        self.files.fd(self.task()?, fd)
    }

    fn mounts(&self) -> Result<Vec<u8>> {
        self.files.mounts(self.task()?)
    }

    fn mountinfo(&self) -> Result<Vec<u8>> {
        self.files.mountinfo(self.task()?)
    }

    fn is(&self, id: i32) -> bool {
        self.group.tgid() == id
    }

    fn set_oom_score_adj(&self, value: i32) -> Result<()> {
        self.group.set_oom_score_adj(value);
        Ok(())
    }

    fn set_name(&self, name: &[u8]) -> Result<()> {
        self.task()?.set_name(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestmem::Fault;

    /// Words from address 0x1000 on.
    struct Words(Vec<u64>);

    impl UserMem for Words {
        fn read(&self, addr: UserAddr, buf: &mut [u8]) -> core::result::Result<(), Fault> {
            let at = addr.0.checked_sub(0x1000).ok_or(Fault { copied: 0 })? as usize / 8;
            let word = self.0.get(at).ok_or(Fault { copied: 0 })?;
            buf.copy_from_slice(&word.to_ne_bytes());
            Ok(())
        }

        fn write(&self, _addr: UserAddr, _buf: &[u8]) -> core::result::Result<(), Fault> {
            Err(Fault { copied: 0 })
        }

        fn compare_exchange_u32(&self, _: UserAddr, _: u32, _: u32) -> core::result::Result<u32, Fault> {
            Err(Fault { copied: 0 })
        }
    }

    #[test]
    fn the_initial_stack_is_read_as_claims() {
        let good = Words(vec![2, 10, 11, 0, 20, 0, 6, 4096, 0, 0]);
        let stack = InitialStack::read(&good, UserAddr(0x1000)).unwrap_or_default();
        assert_eq!((stack.argv, stack.envp, stack.auxv.len()), (vec![10, 11], vec![20], 32));
        let endless = Words(vec![1; 9000]);
        assert_eq!(InitialStack::read(&endless, UserAddr(0x1000)).err(), Some(Errno::E2BIG));
        let short = Words(vec![1, 10, 0]);
        assert_eq!(InitialStack::read(&short, UserAddr(0x1000)).err(), Some(Errno::EFAULT));
    }
}
