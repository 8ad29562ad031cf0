//! Host threads and processes, and what a held thread can be told to do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Weak};

use bpf::Program;
use parking_lot::{Condvar, Mutex};
use platform::{HostExit, PlatformError};

use crate::frame::{Frame, encode};
use crate::layout::{ACTION, ACTIONS, OFF_ACTIONS};
use crate::raw::sys::{self, Notif};
use crate::serve::Listener;
use crate::space::Space;
use crate::task::Task;

/// What all address spaces share.
pub(crate) struct Shared {
    pub(crate) filter: Program,
    pub(crate) xsave_size: usize,
    pub(crate) xcr0: u64,
    /// Spaces by address, to find ours again behind the trait object.
    pub(crate) spaces: Mutex<HashMap<usize, Weak<Space>>>,
}

impl Shared {
    /// No spaces yet.
    pub(crate) fn new(filter: Program, xsave_size: usize, xcr0: u64) -> Self {
        Self { filter, xsave_size, xcr0, spaces: Mutex::new(HashMap::new()) }
    }
}

/// A host thread group.
#[derive(Default)]
pub(crate) struct Process {
    /// Its id; zero until it has introduced itself.
    pub(crate) tgid: AtomicI32,
    /// We ended it.
    pub(crate) requested: AtomicBool,
    /// It broke the protocol.
    pub(crate) corrupt: AtomicBool,
    /// Its threads that have not ended.
    pub(crate) hosts: Mutex<Vec<Arc<Host>>>,
}

impl Process {
    /// Ends it.
    pub(crate) fn kill(&self) {
        self.requested.store(true, Ordering::SeqCst);
        let tgid = self.tgid.load(Ordering::SeqCst);
        if tgid > 0 {
            sys::tgkill(tgid, tgid, libc::SIGKILL);
        }
    }

    /// Waits for its end on a thread of its own, then tells the handlers.
    pub(crate) fn reap_in_background(self: &Arc<Self>, listener: &Arc<Listener>) {
        let (process, listener) = (Arc::clone(self), Arc::clone(listener));
        let tgid = self.tgid.load(Ordering::SeqCst);
        let spawned =
            std::thread::Builder::new().name("reaper".into()).stack_size(256 << 10).spawn(move || {
                let signal = sys::reap(tgid);
                process.gone(&listener, signal);
            });
        if spawned.is_err() {
            tracing::error!(tgid, "no thread to reap a guest process");
            self.kill();
        }
    }

    fn gone(&self, listener: &Listener, signal: Option<i32>) {
        let exit = if self.corrupt.load(Ordering::SeqCst) {
            HostExit::Corrupt
        } else if self.requested.load(Ordering::SeqCst) {
            HostExit::Requested
        } else {
            signal.map_or(HostExit::Requested, HostExit::Signaled)
        };
        let hosts = std::mem::take(&mut *self.hosts.lock());
        for host in hosts {
            listener.forget(&host);
            host.end();
            if let Some(task) = host.task.lock().take() {
                task.handler.host_exit(exit);
            }
        }
    }
}

#[derive(Default)]
struct Held {
    notif: Option<Notif>,
    /// Somebody waits for the next doorbell.
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
    /// It must be given its mailbox when it introduces itself.
    pub(crate) forked: bool,
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
            forked,
            held: Mutex::default(),
            changed: Condvar::new(),
        });
        process.hosts.lock().push(Arc::clone(&host));
        space.hosts.lock().push(Arc::downgrade(&host));
        host
    }

    /// It rang. Returns whether somebody waited for that.
    pub(crate) fn rang(&self, notif: Notif) -> bool {
        let mut held = self.held.lock();
        held.notif = Some(notif);
        self.changed.notify_all();
        std::mem::take(&mut held.waiting)
    }

    /// It is gone: nobody waits for it any more.
    pub(crate) fn end(&self) {
        self.held.lock().dead = true;
        self.changed.notify_all();
        if let Some(space) = self.space.upgrade() {
            space.release(self);
        }
    }

    /// Waits until it is held at its doorbell.
    pub(crate) fn wait(&self) -> Result<Notif, PlatformError> {
        self.listener.hand_over();
        let mut held = self.held.lock();
        loop {
            if held.dead {
                return Err(PlatformError::Gone);
            }
            if let Some(notif) = held.notif {
                return Ok(notif);
            }
            held.waiting = true;
            self.changed.wait(&mut held);
        }
    }

    /// Whether it is held now.
    pub(crate) fn held(&self) -> Option<Notif> {
        self.held.lock().notif
    }

    /// Answers its doorbell.
    fn reply(&self, value: i64, expect: bool) -> Result<(), PlatformError> {
        let notif = {
            let mut held = self.held.lock();
            held.waiting = expect;
            held.notif.take().ok_or(PlatformError::Gone)?
        };
        sys::send(self.listener.fd(), notif.id, value).map_err(|_| PlatformError::Gone)
    }

    /// Lets it return to guest code.
    pub(crate) fn resume(&self) {
        // A failure means that it is gone, which the reaper tells.
        let _ = self.reply(0, false);
    }

    /// Makes it run actions; the results of those carried out (a failure is the last).
    pub(crate) fn run(&self, space: &Space, actions: &[[u64; 7]]) -> Result<Vec<i64>, PlatformError> {
        let mut results = Vec::with_capacity(actions.len());
        for chunk in actions.chunks(ACTIONS) {
            self.post(space, chunk);
            self.listener.hand_over();
            self.reply(chunk.len() as i64, true)?;
            self.wait()?;
            for i in 0..chunk.len() {
                let result = space.mailbox.get(self.slot, OFF_ACTIONS + i * ACTION + 56) as i64;
                results.push(result);
                if (-4095..0).contains(&result) {
                    return Ok(results);
                }
            }
        }
        Ok(results)
    }

    fn post(&self, space: &Space, chunk: &[[u64; 7]]) {
        for (i, action) in chunk.iter().enumerate() {
            space.mailbox.write(self.slot, OFF_ACTIONS + i * ACTION, &encode(*action));
        }
    }

    /// Makes it run actions it does not come back from.
    pub(crate) fn run_last(&self, space: &Space, action: [u64; 7]) {
        self.post(space, &[action]);
        let _ = self.reply(1, false);
    }

    /// Gives it a descriptor.
    pub(crate) fn give_fd(&self, fd: i32) -> Result<i32, PlatformError> {
        let notif = self.held().ok_or(PlatformError::Gone)?;
        sys::add_fd(self.listener.fd(), notif.id, fd, None, false)
            .map_err(|source| PlatformError::Host { doing: "giving a guest a descriptor", source })
    }

    /// The frame it rests on.
    pub(crate) fn frame<'a>(&self, space: &'a Space) -> Option<Frame<'a>> {
        let notif = self.held()?;
        Frame::at(&space.mailbox, self.slot, notif.args[3])
    }
}
