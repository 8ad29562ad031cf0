//! Guest threads: each has an OS thread of ours, its tracer, which also runs its handler.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use guestmem::{UserAddr, UserMem};
use parking_lot::Mutex;
use platform::{
    AddressSpace, NewThread, PlatformError, Registers, Resume, SyscallTrap, ThreadHandle, Trap, TrapHandler,
};

use crate::layout::INTERRUPT;
use crate::process::Process;
use crate::raw::sys::{self, Status};
use crate::space::{CURRENT, Current, Space};
use crate::stopped::Stopped;
use crate::tracee::{Event, Gone, Tracee};
use crate::{Shared, fault};

/// Bytes of a tracer's stack, on which handlers run.
const STACK: usize = 1 << 20;

/// Where a guest thread runs.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) space: Arc<Space>,
    pub(crate) process: Arc<Process>,
    pub(crate) tid: i32,
}

/// A guest thread, as the rest of the program knows it.
pub(crate) struct Task {
    pub(crate) handler: Arc<dyn TrapHandler>,
    clear_tid: u64,
    place: Mutex<Place>,
    interrupted: AtomicBool,
    /// It runs guest code, or is about to.
    running: AtomicBool,
    /// Grows with each trap.
    pub(crate) beat: AtomicU64,
    /// Its end was told, or is no news.
    told: AtomicBool,
}

impl Task {
    pub(crate) fn place(&self) -> Place {
        self.place.lock().clone()
    }

    /// Its host thread.
    pub(crate) fn tid(&self) -> i32 {
        self.place.lock().tid
    }

    /// Its host process.
    pub(crate) fn process(&self) -> Arc<Process> {
        Arc::clone(&self.place.lock().process)
    }

    /// Whether it runs guest code.
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// Makes it stop once if it runs guest code; else its tracer looks around soon anyway.
    pub(crate) fn poke(&self) {
        if self.is_running() {
            let place = self.place.lock();
            place.process.poke(place.tid);
        }
    }

    /// It runs elsewhere from now on; where it ran.
    pub(crate) fn move_to(&self, place: Place) -> Place {
        std::mem::replace(&mut *self.place.lock(), place)
    }

    /// Its process died while its tracer is in a handler.
    pub(crate) fn lost(self: &Arc<Self>) {
        let exit = self.process().exit(Some(libc::SIGKILL));
        if self.told.swap(true, Ordering::SeqCst) {
            return;
        }
        let task = Arc::clone(self);
        // The handler has the thread's whole end before it, and may wait.
        let told = std::thread::Builder::new()
            .name("ptrace-exit".into())
            .stack_size(STACK)
            .spawn(move || task.handler.host_exit(exit));
        if told.is_err() {
            tracing::error!("no thread to tell of a guest's end");
        }
    }
}

impl ThreadHandle for Task {
    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.poke();
    }

    fn kill_process(&self) {
        self.process().kill();
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        let Place { space, process, tid } = self.place();
        space.shared.view.times(&format!("{}/task/{tid}", process.tgid))
    }
}

/// Finds our space behind the trait object.
pub(crate) fn ours(shared: &Shared, space: &Arc<dyn AddressSpace>) -> Result<Arc<Space>, PlatformError> {
    let key = Arc::as_ptr(space).cast::<()>().addr();
    shared.spaces.lock().get(&key).and_then(std::sync::Weak::upgrade).ok_or(PlatformError::Gone)
}

/// How a new thread's floating-point state begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FpStart {
    /// Reset, for a new program.
    Reset,
    /// As the host left it: a copy of the caller's.
    Inherited,
}

