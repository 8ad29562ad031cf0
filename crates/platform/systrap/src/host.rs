//! Host threads and processes, and what a held thread can be told to do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use abi::Errno;
use hostproc::{HostView, Vdso};
use parking_lot::{Condvar, Mutex, MutexGuard};
use platform::{HostExit, PlatformError, SyscallTrap};

use crate::children::Children;
use crate::crew::Crew;
use crate::filter::is_postable;
use crate::frame::{Frame, MINUS_ENOSYS, encode};
use crate::layout::{
    ACTION, DONE, IDLE, INTERRUPT, MAILBOX, OFF_ACTIONS, OFF_CALL, OFF_CELL, OFF_NEW_UC, OFF_RESULT,
    OFF_STATE, POSTED, SLOT, SLOW, STUB, TAKEN,
};
use crate::patch::{Patches, Site};
use crate::raw::stub::{self, Posting};
use crate::raw::sys::{self, Notif};
use crate::serve::{Listener, is_wait};
use crate::space::Space;
use crate::spare::Spare;
use crate::spin::{Spinner, Streak};
use crate::task::Task;
use crate::window::{self, Windows};

mod hand;

pub(crate) use hand::Hand;

/// After what time of waiting for a thread to look whether it lives.
const LOOK_AFTER: Duration = Duration::from_millis(200);

/// Answer to a call that is to be made again after a signal that is pending.
const ERESTARTNOINTR: i64 = -513;

/// What all address spaces share.
pub(crate) struct Shared {
    pub(crate) children: Arc<Children>,
    pub(crate) xsave_size: usize,
    pub(crate) xcr0: u64,
    /// The vDSO that every new process has, unless the host keeps it from being moved.
    pub(crate) vdso: OnceLock<Vdso>,
    pub(crate) view: HostView,
    /// The rewritten code of guests, unless the fast path is off.
    pub(crate) patches: Option<Patches>,
    /// Who looks for posted calls, where there is a processor to spare for that.
    pub(crate) spinner: Option<Arc<Spinner>>,
    /// What the next program is to have.
    pub(crate) spare: Spare,
    /// Spaces by address, to find ours again behind the trait object.
    pub(crate) spaces: Mutex<HashMap<usize, Weak<Space>>>,
}

/// A host thread group.
#[derive(Default)]
pub(crate) struct Process {
    /// Its id; zero until it is known.
    pub(crate) tgid: AtomicI32,
    /// It has ended, and its id may be anybody's.
    buried: Mutex<bool>,
    /// We ended it.
    pub(crate) requested: AtomicBool,
    /// It broke the protocol.
    pub(crate) corrupt: AtomicBool,
    /// Its last thread ended by a handler's will, which so knows.
    pub(crate) left: AtomicBool,
    /// Its threads that have not ended.
    pub(crate) hosts: Mutex<Vec<Arc<Host>>>,
}

