//! Guest threads: each has an OS thread of ours, which runs its guest and its handler in turn.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use abi::signal::Signal;
use guestmem::{UserAddr, UserMem};
use parking_lot::Mutex;
use platform::{
    AddressSpace, Fault, HostExit, NewThread, PlatformError, Registers, Resume, SyscallTrap, ThreadHandle,
    Trap, TrapHandler,
};

use crate::Shared;
use crate::fault::{Access, Miss};
use crate::layout::{GATE, USER_END, VSYSCALL};
use crate::process::Process;
use crate::raw::cpu::{Stop, Stopping};
use crate::raw::signal;
use crate::space::Space;
use crate::stopped::Stopped;
use crate::trap::{self, PAGE_FAULT, PROTECTION};
use crate::vcpu::Exit;

/// Bytes of a thread's stack, on which handlers run.
const STACK: usize = 1 << 20;
/// Error-code bits of a page fault: write, user, instruction fetch.
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 16;

/// Where a guest thread runs.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) space: Arc<Space>,
    pub(crate) process: Arc<Process>,
}

/// What the OS thread of a guest thread is about.
#[derive(Clone, Copy)]
enum Doing {
    /// Something of ours that does not take long.
    Ours,
    /// It runs its guest, on the processor with this flag.
    Guest(Stop),
    /// It runs its handler, which may sleep.
    Handler,
}

/// A guest thread, as the rest of the program knows it.
pub(crate) struct Task {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handler: Arc<dyn TrapHandler>,
    clear_tid: u64,
    place: Mutex<Place>,
    pub(crate) owner: u64,
    interrupted: AtomicBool,
    /// What its OS thread is about. Whoever changes it looks for interrupts and the end of the process afterwards.
    doing: Mutex<Doing>,
    /// Its OS thread.
    tid: AtomicI32,
    /// It is in no space any more.
    left: AtomicBool,
    /// Its time is its space's.
    counted: AtomicBool,
    /// Its end was told, or is no news.
    told: AtomicBool,
}

impl Task {
    pub(crate) fn place(&self) -> Place {
        self.place.lock().clone()
    }

    /// It runs elsewhere from now on; where it ran. `None` when that is over: it stays and ends with it.
    pub(crate) fn move_to(&self, place: Place) -> Option<Place> {
        let _doing = self.doing.lock();
        let mut now = self.place.lock();
        (!now.process.is_over()).then(|| std::mem::replace(&mut *now, place))
    }

    /// Makes it come back if it runs guest code. Whether it did.
    pub(crate) fn poke(&self) -> bool {
        self.poke_as(*self.doing.lock())
    }

    fn poke_as(&self, doing: Doing) -> bool {
        let Doing::Guest(stop) = doing else { return false };
        stop.set(Stopping::Now);
        signal::kick(self.tid.load(Ordering::SeqCst));
        true
    }

    /// Its process, if it is still `process`, is over: it comes back, or, when it is in a handler, its end is told
    /// already.
    pub(crate) fn over(self: &Arc<Self>, process: &Process) {
        let doing = self.doing.lock();
        self.poke_as(*doing);
        let here = std::ptr::eq(Arc::as_ptr(&self.place.lock().process), process);
        if !here || !matches!(*doing, Doing::Handler) {
            return;
        }
        let task = Arc::clone(self);
        // The handler has the thread's whole end before it, and may wait.
        let told = std::thread::Builder::new().name("kvm-exit".into()).stack_size(STACK);
        if told.spawn(move || task.tell()).is_err() {
            tracing::error!("no thread to tell of a guest's end");
        }
    }

    /// Takes it out of its space, and tells of the end of its process, both once.
    fn tell(&self) {
        let Place { space, process } = self.place();
        if !self.left.swap(true, Ordering::SeqCst) {
            space.leave(|| {
                self.counted.store(true, Ordering::SeqCst);
                self.times()
            });
        }
        if !self.told.swap(true, Ordering::SeqCst) {
            self.handler.host_exit(process.exit());
        }
    }

    /// The same, if it runs in `space`.
    pub(crate) fn times_in(&self, space: &Space) -> Option<(Duration, Duration)> {
        let here = std::ptr::eq(Arc::as_ptr(&self.place.lock().space), space);
        (here && !self.counted.load(Ordering::SeqCst)).then(|| self.times())
    }

    /// User and system time so far.
    pub(crate) fn times(&self) -> (Duration, Duration) {
        let tid = self.tid.load(Ordering::SeqCst);
        self.shared.view.times(&format!("{}/task/{tid}", self.shared.pid))
    }
}

impl ThreadHandle for Task {
    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.poke();
    }

    fn kill_process(&self) {
        self.place().process.kill();
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        self.times()
    }
}

/// Finds our space behind the trait object.
pub(crate) fn ours(shared: &Shared, space: &Arc<dyn AddressSpace>) -> Result<Arc<Space>, PlatformError> {
    let key = Arc::as_ptr(space).cast::<()>().addr();
    shared.spaces.lock().get(&key).and_then(std::sync::Weak::upgrade).ok_or(PlatformError::Gone)
}

