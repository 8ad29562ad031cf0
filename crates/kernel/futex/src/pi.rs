//! Locks whose word holds the owner's thread id (`FUTEX_LOCK_PI` and its kin).

use std::sync::Arc;
use std::time::Instant;

use abi::Errno;
use guestmem::{MemExt, UserMem, UserPtr};
use sync::wait::Parker;

use crate::{FutexError, Futexes, Key, sleep};

/// Somebody waits.
pub const WAITERS: u32 = 0x8000_0000;
/// The owner ended while holding it.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// The owner's id.
pub const TID_MASK: u32 = 0x3fff_ffff;

/// The word moves under us only as often as the guest's threads move it; past this, `EAGAIN`.
const TRIES: u32 = 1024;

impl Futexes {
    /// `FUTEX_TRYLOCK_PI`: takes a free lock. `EAGAIN` when it is held, `EDEADLK` when by the caller.
    pub fn trylock_pi(&self, mem: &dyn UserMem, key: Key, tid: u32) -> Result<(), FutexError> {
        for _ in 0..TRIES {
            let word = mem.load(UserPtr::<u32>::new(key.addr))?;
            match word & TID_MASK {
                0 => {}
                owner if owner == tid => return Err(FutexError::Errno(Errno::EDEADLK)),
                _ => return Err(FutexError::Changed),
            }
            // OWNER_DIED stays: the new owner's C library tells its caller.
            if mem.compare_exchange_u32(key.addr, word, word | tid)? == word {
                return Ok(());
            }
        }
        Err(FutexError::Changed)
    }

    /// `FUTEX_LOCK_PI`. `alive` says whether a thread exists: `ESRCH` when the owner does not.
    pub fn lock_pi(
        &self,
        mem: &dyn UserMem,
        key: Key,
        tid: u32,
        parker: &Arc<Parker>,
        deadline: Option<Instant>,
        alive: &dyn Fn(u32) -> bool,
    ) -> Result<(), FutexError> {
        loop {
            let waiting = self.enter(key, parker, u32::MAX, tid);
            let ended = match self.claim_or_mark(mem, key, tid, alive) {
                Ok(true) => {
                    // Ours already; had an unlock picked us as well, it found us the owner.
                    self.leave(&waiting);
                    return Ok(());
                }
                Ok(false) => sleep(&waiting, deadline),
                Err(error) => Err(error),
            };
            if self.leave(&waiting) {
                return ended;
            }
            // Not in the queue any more: an unlock has made us the owner, or the owner has died and left
            // the lock to whoever takes it.
            if mem.load(UserPtr::<u32>::new(key.addr))? & TID_MASK == tid {
                return Ok(());
            }
        }
    }

    /// Takes a free lock (`true`), or marks a held one as waited for.
    fn claim_or_mark(
        &self,
        mem: &dyn UserMem,
        key: Key,
        tid: u32,
        alive: &dyn Fn(u32) -> bool,
    ) -> Result<bool, FutexError> {
        for _ in 0..TRIES {
            let word = mem.load(UserPtr::<u32>::new(key.addr))?;
            let (new, ours) = match word & TID_MASK {
                0 => (word | tid, true),
                owner if owner == tid => return Err(FutexError::Errno(Errno::EDEADLK)),
                owner if !alive(owner) => return Err(FutexError::Errno(Errno::ESRCH)),
                _ if word & WAITERS != 0 => return Ok(false),
                _ => (word | WAITERS, false),
            };
            if mem.compare_exchange_u32(key.addr, word, new)? == word {
                return Ok(ours);
            }
        }
        Err(FutexError::Changed)
    }

    /// `FUTEX_UNLOCK_PI`: hands the lock to the longest waiter. `EPERM` when the caller has it not.
    pub fn unlock_pi(&self, mem: &dyn UserMem, key: Key, tid: u32) -> Result<(), FutexError> {
        for _ in 0..TRIES {
            let word = mem.load(UserPtr::<u32>::new(key.addr))?;
            if word & TID_MASK != tid {
                return Err(FutexError::Errno(Errno::EPERM));
            }
            let (heir, more) = {
                let mut queues = self.queues.lock();
                let heir = queues.get_mut(&key).and_then(std::collections::VecDeque::pop_front);
                let more = queues.get(&key).is_some_and(|queue| !queue.is_empty());
                if !more {
                    queues.remove(&key);
                }
                (heir, more)
            };
            let new = heir.as_ref().map_or(0, |heir| heir.tid | if more { WAITERS } else { 0 });
            let swapped = mem.compare_exchange_u32(key.addr, word, new);
            if swapped == Ok(word) {
                if let Some(heir) = heir {
                    heir.wake();
                }
                return Ok(());
            }
            // Back to the head of the queue, and again.
            if let Some(heir) = heir {
                self.queues.lock().entry(key).or_default().push_front(heir);
            }
            swapped?;
        }
        Err(FutexError::Changed)
    }
}