impl Process {
    /// Gives it its id. Whether it had none.
    pub(crate) fn identify(&self, pid: i32) -> bool {
        self.tgid.compare_exchange(0, pid, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Somebody wanted its end before it had an id.
    pub(crate) fn is_doomed(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Whether it has ended.
    pub(crate) fn is_buried(&self) -> bool {
        *self.buried.lock()
    }

    /// Ends it.
    pub(crate) fn kill(&self) {
        self.requested.store(true, Ordering::SeqCst);
        self.signal(self.tgid.load(Ordering::SeqCst), libc::SIGKILL);
    }

    /// It broke the protocol: ends it.
    pub(crate) fn condemn(&self) {
        self.corrupt.store(true, Ordering::SeqCst);
        self.kill();
    }

    /// Sends a signal to one of its threads, if it has not ended.
    pub(crate) fn signal(&self, tid: i32, signal: i32) {
        let buried = self.buried.lock();
        let tgid = self.tgid.load(Ordering::SeqCst);
        if !*buried && tgid > 0 && tid > 0 {
            sys::tgkill(tgid, tid, signal);
        }
    }

    /// Its id is given back by `reap`.
    pub(crate) fn bury(&self, reap: impl FnOnce()) {
        let mut buried = self.buried.lock();
        *buried = true;
        reap();
    }

    /// Tells its handlers that it ended.
    pub(crate) fn tell(self: &Arc<Self>, crew: &Arc<Crew>, signal: Option<i32>) {
        let exit = if self.corrupt.load(Ordering::SeqCst) {
            HostExit::Corrupt
        } else if self.requested.load(Ordering::SeqCst) {
            HostExit::Requested
        } else {
            signal.map_or(HostExit::Requested, HostExit::Signaled)
        };
        let hosts = std::mem::take(&mut *self.hosts.lock());
        let mut handlers = Vec::new();
        for host in hosts {
            host.listener.forget(&host);
            host.end();
            handlers.extend(host.task.lock().take().map(|task| Arc::clone(&task.handler)));
        }
        let nobody = handlers.is_empty();
        let tell = move || handlers.iter().for_each(|handler| handler.host_exit(exit));
        if self.left.load(Ordering::SeqCst) || nobody {
            return tell();
        }
        // The handlers have a thread's whole end before them, and may wait for others that only our thread
        // can tell of.
        if !crew.call(tell) {
            tracing::error!("no thread to tell of a guest's end");
        }
    }
}

/// Where a thread that is held is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// At its doorbell: it can act.
    #[default]
    Bell,
    /// At a guest's call: it can be answered, but not act.
    Call,
    /// Where it waits for the result of a call it has posted: as at a call.
    Wait,
}

/// A call that the thread has posted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Posted {
    /// None, or none that is not at rest like any other.
    #[default]
    No,
    /// It is served. The thread looks for the result, waits for it, or is held at its doorbell by a signal.
    Served(Site),
    /// It has been.
    Done(u64),
}

/// What it means that a thread waits.
pub(crate) enum Waits {
    /// It has nothing to wait for.
    Refused,
    /// The result is on its way, or it has it.
    Known,
    /// Nobody has looked at the call yet: it is to be served.
    Posted((SyscallTrap, Windows)),
}

#[derive(Default)]
struct Held {
    notif: Option<Notif>,
    at: At,
    posted: Posted,
    /// Whoever made it act waits for the next doorbell: it is no trap.
    waiting: bool,
    dead: bool,
}

/// A host thread.
pub(crate) struct Host {
    pub(crate) listener: Arc<Listener>,
    pub(crate) process: Arc<Process>,
    pub(crate) space: Weak<Space>,
    pub(crate) slot: usize,
    /// Its id; zero until it has introduced itself.
    pub(crate) tid: AtomicI32,
    pub(crate) task: Mutex<Option<Arc<Task>>>,
    pub(crate) started: AtomicBool,
    /// Calls in a row that came so soon after another that it would pay to look for them.
    pub(crate) streak: Streak,
    /// It must be given its mailbox when it introduces itself.
    pub(crate) forked: bool,
    /// It rests because of a fault of the stub's.
    stub_faulted: AtomicBool,
    /// Guest address of the frame it rests on, as it last told; checked wherever it is used.
    frame: AtomicU64,
    /// Held by whoever makes it act or lets it go: an OS thread that serves its trap, or any other.
    acting: Mutex<()>,
    held: Mutex<Held>,
    changed: Condvar,
}

impl Host {
    /// One that has not introduced itself.
    pub(crate) fn new(
        listener: Arc<Listener>,
        process: Arc<Process>,
        space: &Arc<Space>,
        slot: usize,
        forked: bool,
    ) -> Arc<Self> {
        let host = Arc::new(Self {
            listener,
            process: Arc::clone(&process),
            space: Arc::downgrade(space),
            slot,
            tid: AtomicI32::new(0),
            task: Mutex::new(None),
            started: AtomicBool::new(false),
            streak: Streak::default(),
            forked,
            stub_faulted: AtomicBool::new(false),
            frame: AtomicU64::new(MAILBOX + slot as u64 * SLOT + OFF_NEW_UC as u64),
            acting: Mutex::new(()),
            held: Mutex::default(),
            changed: Condvar::new(),
        });
        process.hosts.lock().push(Arc::clone(&host));
        space.hosts.lock().push(Arc::downgrade(&host));
        host
    }

