//! Guest threads as a kernel sees them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use abi::signal::{SigInfo, Signal};
use guestmem::{UserAddr, UserMem};
use hostproc::ops::CLONE_THREAD;
use parking_lot::Mutex;
use platform::{
    AddressSpace, Fault, GuestThread, NewThread, PlatformError, Registers, Resume, SyscallTrap, ThreadHandle,
    Trap, TrapHandler,
};

use crate::filter::is_postable;
use crate::frame::{Frame, MINUS_ENOSYS};
use crate::host::{Host, Process, Shared};
use crate::layout::{ACT_CLONE, CLONE_FORK, CLONE_SHARED, INTERRUPT, MAILBOX, SLOT};
use crate::raw::sys::Notif;
use crate::serve::slot_address;
use crate::space::{CURRENT, Space};
use crate::spin;
use crate::window::{self, Windows};

/// A guest thread, whichever host thread carries it.
pub(crate) struct Task {
    pub(crate) handler: Arc<dyn TrapHandler>,
    clear_tid: u64,
    place: Mutex<Place>,
    interrupted: AtomicBool,
}

/// Where it runs.
#[derive(Clone)]
struct Place {
    host: Arc<Host>,
    space: Arc<Space>,
}

impl Task {
    fn place(&self) -> Place {
        self.place.lock().clone()
    }

    /// Whether an interrupt is on its way.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// Readies it to run on `host` for the first time.
    pub(crate) fn begin(self: &Arc<Self>, host: &Host, space: &Space) {
        self.handler.started(Arc::clone(self) as Arc<dyn ThreadHandle>);
        host.ready(space);
        host.started.store(true, Ordering::SeqCst);
    }

    /// Passes on what came before it ran.
    pub(crate) fn poke_if_interrupted(&self, host: &Host) {
        if self.is_interrupted() {
            self.poke(host);
        }
    }

    fn poke(&self, host: &Host) {
        if host.started.load(Ordering::SeqCst) {
            host.poke();
        }
    }
}

impl ThreadHandle for Task {
    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.poke(&self.place().host);
    }

    fn kill_process(&self) {
        self.place().host.process.kill();
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        let Place { host, space } = self.place();
        let (tgid, tid) = (host.process.tgid.load(Ordering::SeqCst), host.tid.load(Ordering::SeqCst));
        space.shared.view.times(&format!("{tgid}/task/{tid}"))
    }
}

/// Finds our space behind the trait object.
fn ours(shared: &Shared, space: &Arc<dyn AddressSpace>) -> Result<Arc<Space>, PlatformError> {
    let key = Arc::as_ptr(space).cast::<()>().addr();
    shared.spaces.lock().get(&key).and_then(std::sync::Weak::upgrade).ok_or(PlatformError::Gone)
}

/// Everything is mapped before its first thread runs.
fn settle(space: &Space) -> Result<(), PlatformError> {
    space.settle().map_err(|_| PlatformError::Exhausted("memory"))
}

/// Starts the first thread of a fresh space.
pub(crate) fn spawn(
    shared: &Shared,
    space: &Arc<dyn AddressSpace>,
    new: NewThread,
) -> Result<(), PlatformError> {
    let space = ours(shared, space)?;
    settle(&space)?;
    let host = space.parked.lock().take().ok_or(PlatformError::Gone)?;
    host.wait()?;
    let frame = Frame::fresh(&space.mailbox, host.slot);
    fill(&space, &frame, &new);
    let task = Arc::new(Task {
        handler: new.handler,
        clear_tid: new.clear_tid,
        place: Mutex::new(Place { host: Arc::clone(&host), space: Arc::clone(&space) }),
        interrupted: AtomicBool::new(false),
    });
    *host.task.lock() = Some(Arc::clone(&task));
    // Whoever starts it has other things to do.
    host.listener.leave();
    host.listener.start();
    task.begin(&host, &space);
    host.resume(&space, None);
    task.poke_if_interrupted(&host);
    Ok(())
}

fn fill(space: &Space, frame: &Frame<'_>, new: &NewThread) {
    frame.set_registers(&new.registers);
    if let Some(state) = &new.fp_state {
        frame.set_fp_state(state, space.shared.xsave_size, space.shared.xcr0);
    }
    frame.seal();
}

