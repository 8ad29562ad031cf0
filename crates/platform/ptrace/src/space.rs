//! Address spaces.
//!
//! What is to happen in one is done by a host thread of it: the one whose trap the calling OS thread handles, or
//! the space's *agent*, a thread that waits parked and untraced until somebody seizes it. A fresh space has its
//! first thread for that; any other gets one when it may be needed, that is before a handler sleeps.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use abi::Errno;
use guestmem::{Fault, UserAddr, UserMem};
use hostproc::{memory, ops};
use parking_lot::{Condvar, Mutex};
use platform::space::MemoryUse;
use platform::{AddressSpace, MapError, MapOp, PlatformError};

use crate::Shared;
use crate::layout::{MAX_ADDRESS, STUB};
use crate::process::Process;
use crate::task::Task;
use crate::tracee::{Gone, Tracee};

/// The guest thread whose trap this OS thread handles.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) space: Weak<Space>,
    pub(crate) tid: i32,
    pub(crate) tracee: Rc<RefCell<Tracee>>,
}

thread_local! {
    pub(crate) static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// After what time of waiting for an agent to ask again, and how often.
const ASK_AGAIN: Duration = Duration::from_millis(50);
const PATIENCE: u32 = 200;

/// A parked thread.
struct Agent {
    process: Arc<Process>,
    tid: i32,
}

/// One guest address space.
pub(crate) struct Space {
    pub(crate) shared: Arc<Shared>,
    tasks: Mutex<Vec<Weak<Task>>>,
    agent: Mutex<Option<Agent>>,
    agent_came: Condvar,
    has_agent: AtomicBool,
    agent_wanted: AtomicBool,
    /// The process that waits to be started in it; the agent is its only thread.
    parked: Mutex<Option<Arc<Process>>>,
    me: Weak<Space>,
}

impl Space {
    /// One without a process.
    pub(crate) fn empty(shared: &Arc<Shared>) -> Arc<Self> {
        let space = Arc::new_cyclic(|me| Self {
            shared: Arc::clone(shared),
            tasks: Mutex::default(),
            agent: Mutex::default(),
            agent_came: Condvar::new(),
            has_agent: AtomicBool::new(false),
            agent_wanted: AtomicBool::new(false),
            parked: Mutex::default(),
            me: Weak::clone(me),
        });
        shared.spaces.lock().insert(Arc::as_ptr(&space).addr(), Arc::downgrade(&space));
        space
    }

    /// One with a parked process.
    pub(crate) fn fresh(shared: &Arc<Shared>) -> Result<Arc<Self>, PlatformError> {
        let process = Process::new(shared.master.new_process()?);
        let space = Self::empty(shared);
        *space.agent.lock() = Some(Agent { process: Arc::clone(&process), tid: process.tgid });
        space.has_agent.store(true, Ordering::SeqCst);
        *space.parked.lock() = Some(process);
        Ok(space)
    }

    /// Takes the parked process, to start a guest in it.
    pub(crate) fn unpark(&self) -> Result<Arc<Process>, PlatformError> {
        let mut agent = self.agent.lock();
        let process = self.parked.lock().take().ok_or(PlatformError::Gone)?;
        *agent = None;
        self.has_agent.store(false, Ordering::SeqCst);
        Ok(process)
    }

    /// A thread runs in it from now on.
    pub(crate) fn enter(&self, task: &Arc<Task>) {
        self.tasks.lock().push(Arc::downgrade(task));
    }

    /// A thread does not any more.
    pub(crate) fn leave(&self, task: &Arc<Task>) {
        self.tasks.lock().retain(|other| other.as_ptr() != Arc::as_ptr(task) && other.strong_count() > 0);
    }

    /// How many threads run in it.
    pub(crate) fn threads(&self) -> usize {
        self.tasks.lock().len()
    }

    fn tasks(&self) -> Vec<Arc<Task>> {
        self.tasks.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether a thread that sleeps would leave it without anybody who can act in it.
    pub(crate) fn needs_agent(&self) -> bool {
        !self.has_agent.load(Ordering::Relaxed)
    }

    /// Whether somebody waits for an agent.
    pub(crate) fn wants_agent(&self) -> bool {
        self.agent_wanted.load(Ordering::SeqCst)
    }

    /// Makes an agent with a thread of this space, unless there is one.
    pub(crate) fn make_agent(&self, process: &Arc<Process>, tracee: &mut Tracee) -> Result<(), Gone> {
        let mut agent = self.agent.lock();
        if agent.is_none() {
            // The stack pointer is never used, but must not be null.
            let tid = tracee.call_at_gate([libc::SYS_clone as u64, ops::CLONE_THREAD, STUB, 0, 0, 0, 0])?;
            if tid <= 0 {
                return Ok(());
            }
            *agent = Some(Agent { process: Arc::clone(process), tid: tid as i32 });
            self.has_agent.store(true, Ordering::SeqCst);
        }
        self.agent_wanted.store(false, Ordering::SeqCst);
        self.agent_came.notify_all();
        Ok(())
    }

    /// Forgets an agent that ended with its process.
    pub(crate) fn forget_agent_of(&self, process: &Arc<Process>) {
        let mut agent = self.agent.lock();
        if agent.as_ref().is_some_and(|agent| Arc::ptr_eq(&agent.process, process)) {
            *agent = None;
            self.has_agent.store(false, Ordering::SeqCst);
        }
    }

    fn current(&self) -> Option<Current> {
        CURRENT.with_borrow(|current| {
            current.as_ref().filter(|current| std::ptr::eq(current.space.as_ptr(), self.me.as_ptr())).cloned()
        })
    }

    /// Calls `f` with a stopped thread of this space.
    fn act<T>(&self, f: impl FnOnce(&mut Tracee) -> Result<T, Gone>) -> Result<T, PlatformError> {
        if let Some(current) = self.current() {
            return Ok(f(&mut current.tracee.borrow_mut())?);
        }
        let mut agent = self.agent.lock();
        for _ in 0..PATIENCE {
            if let Some(parked) = agent.as_ref() {
                let (process, tid) = (Arc::clone(&parked.process), parked.tid);
                if let Ok(mut tracee) = Tracee::seize(process.tgid, tid) {
                    let done = f(&mut tracee);
                    match done {
                        Ok(_) => tracee.park(),
                        Err(Gone) => self.bury_agent(&mut agent, &process, tid),
                    }
                    return Ok(done?);
                }
                self.bury_agent(&mut agent, &process, tid);
            }
            self.agent_wanted.store(true, Ordering::SeqCst);
            let tasks = self.tasks();
            if tasks.is_empty() {
                break;
            }
            tasks.iter().for_each(|task| task.poke());
            self.agent_came.wait_for(&mut agent, ASK_AGAIN);
        }
        Err(PlatformError::Gone)
    }

    /// An agent died in our hands: its process cannot end before it is reaped.
    fn bury_agent(&self, agent: &mut Option<Agent>, process: &Arc<Process>, tid: i32) {
        *agent = None;
        self.has_agent.store(false, Ordering::SeqCst);
        self.shared.watch.reap(process, tid);
    }

    /// An id by which the host finds the memory; 0 when there is none.
    pub(crate) fn pid(&self) -> i32 {
        if let Some(current) = self.current() {
            return current.tid;
        }
        let running = self.tasks.lock().iter().find_map(Weak::upgrade).map(|task| task.tid());
        running.or_else(|| self.parked.lock().as_ref().map(|process| process.tgid)).unwrap_or(0)
    }

    fn op(&self, tracee: &mut Tracee, op: &MapOp) -> Result<(), Errno> {
        let given = ops::object(op).map(|object| self.shared.files.given(object)).transpose()?;
        let fd = given.as_ref().map_or(u64::MAX, |given| given.number as u64);
        let result = tracee.call(ops::call(op, fd)).map_err(|Gone| Errno::ESRCH)?;
        ops::outcome(result).map(drop)
    }
}

/// Whether guests can have the range.
fn in_bounds(addr: UserAddr, len: usize) -> Result<(), Fault> {
    let end = addr.0.checked_add(len as u64).filter(|end| *end <= MAX_ADDRESS);
    end.map(drop).ok_or(Fault { copied: 0 })
}

impl UserMem for Space {
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
        in_bounds(addr, buf.len())?;
        memory::load(self.pid(), addr, buf)
    }

    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        in_bounds(addr, buf.len())?;
        memory::store(self.pid(), addr, buf)
    }

    fn compare_exchange_u32(&self, addr: UserAddr, old: u32, new: u32) -> Result<u32, Fault> {
        let fault = Fault { copied: 0 };
        in_bounds(addr, 4)?;
        if !addr.0.is_multiple_of(4) {
            return Err(fault);
        }
        let mut now = [0; 4];
        self.read(addr, &mut now)?;
        if u32::from_ne_bytes(now) != old {
            return Ok(u32::from_ne_bytes(now));
        }
        self.act(|tracee| tracee.exchange(addr.0, old, new)).ok().flatten().ok_or(fault)
    }
}