    /// It rang. Returns whether somebody waited for that.
    pub(crate) fn rang(&self, notif: Notif) -> bool {
        if notif.args[1] != 0 {
            self.frame.store(notif.args[3], Ordering::SeqCst);
        }
        let mut held = self.held.lock();
        let serves = matches!(held.posted, Posted::Served(_));
        if notif.args[1] != 0 && !serves {
            // Under the lock, so that nobody takes meanwhile what is withdrawn here.
            let faulted = self.settle(notif.args[1]);
            self.stub_faulted.store(faulted, Ordering::SeqCst);
            held.posted = Posted::No;
        }
        (held.notif, held.at) = (Some(notif), At::Bell);
        self.changed.notify_all();
        // Whoever serves its call lets it go, or holds it, afterwards.
        std::mem::take(&mut held.waiting) || serves
    }

    /// It makes a call. Returns whether it may: not where it was told to act, or has posted a call.
    pub(crate) fn called(&self, notif: Notif) -> bool {
        let mut held = self.held.lock();
        (held.notif, held.at) = (Some(notif), At::Call);
        self.changed.notify_all();
        !held.waiting && !matches!(held.posted, Posted::Served(_))
    }

    /// It waits for the result of a call it has posted.
    pub(crate) fn waits(&self, notif: Notif) -> Waits {
        let mut held = self.held.lock();
        if matches!(held.posted, Posted::Served(_)) {
            // Whoever made it act waits for that.
            held.waiting = false;
            (held.notif, held.at) = (Some(notif), At::Wait);
            self.changed.notify_all();
            return Waits::Known;
        }
        let Some(space) = self.space.upgrade() else { return Waits::Refused };
        if let Some((site, posted)) = self.take(&space) {
            (held.notif, held.at, held.posted) = (Some(notif), At::Wait, Posted::Served(site));
            return Waits::Posted(posted);
        }
        // One that has seen its result has not said so.
        let Posted::Done(value) = std::mem::take(&mut held.posted) else { return Waits::Refused };
        space.mailbox.store(self.slot, OFF_STATE, IDLE);
        drop(held);
        let _ = sys::send(self.listener.fd(), notif.id, value as i64);
        Waits::Known
    }

