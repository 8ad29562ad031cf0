//! Who wants to hear what happens to an inode (`inotify(7)`).
//!
//! A [`Watcher`] registers at an inode, which it thereby keeps; the operations of this crate report to it.
//! While nobody watches anything, a report costs one load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use abi::fs::FileType;
use bitflags::bitflags;
use sync::{Mutex, order};

use crate::Inode;
use crate::dentry::Dentry;

bitflags! {
    /// What happened, and options of a watch; the bits of `inotify_add_watch(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WatchMask: u32 {
        /// Read.
        const ACCESS = 0x1;
        /// Written.
        const MODIFY = 0x2;
        /// Attributes changed.
        const ATTRIB = 0x4;
        /// Closed after writing.
        const CLOSE_WRITE = 0x8;
        /// Closed otherwise.
        const CLOSE_NOWRITE = 0x10;
        /// Opened.
        const OPEN = 0x20;
        /// A name moved away.
        const MOVED_FROM = 0x40;
        /// A name moved here.
        const MOVED_TO = 0x80;
        /// A name was made.
        const CREATE = 0x100;
        /// A name was removed.
        const DELETE = 0x200;
        /// The watched inode was removed.
        const DELETE_SELF = 0x400;
        /// The watched inode was moved.
        const MOVE_SELF = 0x800;
        /// Its file system was unmounted.
        const UNMOUNT = 0x2000;
        /// Events were lost.
        const Q_OVERFLOW = 0x4000;
        /// The watch is gone.
        const IGNORED = 0x8000;
        /// Only a directory may be watched; for the walk.
        const ONLYDIR = 0x0100_0000;
        /// Do not follow a link; for the walk.
        const DONT_FOLLOW = 0x0200_0000;
        /// Of a watch: no events of unlinked children. Of an event: it is one.
        const EXCL_UNLINK = 0x0400_0000;
        /// Fail when there is a watch.
        const MASK_CREATE = 0x1000_0000;
        /// Add to the mask of a watch.
        const MASK_ADD = 0x2000_0000;
        /// The subject is a directory.
        const ISDIR = 0x4000_0000;
        /// One event only.
        const ONESHOT = 0x8000_0000;
    }
}

impl WatchMask {
    /// What can be asked for (`IN_ALL_EVENTS`).
    pub const EVENTS: Self = Self::from_bits_truncate(0xfff);
}

/// Hears of events. Called without a lock.
pub trait Watcher: Send + Sync {
    /// Something happened to the inode registered with `token`, or to what is called `name` in it. A
    /// `cookie` other than 0 ties the two halves of a rename together.
    fn event(&self, token: i32, what: WatchMask, cookie: u32, name: &[u8]);
}

struct Registration {
    id: u64,
    token: i32,
    watcher: Weak<dyn Watcher>,
}

struct Watched {
    /// Keeps the inode, and so its address.
    inode: Arc<dyn Inode>,
    by: Vec<Registration>,
}

static WATCHED: LazyLock<Mutex<order::Leaf, HashMap<usize, Watched>>> = LazyLock::new(Mutex::default);

/// Registrations in all.
static COUNT: AtomicUsize = AtomicUsize::new(0);

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Identity of an inode while it is watched.
pub fn key(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>() as usize
}

/// A registration; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    key: usize,
    id: u64,
}

