//! One OS thread for all timers.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sync::wait::Parker;
use sync::{Mutex, order};

/// How soon a timer that has just expired may do so again: a guest's period of a nanosecond must not keep
/// the thread busy. Timers count what they missed.
const GRAIN: Duration = Duration::from_micros(50);

/// What is done when a timer expires. Called on the timer thread with no lock held; must not block.
pub trait Expire: Send + Sync {
    /// It expired; the answer is its next deadline.
    fn expire(&self, now: Instant) -> Option<Instant>;
}

/// A timer in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(u64);

/// Deadlines, soonest first. Entries are bounded by whoever lets a guest make timers.
pub struct TimerQueue {
    state: Mutex<order::Timers, State>,
    parker: Arc<Parker>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    running: bool,
    due: BTreeMap<(Instant, TimerId), Weak<dyn Expire>>,
    /// Where each armed timer stands in `due`.
    at: BTreeMap<TimerId, Instant>,
}

impl TimerQueue {
    /// An empty queue; its thread starts with the first deadline and ends with the queue.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), parker: Parker::new() })
    }

    /// A name for a timer that is not armed yet.
    pub fn allocate(&self) -> TimerId {
        let mut state = self.state.lock();
        state.next_id += 1;
        TimerId(state.next_id)
    }

    /// Arms `id`, replacing its old deadline. The queue does not keep `target` alive.
    pub fn arm(self: &Arc<Self>, id: TimerId, deadline: Instant, target: Weak<dyn Expire>) {
        let start = {
            let mut state = self.state.lock();
            state.remove(id);
            state.due.insert((deadline, id), target);
            state.at.insert(id, deadline);
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            self.start();
        }
        self.parker.notify();
    }

    /// Disarms `id`. An expiry that has begun may still arrive.
    pub fn disarm(&self, id: TimerId) {
        self.state.lock().remove(id);
    }

    fn start(self: &Arc<Self>) {
        let (queue, parker) = (Arc::downgrade(self), Arc::clone(&self.parker));
        let run = move || {
            while let Some(next) = queue.upgrade().map(|queue| queue.serve()) {
                parker.park(next);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("timers".into()).spawn(run) {
            tracing::error!(%error, "no timer thread: timers do not expire until another is armed");
            self.state.lock().running = false;
        }
    }

    /// Serves what is due; returns the next deadline.
    fn serve(&self) -> Option<Instant> {
        loop {
            let now = Instant::now();
            let (id, target) = {
                let mut state = self.state.lock();
                match state.due.first_key_value() {
                    None => return None,
                    Some(((deadline, _), _)) if *deadline > now => return Some(*deadline),
                    Some(_) => {}
                }
                let ((_, id), target) = state.due.pop_first()?;
                state.at.remove(&id);
                (id, target)
            };
            let Some(next) = target.upgrade().and_then(|target| target.expire(now)) else { continue };
            let mut state = self.state.lock();
            // Unless it was armed anew meanwhile.
            if !state.at.contains_key(&id) {
                let next = next.max(now + GRAIN);
                state.due.insert((next, id), target);
                state.at.insert(id, next);
            }
        }
    }
}

impl Drop for TimerQueue {
    fn drop(&mut self) {
        // The thread finds that the queue is gone.
        self.parker.notify();
    }
}

impl State {
    fn remove(&mut self, id: TimerId) {
        if let Some(deadline) = self.at.remove(&id) {
            self.due.remove(&(deadline, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Tell(std::sync::Mutex<(u32, mpsc::Sender<u32>)>);

    impl Expire for Tell {
        fn expire(&self, now: Instant) -> Option<Instant> {
            let mut state = self.0.lock().expect("not poisoned");
            state.0 += 1;
            state.1.send(state.0).expect("the test listens");
            (state.0 < 3).then(|| now + Duration::from_millis(1))
        }
    }

    #[test]
    fn timers_repeat_and_disarmed_ones_stay_silent() {
        let queue = TimerQueue::new();
        let (sender, heard) = mpsc::channel();
        let (silent, nothing) = mpsc::channel();
        let loud: Arc<dyn Expire> = Arc::new(Tell(std::sync::Mutex::new((0, sender))));
        let quiet: Arc<dyn Expire> = Arc::new(Tell(std::sync::Mutex::new((0, silent))));
        let (a, b) = (queue.allocate(), queue.allocate());
        queue.arm(b, Instant::now() + Duration::from_millis(20), Arc::downgrade(&quiet));
        queue.arm(a, Instant::now(), Arc::downgrade(&loud));
        queue.disarm(b);
        for expected in 1..=3 {
            assert_eq!(heard.recv_timeout(Duration::from_secs(5)), Ok(expected));
        }
        assert!(nothing.recv_timeout(Duration::from_millis(40)).is_err());
    }
}
