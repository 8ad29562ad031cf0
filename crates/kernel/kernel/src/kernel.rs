//! [`Kernel`]: one sandbox's kernel, put together from parts it is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Instant;

use abi::limits::Limits;
use abi::process::WaitStatus;
use abi::{Errno, SysResult};
use cred::Credentials;
use ktime::TimerQueue;
use mm::MemoryManager;
use obs::Counter;
use platform::{GuestThread, NewThread, Platform, Registers, SyscallTrap};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::VfsPath;

use crate::group::ThreadGroup;
use crate::pidns::PidNamespace;
use crate::settings::Settings;
use crate::slots::{FileTable, FsView};
use crate::table::Table;
use crate::task::{Task, TaskSeed};
use crate::uts::Uts;

static STARTED: Counter = Counter::new("tasks.started", "Threads of guests that were started");

/// What answers system calls; implemented by `syscalls`.
pub trait SyscallTable: Send + Sync {
    /// Carries out one call of `task`, whose guest side is `thread`.
    fn dispatch(&self, task: &Arc<Task>, thread: &mut dyn GuestThread, call: SyscallTrap) -> SysResult<u64>;
}

/// What a kernel is made of.
pub struct Parts {
    /// The backend.
    pub platform: Arc<dyn Platform>,
    /// The system calls.
    pub syscalls: Arc<dyn SyscallTable>,
    /// Most tasks at once (the container's pids limit); at most 32768.
    pub max_tasks: usize,
}

/// The first process of a container.
pub struct FirstProcess {
    /// Its memory, loaded.
    pub mm: Arc<MemoryManager>,
    /// Its registers at the entry.
    pub registers: Registers,
    /// Descriptors.
    pub fds: Arc<dyn FileTable>,
    /// Root and working directory.
    pub fs: Arc<dyn FsView>,
    /// Credentials.
    pub cred: Arc<Credentials>,
    /// Limits.
    pub limits: Limits,
    /// Short name (`comm`).
    pub name: Vec<u8>,
    /// Where its program is.
    pub exe: Option<VfsPath>,
    /// The pid namespace it is in: its first process when that has none, else it joins (`exec` of the runtime).
    pub pid_ns: Arc<PidNamespace>,
}

/// Most tasks there can be.
const MAX_TASKS: usize = 32_768;

/// The kernel of a sandbox.
pub struct Kernel {
    platform: Arc<dyn Platform>,
    syscalls: Arc<dyn SyscallTable>,
    started: Instant,
    max_tasks: AtomicUsize,
    pid_ns: Arc<PidNamespace>,
    pub(crate) table: Mutex<order::Tasks, Table>,
    /// Woken with every process that ends and has no parent to tell.
    pub(crate) ended: WaitQueue,
    live: AtomicI32,
    pub(crate) timers: Arc<TimerQueue>,
    futexes: futex::Futexes,
    uts: Uts,
    ipc: ipc::Namespace,
}

