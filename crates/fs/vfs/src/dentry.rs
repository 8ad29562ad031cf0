//! Dentries: names in a tree, and the bounded cache that keeps them.
//!
//! # Gates
//!
//! Every dentry has a gate for the names below it. Asking the inode for a name, and entering the answer,
//! happens with the gate held for reading; making, removing and moving a name, in the inode and here, with
//! it held for writing ([`Names`]). So what is cached is what the inode says, and a directory never has two
//! dentries where lookups are cached. A hit takes no gate. Who needs two gates holds the tree's own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use abi::Errno;
use sync::{Mutex, order};

use crate::{FileSystem, Inode, Result};

mod cache;
#[cfg(test)]
mod tests;

use cache::Tree;

/// Roots of the mounted file systems, by the address of their inode.
static ROOTS: LazyLock<Mutex<order::Leaf, HashMap<usize, Weak<Dentry>>>> = LazyLock::new(Mutex::default);

/// What is known of a name.
#[derive(Clone)]
enum Known {
    /// It is this, while anybody uses it.
    Child(Weak<Dentry>),
    /// It does not exist. Only where lookups are cached.
    Absent,
}

impl Known {
    fn child(&self) -> Option<Arc<Dentry>> {
        match self {
            Self::Child(child) => child.upgrade(),
            Self::Absent => None,
        }
    }
}

/// What changes about a dentry.
struct State {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
    names: HashMap<Arc<[u8]>, Known>,
    unlinked: bool,
}

/// A name of an inode, below its parent. Its inode never changes; a name that comes to mean something else
/// gets a new dentry.
pub struct Dentry {
    me: Weak<Dentry>,
    inode: Arc<dyn Inode>,
    tree: Arc<Tree>,
    /// Mounts on top of it, in any namespace.
    pub(crate) mounts: AtomicU32,
    /// Descriptions opened by it.
    pub(crate) opens: AtomicU32,
    gate: RwLock<()>,
    /// Where it stands among those that are kept, and whether it was used since it came there.
    age: AtomicU64,
    used: AtomicBool,
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
    if let Some(Known::Child(child)) = up.names.get(&state.name)
        && child.strong_count() == 0
    {
        up.names.remove(&state.name);
    }
    drop(up);
    Some(parent)
}

impl Dentry {
    /// The root of a tree, named `name` (`/` for mounted ones; `pipe:[5]` for what has no path).
    pub fn root(inode: Arc<dyn Inode>, caches_lookups: bool, name: &[u8]) -> Arc<Self> {
        Self::new(inode, Tree::new(caches_lookups), None, Arc::from(name))
    }

    /// The root of `fs`. A file system has one tree of dentries however often it is mounted: what is cached
    /// in one would not hear of changes made through another.
    pub(crate) fn root_of(fs: &dyn FileSystem) -> Arc<Self> {
        let inode = fs.root();
        let key = Arc::as_ptr(&inode).cast::<()>() as usize;
        let mut roots = ROOTS.lock();
        // A living dentry keeps its inode, so an inode at the same address is the same.
        if let Some(root) = roots.get(&key).and_then(Weak::upgrade) {
            return root;
        }
        roots.retain(|_, root| root.strong_count() > 0);
        let root = Self::root(inode, fs.caches_lookups(), b"/");
        roots.insert(key, Arc::downgrade(&root));
        root
    }

