//! Wait queues: how a task sleeps until a file, child, signal or timer wants it.
//!
//! File operations never block. A caller that must wait registers a [`Waiter`] with the file's
//! [`WaitQueue`], tries again (so that no wake-up is lost), and then parks. A waiter may stand in
//! many queues at once (`poll`), and a queue may also hold callbacks (`epoll`, `SIGIO`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use abi::poll::PollEvents;

use crate::lock::Mutex;
use crate::order;

/// Why a parked thread woke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Something it waited for happened, or may have.
    Notified,
    /// The deadline passed.
    TimedOut,
    /// A signal or a kill wants the task ([`Parker::interrupt`]).
    Interrupted,
}

/// One task's place to sleep. Notifications are sticky: one that comes before the sleep ends it at once.
#[derive(Debug, Default)]
pub struct Parker {
    state: parking_lot::Mutex<ParkState>,
    wake: parking_lot::Condvar,
}

#[derive(Debug, Default)]
struct ParkState {
    notified: bool,
    interrupted: bool,
}

impl Parker {
    /// A parker nobody has notified.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sleeps until notified, interrupted or past `deadline` (`None`: no deadline). Takes the
    /// notification; the interruption stays until [`clear_interrupt`](Self::clear_interrupt).
    pub fn park(&self, deadline: Option<Instant>) -> Wake {
        if let Some(wake) = self.take_wake() {
            return wake;
        }
        crate::block::will_block();
        let mut state = self.state.lock();
        loop {
            if state.interrupted {
                return Wake::Interrupted;
            }
            if std::mem::take(&mut state.notified) {
                return Wake::Notified;
            }
            match deadline {
                None => self.wake.wait(&mut state),
                Some(at) => {
                    if self.wake.wait_until(&mut state, at).timed_out()
                        && !state.notified
                        && !state.interrupted
                    {
                        return Wake::TimedOut;
                    }
                }
            }
        }
    }

    fn take_wake(&self) -> Option<Wake> {
        let mut state = self.state.lock();
        if state.interrupted {
            return Some(Wake::Interrupted);
        }
        std::mem::take(&mut state.notified).then_some(Wake::Notified)
    }

    /// Ends the sleep, or the next one.
    pub fn notify(&self) {
        self.state.lock().notified = true;
        self.wake.notify_one();
    }

    /// Makes this and every later sleep end with [`Wake::Interrupted`] until cleared.
    pub fn interrupt(&self) {
        self.state.lock().interrupted = true;
        self.wake.notify_one();
    }

    /// Is an interruption pending?
    pub fn is_interrupted(&self) -> bool {
        self.state.lock().interrupted
    }

    /// Forgets the interruption, once the signals behind it have been looked at.
    pub fn clear_interrupt(&self) {
        self.state.lock().interrupted = false;
    }

    /// Forgets a stale notification before a new wait begins.
    pub fn clear_notification(&self) {
        self.state.lock().notified = false;
    }
}

/// What a queue does with a waiter when events come. Called with no lock of the queue's owner held;
/// must not block, and must not touch the queue it stands in.
pub trait Notify: Send + Sync {
    /// `events` became ready, or may have.
    fn notify(&self, events: PollEvents);
}

impl Notify for Parker {
    fn notify(&self, _events: PollEvents) {
        Parker::notify(self);
    }
}

/// A registration in one queue; leaves it when dropped.
pub struct Waiter {
    queue: Weak<Inner>,
    id: u64,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.upgrade() {
            let mut list = queue.list.lock();
            list.entries.retain(|entry| entry.id != self.id);
            queue.count.store(list.entries.len() as u32, Ordering::SeqCst);
        }
    }
}

#[derive(Default)]
struct Inner {
    /// Number of entries, so that a notification nobody waits for takes no lock.
    count: AtomicU32,
    list: Mutex<order::Waiters, List>,
}

#[derive(Default)]
struct List {
    next_id: u64,
    entries: Vec<Entry>,
}

struct Entry {
    id: u64,
    interest: PollEvents,
    exclusive: bool,
    target: Arc<dyn Notify>,
}

