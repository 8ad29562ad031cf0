//! Dentries: names in a tree, and the bounded cache that keeps them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use sync::{Mutex, order};

use crate::{FileSystem, Inode, Result};

/// Dentries a file system's cache keeps alive although nobody uses them.
const CACHE_LIMIT: usize = 4096;

/// Recently used dentries of one file system, oldest first. Holding one here keeps it, and with it its
/// parents, from being forgotten; all others live only as long as somebody uses them.
#[derive(Default)]
struct Cache {
    // A leaf: taken last, for a push and a pop only; what is evicted is dropped after it is released.
    recent: Mutex<order::Leaf, VecDeque<Arc<Dentry>>>,
}

impl Cache {
    fn keep(&self, dentry: &Arc<Dentry>) {
        let evicted = {
            let mut recent = self.recent.lock();
            recent.push_back(Arc::clone(dentry));
            if recent.len() > CACHE_LIMIT { recent.pop_front() } else { None }
        };
        drop(evicted);
    }

    fn forget(&self, dentry: &Arc<Dentry>) {
        let forgotten: VecDeque<_> = {
            let mut recent = self.recent.lock();
            let (gone, kept) = recent.drain(..).partition(|d| Arc::ptr_eq(d, dentry));
            *recent = kept;
            gone
        };
        drop(forgotten);
    }

    fn clear(&self) {
        let all = std::mem::take(&mut *self.recent.lock());
        drop(all);
    }
}

/// What changes about a dentry.
struct State {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
    children: HashMap<Arc<[u8]>, Weak<Dentry>>,
    unlinked: bool,
}

/// A name of an inode, below its parent. A dentry always has an inode: absence is not cached. Its
/// inode never changes; a name that comes to mean something else gets a new dentry.
pub struct Dentry {
    me: Weak<Dentry>,
    inode: Arc<dyn Inode>,
    cache: Arc<Cache>,
    caches_lookups: bool,
    /// Mounts on top of it, in any namespace.
    pub(crate) mounts: AtomicU32,
    /// Changes when a name below it was added, removed or renamed, so that a lookup which raced with
    /// the change is not cached.
    generation: AtomicU64,
    // A leaf, so that the last use of a path may end under any lock. Never two of them at once.
    state: Mutex<order::Leaf, State>,
}

impl std::fmt::Debug for Dentry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dentry")
            .field("name", &String::from_utf8_lossy(&self.name()))
            .field("kind", &self.inode.kind())
            .finish_non_exhaustive()
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        let mut next = detach(self.state.get_mut());
        // Not by recursion: a guest decides how deep a tree is.
        while let Some(mut dentry) = next.and_then(Arc::into_inner) {
            next = detach(dentry.state.get_mut());
        }
    }
}

/// Takes a dying dentry out of its parent's list and returns the parent.
fn detach(state: &mut State) -> Option<Arc<Dentry>> {
    let parent = state.parent.take()?;
    let mut up = parent.state.lock();
    if up.children.get(&state.name).is_some_and(|child| child.strong_count() == 0) {
        up.children.remove(&state.name);
    }
    drop(up);
    Some(parent)
}

impl Dentry {
    /// The root of a tree, named `name` (`/` for mounted ones; `pipe:[5]` for what has no path).
    pub fn root(inode: Arc<dyn Inode>, caches_lookups: bool, name: &[u8]) -> Arc<Self> {
        Self::new(inode, Arc::default(), caches_lookups, None, Arc::from(name))
    }