/// Starts a guest thread; `inherited` is its floating-point state where the new one says none.
pub(crate) fn start(
    shared: &Arc<Shared>,
    place: Place,
    new: NewThread,
    inherited: Option<Vec<u8>>,
) -> Result<Arc<Task>, PlatformError> {
    static OWNERS: AtomicU64 = AtomicU64::new(1);
    place.space.enter()?;
    let task = Arc::new(Task {
        shared: Arc::clone(shared),
        handler: new.handler,
        clear_tid: new.clear_tid,
        place: Mutex::new(place.clone()),
        owner: OWNERS.fetch_add(1, Ordering::Relaxed),
        interrupted: AtomicBool::new(false),
        doing: Mutex::new(Doing::Ours),
        tid: AtomicI32::new(0),
        left: AtomicBool::new(false),
        counted: AtomicBool::new(false),
        told: AtomicBool::new(false),
    });
    place.process.join(&task);
    let state = new.fp_state.or(inherited);
    let prepared = shared.pool.set_fp_state(task.owner, state.as_deref());
    if !shared.add(&task) {
        place.process.kill();
    }
    let mut registers = new.registers;
    registers.sanitise();
    let runs = Arc::clone(&task);
    let builder = std::thread::Builder::new().name("kvm".into()).stack_size(STACK);
    let begun = prepared.and_then(|()| {
        let begun =
            builder.spawn(move || Runner { task: runs, registers: Rc::new(RefCell::new(registers)) }.run());
        begun.map(drop).map_err(|source| PlatformError::Host { doing: "starting a guest's thread", source })
    });
    if let Err(error) = begun {
        task.told.store(true, Ordering::SeqCst);
        place.process.leave(&task);
        place.space.leave(Default::default);
        shared.pool.forget(task.owner);
        return Err(error);
    }
    Ok(task)
}

/// What a thread does after a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Run,
    /// The thread ends.
    End,
}

/// A guest thread at work.
struct Runner {
    task: Arc<Task>,
    registers: Rc<RefCell<Registers>>,
}

impl Runner {
    fn run(&mut self) {
        self.task.tid.store(signal::thread_id(), Ordering::SeqCst);
        self.task.handler.started(Arc::clone(&self.task) as Arc<dyn ThreadHandle>);
        while self.turn() == Next::Run {}
        sync::block::cancel_hook();
        self.end();
    }

    /// Forgets the thread and tells of its end.
    fn end(&self) {
        let task = &self.task;
        task.shared.pool.forget(task.owner);
        task.place().process.leave(task);
        task.tell();
        task.shared.remove(task);
    }

    /// From the guest into a handler and back.
    fn turn(&mut self) -> Next {
        if self.task.interrupted.swap(false, Ordering::SeqCst) {
            return self.handle(u64::MAX, Trap::Interrupted);
        }
        let ip = self.registers.borrow().rip;
        if ip >= USER_END {
            return self.astray(ip);
        }
        let place = self.task.place();
        match self.enter(&place) {
            Ok(Exit::Call) => {
                let ip = self.registers.borrow().rip;
                self.call(ip)
            }
            Ok(Exit::Exception { vector: PAGE_FAULT, code, cr2 }) => self.page_fault(&place, code, cr2),
            Ok(Exit::Exception { vector, code, .. }) => self.exception(vector, code),
            Ok(Exit::Stopped) => Next::Run,
            Ok(Exit::Nothing) => self.nothing(&place),
            Ok(Exit::Broken(what)) => {
                tracing::error!(what, "a virtual processor is beyond us; its guest is ended");
                place.process.end(HostExit::Corrupt);
                Next::End
            }
            Err(error) => {
                tracing::error!(%error, "a guest cannot go on");
                place.process.end(HostExit::Signaled(libc::SIGKILL));
                Next::End
            }
        }
    }

    /// Runs the guest until it comes back.
    fn enter(&self, place: &Place) -> Result<Exit, PlatformError> {
        let task = &self.task;
        let shared = &task.shared;
        let root = place.space.root();
        if root == 0 {
            return Err(PlatformError::Gone);
        }
        let mut vcpu = shared.pool.take(&shared.machine, task.owner, || shared.poke_one())?;
        let stop = vcpu.stop();
        stop.set(Stopping::Not);
        *task.doing.lock() = Doing::Guest(stop);
        // Whoever wants something from now on stops it.
        let wanted = task.interrupted.load(Ordering::SeqCst) || place.process.is_over();
        let exit = if wanted { Exit::Stopped } else { vcpu.run(&mut self.registers.borrow_mut(), root) };
        *task.doing.lock() = Doing::Ours;
        self.registers.borrow_mut().sanitise();
        shared.pool.park(task.owner, vcpu);
        if place.process.is_over() {
            return Err(PlatformError::Gone);
        }
        Ok(exit)
    }