/// A thread rang and nobody waited for it: it trapped. A first thread rings before anybody knows what it is to run.
pub(crate) fn rang(host: &Arc<Host>, notif: &Notif) {
    if let Some((task, place)) = of(host).filter(|_| notif.args[1] != 0) {
        serve(host, || trapped(host, task, place, notif));
    }
}

/// A thread makes a call that entered by notification.
pub(crate) fn called(host: &Arc<Host>, notif: &Notif) {
    let Some((task, place)) = of(host) else { return host.process.condemn() };
    let (nr, mut ip) = (u64::from(notif.nr as u32), notif.ip);
    if let Some((site, base, _)) = place.space.site(ip) {
        ip = site.after(base);
        if let Some(spinner) = place.space.shared.spinner.as_ref().filter(|_| is_postable(nr)) {
            spinner.notice(host, &place.space);
        }
    }
    let call = SyscallTrap { nr, args: notif.args, ip };
    serve(host, || handle(task, place, Trap::Syscall(call)));
}

/// A thread has posted a call that nobody looked for, and waits for the result.
pub(crate) fn waits(host: &Arc<Host>, posted: (SyscallTrap, Windows)) {
    let Some((task, place)) = of(host) else { return host.process.condemn() };
    if let Some(spinner) = &place.space.shared.spinner {
        spinner.notice(host, &place.space);
    }
    serve_posted(task, place, posted);
}

/// A thread has posted a call.
pub(crate) fn posted(host: Arc<Host>, space: Arc<Space>, posted: (SyscallTrap, Windows)) {
    let Some(task) = host.task.lock().clone() else { return host.process.condemn() };
    serve_posted(task, Place { host, space }, posted);
}

fn serve_posted(task: Arc<Task>, place: Place, (call, windows): (SyscallTrap, Windows)) {
    let (host, space) = (Arc::clone(&place.host), Arc::clone(&place.space));
    serve(&host, || {
        window::with(&space, host.slot, windows, || handle(task, place, Trap::Syscall(call)));
    });
}

/// What runs on `host`, and where.
fn of(host: &Arc<Host>) -> Option<(Arc<Task>, Place)> {
    let task = host.task.lock().clone()?;
    Some((task, Place { host: Arc::clone(host), space: host.space.upgrade()? }))
}

/// Does `work` for `host`, ready to hand over what else this OS thread serves when it comes to sleep.
fn serve(host: &Arc<Host>, work: impl FnOnce()) {
    // Nothing captured, nothing allocated.
    sync::block::on_block(Box::new(comes_to_sleep));
    CURRENT.set(Some(Arc::clone(host)));
    work();
    CURRENT.set(None);
    sync::block::cancel_hook();
}

/// This OS thread comes to sleep over the trap it serves.
fn comes_to_sleep() {
    if let Some(host) = CURRENT.with_borrow(Clone::clone)
        && !spin::comes_to_sleep(&host)
    {
        host.listener.hand_over();
    }
}

fn trapped(host: &Arc<Host>, task: Arc<Task>, place: Place, notif: &Notif) {
    if host.stub_faulted() {
        if let Some(frame) = host.frame(&place.space) {
            frame.set_bases(notif.args[4], notif.args[5]);
        }
        return host.resume(&place.space, None);
    }
    if is_middle_of_site(&place.space, host, notif) {
        return host.resume(&place.space, None);
    }
    let trap = host.frame(&place.space).and_then(|frame| {
        frame.set_bases(notif.args[4], notif.args[5]);
        decode(&place.space, host, &frame, notif)
    });
    let Some(trap) = trap else { return host.process.condemn() };
    if let Trap::Syscall(call) = trap
        && let Some(spinner) = place.space.shared.spinner.as_ref().filter(|_| is_postable(call.nr))
    {
        spinner.notice(host, &place.space);
    }
    if trap == Trap::Interrupted && !task.interrupted.swap(false, Ordering::SeqCst) {
        // Told already, by the trap of an earlier host thread, or only fetched to act.
        return host.resume(&place.space, None);
    }
    handle(task, place, trap);
}

/// Whether a fault is that of a guest that jumped into a rewritten site, and goes on elsewhere.
fn is_middle_of_site(space: &Space, host: &Host, notif: &Notif) -> bool {
    let signals = [libc::SIGILL as u64, libc::SIGSEGV as u64];
    let Some(frame) = host.frame(space).filter(|_| signals.contains(&notif.args[1])) else { return false };
    let found = space.redirect(frame.ip()).is_some();
    if found {
        frame.set_bases(notif.args[4], notif.args[5]);
    }
    found
}

