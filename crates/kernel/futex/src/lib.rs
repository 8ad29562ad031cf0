//! The futex operations the host cannot answer for a guest (`futex(2)`).
//!
//! - [`Futexes`]: wait, wake and requeue, for backends without native futexes.
//! - [`op`]: the change of a word that goes with a wake-up of two futexes.
//! - [`pi`]: locks whose word holds the owner; ownership is handed to the longest waiter. No priority is
//!   inherited: the Sentry has no say in the host's scheduling.
//!
//! A futex is named by its address space and address, or, in shared memory, by the object and the place in it
//! ([`Key`]). Waiters are bounded by the number of tasks. No lock is held over a copy from the guest:
//! a waiter enters its queue first and looks at the word afterwards.
#![forbid(unsafe_code)]

pub mod op;
pub mod pi;

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use abi::{Errno, Restart, SysError};
use guestmem::{MemExt, UserAddr, UserMem, UserPtr};
use sync::wait::{Parker, Wake};
use sync::{Mutex, order};

pub use op::WakeOp;

/// What all who use a futex call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// A word of one address space.
    Private {
        /// What names the address space as long as somebody waits in it.
        space: u64,
        /// Address.
        addr: u64,
    },
    /// A word of a file or other object that several may map.
    Shared {
        /// Its device.
        dev: u64,
        /// Its inode.
        ino: u64,
        /// Byte in it.
        offset: u64,
    },
}

/// A futex, as one who uses it sees it. Two are equal when they are the same word, wherever it is mapped.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    name: Name,
    /// Address in the space of who uses it.
    pub(crate) addr: UserAddr,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Key {
    /// The word at `addr` in the address space called `space`, whoever else may map it. `EINVAL` unless aligned.
    pub fn private(space: u64, addr: UserAddr) -> Result<Self, Errno> {
        Self::named(Name::Private { space, addr: addr.0 }, addr)
    }

    /// The word at `addr` by its name. `EINVAL` unless aligned.
    pub fn named(name: Name, addr: UserAddr) -> Result<Self, Errno> {
        if addr.0.is_multiple_of(4) { Ok(Self { name, addr }) } else { Err(Errno::EINVAL) }
    }

    /// Where it is for who uses it.
    pub fn addr(&self) -> UserAddr {
        self.addr
    }
}

/// Why a wait ended without a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FutexError {
    /// The word holds something else: `EAGAIN`.
    #[error("the word has another value")]
    Changed,
    /// The deadline passed.
    #[error("timed out")]
    TimedOut,
    /// A signal wants the task.
    #[error("interrupted")]
    Interrupted,
    /// Anything else.
    #[error("{0}")]
    Errno(Errno),
}

impl From<guestmem::Fault> for FutexError {
    fn from(_: guestmem::Fault) -> Self {
        Self::Errno(Errno::EFAULT)
    }
}

impl From<FutexError> for SysError {
    fn from(error: FutexError) -> Self {
        match error {
            FutexError::Changed => Self::Errno(Errno::EAGAIN),
            FutexError::TimedOut => Self::Errno(Errno::ETIMEDOUT),
            FutexError::Interrupted => Self::Restart(Restart::Sys),
            FutexError::Errno(errno) => Self::Errno(errno),
        }
    }
}

/// Somebody who waits.
struct Waiting {
    parker: Arc<Parker>,
    bitset: u32,
    /// Thread id, for the word of a PI futex.
    tid: u32,
    woken: AtomicBool,
}

/// All futexes somebody waits for.
#[derive(Default)]
pub struct Futexes {
    queues: Mutex<order::Futex, HashMap<Key, VecDeque<Arc<Waiting>>>>,
}

impl Futexes {
    fn enter(&self, key: Key, parker: &Arc<Parker>, bitset: u32, tid: u32) -> Arc<Waiting> {
        let woken = AtomicBool::new(false);
        let waiting = Arc::new(Waiting { parker: Arc::clone(parker), bitset, tid, woken });
        self.queues.lock().entry(key).or_default().push_back(Arc::clone(&waiting));
        waiting
    }

    /// Leaves whatever queue it stands in (a requeue may have moved it). Was it still in one?
    fn leave(&self, waiting: &Arc<Waiting>) -> bool {
        let mut queues = self.queues.lock();
        let mut found = false;
        queues.retain(|_, queue| {
            let before = queue.len();
            queue.retain(|other| !Arc::ptr_eq(other, waiting));
            found |= queue.len() != before;
            !queue.is_empty()
        });
        found
    }

    /// `FUTEX_WAIT_BITSET`: sleeps while the word is `expected`. `EINVAL` for an empty `bitset`.
    pub fn wait(
        &self,
        mem: &dyn UserMem,
        key: Key,
        expected: u32,
        bitset: u32,
        parker: &Arc<Parker>,
        deadline: Option<Instant>,
    ) -> Result<(), FutexError> {
        if bitset == 0 {
            return Err(FutexError::Errno(Errno::EINVAL));
        }
        let waiting = self.enter(key, parker, bitset, 0);
        let ended = match mem.load(UserPtr::<u32>::new(key.addr)) {
            Ok(found) if found == expected => sleep(&waiting, deadline),
            Ok(_) => Err(FutexError::Changed),
            Err(fault) => Err(fault.into()),
        };
        // A wake-up that came meanwhile must not be lost on us.
        if self.leave(&waiting) { ended } else { Ok(()) }
    }

    /// `FUTEX_WAKE_BITSET`: wakes up to `count` waiters with a bit in common; returns how many.
    pub fn wake(&self, key: Key, count: u32, bitset: u32) -> u32 {
        let mut woken = Vec::new();
        {
            let mut queues = self.queues.lock();
            let Some(queue) = queues.get_mut(&key) else { return 0 };
            queue.retain(|waiting| {
                let take = (woken.len() as u64) < u64::from(count) && waiting.bitset & bitset != 0;
                if take {
                    woken.push(Arc::clone(waiting));
                }
                !take
            });
            if queue.is_empty() {
                queues.remove(&key);
            }
        }
        for waiting in &woken {
            waiting.wake();
        }
        woken.len() as u32
    }

    /// `FUTEX_CMP_REQUEUE`: when the word is `expected` (if given), wakes `wake` waiters of `from` and
    /// moves up to `requeue` more to `to`. Returns how many it touched.
    pub fn requeue(
        &self,
        mem: &dyn UserMem,
        (from, to): (Key, Key),
        (wake, requeue): (u32, u32),
        expected: Option<u32>,
    ) -> Result<u32, FutexError> {
        if let Some(expected) = expected
            && mem.load(UserPtr::<u32>::new(from.addr))? != expected
        {
            return Err(FutexError::Changed);
        }
        let woken = self.wake(from, wake, u32::MAX);
        if from == to {
            return Ok(woken);
        }
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(&from) else { return Ok(woken) };
        let count = queue.len().min(requeue as usize);
        let moved: Vec<_> = queue.drain(..count).collect();
        if queue.is_empty() {
            queues.remove(&from);
        }
        if !moved.is_empty() {
            queues.entry(to).or_default().extend(moved);
        }
        Ok(woken + count as u32)
    }
}

impl Waiting {
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.parker.notify();
    }
}

/// Sleeps until woken. Notifications of others are passed over.
fn sleep(waiting: &Waiting, deadline: Option<Instant>) -> Result<(), FutexError> {
    while !waiting.woken.load(Ordering::SeqCst) {
        match waiting.parker.park(deadline) {
            Wake::Notified => {}
            Wake::TimedOut => return Err(FutexError::TimedOut),
            Wake::Interrupted => return Err(FutexError::Interrupted),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
