//! `epoll(7)`.
//!
//! Each watched file is an [`Item`] that stands in the file's wait queue. A wake-up puts the item on the
//! ready list, and [`Epoll::collect`] asks only the files on that list: nothing is scanned. A file is
//! held weakly, so that closing its last descriptor takes it out of the set.
//!
//! Bounds: [`MAX_ITEMS`] files a set, [`MAX_NESTING`] sets inside one another, and no loops.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::poll::{EpollEvent, EpollFlags, PollEvents};
use sync::wait::{Notify, WaitQueue, Waiter};
use sync::{Mutex, order};
use vfs::{File, Result};

/// Files one epoll may watch; `ENOSPC` beyond.
pub const MAX_ITEMS: usize = 1 << 17;
/// Longest chain of epolls that watch one another.
pub const MAX_NESTING: usize = 4;

/// Serialises changes of the nesting graph, so that two of them cannot close a loop together. Taken
/// before any epoll's own lock.
static NESTING: Mutex<order::FileState, ()> = Mutex::new(());

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    core: Arc<Core>,
}

struct Core {
    state: Mutex<order::FileState, State>,
    queue: WaitQueue,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("queue", &self.queue).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    items: BTreeMap<Key, Arc<Item>>,
    ready: VecDeque<Arc<Item>>,
    /// Epolls this one is watched by.
    parents: Vec<Weak<Core>>,
}

/// Descriptor number and address of the file: one file may be watched under several numbers.
type Key = (i32, usize);

struct Item {
    key: Key,
    file: Weak<dyn File>,
    core: Weak<Core>,
    setting: Mutex<order::Leaf, Setting>,
    /// Its place in the file's queue; leaves it when the item goes.
    waiter: Mutex<order::Leaf, Option<Waiter>>,
}

/// What changes with `EPOLL_CTL_MOD`, and whether the item is on the ready list.
#[derive(Clone, Copy)]
struct Setting {
    interest: PollEvents,
    flags: EpollFlags,
    data: u64,
    enabled: bool,
    queued: bool,
}

impl Notify for Item {
    fn notify(&self, events: PollEvents) {
        let Some(core) = self.core.upgrade() else { return };
        {
            let setting = self.setting.lock();
            if !setting.enabled || !events.intersects(setting.interest | PollEvents::ALWAYS) {
                return;
            }
        }
        if core.enqueue(self.key) {
            core.queue.notify(PollEvents::READABLE);
        }
    }
}

impl Core {
    /// Puts an item on the ready list; `false` when it is gone. One already there still wakes: a waiter
    /// may have looked at it before this event.
    fn enqueue(&self, key: Key) -> bool {
        let mut state = self.state.lock();
        let Some(item) = state.items.get(&key).map(Arc::clone) else { return false };
        let was_queued = std::mem::replace(&mut item.setting.lock().queued, true);
        if !was_queued {
            state.ready.push_back(item);
        }
        true
    }

    /// Takes the next item off the ready list.
    fn dequeue(&self) -> Option<Arc<Item>> {
        let mut state = self.state.lock();
        let item = state.ready.pop_front()?;
        item.setting.lock().queued = false;
        Some(item)
    }

    /// Removes an item whose file is gone, unless its key belongs to another by now.
    fn forget(&self, item: &Arc<Item>) {
        let mut state = self.state.lock();
        if state.items.get(&item.key).is_some_and(|found| Arc::ptr_eq(found, item)) {
            state.items.remove(&item.key);
        }
    }

    /// Levels of epolls below this one.
    fn depth(&self, target: Option<&Core>, budget: usize) -> Result<usize> {
        if target.is_some_and(|t| std::ptr::eq(t, self)) {
            return Err(Errno::ELOOP);
        }
        let files: Vec<_> = self.state.lock().items.values().filter_map(|i| i.file.upgrade()).collect();
        let mut depth = 0;
        for file in files {
            let Some(epoll) = file.as_any().downcast_ref::<Epoll>() else { continue };
            let budget = budget.checked_sub(1).ok_or(Errno::ELOOP)?;
            depth = depth.max(epoll.core.depth(target, budget)? + 1);
        }
        Ok(depth)
    }