/// Starts a guest thread on a parked host thread.
pub(crate) fn start(place: Place, new: NewThread, fp: FpStart) -> Result<Arc<Task>, PlatformError> {
    let (registers, fp_state) = (new.registers, new.fp_state);
    let task = Arc::new(Task {
        handler: new.handler,
        clear_tid: new.clear_tid,
        place: Mutex::new(place.clone()),
        interrupted: AtomicBool::new(false),
        running: AtomicBool::new(false),
        beat: AtomicU64::new(0),
        told: AtomicBool::new(false),
    });
    place.space.enter(&task);
    place.process.join(&task);
    if !place.space.shared.watch.add(&task) {
        place.process.kill();
    }
    let runs = Arc::clone(&task);
    let tracer = std::thread::Builder::new().name("ptrace".into()).stack_size(STACK);
    let begun = tracer.spawn(move || match Runner::begin(&runs, &registers, fp_state.as_deref(), fp) {
        Ok(mut runner) => runner.run(),
        Err(error) => {
            tracing::error!(%error, "a guest thread cannot be traced");
            runs.process().kill();
            end(&runs);
        }
    });
    if let Err(source) = begun {
        task.told.store(true, Ordering::SeqCst);
        place.space.leave(&task);
        if !place.process.leave(&task) {
            place.process.kill();
            place.space.shared.watch.reap(&place.process, place.tid);
        }
        return Err(PlatformError::Host { doing: "starting a tracer", source });
    }
    Ok(task)
}

/// Waits for the end of a task's host thread, reaps it and tells.
fn end(task: &Arc<Task>) {
    CURRENT.set(None);
    let Place { space, process, tid } = task.place();
    let signal = loop {
        match sys::wait(tid) {
            // It was killed, and looks as it was before for a moment; or it could not be made to end. Going on
            // is out of the question: it may be at a call, which would be carried out.
            Some(Status::Stopped(_)) => {
                process.kill();
                std::thread::yield_now();
            }
            Some(Status::Ended(signal)) => break signal,
            None => break Some(libc::SIGKILL),
        }
    };
    space.leave(task);
    if !process.leave(task) {
        space.forget_agent_of(&process);
    }
    process.reap(tid);
    if !task.told.swap(true, Ordering::SeqCst) {
        task.handler.host_exit(process.exit(signal));
    }
}

/// What a tracer does after a trap.
enum Next {
    Run,
    /// The thread ends; wait for that.
    End,
}

/// A tracer at work.
struct Runner {
    task: Arc<Task>,
    tracee: Rc<RefCell<Tracee>>,
}

impl Runner {
    /// Takes a parked thread over.
    fn begin(
        task: &Arc<Task>,
        registers: &Registers,
        state: Option<&[u8]>,
        fp: FpStart,
    ) -> Result<Self, PlatformError> {
        let Place { space, process, tid } = task.place();
        let mut tracee = Tracee::seize(process.tgid, tid)?;
        let facts = space.shared.master.facts;
        match (state, fp) {
            (Some(state), _) => facts.set(tid, state)?,
            (None, FpStart::Reset) => facts.reset(tid)?,
            (None, FpStart::Inherited) => {}
        }
        tracee.set_registers(registers);
        Ok(Self { task: Arc::clone(task), tracee: Rc::new(RefCell::new(tracee)) })
    }

    fn run(&mut self) {
        self.set_current();
        self.task.handler.started(Arc::clone(&self.task) as Arc<dyn ThreadHandle>);
        loop {
            match self.turn() {
                Ok(Next::Run) => {}
                Ok(Next::End) => break,
                Err(Gone) => {
                    // Gone, or not to be trusted.
                    self.lose();
                    break;
                }
            }
        }
        sync::block::cancel_hook();
        end(&self.task);
    }

    /// A request failed. Ends the process if it has not ended, without claiming that we wanted that.
    fn lose(&self) {
        let place = self.task.place();
        if matches!(sys::wait(place.tid), Some(Status::Stopped(_))) {
            place.process.condemn();
        }
    }

    fn set_current(&self) {
        let Place { space, tid, .. } = self.task.place();
        let tracee = Rc::clone(&self.tracee);
        CURRENT.set(Some(Current { space: Arc::downgrade(&space), tid, tracee }));
    }