    fn new(
        inode: Arc<dyn Inode>,
        cache: Arc<Cache>,
        caches_lookups: bool,
        parent: Option<Arc<Self>>,
        name: Arc<[u8]>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            inode,
            cache,
            caches_lookups,
            mounts: AtomicU32::new(0),
            generation: AtomicU64::new(0),
            state: Mutex::new(State { parent, name, children: HashMap::new(), unlinked: false }),
        })
    }

    /// The inode it names.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// The file system it belongs to.
    pub fn fs(&self) -> Arc<dyn FileSystem> {
        self.inode.fs()
    }

    /// Name below the parent, at this moment.
    pub fn name(&self) -> Arc<[u8]> {
        Arc::clone(&self.state.lock().name)
    }

    /// Parent; `None` at the root of a file system.
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.state.lock().parent.clone()
    }

    /// Has the name been removed? (`" (deleted)"` in `/proc/PID/fd`.)
    pub fn is_unlinked(&self) -> bool {
        self.state.lock().unlinked
    }

    /// Is `self` `other` or above it, within one file system?
    pub fn is_ancestor_of(&self, other: &Arc<Self>) -> bool {
        let mut at = Some(Arc::clone(other));
        while let Some(dentry) = at {
            if std::ptr::eq(self, &*dentry) {
                return true;
            }
            at = dentry.parent();
        }
        false
    }

    fn cached(&self, name: &[u8]) -> Option<Arc<Self>> {
        self.state.lock().children.get(name).and_then(Weak::upgrade)
    }

    /// The child called `name`; asks the inode unless the cache may be believed.
    pub fn lookup(&self, name: &[u8]) -> Result<Arc<Self>> {
        let cached = self.cached(name);
        if let Some(child) = &cached
            && (self.caches_lookups || child.mounts.load(Ordering::Relaxed) > 0)
        {
            return Ok(Arc::clone(child));
        }
        let before = self.generation.load(Ordering::SeqCst);
        let inode = match self.inode.lookup(name) {
            Ok(inode) => inode,
            Err(error) => {
                self.forget(name);
                return Err(error);
            }
        };
        match cached {
            Some(child) if Arc::ptr_eq(&child.inode, &inode) => Ok(child),
            _ => Ok(self.adopt(name, inode, Some(before))),
        }
    }

    /// The dentry for `inode`, just looked up or made under `name`. With `before`, it is entered only
    /// when nothing below changed since.
    pub(crate) fn adopt(&self, name: &[u8], inode: Arc<dyn Inode>, before: Option<u64>) -> Arc<Self> {
        let name: Arc<[u8]> = Arc::from(name);
        let child = Self::new(
            inode,
            Arc::clone(&self.cache),
            self.caches_lookups,
            self.me.upgrade(),
            Arc::clone(&name),
        );
        // Outlives the guard: the last use of a child locks its parent.
        let known;
        let mut state = self.state.lock();
        if before.is_some_and(|before| before != self.generation.load(Ordering::SeqCst)) {
            drop(state);
            return child;
        }
        known = state.children.get(&name).and_then(Weak::upgrade);
        if let Some(known) = &known
            && (self.caches_lookups || Arc::ptr_eq(&known.inode, &child.inode))
        {
            let known = Arc::clone(known);
            drop(state);
            return known;
        }
        state.children.insert(name, Arc::downgrade(&child));
        drop(state);
        if self.caches_lookups {
            self.cache.keep(&child);
        }
        child
    }

    /// Enters a child that an operation has just made.
    pub(crate) fn created(&self, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Self> {
        self.forget(name);
        self.adopt(name, inode, None)
    }

    /// Forgets what `name` meant, without marking it as removed.
    fn forget(&self, name: &[u8]) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let child = self.state.lock().children.remove(name);
        drop(child);
    }

    /// `name` has been removed.
    pub(crate) fn removed(&self, name: &[u8]) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let child = self.state.lock().children.remove(name).and_then(|child| child.upgrade());
        if let Some(child) = child {
            child.state.lock().unlinked = true;
            self.cache.forget(&child);
        }
    }

    /// `child`, until now below `self`, is now called `name` below `to`.
    pub(crate) fn moved(&self, child: &Arc<Self>, to: &Arc<Self>, name: &[u8]) {
        let old = child.name();
        self.generation.fetch_add(1, Ordering::SeqCst);
        to.generation.fetch_add(1, Ordering::SeqCst);
        let gone = self.state.lock().children.remove(&old);
        drop(gone);
        let name: Arc<[u8]> = Arc::from(name);
        let left = {
            let mut state = child.state.lock();
            state.name = Arc::clone(&name);
            state.parent.replace(Arc::clone(to))
        };
        drop(left);
        to.state.lock().children.insert(name, Arc::downgrade(child));
    }

    /// As [`moved`](Self::moved), when the old name already means something else (an exchange).
    pub(crate) fn moved_over(&self, child: &Arc<Self>, to: &Arc<Self>, name: &[u8]) {
        let old = child.name();
        let kept = self.state.lock().children.get(&old).cloned();
        self.moved(child, to, name);
        if let Some(kept) = kept {
            self.state.lock().children.insert(old, kept);
        }
    }

    /// Drops every cached dentry of this file system that nobody uses (unmount).
    pub(crate) fn shrink(&self) {
        self.cache.clear();
    }
}