impl Kernel {
    /// A kernel without processes.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            platform: parts.platform,
            syscalls: parts.syscalls,
            started: Instant::now(),
            max_tasks: AtomicUsize::new(parts.max_tasks.clamp(1, MAX_TASKS)),
            pid_ns: PidNamespace::first(),
            table: Mutex::new(Table::default()),
            ended: WaitQueue::new(),
            live: AtomicI32::new(0),
            timers: TimerQueue::new(),
            futexes: futex::Futexes::default(),
            uts: Uts::default(),
            ipc: ipc::Namespace::default(),
        })
    }

    /// The first pid namespace.
    pub fn pid_ns(&self) -> &Arc<PidNamespace> {
        &self.pid_ns
    }

    /// Host and domain name.
    pub fn uts(&self) -> &Uts {
        &self.uts
    }

    /// System V semaphores, message queues and shared memory.
    pub fn ipc(&self) -> &ipc::Namespace {
        &self.ipc
    }

    /// The backend.
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    /// The system calls.
    pub fn syscalls(&self) -> &Arc<dyn SyscallTable> {
        &self.syscalls
    }

    /// The timer thread, for timerfd.
    pub fn timers(&self) -> &Arc<TimerQueue> {
        &self.timers
    }

    /// Futexes the host does not answer.
    pub fn futexes(&self) -> &futex::Futexes {
        &self.futexes
    }

    /// When the sandbox was made: zero of its `CLOCK_BOOTTIME`.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Changes how many tasks there may be. Those that live stay, even when they are more.
    pub fn limit_tasks(&self, tasks: usize) {
        self.max_tasks.store(tasks.clamp(1, MAX_TASKS), Ordering::Relaxed);
    }

    pub(crate) fn max_tasks(&self) -> usize {
        self.max_tasks.load(Ordering::Relaxed)
    }

    /// Tasks alive.
    pub fn live_tasks(&self) -> i32 {
        self.live.load(Ordering::SeqCst)
    }

    pub(crate) fn count_live(&self, change: i32) {
        if change > 0 {
            STARTED.increment();
        }
        self.live.fetch_add(change, Ordering::SeqCst);
    }

    /// Notified when a process without a parent has ended; then ask [`Kernel::reap_orphan`].
    pub fn ended(&self) -> &WaitQueue {
        &self.ended
    }

    /// Starts a process that no guest process is the parent of. Returns its group; its end shows in
    /// [`ThreadGroup::ended`] and is taken with [`reap_orphan`](Self::reap_orphan).
    ///
    /// `ready` is called with the task while it is in the table and does not run yet: to give it a
    /// controlling terminal, say.
    pub fn start_process(
        self: &Arc<Self>,
        first: FirstProcess,
        ready: impl FnOnce(&Arc<Task>),
    ) -> Result<Arc<ThreadGroup>, Errno> {
        let namespace = first.pid_ns;
        let tid = self.table.lock().allocate_in(self.max_tasks(), &namespace)?;
        let group = ThreadGroup::new(tid, Arc::clone(&namespace), signal::Actions::default(), first.limits);
        let seed = TaskSeed {
            mm: Arc::clone(&first.mm),
            fds: first.fds,
            fs: first.fs,
            cred: first.cred,
            name: first.name,
            exe: first.exe,
            settings: Settings::default(),
        };
        let task = Task::new(self, &group, tid, seed);
        {
            let mut table = self.table.lock();
            if namespace.init() == 0 {
                namespace.set_init(tid);
            }
            table.add_process(&group, &task, 0, tid, tid, None);
        }
        self.count_live(1);
        group.watch_processor_time(self);
        ready(&task);
        let thread =
            NewThread { registers: first.registers, fp_state: None, handler: task.clone(), clear_tid: 0 };
        if let Err(error) = self.platform.spawn(first.mm.space(), thread) {
            self.table.lock().forget(tid);
            self.count_live(-1);
            return Err(error.into());
        }
        Ok(group)
    }

    /// Takes the status of an ended process that has no guest parent, and forgets it.
    pub fn reap_orphan(&self, tgid: i32) -> Option<WaitStatus> {
        let mut table = self.table.lock();
        let status = table.groups.get(&tgid).filter(|node| node.parent == 0)?.zombie?;
        table.forget(tgid);
        Some(status)
    }

    /// The task with this id.
    pub fn task(&self, tid: i32) -> Option<Arc<Task>> {
        self.table.lock().tasks.get(&tid).cloned()
    }

    /// The process with this id, ended or not, as long as nobody has waited for it.
    pub fn process(&self, tgid: i32) -> Option<Arc<ThreadGroup>> {
        self.table.lock().groups.get(&tgid).map(|node| Arc::clone(&node.group))
    }

    /// Ids of all processes, in order (`/proc`).
    pub fn processes(&self) -> Vec<i32> {
        self.table.lock().groups.keys().copied().collect()
    }

    /// Living threads of a process, by id (`/proc/PID/task`).
    pub fn threads(&self, tgid: i32) -> Vec<Arc<Task>> {
        let mut threads = self.table.lock().members(tgid);
        threads.sort_by_key(|task| task.tid());
        threads
    }
}
