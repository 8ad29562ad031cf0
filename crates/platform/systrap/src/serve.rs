//! Listeners, and the leader/follower threads that serve them.
//!
//! One thread receives and serves what it receives itself; before it waits for anything it hands the
//! receiving over to another. So no two threads ever wait in one listener.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::children::Children;
use crate::host::Host;
use crate::layout::{DOORBELL, MAILBOX, SLOT, STUB, STUB_LEN};
use crate::raw::sys::{self, Notif};
use crate::task;

/// Descriptor under which a forked process gets its mailbox.
const MAILBOX_FD: u32 = 100;
/// Parked threads kept for a later hand-over.
const SPARE: usize = 2;

thread_local! {
    static LEADING: RefCell<Option<usize>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Leadership {
    led: bool,
    idle: usize,
    closed: bool,
}

/// A seccomp listener and the threads behind it.
pub(crate) struct Listener {
    fd: OwnedFd,
    children: Arc<Children>,
    leadership: Mutex<Leadership>,
    vacant: Condvar,
    /// Threads by id.
    hosts: Mutex<HashMap<u32, Arc<Host>>>,
    /// Threads that have not introduced themselves, by nonce.
    expected: Mutex<HashMap<u64, Arc<Host>>>,
    nonce: AtomicU64,
}

impl Listener {
    /// Serves `fd` from now on.
    pub(crate) fn new(fd: OwnedFd, children: &Arc<Children>) -> Arc<Self> {
        sys::sync_wake_up(fd.as_raw_fd());
        Arc::new(Self {
            fd,
            children: Arc::clone(children),
            leadership: Mutex::default(),
            vacant: Condvar::new(),
            hosts: Mutex::default(),
            expected: Mutex::default(),
            nonce: AtomicU64::new(1),
        })
    }

    /// Its descriptor.
    pub(crate) fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Starts a thread that will lead, or park.
    pub(crate) fn start(self: &Arc<Self>) {
        let listener = Arc::clone(self);
        let spawned = std::thread::Builder::new()
            .name("systrap".into())
            .stack_size(1 << 20)
            .spawn(move || listener.serve());
        if spawned.is_err() {
            tracing::error!("no thread to serve guests");
        }
    }

    /// Hands leadership over when this thread has it.
    pub(crate) fn hand_over(self: &Arc<Self>) {
        if LEADING.with_borrow(|l| *l != Some(self.key())) {
            return;
        }
        LEADING.set(None);
        let mut state = self.leadership.lock();
        state.led = false;
        if state.idle > 0 {
            self.vacant.notify_one();
        } else {
            drop(state);
            self.start();
        }
    }

    fn serve(self: Arc<Self>) {
        loop {
            {
                let mut state = self.leadership.lock();
                while state.led && !state.closed {
                    if state.idle >= SPARE {
                        return;
                    }
                    state.idle += 1;
                    self.vacant.wait(&mut state);
                    state.idle -= 1;
                }
                if state.closed {
                    return;
                }
                state.led = true;
            }
            LEADING.set(Some(self.key()));
            while LEADING.with_borrow(|l| *l == Some(self.key())) {
                if !sys::wait_readable(self.fd()) {
                    self.leadership.lock().closed = true;
                    self.vacant.notify_all();
                    return;
                }
                if let Ok(notif) = sys::recv(self.fd()) {
                    self.route(notif);
                }
            }
        }
    }

    /// Registers a thread that introduced itself, or is known from the start.
    pub(crate) fn know(&self, tid: u32, host: &Arc<Host>) {
        host.tid.store(tid as i32, Ordering::SeqCst);
        self.hosts.lock().insert(tid, Arc::clone(host));
    }

    /// Announces a thread; the nonce by which it will introduce itself.
    pub(crate) fn expect(&self, host: &Arc<Host>) -> u64 {
        let nonce = self.nonce.fetch_add(1, Ordering::SeqCst);
        self.expected.lock().insert(nonce, Arc::clone(host));
        nonce
    }

    /// It does not come.
    pub(crate) fn unexpect(&self, nonce: u64) {
        self.expected.lock().remove(&nonce);
    }

    /// The thread is gone.
    pub(crate) fn forget(&self, host: &Host) {
        self.hosts.lock().remove(&(host.tid.load(Ordering::SeqCst) as u32));
    }

    fn route(self: &Arc<Self>, notif: Notif) {
        let in_stub = (STUB..STUB + STUB_LEN).contains(&notif.ip) && notif.nr == DOORBELL as i32;
        if in_stub && notif.args[1] == u64::MAX {
            return self.introduce(notif);
        }
        let host = self.hosts.lock().get(&notif.pid).cloned();
        match host {
            Some(host) if in_stub && notif.args[0] == slot_address(&host) => {
                if !host.rang(notif) {
                    task::rang(&host, &notif);
                }
            }
            Some(host) => {
                host.process.condemn();
            }
            None => sys::kill(notif.pid as i32),
        }
    }

    /// A cloned thread's first ring.
    fn introduce(self: &Arc<Self>, notif: Notif) {
        let Some(host) = self.expected.lock().remove(&notif.args[4]) else {
            return sys::kill(notif.pid as i32);
        };
        self.know(notif.pid, &host);
        self.children.claim(&host.process, notif.pid as i32);
        let answer = match (host.forked, host.space.upgrade()) {
            (true, Some(space)) => {
                sys::add_fd(self.fd(), notif.id, space.mailbox.raw_fd(), Some(MAILBOX_FD), true).map(|_| ())
            }
            _ => sys::send(self.fd(), notif.id, 0),
        };
        if answer.is_err() {
            host.process.kill();
        }
    }
}

/// Guest address of a thread's slot.
pub(crate) fn slot_address(host: &Host) -> u64 {
    MAILBOX + host.slot as u64 * SLOT
}