    /// Takes what it has posted, if it has, and may.
    fn take(&self, space: &Space) -> Option<(Site, (SyscallTrap, Windows))> {
        let mailbox = &space.mailbox;
        if !mailbox.exchange(self.slot, OFF_STATE, POSTED, TAKEN) {
            return None;
        }
        let mut bytes = [0; 64];
        mailbox.read(self.slot, OFF_CALL, &mut bytes);
        let mut words = bytes.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_le_bytes));
        let [nr, a, b, c, d, e, f, cell] = std::array::from_fn(|_| words.next().unwrap_or(0));
        let site = space.site_of_call(cell);
        let Some((site, base)) = site.filter(|_| is_postable(nr)) else {
            self.process.condemn();
            return None;
        };
        let call = SyscallTrap { nr, args: [a, b, c, d, e, f], ip: site.after(base) };
        Some((site, (call, Windows::of(mailbox, self.slot, nr))))
    }

    /// Takes the call it has posted, to serve it; `None` if there is none, or it may not post one.
    pub(crate) fn take_posted(&self, space: &Space) -> Option<(SyscallTrap, Windows)> {
        let mut held = self.held.lock();
        let busy = held.notif.is_some() || held.waiting || matches!(held.posted, Posted::Served(_));
        if busy || held.dead {
            return None;
        }
        let (site, posted) = self.take(space)?;
        held.posted = Posted::Served(site);
        Some(posted)
    }

    /// The call it has posted takes long.
    pub(crate) fn slow_down(&self, space: &Space) {
        space.mailbox.exchange(self.slot, OFF_STATE, TAKEN, SLOW);
    }

    /// Brings the frame of a thread that was interrupted in a cell, or where it posts a call, to where its guest
    /// could be: before its call, or behind it. Whether `signal` is a fault of the stub's, of which the guest
    /// hears nothing: then it is to make the call of the cell, or has no place for the result.
    fn settle(&self, signal: u64) -> bool {
        let Some(space) = self.space.upgrade() else { return false };
        let Some(frame) = self.frame(&space) else { return false };
        let ip = frame.ip();
        if let Some((_, _, there)) = space.site(ip) {
            frame.set_ip(there);
            return false;
        }
        let Some(posting) = stub::posting(ip).filter(|posting| *posting != Posting::Acting) else {
            return false;
        };
        let mailbox = &space.mailbox;
        let word = |offset| mailbox.get(self.slot, offset);
        let cell = if posting == Posting::Before { frame.r11() } else { word(OFF_CELL) };
        let Some((site, base)) = space.site_of_call(cell) else { return false };
        let state = mailbox.load(self.slot, OFF_STATE);
        mailbox.store(self.slot, OFF_STATE, IDLE);
        let moves = matches!(posting, Posting::Filling | Posting::Giving);
        let faulted = moves && [libc::SIGSEGV as u64, libc::SIGBUS as u64].contains(&signal);
        let before = match posting {
            Posting::Before | Posting::Filling => true,
            Posting::Posted => state != DONE,
            Posting::Done | Posting::Giving | Posting::Left | Posting::Acting => false,
        };
        if moves {
            frame.set_args(std::array::from_fn(|i| word(OFF_CALL + 8 + i * 8)));
        }
        match posting {
            Posting::Filling => frame.set_rax(word(OFF_CALL)),
            Posting::Posted if before => frame.set_rax(word(OFF_CALL)),
            Posting::Posted | Posting::Done => frame.set_rax(word(OFF_RESULT)),
            Posting::Before | Posting::Giving | Posting::Left | Posting::Acting => {}
        }
        if !before && !window::carry_told(&space, self.slot) {
            frame.set_rax(Errno::EFAULT.to_register());
        }
        frame.set_ip(match before {
            true if faulted => cell,
            true => site.call(base),
            false => site.after(base),
        });
        faulted
    }

    /// Whether it rests because of a fault of the stub's: once.
    pub(crate) fn stub_faulted(&self) -> bool {
        self.stub_faulted.swap(false, Ordering::SeqCst)
    }

    /// It is gone: nobody waits for it any more.
    pub(crate) fn end(&self) {
        self.held.lock().dead = true;
        self.changed.notify_all();
        if let Some(space) = self.space.upgrade() {
            space.release(self);
        }
    }

    /// Waits until it is held.
    pub(crate) fn wait(&self) -> Result<(), PlatformError> {
        if self.listener.is_led_here() {
            self.serve_until_held();
        }
        let mut held = self.held.lock();
        loop {
            if held.dead {
                return Err(PlatformError::Gone);
            }
            if held.notif.is_some() {
                return Ok(());
            }
            if self.changed.wait_for(&mut held, LOOK_AFTER).timed_out() && !self.runs() {
                // The process may live: then nobody else tells the thread's end.
                self.process.signal(self.process.tgid.load(Ordering::SeqCst), libc::SIGKILL);
                return Err(PlatformError::Gone);
            }
        }
    }

    /// The same by a thread that leads: it receives the doorbell itself, and hands over only when something
    /// else comes first, or nothing for long.
    fn serve_until_held(&self) {
        let acts = {
            let held = self.held.lock();
            if held.notif.is_some() {
                return;
            }
            held.waiting
        };
        // What comes from a thread that does not act is for others to serve.
        if !acts {
            return self.listener.hand_over();
        }
        match self.listener.receive(self.tid.load(Ordering::SeqCst)) {
            Some(notif) if is_wait(&notif) => {
                if matches!(self.waits(notif), Waits::Refused) {
                    self.process.condemn();
                }
            }
            Some(notif) => {
                self.rang(notif);
            }
            None => self.listener.hand_over(),
        }
    }

    /// Whether it can ring at all: it has the stub. A thread can end without telling when its guest
    /// jumps to the stub's `exit`.
    fn runs(&self) -> bool {
        let tid = self.tid.load(Ordering::SeqCst);
        tid == 0 || hostproc::memory::read(tid, STUB, &mut [0]) == 1
    }

    /// Brings it to its doorbell, from wherever it is.
    fn bring(&self) -> Result<(), PlatformError> {
        if self.held.lock().notif.is_none() {
            // It runs guest code and cannot go back there while we have it in hand, or it is on its way
            // to the doorbell, and the signal waits.
            self.poke();
        }
        self.wait()?;
        let (at, posted) = {
            let held = self.held.lock();
            (held.at, held.posted)
        };
        match (at, posted) {
            (At::Call | At::Wait, _) => self.to_doorbell(),
            (At::Bell, Posted::Served(site)) => self.leave_posting(site),
            (At::Bell, _) => Ok(()),
        }
    }

    /// Takes it from a call to the doorbell: the call is to be made again, but the interrupt comes first.
    fn to_doorbell(&self) -> Result<(), PlatformError> {
        let (notif, posted) = {
            let mut held = self.held.lock();
            (held.waiting, held.at) = (true, At::Bell);
            (held.notif.take().ok_or(PlatformError::Gone)?, held.posted)
        };
        self.poke();
        sys::send(self.listener.fd(), notif.id, ERESTARTNOINTR).map_err(|_| PlatformError::Gone)?;
        self.wait()?;
        if let Posted::Served(site) = posted {
            return self.leave_posting(site);
        }
        let bell = self.held.lock().notif.filter(|bell| bell.args[1] == INTERRUPT as u64);
        let space = self.space.upgrade().ok_or(PlatformError::Gone)?;
        let (Some(bell), Some(frame)) = (bell, self.frame(&space)) else {
            self.process.condemn();
            return Err(PlatformError::Gone);
        };
        frame.set_bases(bell.args[4], bell.args[5]);
        match space.site(notif.ip) {
            Some((site, base, _)) => {
                frame.set_ip(site.after(base));
                frame.set_rax(MINUS_ENOSYS);
            }
            None => frame.enter_call(notif.ip),
        }
        // The signal may have been another's too.
        if self.task.lock().as_ref().is_some_and(|task| task.is_interrupted()) {
            self.poke();
        }
        Ok(())
    }

    /// Makes the call it has posted, at `site`, one like any other: it is at its doorbell, by a signal.
    fn leave_posting(&self, site: Site) -> Result<(), PlatformError> {
        let space = self.space.upgrade().ok_or(PlatformError::Gone)?;
        let mut held = self.held.lock();
        let rings = |bell: &Notif| held.at == At::Bell && bell.args[1] == INTERRUPT as u64;
        let bell = held.notif.filter(rings);
        let (Some(bell), Some(frame), Some(base)) = (bell, self.frame(&space), space.base_of(site)) else {
            drop(held);
            self.process.condemn();
            return Err(PlatformError::Gone);
        };
        frame.set_bases(bell.args[4], bell.args[5]);
        frame.set_ip(site.after(base));
        frame.set_rax(MINUS_ENOSYS);
        space.mailbox.store(self.slot, OFF_STATE, IDLE);
        held.posted = Posted::No;
        drop(held);
        // The signal may have been another's too.
        if self.task.lock().as_ref().is_some_and(|task| task.is_interrupted()) {
            self.poke();
        }
        Ok(())
    }

    /// Gives the call it has posted its result, when it still is where it looks or waits for that.
    fn answer_posted(&self, space: &Space, value: u64) -> bool {
        let mut held = self.held.lock();
        let Posted::Served(_) = held.posted else { return false };
        match (held.notif, held.at) {
            (None, _) => {
                window::hand_out(space, self.slot);
                held.posted = Posted::Done(value);
                space.mailbox.set(self.slot, OFF_RESULT, value);
                space.mailbox.store(self.slot, OFF_STATE, DONE);
            }
            (Some(notif), At::Wait) => {
                window::hand_out(space, self.slot);
                (held.notif, held.posted) = (None, Posted::No);
                space.mailbox.store(self.slot, OFF_STATE, IDLE);
                drop(held);
                let _ = sys::send(self.listener.fd(), notif.id, value as i64);
            }
            (Some(_), _) => return false,
        }
        true
    }

    /// Makes it ring soon, once more than it otherwise would.
    pub(crate) fn poke(&self) {
        self.process.signal(self.tid.load(Ordering::SeqCst), INTERRUPT);
    }

    /// Answers its notification.
    fn reply(&self, value: i64, expect: bool) -> Result<(), PlatformError> {
        let notif = {
            let mut held = self.held.lock();
            held.waiting = expect;
            held.notif.take().ok_or(PlatformError::Gone)?
        };
        sys::send(self.listener.fd(), notif.id, value).map_err(|_| PlatformError::Gone)
    }

    /// Lets it return to guest code, once it is in nobody's hand: from a trap or a call with `value`
    /// in `rax`, or with its registers as they are.
    pub(crate) fn resume(&self, space: &Space, value: Option<u64>) {
        let _acting = self.lock_acting();
        if self.answer_posted(space, value.unwrap_or(MINUS_ENOSYS)) {
            return;
        }
        let carried = window::carry(space);
        let value = value.map(|value| if carried { value } else { Errno::EFAULT.to_register() });
        // A failure means that it is gone, which the reaper tells.
        let (at, posted) = {
            let held = self.held.lock();
            (held.at, held.posted)
        };
        if let Posted::Served(site) = posted
            && self.leave_posting(site).is_err()
        {
            return;
        }
        if at == At::Call {
            let _ = self.reply(value.unwrap_or(MINUS_ENOSYS) as i64, false);
            return;
        }
        if let (Some(frame), Some(value)) = (self.frame(space), value) {
            frame.set_rax(value);
        }
        self.ready(space);
        let _ = self.reply(0, false);
    }

    /// Readies its frame for it to go on there.
    pub(crate) fn ready(&self, space: &Space) {
        if let Some(frame) = self.frame(space) {
            if let Some(to) = space.redirect(frame.ip()) {
                frame.set_ip(to);
            }
            frame.seal();
        }
    }

    /// Whoever has it in hand may need the listener served.
    fn lock_acting(&self) -> MutexGuard<'_, ()> {
        self.acting.try_lock().unwrap_or_else(|| {
            self.listener.hand_over();
            self.acting.lock()
        })
    }

    fn post(&self, space: &Space, chunk: &[[u64; 7]]) {
        for (i, action) in chunk.iter().enumerate() {
            space.mailbox.write(self.slot, OFF_ACTIONS + i * ACTION, &encode(*action));
        }
    }

    /// Makes it run actions it does not come back from.
    pub(crate) fn run_last(&self, space: &Space, actions: &[[u64; 7]]) {
        let Ok(_hand) = self.hold() else { return };
        self.post(space, actions);
        let _ = self.reply(actions.len() as i64, false);
    }

    /// The frame it rests on.
    pub(crate) fn frame<'a>(&self, space: &'a Space) -> Option<Frame<'a>> {
        Frame::at(&space.mailbox, self.slot, self.frame.load(Ordering::SeqCst))
    }
}
