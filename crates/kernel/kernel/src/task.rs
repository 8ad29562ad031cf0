//! [`Task`]: a guest thread.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use abi::poll::PollEvents;
use abi::signal::{SigAltStack, SigSet};
use abi::{Errno, Restart, SysError};
use cred::Credentials;
use mm::MemoryManager;
use platform::ThreadHandle;
use signal::SignalQueue;
use sync::wait::{Parker, WaitQueue, Wake};
use sync::{Mutex, order};
use vfs::VfsPath;

use crate::group::ThreadGroup;
use crate::kernel::Kernel;
use crate::pidns::PidNamespace;
use crate::seccomp::Seccomp;
use crate::settings::Settings;
use crate::slots::{FileTable, FsView};

/// Who may use a futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Threads with the same memory (`FUTEX_PRIVATE_FLAG`).
    None,
    /// Whoever maps the word.
    Any,
}

/// Why a wait ended without what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The deadline passed.
    #[error("timed out")]
    TimedOut,
    /// A signal wants the task.
    #[error("interrupted")]
    Interrupted,
}

impl From<BlockError> for SysError {
    /// `ETIMEDOUT`, or a restart as most calls want it; others look at the variant.
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::TimedOut => Self::Errno(Errno::ETIMEDOUT),
            BlockError::Interrupted => Self::Restart(Restart::Sys),
        }
    }
}

/// What a new task starts with.
pub(crate) struct TaskSeed {
    pub(crate) mm: Arc<MemoryManager>,
    pub(crate) fds: Arc<dyn FileTable>,
    pub(crate) fs: Arc<dyn FsView>,
    pub(crate) cred: Arc<Credentials>,
    pub(crate) name: Vec<u8>,
    /// The program (`/proc/PID/exe`).
    pub(crate) exe: Option<VfsPath>,
    pub(crate) settings: Settings,
}

/// What a task owns or shares by reference count. Never dropped under the lock.
pub(crate) struct Holdings {
    pub(crate) mm: Arc<MemoryManager>,
    /// `None` once it has ended.
    pub(crate) fds: Option<Arc<dyn FileTable>>,
    pub(crate) fs: Option<Arc<dyn FsView>>,
    pub(crate) cred: Arc<Credentials>,
    pub(crate) name: Vec<u8>,
    /// The program (`/proc/PID/exe`); `None` once it has ended.
    pub(crate) exe: Option<VfsPath>,
    /// Word to clear at the end, when the backend does not know of it (`set_tid_address(2)`).
    pub(crate) clear_tid: u64,
    /// Head of the robust futex list.
    pub(crate) robust_list: u64,
    /// Told when a vforked child executes or ends.
    pub(crate) vfork: Option<Arc<Parker>>,
    /// The pid namespace of its children, when that is not its own.
    pub(crate) children_pid_ns: Option<Arc<PidNamespace>>,
    /// `PR_SET_PDEATHSIG`.
    pub(crate) death_signal: i32,
    pub(crate) settings: Settings,
}

/// A task's own signal state.
#[derive(Default)]
pub(crate) struct Signals {
    pub(crate) queue: SignalQueue,
    pub(crate) mask: SigSet,
    /// The mask to go back to after `sigsuspend`, `pselect` and the like.
    pub(crate) saved_mask: Option<SigSet>,
    /// What `sigtimedwait` waits for: wanted although blocked.
    pub(crate) awaited: SigSet,
    pub(crate) stack: SigAltStack,
    /// Trap number, error code and `CR2` of the last fault, for the next frame.
    pub(crate) fault: Option<(u64, u64, u64)>,
}

/// A guest thread.
pub struct Task {
    pub(crate) me: Weak<Self>,
    kernel: Arc<Kernel>,
    group: Arc<ThreadGroup>,
    tid: AtomicI32,
    /// What the id is in its pid namespace.
    number: AtomicI32,
    parker: Arc<Parker>,
    pub(crate) handle: Mutex<order::Leaf, Option<Arc<dyn ThreadHandle>>>,
    pub(crate) holdings: Mutex<order::Leaf, Holdings>,
    pub(crate) signals: Mutex<order::TaskSignals, Signals>,
    /// In a trap: whoever sends a signal need not interrupt the guest.
    pub(crate) in_trap: AtomicBool,
    /// The call at hand has set all registers (`execve`, `rt_sigreturn`).
    pub(crate) registers_set: AtomicBool,
    pub(crate) exited: AtomicBool,
    /// Must end: another thread executes a program.
    pub(crate) doomed: AtomicBool,
    pub(crate) seccomp: Seccomp,
    /// How to go on with the call that a signal interrupted: see [`Task::set_restart`].
    restart: Mutex<order::Leaf, Option<Box<dyn Any + Send>>>,
}