fn handle(task: Arc<Task>, place: Place, trap: Trap) {
    let nr = if let Trap::Syscall(call) = trap { call.nr } else { u64::MAX };
    let mut thread = Stopped { task: Arc::clone(&task), nr, place };
    // A handler that panics costs its guest's process, not the thread that serves others too.
    match catch_unwind(AssertUnwindSafe(|| task.handler.trap(&mut thread, trap))) {
        Ok(resume) => thread.go_on(resume),
        Err(_) => {
            tracing::error!(?trap, "a trap's handler panicked; its guest is ended");
            thread.place.host.process.condemn();
        }
    }
}

fn decode(space: &Space, host: &Host, frame: &Frame<'_>, notif: &Notif) -> Option<Trap> {
    let signal = i32::try_from(notif.args[1]).ok()?;
    if signal == INTERRUPT {
        return Some(Trap::Interrupted);
    }
    if signal == libc::SIGSYS {
        let regs = frame.registers();
        frame.set_rax(MINUS_ENOSYS);
        let nr = u64::from(regs.rax as u32);
        return Some(Trap::Syscall(SyscallTrap { nr, args: regs.syscall_args(), ip: regs.rip }));
    }
    let signal = Signal::new(signal)?;
    let info = usize::try_from(notif.args[2].checked_sub(slot_address(host))?).ok()?;
    let code = (space.mailbox.get(host.slot, info + 8) & 0xffff_ffff) as u32 as i32;
    let addr = space.mailbox.get(host.slot, info + 16);
    let (trap_number, error_code, cr2) = frame.fault();
    Some(Trap::Fault(Fault {
        signal,
        info: SigInfo::fault(signal, code, addr),
        trap_number,
        error_code,
        cr2,
    }))
}

/// A thread during its trap.
struct Stopped {
    task: Arc<Task>,
    place: Place,
    nr: u64,
}

impl Stopped {
    /// The frame the thread rests on; it is taken to its doorbell for that if it is at a call.
    fn frame(&self) -> Result<Frame<'_>, PlatformError> {
        let host = &self.place.host;
        drop(host.hold()?);
        host.frame(&self.place.space).ok_or(PlatformError::Gone)
    }

    fn go_on(&self, resume: Resume) {
        let Place { host, space } = &self.place;
        match resume {
            Resume::Return(value) => host.resume(space, Some(value)),
            Resume::Continue => host.resume(space, None),
            Resume::Exit => self.exit(),
            Resume::ExitProcess => {
                host.process.requested.store(true, Ordering::SeqCst);
                host.process.left.store(true, Ordering::SeqCst);
                host.process.kill();
            }
        }
    }

    fn exit(&self) {
        let (host, space) = (&self.place.host, &self.place.space);
        let addr = self.task.clear_tid;
        let clears =
            addr != 0 && space.hosts.lock().len() > 1 && space.write(UserAddr(addr), &[0; 4]).is_ok();
        let last = {
            let mut hosts = host.process.hosts.lock();
            let others = hosts.iter().any(|h| !Arc::ptr_eq(h, host));
            if others {
                hosts.retain(|h| !Arc::ptr_eq(h, host));
            } else {
                host.process.requested.store(true, Ordering::SeqCst);
                host.process.left.store(true, Ordering::SeqCst);
            }
            !others
        };
        // As the host's kernel would, for waiters of all processes. The memory may be gone by then.
        let wake = [libc::SYS_futex as u64, addr, libc::FUTEX_WAKE as u64, 1, 0, 0, 0];
        let exit = [libc::SYS_exit as u64, 0, 0, 0, 0, 0, 0];
        let actions = [wake, exit];
        host.run_last(space, actions.get(usize::from(!clears)..).unwrap_or_default());
        if !last {
            host.listener.forget(host);
            host.end();
            host.task.lock().take();
        }
    }

    /// The three kinds of clone.
    fn clone_with(
        &self,
        flags: u64,
        process: Arc<Process>,
        space: &Arc<Space>,
        new: NewThread,
    ) -> Result<Arc<Task>, PlatformError> {
        let parent = &self.place.host;
        let slot = space.take_slot()?;
        let host = Host::new(Arc::clone(&parent.listener), process, space, slot, flags == CLONE_FORK);
        let frame = Frame::fresh(&space.mailbox, slot);
        let state = self.frame()?.fp_state(self.place.space.shared.xsave_size);
        let new = NewThread { fp_state: new.fp_state.or(state), ..new };
        fill(space, &frame, &new);
        let task = Arc::new(Task {
            handler: new.handler,
            clear_tid: new.clear_tid,
            place: Mutex::new(Place { host: Arc::clone(&host), space: Arc::clone(space) }),
            interrupted: AtomicBool::new(false),
        });
        *host.task.lock() = Some(Arc::clone(&task));
        let shared = &space.shared;
        let _starting = shared.children.starting();
        let nonce = parent.listener.expect(&host);
        // The stack pointer is never used, but CLONE_VM demands one.
        let address = MAILBOX + slot as u64 * SLOT;
        let action = [ACT_CLONE, flags, address, 0, 0, nonce, address];
        let result = parent.run(&self.place.space, &[action]).map(|r| r.first().copied().unwrap_or(-11));
        if let Ok(tid) = result
            && tid > 0
        {
            // It may have introduced itself already, or be dead already.
            shared.children.claim(&host.process, tid as i32);
            return Ok(task);
        }
        parent.listener.unexpect(nonce);
        if flags != CLONE_THREAD {
            // It may be there all the same, when the parent died before it could tell.
            host.process.kill();
        }
        host.process.hosts.lock().retain(|h| !Arc::ptr_eq(h, &host));
        host.task.lock().take();
        host.end();
        result.and(Err(PlatformError::Exhausted("host threads")))
    }
}