    fn new(inode: Arc<dyn Inode>, tree: Arc<Tree>, parent: Option<Arc<Self>>, name: Arc<[u8]>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            inode,
            tree,
            mounts: AtomicU32::new(0),
            opens: AtomicU32::new(0),
            gate: RwLock::default(),
            age: AtomicU64::new(0),
            used: AtomicBool::new(false),
            state: Mutex::new(State { parent, name, names: HashMap::new(), unlinked: false }),
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

    /// The child called `name`; asks the inode unless the cache may be believed.
    pub fn lookup(&self, name: &[u8]) -> Result<Arc<Self>> {
        if let Some(known) = self.cached(name) {
            return known;
        }
        let _gate = self.gate_shared();
        self.lookup_gated(name)
    }

    /// What the cache says, where it may be believed.
    fn cached(&self, name: &[u8]) -> Option<Result<Arc<Self>>> {
        let known = self.state.lock().names.get(name).cloned()?;
        match known {
            Known::Absent => Some(Err(Errno::ENOENT)),
            Known::Child(child) => {
                let child = child.upgrade()?;
                if !self.tree.caches_lookups && child.mounts.load(Ordering::Relaxed) == 0 {
                    return None;
                }
                child.used.store(true, Ordering::Relaxed);
                Some(Ok(child))
            }
        }
    }

    /// As [`lookup`](Self::lookup), with the gate held.
    fn lookup_gated(&self, name: &[u8]) -> Result<Arc<Self>> {
        if let Some(known) = self.cached(name) {
            return known;
        }
        let found = loop {
            match self.inode.lookup(name) {
                // What is kept in case somebody asks again is in the way of what is asked for now.
                Err(Errno::ENFILE) if self.tree.release_half() => {}
                found => break found,
            }
        };
        match found {
            Ok(inode) => Ok(self.adopt(name, inode)),
            Err(error) => {
                self.forget(name, error == Errno::ENOENT);
                Err(error)
            }
        }
    }

    /// The dentry for `inode`, which the inode has just said is called `name`. With the gate held.
    fn adopt(&self, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Self> {
        let name: Arc<[u8]> = Arc::from(name);
        let child = Self::new(inode, Arc::clone(&self.tree), self.me.upgrade(), Arc::clone(&name));
        // Outlives the guard: the last use of a child locks its parent.
        let known;
        let mut state = self.state.lock();
        known = state.names.get(&name).and_then(Known::child);
        if let Some(known) = &known
            && (self.tree.caches_lookups || Arc::ptr_eq(&known.inode, &child.inode))
        {
            let known = Arc::clone(known);
            drop(state);
            return known;
        }
        state.names.insert(name, Known::Child(Arc::downgrade(&child)));
        drop(state);
        if self.tree.caches_lookups {
            self.tree.keep(&child);
        }
        child
    }

    /// Forgets what `name` meant, without marking it as removed. `absent`: the inode says it is not there.
    fn forget(&self, name: &[u8], absent: bool) {
        if !absent || !self.tree.caches_lookups {
            let forgotten = self.state.lock().names.remove(name);
            drop(forgotten);
            return;
        }
        let name: Arc<[u8]> = Arc::from(name);
        let before = self.state.lock().names.insert(Arc::clone(&name), Known::Absent);
        if !matches!(before, Some(Known::Absent)) {
            self.tree.noted_absent(self.me.clone(), name);
        }
    }

    /// The cache has no room for the note that `name` is absent.
    fn forget_absent(&self, name: &[u8]) {
        let mut state = self.state.lock();
        if matches!(state.names.get(name), Some(Known::Absent)) {
            state.names.remove(name);
        }
    }

    fn gate_shared(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the gate, to change the names below. Of two, only with [`lock_tree`](Self::lock_tree).
    pub(crate) fn lock_names(&self) -> Names<'_> {
        Names { dir: self, _gate: self.gate.write().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Keeps all others from moving names in this tree.
    pub(crate) fn lock_tree(&self) -> MutexGuard<'_, ()> {
        self.tree.gate()
    }

    /// Drops every cached dentry of this tree that nobody uses (unmount).
    pub(crate) fn shrink(&self) {
        self.tree.clear();
    }
}

/// The names below a dentry, with its gate held: nobody else looks a new one up or changes one.
pub(crate) struct Names<'a> {
    dir: &'a Dentry,
    _gate: RwLockWriteGuard<'a, ()>,
}

impl Names<'_> {
    /// The child called `name`.
    pub(crate) fn lookup(&self, name: &[u8]) -> Result<Arc<Dentry>> {
        self.dir.lookup_gated(name)
    }

    /// Lets `make` make `name` in the inode, and enters it. `ENOENT` when the directory has been removed.
    pub(crate) fn make(
        &self,
        name: &[u8],
        make: impl FnOnce(&Arc<dyn Inode>) -> Result<Arc<dyn Inode>>,
    ) -> Result<Arc<Dentry>> {
        if self.dir.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        let made = make(&self.dir.inode);
        if matches!(made, Ok(_) | Err(Errno::EEXIST)) {
            // Believed to be absent, or removed by somebody who did not ask us.
            self.dir.forget(name, false);
        }
        Ok(self.dir.adopt(name, made?))
    }

    /// `name` has come to mean something that has not been looked at.
    pub(crate) fn forget(&self, name: &[u8]) {
        self.dir.forget(name, false);
    }

    /// `name` has been removed.
    pub(crate) fn removed(&self, name: &[u8]) {
        let child = self.dir.state.lock().names.get(name).and_then(Known::child);
        self.dir.forget(name, true);
        if let Some(child) = child {
            child.state.lock().unlinked = true;
            child.tree.release(&child);
        }
    }

    /// `child`, until now below this, is now called `name` below `to` (`None`: here too). What it was
    /// called before is not forgotten if something else is called so by now.
    pub(crate) fn moved(&self, child: &Arc<Dentry>, to: Option<&Self>, name: &[u8]) {
        let to = to.map_or(self.dir, |to| to.dir);
        let old = child.name();
        let is_child = matches!(
            self.dir.state.lock().names.get(&old),
            Some(Known::Child(known)) if std::ptr::eq(known.as_ptr(), Arc::as_ptr(child))
        );
        if is_child {
            self.dir.forget(&old, true);
        }
        let name: Arc<[u8]> = Arc::from(name);
        let left = {
            let mut state = child.state.lock();
            state.name = Arc::clone(&name);
            std::mem::replace(&mut state.parent, to.me.upgrade())
        };
        drop(left);
        let before = to.state.lock().names.insert(name, Known::Child(Arc::downgrade(child)));
        drop(before);
    }
}