impl Task {
    /// A task that is in no table yet.
    pub(crate) fn new(kernel: &Arc<Kernel>, group: &Arc<ThreadGroup>, tid: i32, seed: TaskSeed) -> Arc<Self> {
        let holdings = Holdings {
            mm: seed.mm,
            fds: Some(seed.fds),
            fs: Some(seed.fs),
            cred: seed.cred,
            name: seed.name,
            exe: seed.exe,
            clear_tid: 0,
            robust_list: 0,
            vfork: None,
            children_pid_ns: None,
            death_signal: 0,
            settings: seed.settings,
        };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            kernel: Arc::clone(kernel),
            group: Arc::clone(group),
            tid: AtomicI32::new(tid),
            number: AtomicI32::new(group.pid_ns().number(tid)),
            parker: Parker::new(),
            handle: Mutex::default(),
            holdings: Mutex::new(holdings),
            signals: Mutex::default(),
            in_trap: AtomicBool::new(false),
            registers_set: AtomicBool::new(false),
            exited: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            seccomp: Seccomp::default(),
            restart: Mutex::new(None),
        })
    }

    /// The kernel.
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// Its kernel-wide id. Changes only when a thread that is not the leader executes a program.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::SeqCst)
    }

    pub(crate) fn set_tid(&self, tid: i32) {
        self.tid.store(tid, Ordering::SeqCst);
        self.number.store(self.group.pid_ns().number(tid), Ordering::SeqCst);
    }

    /// Its id as it knows it itself (`gettid(2)`): the number in its pid namespace.
    pub fn number(&self) -> i32 {
        self.number.load(Ordering::SeqCst)
    }

    /// Where its children go (`unshare(2)`, `setns(2)`).
    pub fn children_pid_ns(&self) -> Arc<PidNamespace> {
        let other = self.holdings.lock().children_pid_ns.clone();
        other.unwrap_or_else(|| Arc::clone(self.group.pid_ns()))
    }

    /// Sends its children there. Whether it may is the caller's business.
    pub fn set_children_pid_ns(&self, namespace: Arc<PidNamespace>) {
        let old = self.holdings.lock().children_pid_ns.replace(namespace);
        drop(old);
    }

    /// The process's kernel-wide id.
    pub fn tgid(&self) -> i32 {
        self.group.tgid()
    }

    /// Its process.
    pub fn group(&self) -> &Arc<ThreadGroup> {
        &self.group
    }

    /// Its memory; also as bytes (a `UserMem` under which stacks grow).
    pub fn mm(&self) -> Arc<MemoryManager> {
        Arc::clone(&self.holdings.lock().mm)
    }

    /// Names a futex of its memory: one of shared memory by the object, so that others find it, unless they need not.
    /// `EINVAL` unless aligned.
    pub fn futex_key(&self, addr: guestmem::UserAddr, sharing: Sharing) -> Result<futex::Key, Errno> {
        let mm = self.mm();
        if sharing == Sharing::Any
            && let Some(vma) = mm.find(addr).filter(mm::Vma::is_shared)
            && let mm::Source::File { file, offset } = &vma.source
        {
            let memmap::MapIdentity { dev, ino, .. } = file.identity();
            let offset = offset.saturating_add(addr.0 - vma.start);
            return futex::Key::named(futex::Name::Shared { dev, ino, offset }, addr);
        }
        // The manager lives as long as anybody waits in it, so its place in memory names it.
        futex::Key::private(Arc::as_ptr(&mm) as usize as u64, addr)
    }

    /// Its credentials.
    pub fn cred(&self) -> Arc<Credentials> {
        Arc::clone(&self.holdings.lock().cred)
    }

    /// Replaces its credentials. Whether it may is the caller's business.
    pub fn set_cred(&self, cred: Arc<Credentials>) {
        let old = std::mem::replace(&mut self.holdings.lock().cred, cred);
        drop(old);
    }

    /// Makes its credentials what `change` makes of them, in one step; returns what was and what is. A lock
    /// is held: `change` only computes.
    pub fn change_cred<E>(
        &self,
        change: impl FnOnce(&Credentials) -> Result<Credentials, E>,
    ) -> Result<(Arc<Credentials>, Arc<Credentials>), E> {
        let mut holdings = self.holdings.lock();
        let new = Arc::new(change(&holdings.cred)?);
        let old = std::mem::replace(&mut holdings.cred, Arc::clone(&new));
        drop(holdings);
        Ok((old, new))
    }

    /// Its descriptor table; `ESRCH` once it has ended.
    pub fn fds(&self) -> Result<Arc<dyn FileTable>, Errno> {
        self.holdings.lock().fds.clone().ok_or(Errno::ESRCH)
    }

    /// Its root and working directory; `ESRCH` once it has ended.
    pub fn fs(&self) -> Result<Arc<dyn FsView>, Errno> {
        self.holdings.lock().fs.clone().ok_or(Errno::ESRCH)
    }

    /// Replaces the descriptor table (`unshare(CLONE_FILES)`).
    pub fn set_fds(&self, fds: Arc<dyn FileTable>) {
        let old = self.holdings.lock().fds.replace(fds);
        drop(old);
    }

    /// Replaces root and working directory (`unshare(CLONE_FS)`).
    pub fn set_fs(&self, fs: Arc<dyn FsView>) {
        let old = self.holdings.lock().fs.replace(fs);
        drop(old);
    }

    /// The program it runs (`/proc/PID/exe`).
    pub fn exe(&self) -> Option<VfsPath> {
        self.holdings.lock().exe.clone()
    }

    /// Short name (`comm`), at most 15 bytes.
    pub fn name(&self) -> Vec<u8> {
        self.holdings.lock().name.clone()
    }

    /// Sets the short name, cut to 15 bytes.
    pub fn set_name(&self, name: &[u8]) {
        self.holdings.lock().name = name.iter().copied().take_while(|b| *b != 0).take(15).collect();
    }

    /// `set_tid_address(2)`; returns the id.
    pub fn set_tid_address(&self, addr: u64) -> i32 {
        self.holdings.lock().clear_tid = addr;
        self.number()
    }

    /// Head of the robust futex list (`get_robust_list(2)`).
    pub fn robust_list(&self) -> u64 {
        self.holdings.lock().robust_list
    }

    /// Sets it (`set_robust_list(2)`; the caller has checked the length).
    pub fn set_robust_list(&self, head: u64) {
        self.holdings.lock().robust_list = head;
    }

    /// `PR_GET_PDEATHSIG`.
    pub fn death_signal(&self) -> i32 {
        self.holdings.lock().death_signal
    }

    /// `PR_SET_PDEATHSIG`.
    pub fn set_death_signal(&self, signal: i32) {
        self.holdings.lock().death_signal = signal;
    }

    /// Where it sleeps.
    pub fn parker(&self) -> &Arc<Parker> {
        &self.parker
    }

    /// Sleeps until notified. The caller has registered the parker where the news comes from.
    pub fn block(&self, deadline: Option<Instant>) -> Result<(), BlockError> {
        match self.parker.park(deadline) {
            Wake::Notified => Ok(()),
            Wake::TimedOut => Err(BlockError::TimedOut),
            Wake::Interrupted => Err(BlockError::Interrupted),
        }
    }

    /// Waits until `ready` gives something; asks it before the first sleep and after each of
    /// `interest`'s events on `queue`.
    pub fn wait_for<T>(
        &self,
        queue: &WaitQueue,
        interest: PollEvents,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, BlockError> {
        if let Some(value) = ready() {
            return Ok(value);
        }
        self.parker.clear_notification();
        let _waiter = queue.register(self.parker.clone(), interest);
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            match self.block(deadline) {
                Ok(()) => {}
                Err(error) => return ready().ok_or(error),
            }
        }
    }

    /// Sleeps until `deadline` has passed (`None`: for ever), whatever notifies it; `Err` when a signal
    /// comes before.
    pub fn sleep_until(&self, deadline: Option<Instant>) -> Result<(), BlockError> {
        loop {
            match self.block(deadline) {
                Ok(()) => {}
                Err(BlockError::TimedOut) => return Ok(()),
                Err(BlockError::Interrupted) => return Err(BlockError::Interrupted),
            }
        }
    }

    /// Keeps how `restart_syscall(2)` goes on with the call at hand, which returns
    /// [`Restart::Block`]. The kernel does not know what it is: the system calls do.
    pub fn set_restart(&self, how: Box<dyn Any + Send>) {
        let old = self.restart.lock().replace(how);
        drop(old);
    }

    /// Takes it (`restart_syscall(2)`).
    pub fn take_restart(&self) -> Option<Box<dyn Any + Send>> {
        self.restart.lock().take()
    }

    /// Makes the task look at its signals soon, wherever it is.
    pub(crate) fn interrupt(&self) {
        self.parker.interrupt();
        if !self.in_trap.load(Ordering::SeqCst)
            && let Some(handle) = self.handle()
        {
            handle.interrupt();
        }
    }

    /// The way to its guest thread, from its start to its end.
    pub(crate) fn handle(&self) -> Option<Arc<dyn ThreadHandle>> {
        self.handle.lock().clone()
    }

    /// Keeps the way to its guest thread, unless it has ended already.
    pub(crate) fn keep_handle(&self, new: Arc<dyn ThreadHandle>) {
        let mut handle = self.handle.lock();
        if !self.exited.load(Ordering::SeqCst) {
            handle.get_or_insert(new);
        }
    }

    /// Must it end at its next chance?
    pub(crate) fn must_exit(&self) -> bool {
        self.group.is_ending() || self.doomed.load(Ordering::SeqCst)
    }
}
