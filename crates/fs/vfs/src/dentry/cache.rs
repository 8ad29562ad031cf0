//! What the dentries of one tree share: the names that are kept though nobody uses them, and the gate of
//! renames.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak};

use sync::{Mutex, order};

use super::Dentry;

/// Dentries a tree keeps alive although nobody uses them.
pub(super) const KEPT_MAX: usize = 16_384;

/// Names a tree remembers not to exist.
pub(super) const ABSENT_MAX: usize = 4096;

/// How many that have been used since get a second chance, for one that has to go.
const CHANCES: usize = 8;

/// A tree of dentries. Holding one here keeps it, and with it its parents, from being forgotten; all others
/// live only as long as somebody uses them.
pub(super) struct Tree {
    /// May a dentry be believed without asking again?
    pub(super) caches_lookups: bool,
    /// Held by who moves a name, so that ancestry checks hold. Like the dentries' own gates, which are taken
    /// after it, not one of the ordered locks: it is held over calls to file systems, which may themselves
    /// wait for the Gofer, and it is never taken with another lock held.
    gate: StdMutex<()>,
    // Leaves: taken last, for a push and a pop only. What is evicted is dropped after they are released.
    kept: Mutex<order::Leaf, Kept>,
    absent: Mutex<order::Leaf, VecDeque<(Weak<Dentry>, Arc<[u8]>)>>,
}

/// Dentries by age, oldest first.
#[derive(Default)]
struct Kept {
    by_age: BTreeMap<u64, Arc<Dentry>>,
    next: u64,
}

impl Kept {
    fn push(&mut self, dentry: Arc<Dentry>) {
        self.next += 1;
        dentry.age.store(self.next, Ordering::Relaxed);
        self.by_age.insert(self.next, dentry);
    }

    fn evict(&mut self) -> Option<Arc<Dentry>> {
        for _ in 0..CHANCES {
            let (_, oldest) = self.by_age.pop_first()?;
            if !oldest.used.swap(false, Ordering::Relaxed) {
                return Some(oldest);
            }
            self.push(oldest);
        }
        self.by_age.pop_first().map(|(_, oldest)| oldest)
    }
}

impl Tree {
    pub(super) fn new(caches_lookups: bool) -> Arc<Self> {
        Arc::new(Self {
            caches_lookups,
            gate: StdMutex::default(),
            kept: Mutex::default(),
            absent: Mutex::default(),
        })
    }

    pub(super) fn gate(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a dentry that has just been made.
    pub(super) fn keep(&self, dentry: &Arc<Dentry>) {
        let evicted = {
            let mut kept = self.kept.lock();
            kept.push(Arc::clone(dentry));
            if kept.by_age.len() > KEPT_MAX { kept.evict() } else { None }
        };
        drop(evicted);
    }

    /// Keeps the half no more that has been kept longest. Whether there is any.
    pub(super) fn release_half(&self) -> bool {
        let released = {
            let mut kept = self.kept.lock();
            let half = kept.by_age.len().div_ceil(2);
            match kept.by_age.keys().nth(half).copied() {
                Some(middle) => {
                    let younger = kept.by_age.split_off(&middle);
                    std::mem::replace(&mut kept.by_age, younger)
                }
                None => std::mem::take(&mut kept.by_age),
            }
        };
        !released.is_empty()
    }

    /// Keeps it no more.
    pub(super) fn release(&self, dentry: &Dentry) {
        let released = {
            let mut kept = self.kept.lock();
            let age = dentry.age.load(Ordering::Relaxed);
            match kept.by_age.get(&age) {
                Some(at) if std::ptr::eq(&**at, dentry) => kept.by_age.remove(&age),
                _ => None,
            }
        };
        drop(released);
    }

    /// `name` below `parent` has been noted as absent: the oldest of such notes may have to go.
    pub(super) fn noted_absent(&self, parent: Weak<Dentry>, name: Arc<[u8]>) {
        let evicted = {
            let mut absent = self.absent.lock();
            absent.push_back((parent, name));
            if absent.len() > ABSENT_MAX { absent.pop_front() } else { None }
        };
        if let Some((parent, name)) = evicted
            && let Some(parent) = parent.upgrade()
        {
            parent.forget_absent(&name);
        }
    }

    /// Keeps nothing more.
    pub(super) fn clear(&self) {
        let kept = std::mem::take(&mut self.kept.lock().by_age);
        let absent = std::mem::take(&mut *self.absent.lock());
        for (parent, name) in absent {
            if let Some(parent) = parent.upgrade() {
                parent.forget_absent(&name);
            }
        }
        drop(kept);
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.kept.lock().by_age.len(), self.absent.lock().len())
    }
}
