//! Semaphore sets (`semop(2)`, `semctl(2)`).

use std::collections::HashMap;
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use sync::wait::WaitQueue;
use sync::{Mutex, order};

use crate::Result;
use crate::registry::Permissions;

/// Semaphores in a set (`SEMMSL`).
pub const MAX_SEMAPHORES: usize = 32_000;
/// Operations in one call (`SEMOPM`).
pub const MAX_OPERATIONS: usize = 500;
/// Largest value (`SEMVMX`).
pub const MAX_VALUE: i32 = 32_767;
/// Processes that may hold undo adjustments on one set.
const MAX_UNDO_OWNERS: usize = 32_768;

/// One operation (`struct sembuf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which semaphore.
    pub number: u16,
    /// What to add; zero waits for zero.
    pub delta: i16,
    /// `IPC_NOWAIT`.
    pub no_wait: bool,
    /// `SEM_UNDO`.
    pub undo: bool,
}

/// Why a set of operations did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// It never will as things are: this errno.
    Errno(Errno),
    /// It must wait.
    Wait {
        /// The operation in the way had `IPC_NOWAIT`.
        no_wait: bool,
        /// The semaphore it waits for.
        number: u16,
        /// It waits for zero, not for more.
        for_zero: bool,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct Semaphore {
    value: i32,
    last_pid: i32,
}

struct State {
    permissions: Permissions,
    semaphores: Vec<Semaphore>,
    /// Adjustments to make when a process exits, by process and semaphore.
    undo: HashMap<i32, HashMap<u16, i32>>,
    /// How many wait for more, and for zero, by semaphore (`GETNCNT`, `GETZCNT`).
    waiting: HashMap<(u16, bool), usize>,
    removed: bool,
    changed: i64,
    operated: i64,
}

/// A set of semaphores.
pub struct SemaphoreSet {
    state: Mutex<order::FileState, State>,
    wait: WaitQueue,
}

impl SemaphoreSet {
    /// `count` semaphores at zero, made at `now` (seconds). `EINVAL` when that is none or too many.
    pub fn new(permissions: Permissions, count: usize, now: i64) -> Result<Self> {
        if count == 0 || count > MAX_SEMAPHORES {
            return Err(Errno::EINVAL);
        }
        let state = State {
            permissions,
            semaphores: vec![Semaphore::default(); count],
            undo: HashMap::new(),
            waiting: HashMap::new(),
            removed: false,
            changed: now,
            operated: 0,
        };
        Ok(Self { state: Mutex::new(state), wait: WaitQueue::new() })
    }

    /// Those who wait for a change.
    pub fn wait_queue(&self) -> &WaitQueue {
        &self.wait
    }

    /// Owner and mode.
    pub fn permissions(&self) -> Permissions {
        self.state.lock().permissions
    }

    /// Changes owner and mode.
    pub fn set_permissions(&self, uid: u32, gid: u32, mode: u32, now: i64) {
        let mut state = self.state.lock();
        state.permissions.set(uid, gid, mode);
        state.changed = now;
    }

    /// Number of semaphores.
    pub fn len(&self) -> usize {
        self.state.lock().semaphores.len()
    }

    /// Never: a set has at least one semaphore.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Times of the last operation and the last change, in seconds (`sem_otime`, `sem_ctime`).
    pub fn times(&self) -> (i64, i64) {
        let state = self.state.lock();
        (state.operated, state.changed)
    }

    /// All of `operations`, in order, or none (`semop(2)`).
    pub fn operate(&self, operations: &[Operation], pid: i32, now: i64) -> core::result::Result<(), Blocked> {
        let mut state = self.state.lock();
        let values = state.plan(operations)?;
        state.note_undo(operations, pid)?;
        let mut woke = false;
        for (semaphore, value) in state.semaphores.iter_mut().zip(values) {
            woke |= semaphore.value != value;
            semaphore.value = value;
        }
        for operation in operations {
            if let Some(semaphore) = state.semaphores.get_mut(usize::from(operation.number)) {
                semaphore.last_pid = pid;
            }
        }
        state.operated = now;
        drop(state);
        if woke {
            self.wait.notify(PollEvents::IN);
        }
        Ok(())
    }

    /// Value of one semaphore (`GETVAL`).
    pub fn value(&self, number: usize) -> Result<i32> {
        self.state.lock().semaphores.get(number).map(|s| s.value).ok_or(Errno::EINVAL)
    }

    /// Process of the last operation (`GETPID`).
    pub fn last_pid(&self, number: usize) -> Result<i32> {
        self.state.lock().semaphores.get(number).map(|s| s.last_pid).ok_or(Errno::EINVAL)
    }

    /// How many wait for a semaphore to grow (`GETNCNT`), or to become zero (`GETZCNT`).
    pub fn waiting(&self, number: usize, for_zero: bool) -> Result<usize> {
        let state = self.state.lock();
        let key =
            u16::try_from(number).ok().filter(|_| number < state.semaphores.len()).ok_or(Errno::EINVAL)?;
        Ok(state.waiting.get(&(key, for_zero)).copied().unwrap_or(0))
    }

    /// Counts somebody who waits, until the result is dropped.
    pub fn wait_for(self: &Arc<Self>, number: u16, for_zero: bool) -> Waiting {
        *self.state.lock().waiting.entry((number, for_zero)).or_default() += 1;
        Waiting { set: Arc::clone(self), number, for_zero }
    }

    /// All values (`GETALL`).
    pub fn values(&self) -> Vec<u16> {
        self.state.lock().semaphores.iter().map(|s| s.value as u16).collect()
    }

    /// Sets one (`SETVAL`); undo adjustments of it are forgotten.
    pub fn set_value(&self, number: usize, value: i32, pid: i32, now: i64) -> Result<()> {
        if !(0..=MAX_VALUE).contains(&value) {
            return Err(Errno::ERANGE);
        }
        let mut state = self.state.lock();
        let semaphore = state.semaphores.get_mut(number).ok_or(Errno::EINVAL)?;
        *semaphore = Semaphore { value, last_pid: pid };
        for undo in state.undo.values_mut() {
            undo.retain(|at, _| usize::from(*at) != number);
        }
        state.changed = now;
        drop(state);
        self.wait.notify(PollEvents::IN);
        Ok(())
    }

    /// Sets all (`SETALL`); there must be one value a semaphore.
    pub fn set_values(&self, values: &[u16], pid: i32, now: i64) -> Result<()> {
        if values.iter().any(|v| i32::from(*v) > MAX_VALUE) {
            return Err(Errno::ERANGE);
        }
        let mut state = self.state.lock();
        if values.len() != state.semaphores.len() {
            return Err(Errno::EINVAL);
        }
        for (semaphore, value) in state.semaphores.iter_mut().zip(values) {
            *semaphore = Semaphore { value: i32::from(*value), last_pid: pid };
        }
        state.undo.clear();
        state.changed = now;
        drop(state);
        self.wait.notify(PollEvents::IN);
        Ok(())
    }

    /// The set has been removed: everybody who waits gets `EIDRM`.
    pub fn mark_removed(&self) {
        self.state.lock().removed = true;
        self.wait.notify(PollEvents::IN | PollEvents::HUP);
    }

    /// Process `pid` exits: its adjustments are made, values stay within `0..=MAX_VALUE`.
    pub fn undo(&self, pid: i32) {
        let mut state = self.state.lock();
        let Some(adjustments) = state.undo.remove(&pid) else { return };
        for (number, delta) in adjustments {
            if let Some(semaphore) = state.semaphores.get_mut(usize::from(number)) {
                semaphore.value = semaphore.value.saturating_add(delta).clamp(0, MAX_VALUE);
                semaphore.last_pid = pid;
            }
        }
        drop(state);
        self.wait.notify(PollEvents::IN);
    }
}

/// Somebody waits for a semaphore.
pub struct Waiting {
    set: Arc<SemaphoreSet>,
    number: u16,
    for_zero: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.set.state.lock();
        let key = (self.number, self.for_zero);
        if let Some(count) = state.waiting.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                state.waiting.remove(&key);
            }
        }
    }
}