    /// Levels of epolls above this one.
    fn height(&self, budget: usize) -> Result<usize> {
        let parents: Vec<_> = self.state.lock().parents.iter().filter_map(Weak::upgrade).collect();
        let mut height = 0;
        for parent in parents {
            let budget = budget.checked_sub(1).ok_or(Errno::ELOOP)?;
            height = height.max(parent.height(budget)? + 1);
        }
        Ok(height)
    }
}

impl Item {
    /// What to report now, if anything; a one-shot item is disabled by it.
    fn report(&self, file: &dyn File) -> Option<EpollEvent> {
        let ready = file.poll();
        let mut setting = self.setting.lock();
        let events = ready & (setting.interest | PollEvents::ALWAYS);
        if !setting.enabled || events.is_empty() {
            return None;
        }
        if setting.flags.contains(EpollFlags::ONESHOT) {
            setting.enabled = false;
        }
        Some(EpollEvent { events: events.bits(), data: setting.data })
    }

    fn is_level_triggered(&self) -> bool {
        !self.setting.lock().flags.intersects(EpollFlags::ET | EpollFlags::ONESHOT)
    }
}

/// Splits the guest's events; bits Linux does not know are ignored, as it does.
fn split(event: &EpollEvent) -> (PollEvents, EpollFlags) {
    (PollEvents::from_bits_truncate(event.events), EpollFlags::from_bits_truncate(event.events))
}

/// What may stand beside `EPOLLEXCLUSIVE`.
fn exclusive_ok(events: u32) -> bool {
    let events_ok = PollEvents::IN | PollEvents::OUT | PollEvents::ALWAYS;
    let flags_ok = EpollFlags::EXCLUSIVE | EpollFlags::WAKEUP | EpollFlags::ET;
    events & !(events_ok.bits() | flags_ok.bits()) == 0
}

fn key_of(fd: i32, file: &Arc<dyn File>) -> Key {
    (fd, Arc::as_ptr(file).cast::<()>().addr())
}