/// Those who wait for events of one object.
#[derive(Clone, Default)]
pub struct WaitQueue(Arc<Inner>);

impl std::fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitQueue").field("waiters", &self.0.count.load(Ordering::Relaxed)).finish()
    }
}

impl WaitQueue {
    /// A queue without waiters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `target`; it hears of any of `interest` and always of `ERR` and `HUP`.
    #[must_use = "dropping the waiter removes it"]
    pub fn register(&self, target: Arc<dyn Notify>, interest: PollEvents) -> Waiter {
        self.add(target, interest, false)
    }

    /// As [`register`](Self::register), but of all exclusive waiters an event wakes only the first
    /// (`accept`, `EPOLLEXCLUSIVE`).
    #[must_use = "dropping the waiter removes it"]
    pub fn register_exclusive(&self, target: Arc<dyn Notify>, interest: PollEvents) -> Waiter {
        self.add(target, interest, true)
    }

    fn add(&self, target: Arc<dyn Notify>, interest: PollEvents, exclusive: bool) -> Waiter {
        let mut list = self.0.list.lock();
        let id = list.next_id;
        list.next_id += 1;
        list.entries.push(Entry { id, interest: interest | PollEvents::ALWAYS, exclusive, target });
        self.0.count.store(list.entries.len() as u32, Ordering::SeqCst);
        Waiter { queue: Arc::downgrade(&self.0), id }
    }

    /// Wakes those who wait for any of `events`.
    pub fn notify(&self, events: PollEvents) {
        if self.0.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut exclusive_done = false;
        let targets: Vec<_> = self
            .0
            .list
            .lock()
            .entries
            .iter()
            .filter(|entry| entry.interest.intersects(events))
            .filter(|entry| !entry.exclusive || !std::mem::replace(&mut exclusive_done, true))
            .map(|entry| Arc::clone(&entry.target))
            .collect();
        // Outside the lock: a callback may take locks of its own.
        for target in targets {
            target.notify(events);
        }
    }

    /// Are the two one queue?
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Is anybody waiting?
    pub fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::SeqCst) == 0
    }
}

/// The instant `timeout` from now; `None` when that is beyond what the clock can say (for ever).
pub fn deadline_after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_before_the_sleep_is_not_lost() {
        let (queue, parker) = (WaitQueue::new(), Parker::new());
        let _waiter = queue.register(parker.clone(), PollEvents::IN);
        queue.notify(PollEvents::IN);
        assert_eq!(parker.park(None), Wake::Notified);
    }

    #[test]
    fn only_the_interest_wakes_and_a_dropped_waiter_is_gone() {
        let (queue, parker) = (WaitQueue::new(), Parker::new());
        let waiter = queue.register(parker.clone(), PollEvents::OUT);
        queue.notify(PollEvents::IN);
        assert_eq!(parker.park(Some(Instant::now())), Wake::TimedOut);
        queue.notify(PollEvents::HUP);
        assert_eq!(parker.park(None), Wake::Notified);
        drop(waiter);
        assert!(queue.is_empty());
    }

    #[test]
    fn an_interruption_stays_until_cleared() {
        let parker = Parker::new();
        parker.interrupt();
        assert_eq!(parker.park(None), Wake::Interrupted);
        assert_eq!(parker.park(None), Wake::Interrupted);
        parker.clear_interrupt();
        assert_eq!(parker.park(Some(Instant::now())), Wake::TimedOut);
    }

    #[test]
    fn one_exclusive_waiter_wakes() {
        let queue = WaitQueue::new();
        let (a, b) = (Parker::new(), Parker::new());
        let _one = queue.register_exclusive(a.clone(), PollEvents::IN);
        let _two = queue.register_exclusive(b.clone(), PollEvents::IN);
        queue.notify(PollEvents::IN);
        assert_eq!(a.park(Some(Instant::now())), Wake::Notified);
        assert_eq!(b.park(Some(Instant::now())), Wake::TimedOut);
    }
}