    /// From the guest into a handler and back.
    fn turn(&mut self) -> Result<Next, Gone> {
        self.task.running.store(true, Ordering::SeqCst);
        let event = if self.task.interrupted.load(Ordering::SeqCst) {
            Event::Signal(INTERRUPT)
        } else {
            self.serve_others()?;
            self.tracee.borrow_mut().run()?
        };
        self.task.running.store(false, Ordering::SeqCst);
        self.task.beat.fetch_add(1, Ordering::Relaxed);
        let (nr, trap) = match event {
            Event::Call(nr, ip) => {
                let args = self.tracee.borrow().registers().syscall_args();
                (nr, Trap::Syscall(SyscallTrap { nr, args, ip }))
            }
            Event::Signal(INTERRUPT) => {
                if !self.task.interrupted.swap(false, Ordering::SeqCst) {
                    return Ok(Next::Run);
                }
                (u64::MAX, Trap::Interrupted)
            }
            Event::Signal(signal) => {
                let registers = self.tracee.borrow().registers();
                match fault::of(self.task.tid(), signal, &registers) {
                    Some(fault) => (u64::MAX, Trap::Fault(fault)),
                    None => return Ok(Next::Run),
                }
            }
            Event::Nothing => return Ok(Next::Run),
        };
        self.handle(nr, trap)
    }

    /// Makes an agent for somebody who waits for one.
    fn serve_others(&self) -> Result<(), Gone> {
        let place = self.task.place.lock();
        let (wanted, space, process) =
            (place.space.wants_agent(), Arc::clone(&place.space), Arc::clone(&place.process));
        drop(place);
        if wanted { space.make_agent(&process, &mut self.tracee.borrow_mut()) } else { Ok(()) }
    }

    fn handle(&mut self, nr: u64, trap: Trap) -> Result<Next, Gone> {
        let mut thread = Stopped { task: Arc::clone(&self.task), nr, tracee: Rc::clone(&self.tracee) };
        self.before_sleep();
        let task = &self.task;
        // A handler that panics costs its guest's process, nothing else.
        let resume = catch_unwind(AssertUnwindSafe(|| task.handler.trap(&mut thread, trap)));
        sync::block::cancel_hook();
        match resume {
            Ok(Resume::Return(value)) => self.tracee.borrow_mut().set_result(value),
            Ok(Resume::Continue) => {}
            Ok(Resume::Exit) => return self.exit(),
            Ok(Resume::ExitProcess) => {
                self.task.process().kill();
                return Ok(Next::End);
            }
            Err(_) => {
                tracing::error!(?trap, "a trap's handler panicked; its guest is ended");
                self.task.process().condemn();
                return Ok(Next::End);
            }
        }
        Ok(Next::Run)
    }

    /// Whoever has to do something in this space while the handler sleeps needs an agent.
    fn before_sleep(&self) {
        let place = self.task.place.lock();
        if !place.space.needs_agent() {
            return;
        }
        let (task, tracee) = (Arc::clone(&self.task), Rc::clone(&self.tracee));
        drop(place);
        sync::block::on_block(Box::new(move || {
            let Place { space, process, .. } = task.place();
            if let Ok(mut tracee) = tracee.try_borrow_mut() {
                // When it is gone, the next to look will say so.
                let _ = space.make_agent(&process, &mut tracee);
            }
        }));
    }

    /// Ends this thread only.
    fn exit(&mut self) -> Result<Next, Gone> {
        let Place { space, process, .. } = self.task.place();
        let addr = UserAddr(self.task.clear_tid);
        if addr.0 != 0 && space.threads() > 1 && space.write(addr, &[0; 4]).is_ok() {
            let _ = space.futex_wake(addr, 1, u32::MAX);
        }
        if process.leave(&self.task) {
            self.task.told.store(true, Ordering::SeqCst);
            CURRENT.set(None);
            space.leave(&self.task);
            self.tracee.borrow_mut().exit()?;
        } else {
            process.kill();
        }
        Ok(Next::End)
    }
}
