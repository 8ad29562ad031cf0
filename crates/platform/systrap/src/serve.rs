//! Listeners, and the leader/follower threads that serve them.
//!
//! One thread receives and serves what it receives itself; before it waits for anything it hands the
//! receiving over to another. So hardly ever two threads wait in one listener. A leader that sleeps without
//! having told is found and relieved by the [`watch`](crate::watch).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::children::Children;
use crate::host::{Host, Waits};
use crate::layout::{DOORBELL, MAILBOX, SLOT, STUB, STUB_LEN, WAIT};
use crate::raw::sys::{self, Notif};
use crate::task;

/// Descriptor under which a forked process gets its mailbox.
const MAILBOX_FD: u32 = 100;
/// How long a leader waits for one thread's doorbell before another serves the rest.
const PATIENCE: Duration = Duration::from_millis(100);
/// Parked threads kept for a later hand-over.
const SPARE: usize = 2;

thread_local! {
    /// The listener whose leader serves on this thread, and its beat since then.
    static LEADING: Cell<Option<(usize, u64)>> = const { Cell::new(None) };
    /// The listener that this thread has come to lead while it served another.
    static NEXT: RefCell<Option<Arc<Listener>>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Leadership {
    led: bool,
    idle: usize,
    /// What somebody received and had no time for.
    left: VecDeque<Notif>,
    closed: bool,
}

/// What a thread of a listener does next.
enum Duty {
    /// Receive, as the leader.
    Lead,
    /// Serve what another received.
    Serve(Notif),
}

/// A seccomp listener and the threads behind it.
pub(crate) struct Listener {
    fd: OwnedFd,
    children: Arc<Children>,
    leadership: Mutex<Leadership>,
    vacant: Condvar,
    /// Odd while the leader serves, even while it receives; grows with each change. From an odd beat to the
    /// next comes who wins it: the leader stays what it is, or it hands over, or the watch relieves it.
    beat: AtomicU64,
    /// Threads by id.
    hosts: Mutex<HashMap<u32, Arc<Host>>>,
    /// Threads that have not introduced themselves, by nonce.
    expected: Mutex<HashMap<u64, Arc<Host>>>,
    /// How many threads were announced, and the secret that makes their nonces of that: processes that share
    /// the listener must not guess each other's.
    announced: AtomicU64,
    secret: RandomState,
}

impl Listener {
    /// Serves `fd` from now on.
    pub(crate) fn new(fd: OwnedFd, children: &Arc<Children>) -> Arc<Self> {
        sys::sync_wake_up(fd.as_raw_fd());
        let listener = Arc::new(Self {
            fd,
            children: Arc::clone(children),
            leadership: Mutex::default(),
            vacant: Condvar::new(),
            beat: AtomicU64::new(0),
            hosts: Mutex::default(),
            expected: Mutex::default(),
            announced: AtomicU64::new(0),
            secret: RandomState::new(),
        });
        children.watch.add(&listener);
        listener
    }

    /// Its descriptor.
    pub(crate) fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Calls a thread that will lead, serve what is left, or park.
    pub(crate) fn start(self: &Arc<Self>) {
        let listener = Arc::clone(self);
        if !self.children.crew.call(move || listener.serve()) {
            tracing::error!("no thread to serve guests");
        }
    }

    /// Whether the leader serves on the calling thread.
    pub(crate) fn is_led_here(&self) -> bool {
        LEADING.get() == Some((self.key(), self.beat.load(Ordering::SeqCst)))
    }

    /// Hands leadership over when this thread has it.
    pub(crate) fn hand_over(self: &Arc<Self>) {
        if let Some((key, beat)) = LEADING.get()
            && key == self.key()
        {
            LEADING.set(None);
            self.relieve(beat);
        }
    }

    /// Makes the calling thread lead, which leads no other any more, unless somebody leads already: whoever
    /// readies the listener's first thread hears it without the help of others.
    pub(crate) fn attend(self: &Arc<Self>) {
        if std::mem::replace(&mut self.leadership.lock().led, true) {
            return;
        }
        self.begin_beat();
        NEXT.set(Some(Arc::clone(self)));
    }

    /// Ends that. Nobody leads then, unless somebody has taken over.
    pub(crate) fn leave(&self) {
        NEXT.set(None);
        if let Some((_, beat)) = LEADING.get().filter(|(key, _)| *key == self.key()) {
            LEADING.set(None);
            if self.end_beat(beat) {
                self.leadership.lock().led = false;
            }
        }
    }

    /// Where the leader is.
    pub(crate) fn beat(&self) -> u64 {
        self.beat.load(Ordering::SeqCst)
    }

    /// Takes the duty from a leader that has served one thing since `beat`, and still does.
    pub(crate) fn relieve(self: &Arc<Self>, beat: u64) {
        if self.end_beat(beat) {
            let mut state = self.leadership.lock();
            state.led = false;
            self.call_one(state);
        }
    }

    /// From serving to the next beat, by whoever comes first.
    fn end_beat(&self, beat: u64) -> bool {
        let next = beat.wrapping_add(1);
        beat % 2 == 1 && self.beat.compare_exchange(beat, next, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// From receiving to serving, by the leader.
    fn begin_beat(&self) {
        let beat = self.beat.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        LEADING.set(Some((self.key(), beat)));
        self.children.watch.wake();
    }

    /// Wakes a parked thread, or starts one.
    fn call_one(self: &Arc<Self>, mut state: MutexGuard<'_, Leadership>) {
        if state.idle > 0 {
            // It is spoken for: the next call needs another.
            state.idle -= 1;
            self.vacant.notify_one();
        } else if !state.closed {
            drop(state);
            self.start();
        }
    }

    /// The next doorbell, by the leader, if it is the thread `tid` that rings, or waits for its result. `None` when
    /// something else came, which others are to serve, or nothing for long. New threads begin meanwhile: one that
    /// clones is mostly waited for while its child comes.
    pub(crate) fn receive(self: &Arc<Self>, tid: i32) -> Option<Notif> {
        loop {
            let (_, beat) = LEADING.take()?;
            if !self.end_beat(beat) {
                return None;
            }
            let notif =
                if sys::wait_readable(self.fd(), PATIENCE) { sys::recv(self.fd()).ok() } else { None };
            self.begin_beat();
            let notif = notif?;
            if is_introduction(&notif) {
                self.introduce(notif);
                continue;
            }
            if notif.pid == tid as u32 && (is_doorbell(&notif) || is_wait(&notif)) {
                return Some(notif);
            }
            let mut state = self.leadership.lock();
            state.left.push_back(notif);
            self.call_one(state);
            return None;
        }
    }

    fn serve(self: Arc<Self>) {
        let mut listener = self;
        loop {
            listener.serve_it();
            // What it served last may have become a program of its own, which it leads now.
            match NEXT.take() {
                Some(next) => listener = next,
                None => return,
            }
        }
    }

    fn serve_it(self: &Arc<Self>) {
        let led = LEADING.take().filter(|(key, _)| *key == self.key());
        if led.is_some_and(|(_, beat)| self.end_beat(beat)) {
            while self.lead_once() {}
        }
        while NEXT.with_borrow(Option::is_none)
            && let Some(duty) = self.next_duty()
        {
            match duty {
                Duty::Serve(notif) => self.route(notif),
                Duty::Lead => while self.lead_once() {},
            }
        }
    }

    /// Waits for something to do. `None` when there is nothing more, or enough threads wait for it.
    fn next_duty(&self) -> Option<Duty> {
        let mut state = self.leadership.lock();
        loop {
            if let Some(notif) = state.left.pop_front() {
                return Some(Duty::Serve(notif));
            }
            if state.closed || (state.led && state.idle >= SPARE) {
                return None;
            }
            if !state.led {
                state.led = true;
                return Some(Duty::Lead);
            }
            state.idle += 1;
            self.vacant.wait(&mut state);
        }
    }

    /// Receives and serves one notification. Whether this thread still leads.
    fn lead_once(self: &Arc<Self>) -> bool {
        match sys::recv_or_unused(self.fd()) {
            Ok(notif) => {
                self.begin_beat();
                self.route(notif);
                let led = LEADING.get().filter(|(key, _)| *key == self.key());
                led.is_some_and(|(_, beat)| {
                    LEADING.set(None);
                    self.end_beat(beat)
                })
            }
            Err(_) if sys::is_unused(self.fd()) => {
                self.leadership.lock().closed = true;
                self.vacant.notify_all();
                false
            }
            Err(_) => true,
        }
    }

    /// Registers a thread that introduced itself, or is known from the start.
    pub(crate) fn know(&self, tid: u32, host: &Arc<Host>) {
        host.tid.store(tid as i32, Ordering::SeqCst);
        self.hosts.lock().insert(tid, Arc::clone(host));
    }

    /// Announces a thread; the nonce by which it will introduce itself.
    pub(crate) fn expect(&self, host: &Arc<Host>) -> u64 {
        let nonce = self.secret.hash_one(self.announced.fetch_add(1, Ordering::SeqCst));
        self.expected.lock().insert(nonce, Arc::clone(host));
        nonce
    }

    /// It does not come.
    pub(crate) fn unexpect(&self, nonce: u64) {
        self.expected.lock().remove(&nonce);
    }

    /// The thread is gone.
    pub(crate) fn forget(&self, host: &Host) {
        let tid = host.tid.load(Ordering::SeqCst) as u32;
        let mut hosts = self.hosts.lock();
        // Its number may be another's by now.
        if hosts.get(&tid).is_some_and(|known| std::ptr::eq(Arc::as_ptr(known), host)) {
            hosts.remove(&tid);
        }
        drop(hosts);
        if tid == 0 {
            self.expected.lock().retain(|_, expected| !std::ptr::eq(Arc::as_ptr(expected), host));
        }
    }

    fn route(self: &Arc<Self>, notif: Notif) {
        if is_introduction(&notif) {
            return self.introduce(notif);
        }
        let bell = is_doorbell(&notif);
        let Some(host) = self.hosts.lock().get(&notif.pid).cloned() else {
            return sys::kill(notif.pid as i32);
        };
        let good = if bell {
            let good = notif.args[0] == slot_address(&host);
            if good && !host.rang(notif) {
                task::rang(&host, &notif);
            }
            good
        } else if is_wait(&notif) {
            match host.waits(notif) {
                Waits::Refused => false,
                Waits::Known => true,
                Waits::Posted(posted) => {
                    task::waits(&host, posted);
                    true
                }
            }
        } else {
            let good = host.called(notif);
            if good {
                task::called(&host, &notif);
            }
            good
        };
        if !good {
            host.process.condemn();
        }
    }

    /// A cloned thread's first ring: it begins.
    fn introduce(self: &Arc<Self>, notif: Notif) {
        let Some(host) = self.expected.lock().remove(&notif.args[4]) else {
            return sys::kill(notif.pid as i32);
        };
        self.know(notif.pid, &host);
        self.children.claim(&host.process, notif.pid as i32);
        let (Some(task), Some(space)) = (host.task.lock().clone(), host.space.upgrade()) else {
            return host.process.kill();
        };
        task.begin(&host, &space);
        let answer = if host.forked {
            sys::add_fd(self.fd(), notif.id, space.mailbox.raw_fd(), Some(MAILBOX_FD), true).map(|_| ())
        } else {
            sys::send(self.fd(), notif.id, 0)
        };
        if answer.is_err() {
            return host.process.kill();
        }
        task.poke_if_interrupted(&host);
    }
}

/// Whether a cloned thread is there.
fn is_introduction(notif: &Notif) -> bool {
    is_doorbell(notif) && notif.args[1] == u64::MAX
}

/// Whether it comes from the stub.
fn is_doorbell(notif: &Notif) -> bool {
    (STUB..STUB + STUB_LEN).contains(&notif.ip) && notif.nr == DOORBELL as i32
}

/// Whether its thread waits for the result of a posted call.
pub(crate) fn is_wait(notif: &Notif) -> bool {
    (STUB..STUB + STUB_LEN).contains(&notif.ip) && notif.nr == WAIT as i32
}

/// Guest address of a thread's slot.
pub(crate) fn slot_address(host: &Host) -> u64 {
    MAILBOX + host.slot as u64 * SLOT
}