impl Watch {
    /// From now on `watcher` hears of events of `inode`.
    pub fn new(inode: &Arc<dyn Inode>, watcher: Weak<dyn Watcher>, token: i32) -> Self {
        let (key, id) = (key(inode), NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let new = || Watched { inode: Arc::clone(inode), by: Vec::new() };
        WATCHED.lock().entry(key).or_insert_with(new).by.push(Registration { id, token, watcher });
        COUNT.fetch_add(1, Ordering::SeqCst);
        Self { key, id }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Dropped without the lock: it may be the last use of the inode.
        let unwatched = {
            let mut all = WATCHED.lock();
            let Some(watched) = all.get_mut(&self.key) else { return };
            watched.by.retain(|registration| registration.id != self.id);
            if watched.by.is_empty() { all.remove(&self.key) } else { None }
        };
        COUNT.fetch_sub(1, Ordering::SeqCst);
        drop(unwatched.map(|watched| watched.inode));
    }
}

fn is_anybody_watching() -> bool {
    COUNT.load(Ordering::Relaxed) > 0
}

fn report(inode: &Arc<dyn Inode>, what: WatchMask, cookie: u32, name: &[u8]) {
    let watchers: Vec<_> = {
        let all = WATCHED.lock();
        let Some(watched) = all.get(&key(inode)) else { return };
        watched.by.iter().map(|by| (by.token, by.watcher.clone())).collect()
    };
    for (token, watcher) in watchers {
        if let Some(watcher) = watcher.upgrade() {
            watcher.event(token, what, cookie, name);
        }
    }
}

fn is_dir(inode: &Arc<dyn Inode>) -> WatchMask {
    if inode.kind() == FileType::Directory { WatchMask::ISDIR } else { WatchMask::empty() }
}

/// Something happened to what `dentry` names: its watchers hear, and those of the directory it is in.
pub(crate) fn happened(dentry: &Dentry, what: WatchMask) {
    if !is_anybody_watching() {
        return;
    }
    let what = what | is_dir(dentry.inode());
    if let Some(parent) = dentry.parent() {
        let unlinked = if dentry.is_unlinked() { WatchMask::EXCL_UNLINK } else { WatchMask::empty() };
        report(parent.inode(), what | unlinked, 0, &dentry.name());
    }
    report(dentry.inode(), what, 0, b"");
}

/// A name was made.
pub(crate) fn created(dentry: &Dentry) {
    if is_anybody_watching()
        && let Some(parent) = dentry.parent()
    {
        report(parent.inode(), WatchMask::CREATE | is_dir(dentry.inode()), 0, &dentry.name());
    }
}

/// `inode` has got another name (`link(2)`).
pub(crate) fn linked(inode: &Arc<dyn Inode>) {
    if is_anybody_watching() {
        report(inode, WatchMask::ATTRIB, 0, b"");
    }
}

/// `name` in `dir`, which was `child`'s, was removed.
pub(crate) fn removed(dir: &Dentry, name: &[u8], child: &Dentry) {
    if !is_anybody_watching() {
        return;
    }
    lost_name(child);
    let directory = is_dir(child.inode());
    // As on Linux, a directory ends before its parent hears of it, a file after.
    if !directory.is_empty() {
        ended(child);
    }
    report(dir.inode(), WatchMask::DELETE | directory, 0, name);
    if directory.is_empty() {
        ended(child);
    }
}

/// `dentry` is a name its inode has lost: there is a link less.
pub(crate) fn lost_name(dentry: &Dentry) {
    if is_anybody_watching() && dentry.inode().kind() != FileType::Directory {
        report(dentry.inode(), WatchMask::ATTRIB, 0, b"");
    }
}

/// Says that an inode is gone, if it is: it has no name left and nobody has it open.
pub(crate) fn ended(dentry: &Dentry) {
    if is_anybody_watching()
        && dentry.is_unlinked()
        && dentry.opens.load(Ordering::SeqCst) == 0
        && dentry.inode().attr().is_ok_and(|attr| attr.nlink == 0)
    {
        report(dentry.inode(), WatchMask::DELETE_SELF | is_dir(dentry.inode()), 0, b"");
    }
}

/// `child` was called `old.1` in `old.0`, and is called `new.1` in `new.0` now.
pub(crate) fn moved(old: (&Dentry, &[u8]), new: (&Dentry, &[u8]), child: &Arc<dyn Inode>) {
    static COOKIE: AtomicU32 = AtomicU32::new(1);
    if !is_anybody_watching() {
        return;
    }
    let cookie = COOKIE.fetch_add(1, Ordering::Relaxed);
    report(old.0.inode(), WatchMask::MOVED_FROM | is_dir(child), cookie, old.1);
    report(new.0.inode(), WatchMask::MOVED_TO | is_dir(child), cookie, new.1);
}

/// `inode` was moved.
pub(crate) fn moved_self(inode: &Arc<dyn Inode>) {
    if is_anybody_watching() {
        report(inode, WatchMask::MOVE_SELF | is_dir(inode), 0, b"");
    }
}