impl State {
    /// Values after all operations, when all are possible now.
    fn plan(&self, operations: &[Operation]) -> core::result::Result<Vec<i32>, Blocked> {
        if self.removed {
            return Err(Blocked::Errno(Errno::EIDRM));
        }
        if operations.len() > MAX_OPERATIONS {
            return Err(Blocked::Errno(Errno::E2BIG));
        }
        let mut values: Vec<i32> = self.semaphores.iter().map(|s| s.value).collect();
        if operations.iter().any(|op| usize::from(op.number) >= values.len()) {
            return Err(Blocked::Errno(Errno::EFBIG));
        }
        for operation in operations {
            let Some(value) = values.get_mut(usize::from(operation.number)) else { continue };
            let next = *value + i32::from(operation.delta);
            if next > MAX_VALUE {
                return Err(Blocked::Errno(Errno::ERANGE));
            }
            if next < 0 || (operation.delta == 0 && *value != 0) {
                let Operation { no_wait, number, .. } = *operation;
                return Err(Blocked::Wait { no_wait, number, for_zero: operation.delta == 0 });
            }
            *value = next;
        }
        Ok(values)
    }

    fn note_undo(&mut self, operations: &[Operation], pid: i32) -> core::result::Result<(), Blocked> {
        if !operations.iter().any(|op| op.undo && op.delta != 0) {
            return Ok(());
        }
        if !self.undo.contains_key(&pid) && self.undo.len() >= MAX_UNDO_OWNERS {
            return Err(Blocked::Errno(Errno::ENOSPC));
        }
        let mine = self.undo.entry(pid).or_default();
        let mut next = mine.clone();
        for operation in operations.iter().filter(|op| op.undo) {
            let adjustment = next.entry(operation.number).or_default();
            *adjustment -= i32::from(operation.delta);
            if adjustment.abs() > MAX_VALUE {
                return Err(Blocked::Errno(Errno::ERANGE));
            }
        }
        *mine = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use cred::Credentials;

    use super::{Blocked, Operation, SemaphoreSet};
    use crate::registry::{IPC_CREAT, Permissions, Registry};

    fn set(count: usize) -> SemaphoreSet {
        let registry: Registry<Permissions> = Registry::new(1);
        let id = registry.get(1, IPC_CREAT | 0o600, &Credentials::root(), |_| Ok(()), Ok).expect("room");
        SemaphoreSet::new(*registry.find(id).expect("there"), count, 0).expect("valid")
    }

    fn op(number: u16, delta: i16) -> Operation {
        Operation { number, delta, no_wait: false, undo: false }
    }

    fn waits(number: u16, for_zero: bool) -> Blocked {
        Blocked::Wait { no_wait: false, number, for_zero }
    }

    #[test]
    fn operations_are_all_or_nothing() {
        let set = set(2);
        assert_eq!(set.operate(&[op(0, 3), op(1, -1)], 7, 1), Err(waits(1, false)));
        assert_eq!(set.values(), [0, 0]);
        assert_eq!(set.operate(&[op(0, 3), op(1, 1)], 7, 1), Ok(()));
        assert_eq!(set.values(), [3, 1]);
        assert_eq!(set.operate(&[op(0, 0)], 7, 1), Err(waits(0, true)));
        assert_eq!(set.operate(&[op(0, -3), op(0, 0)], 9, 2), Ok(()));
        assert_eq!(set.last_pid(0), Ok(9));
    }

    #[test]
    fn limits_have_their_own_errnos() {
        let set = set(1);
        assert_eq!(set.operate(&[op(1, 1)], 7, 1), Err(Blocked::Errno(Errno::EFBIG)));
        assert_eq!(set.set_value(0, 40_000, 7, 1), Err(Errno::ERANGE));
        set.set_value(0, 32_767, 7, 1).expect("in range");
        assert_eq!(set.operate(&[op(0, 1)], 7, 1), Err(Blocked::Errno(Errno::ERANGE)));
        set.mark_removed();
        assert_eq!(set.operate(&[op(0, -1)], 7, 1), Err(Blocked::Errno(Errno::EIDRM)));
    }

    #[test]
    fn undo_gives_back_at_exit() {
        let set = set(1);
        set.set_value(0, 5, 1, 0).expect("in range");
        let take = Operation { undo: true, ..op(0, -2) };
        set.operate(&[take], 7, 1).expect("possible");
        set.operate(&[take], 8, 1).expect("possible");
        assert_eq!(set.value(0), Ok(1));
        set.undo(7);
        assert_eq!(set.value(0), Ok(3));
        set.undo(7);
        assert_eq!(set.value(0), Ok(3));
    }
}