impl Epoll {
    /// An empty set.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { core: Arc::new(Core { state: Mutex::default(), queue: WaitQueue::new() }) }
    }

    /// `EPOLL_CTL_ADD`. `EPERM` for a file without readiness, `EINVAL` for itself or a bad use of
    /// `EPOLLEXCLUSIVE`, `EEXIST`, `ELOOP`, `ENOSPC`.
    pub fn add(&self, fd: i32, file: &Arc<dyn File>, event: &EpollEvent) -> Result<()> {
        let queue = file.wait_queue().ok_or(Errno::EPERM)?;
        let inner = file.as_any().downcast_ref::<Self>();
        let (interest, flags) = split(event);
        let exclusive = flags.contains(EpollFlags::EXCLUSIVE);
        let is_self = inner.is_some_and(|inner| Arc::ptr_eq(&inner.core, &self.core));
        if is_self || (exclusive && (inner.is_some() || !exclusive_ok(event.events))) {
            return Err(Errno::EINVAL);
        }
        let item = match inner {
            Some(inner) => {
                let _gate = NESTING.lock();
                self.check_nesting(inner)?;
                let item = self.insert(fd, file, event)?;
                let mut state = inner.core.state.lock();
                state.parents.retain(|parent| parent.strong_count() > 0);
                state.parents.push(Arc::downgrade(&self.core));
                item
            }
            None => self.insert(fd, file, event)?,
        };
        let target = Arc::<Item>::clone(&item);
        let mask = if exclusive { interest | PollEvents::ALWAYS } else { PollEvents::all() };
        let waiter =
            if exclusive { queue.register_exclusive(target, mask) } else { queue.register(target, mask) };
        *item.waiter.lock() = Some(waiter);
        // What was ready before the registration made no wake-up.
        self.look(&item, file.as_ref());
        Ok(())
    }

    /// `EPOLL_CTL_MOD`. `ENOENT`; `EINVAL` for an exclusive item.
    pub fn modify(&self, fd: i32, file: &Arc<dyn File>, event: &EpollEvent) -> Result<()> {
        let (interest, flags) = split(event);
        let found = self.core.state.lock().items.get(&key_of(fd, file)).map(Arc::clone);
        if flags.contains(EpollFlags::EXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        let item = found.ok_or(Errno::ENOENT)?;
        {
            let mut setting = item.setting.lock();
            if setting.flags.contains(EpollFlags::EXCLUSIVE) {
                return Err(Errno::EINVAL);
            }
            let queued = setting.queued;
            *setting = Setting { interest, flags, data: event.data, enabled: true, queued };
        }
        self.look(&item, file.as_ref());
        Ok(())
    }

    /// `EPOLL_CTL_DEL`. `ENOENT`.
    pub fn remove(&self, fd: i32, file: &Arc<dyn File>) -> Result<()> {
        let key = key_of(fd, file);
        // Dropped only after the lock: the item leaves its file's queue then.
        let item = {
            let mut state = self.core.state.lock();
            let item = state.items.remove(&key).ok_or(Errno::ENOENT)?;
            state.ready.retain(|ready| !Arc::ptr_eq(ready, &item));
            item
        };
        if let Some(inner) = file.as_any().downcast_ref::<Self>() {
            let mut state = inner.core.state.lock();
            let me = Arc::downgrade(&self.core);
            if let Some(at) = state.parents.iter().position(|parent| parent.ptr_eq(&me)) {
                state.parents.swap_remove(at);
            }
        }
        drop(item);
        Ok(())
    }

    /// Up to `max` events that are ready now; empty when there are none, and the caller waits on
    /// [`wait_queue`](File::wait_queue) and asks again.
    pub fn collect(&self, max: usize) -> Vec<EpollEvent> {
        let mut events = Vec::new();
        let mut again = Vec::new();
        // Each item on the list now is looked at once, whatever is added meanwhile.
        let turns = self.core.state.lock().ready.len();
        for _ in 0..turns {
            if events.len() >= max {
                break;
            }
            let Some(item) = self.core.dequeue() else { break };
            let Some(file) = item.file.upgrade() else {
                self.core.forget(&item);
                continue;
            };
            if let Some(event) = item.report(file.as_ref()) {
                events.push(event);
                if item.is_level_triggered() {
                    again.push(item.key);
                }
            }
        }
        // Level-triggered items go to the back, so that others get their turn.
        for key in again {
            self.core.enqueue(key);
        }
        events
    }

    /// Watched descriptors with their events and data, for `/proc/PID/fdinfo`.
    pub fn watched(&self) -> Vec<(i32, EpollEvent)> {
        let state = self.core.state.lock();
        let line = |item: &Arc<Item>| {
            let setting = item.setting.lock();
            let events = setting.interest.bits() | setting.flags.bits();
            (item.key.0, EpollEvent { events, data: setting.data })
        };
        state.items.values().map(line).collect()
    }

    fn check_nesting(&self, inner: &Self) -> Result<()> {
        let depth = inner.core.depth(Some(&self.core), MAX_NESTING)?;
        let height = self.core.height(MAX_NESTING)?;
        if depth + 1 + height > MAX_NESTING { Err(Errno::ELOOP) } else { Ok(()) }
    }

    fn insert(&self, fd: i32, file: &Arc<dyn File>, event: &EpollEvent) -> Result<Arc<Item>> {
        let (interest, flags) = split(event);
        let key = key_of(fd, file);
        let mut state = self.core.state.lock();
        // A dead item of a file that was closed may have the same key.
        let alive = state.items.get(&key).is_some_and(|old| old.file.strong_count() > 0);
        if alive {
            return Err(Errno::EEXIST);
        }
        if state.items.len() >= MAX_ITEMS {
            state.items.retain(|_, item| item.file.strong_count() > 0);
            if state.items.len() >= MAX_ITEMS {
                return Err(Errno::ENOSPC);
            }
        }
        let setting = Setting { interest, flags, data: event.data, enabled: true, queued: false };
        let item = Arc::new(Item {
            key,
            file: Arc::downgrade(file),
            core: Arc::downgrade(&self.core),
            setting: Mutex::new(setting),
            waiter: Mutex::new(None),
        });
        state.items.insert(key, Arc::clone(&item));
        Ok(item)
    }

    /// Queues the item when its file is ready already.
    fn look(&self, item: &Item, file: &dyn File) {
        item.notify(file.poll());
    }
}

impl File for Epoll {
    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        let ready: Vec<_> = self.core.state.lock().ready.iter().map(Arc::clone).collect();
        let is_ready = |item: &Arc<Item>| {
            let Some(file) = item.file.upgrade() else { return false };
            let setting = *item.setting.lock();
            setting.enabled && file.poll().intersects(setting.interest | PollEvents::ALWAYS)
        };
        if ready.iter().any(is_ready) { PollEvents::READABLE } else { PollEvents::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.core.queue)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests;
