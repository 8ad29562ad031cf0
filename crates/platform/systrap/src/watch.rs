//! The watch: finds leaders of listeners that sleep without having told.
//!
//! A handler tells through `sync::block` before it sleeps, but not everything it calls can: a host call may
//! wait for a disk, or for another process. Meanwhile nobody would serve the listener's other threads, so one thread
//! looks at all leaders at short intervals, while there is anything to look at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::serve::Listener;

/// How long a leader may serve one thing, at least; at most twice that.
const TICK: Duration = Duration::from_millis(2);
/// Ticks without anything served after which the watch sleeps.
const QUIET: u32 = 50;

#[derive(Default)]
struct State {
    listeners: Vec<(Weak<Listener>, u64)>,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Watch {
    state: Mutex<State>,
    asleep: AtomicBool,
    woken: Condvar,
}

impl Watch {
    /// Starts it.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let watch = Arc::new(Self::default());
        let ours = Arc::clone(&watch);
        std::thread::Builder::new()
            .name("systrap-watch".into())
            .stack_size(256 << 10)
            .spawn(move || ours.run())?;
        Ok(watch)
    }

    /// Watches a listener from now on, while it lives.
    pub(crate) fn add(&self, listener: &Arc<Listener>) {
        self.state.lock().listeners.push((Arc::downgrade(listener), 0));
    }

    /// Something is being served.
    pub(crate) fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            let _state = self.state.lock();
            self.asleep.store(false, Ordering::SeqCst);
            self.woken.notify_one();
        }
    }

    /// Ends it.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake();
    }

    fn run(&self) {
        let mut quiet = 0;
        loop {
            std::thread::sleep(TICK);
            if self.state.lock().closed {
                return;
            }
            quiet = if self.look() { 0 } else { quiet + 1 };
            if quiet >= QUIET {
                self.sleep();
                quiet = 0;
            }
        }
    }

    /// Relieves whoever has served one thing since the last look. Whether anybody served anything.
    fn look(&self) -> bool {
        let mut stuck = Vec::new();
        let mut served = false;
        self.state.lock().listeners.retain_mut(|(listener, last)| {
            let Some(listener) = listener.upgrade() else { return false };
            let beat = listener.beat();
            served |= beat != *last || beat % 2 == 1;
            if beat == *last && beat % 2 == 1 {
                stuck.push((listener, beat));
            }
            *last = beat;
            true
        });
        for (listener, beat) in stuck {
            listener.relieve(beat);
        }
        served
    }

    fn sleep(&self) {
        let mut state = self.state.lock();
        self.asleep.store(true, Ordering::SeqCst);
        // Whoever began to serve before that has not seen it.
        let busy = |(listener, last): &(Weak<Listener>, u64)| {
            listener.upgrade().is_some_and(|listener| listener.beat() != *last)
        };
        if state.closed || state.listeners.iter().any(busy) {
            self.asleep.store(false, Ordering::SeqCst);
            return;
        }
        while self.asleep.load(Ordering::SeqCst) {
            self.woken.wait(&mut state);
        }
    }
}