impl GuestThread for Stopped {
    fn registers(&mut self) -> Result<Registers, PlatformError> {
        let mut regs = self.frame()?.registers();
        regs.orig_rax = self.nr;
        Ok(regs)
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), PlatformError> {
        self.frame()?.set_registers(registers);
        Ok(())
    }

    fn fp_state(&mut self) -> Result<Vec<u8>, PlatformError> {
        let size = self.place.space.shared.xsave_size;
        let frame = self.frame()?;
        Ok(frame.fp_state(size).unwrap_or_else(|| crate::frame::reset_state(size)))
    }

    fn set_fp_state(&mut self, state: &[u8]) -> Result<(), PlatformError> {
        let shared = &self.place.space.shared;
        self.frame()?.set_fp_state(state, shared.xsave_size, shared.xcr0);
        Ok(())
    }

    fn reset_fp_state(&mut self) -> Result<(), PlatformError> {
        self.frame()?.reset_fp_state();
        Ok(())
    }

    fn address_space(&self) -> Arc<dyn AddressSpace> {
        Arc::clone(&self.place.space) as Arc<dyn AddressSpace>
    }

    fn clone_thread(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError> {
        let process = Arc::clone(&self.place.host.process);
        Ok(self.clone_with(CLONE_THREAD, process, &self.place.space, new)?)
    }

    fn clone_shared(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError> {
        Ok(self.clone_with(CLONE_SHARED, Arc::default(), &self.place.space, new)?)
    }

    fn fork(
        &mut self,
        new: NewThread,
    ) -> Result<(Arc<dyn AddressSpace>, Arc<dyn ThreadHandle>), PlatformError> {
        let space = Space::empty(&self.place.space.shared)?;
        space.inherit(&self.place.space);
        let task = self.clone_with(CLONE_FORK, Arc::default(), &space, new)?;
        Ok((space, task))
    }

    fn exec_into(&mut self, space: Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        let space = ours(&self.place.space.shared, &space)?;
        settle(&space)?;
        let host = space.parked.lock().take().ok_or(PlatformError::Gone)?;
        host.wait()?;
        Frame::fresh(&space.mailbox, host.slot);
        let place = Place { host: Arc::clone(&host), space };
        *host.task.lock() = Some(Arc::clone(&self.task));
        *self.task.place.lock() = place.clone();
        let old = std::mem::replace(&mut self.place, place);
        self.nr = u64::MAX;
        CURRENT.set(Some(Arc::clone(&host)));
        host.started.store(true, Ordering::SeqCst);
        old.host.task.lock().take();
        old.host.process.kill();
        self.task.poke_if_interrupted(&host);
        Ok(())
    }

    fn handle(&self) -> Arc<dyn ThreadHandle> {
        Arc::clone(&self.task) as Arc<dyn ThreadHandle>
    }
}