impl AddressSpace for Space {
    fn apply(&self, ops: &[MapOp]) -> Result<(), MapError> {
        let mut done = Ok(());
        let acted = self.act(|tracee| {
            done = ops
                .iter()
                .enumerate()
                .try_for_each(|(index, op)| self.op(tracee, op).map_err(|errno| MapError { index, errno }));
            Ok(())
        });
        acted.map_err(|error| MapError { index: 0, errno: error.into() })?;
        done
    }

    fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        in_bounds(addr, buf.len())?;
        self.shared.view.write_forced(self.pid(), addr, buf)
    }

    fn memory_use(&self) -> MemoryUse {
        self.shared.view.memory_use(self.pid())
    }

    fn resident_pages(&self, addr: UserAddr, pages: usize) -> Result<Vec<bool>, Errno> {
        self.shared.view.resident_pages(self.pid(), addr, pages)
    }

    fn map_vdso(&self, addr: UserAddr) -> Result<(UserAddr, u64), MapError> {
        let failed = |errno| MapError { index: 0, errno };
        let vdso = self.shared.vdso.get().ok_or(failed(Errno::ENOSYS))?;
        let moved = self.act(|tracee| {
            for call in vdso.calls_to(addr) {
                if let Err(errno) = ops::outcome(tracee.call(call)?) {
                    return Ok(Err(errno));
                }
            }
            Ok(Ok(()))
        });
        moved.map_err(|error| failed(error.into()))?.map_err(failed)?;
        Ok(vdso.placed(addr))
    }

    fn futex_wake(&self, addr: UserAddr, count: u32, bitset: u32) -> Result<u32, Errno> {
        let woken = self.act(|tracee| ops::wake(addr, count, bitset, |call| tracee.call(call)));
        // Where everybody is gone nobody waits; the woken may have ended the process meanwhile.
        woken.unwrap_or(Ok(0))
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        self.shared.view.times(&self.pid().to_string())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.shared.spaces.lock().remove(&self.me.as_ptr().addr());
        if let Some(process) = self.parked.get_mut().take() {
            process.kill();
            self.shared.watch.reap(&process, process.tgid);
        }
    }
}