    /// The guest makes the call in its registers, from before `ip`.
    fn call(&mut self, ip: u64) -> Next {
        let mut registers = self.registers.borrow_mut();
        let nr = u64::from(registers.rax as u32);
        let args = registers.syscall_args();
        registers.orig_rax = registers.rax;
        registers.rax = -38i64 as u64;
        drop(registers);
        self.handle(nr, Trap::Syscall(SyscallTrap { nr, args, ip }))
    }

    /// The guest is where it can have no code: in the vsyscall page, which the kernel has for it, or nowhere.
    fn astray(&mut self, ip: u64) -> Next {
        let call = match ip.wrapping_sub(VSYSCALL) {
            0 => 96,
            0x400 => 201,
            0x800 => 309,
            _ if ip >> 47 == 0x1_ffff => {
                return self.fault(trap::page_fault(Miss::Unmapped, USER | FETCH, ip));
            }
            _ => return self.exception(PROTECTION, 0),
        };
        let mut registers = self.registers.borrow_mut();
        let mut to = [0; 8];
        let rsp = registers.rsp;
        if self.task.place().space.read(UserAddr(rsp), &mut to).is_err() {
            drop(registers);
            return self.fault(trap::page_fault(Miss::Unmapped, USER, rsp));
        }
        registers.rip = u64::from_le_bytes(to);
        registers.rsp = rsp.wrapping_add(8);
        registers.rax = call;
        drop(registers);
        self.call(ip)
    }

    fn page_fault(&mut self, place: &Place, code: u64, addr: u64) -> Next {
        let access = match code {
            code if code & FETCH != 0 => Access::Exec,
            code if code & WRITE != 0 => Access::Write,
            _ => Access::Read,
        };
        if addr >= VSYSCALL && code & FETCH != 0 && self.registers.borrow().rip == addr {
            return self.astray(addr);
        }
        let miss = if addr >= GATE { Err(Miss::Unmapped) } else { place.space.touched(addr, access) };
        match miss {
            Ok(()) => Next::Run,
            Err(Miss::NoMemory) => {
                tracing::warn!("no memory is left for a guest");
                place.process.end(HostExit::Signaled(libc::SIGKILL));
                Next::End
            }
            Err(miss) => self.fault(trap::page_fault(miss, code, addr)),
        }
    }

    fn exception(&mut self, vector: u64, code: u64) -> Next {
        let (shared, ip) = (&self.task.shared, self.registers.borrow().rip);
        let fault =
            trap::exception(vector, code, ip, || shared.pool.fp_state(self.task.owner).unwrap_or_default());
        self.fault(fault)
    }

    /// It touched a page that a file had. Where, it says itself once such pages are gone.
    fn nothing(&mut self, place: &Place) -> Next {
        if place.space.shrink() {
            return Next::Run;
        }
        let ip = self.registers.borrow().rip;
        tracing::warn!(ip, "a guest touched memory that is not there");
        let fault = trap::page_fault(Miss::NoFile, USER, 0);
        self.fault(Fault { signal: Signal::SIGBUS, ..fault })
    }

    fn fault(&mut self, fault: Fault) -> Next {
        self.handle(u64::MAX, Trap::Fault(fault))
    }

    fn handle(&mut self, nr: u64, trap: Trap) -> Next {
        if nr == u64::MAX {
            self.registers.borrow_mut().orig_rax = u64::MAX;
        }
        let mut thread = Stopped { task: Arc::clone(&self.task), registers: Rc::clone(&self.registers) };
        let task = &self.task;
        *task.doing.lock() = Doing::Handler;
        if task.place().process.is_over() {
            return Next::End;
        }
        // A handler that panics costs its guest's process, nothing else.
        let resume = catch_unwind(AssertUnwindSafe(|| task.handler.trap(&mut thread, trap)));
        *task.doing.lock() = Doing::Ours;
        sync::block::cancel_hook();
        match resume {
            Ok(Resume::Return(value)) => self.registers.borrow_mut().rax = value,
            Ok(Resume::Continue) => {}
            Ok(Resume::Exit) => return self.exit(),
            Ok(Resume::ExitProcess) => {
                task.place().process.kill();
                return Next::End;
            }
            Err(_) => {
                tracing::error!(?trap, "a trap's handler panicked; its guest is ended");
                task.place().process.end(HostExit::Corrupt);
                return Next::End;
            }
        }
        if task.place().process.is_over() { Next::End } else { Next::Run }
    }

    /// Ends this thread only.
    fn exit(&self) -> Next {
        let Place { space, process } = self.task.place();
        let addr = UserAddr(self.task.clear_tid);
        if addr.0 != 0 && space.threads() > 1 {
            let _ = space.write(addr, &[0; 4]);
        }
        if process.leave(&self.task) {
            self.task.told.store(true, Ordering::SeqCst);
        } else {
            process.kill();
        }
        Next::End
    }
}
