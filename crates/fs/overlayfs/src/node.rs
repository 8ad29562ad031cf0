//! Inodes of the union.
//!
//! There is one node a file while anybody uses it: one that has an upper inode is found by that
//! ([`OverlayFs::known`]), one that is only below by its name in its parent, which it keeps alive.
//!
//! # Locks
//!
//! Every directory has a *gate*: lookups hold it for reading, whoever changes what a name means for
//! writing. Who needs two gates holds [`OverlayFs::lock_several`] and takes the parent's first. A file
//! that is copied up holds its own `copying` lock, and its parent's gate only at the end; a gate is never
//! held while a `copying` lock is waited for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{
    Arc, Mutex as StdMutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    Weak,
};

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use sync::{Mutex, order};
use vfs::{Attr, File, FileContext, FileSystem, Inode, NewNode, RenameFlags, Result, SetAttr, XattrSet};

use crate::fs::OverlayFs;
use crate::listing::{LowerNames, OverlayDir};
use crate::work::{self, PRIVATE};
use crate::{copy_up, file};

/// An inode of a lower tree.
#[derive(Clone)]
pub(crate) struct Lower {
    pub(crate) inode: Arc<dyn Inode>,
    /// Its file system, as the numbering knows it.
    pub(crate) system: u64,
}

/// Where a node is that exists only below.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) parent: Arc<Node>,
    pub(crate) name: Vec<u8>,
}

struct Upper {
    inode: Arc<dyn Inode>,
    /// The inode number the union shows, once somebody asked.
    ino: OnceLock<u64>,
}

/// An inode of the union.
pub(crate) struct Node {
    me: Weak<Node>,
    fs: Arc<OverlayFs>,
    kind: FileType,
    /// What is merged below, topmost first; at most one unless it is a directory.
    lowers: Vec<Lower>,
    upper: OnceLock<Upper>,
    place: Mutex<order::Leaf, Option<Place>>,
    /// Has its name been removed? Changes under the parent's gate; a directory's also under its own.
    removed: AtomicBool,
    copying: StdMutex<()>,
    gate: RwLock<()>,
    /// Living children that exist only below, by name.
    children: Mutex<order::Leaf, HashMap<Vec<u8>, Weak<Node>>>,
    /// The names below, once they were asked for.
    pub(crate) names: OnceLock<Arc<LowerNames>>,
    /// How often something was looked for below that is not there, while they were not known.
    pub(crate) misses: AtomicU32,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(upper) = self.upper.get() {
            self.fs.forget(&upper.inode);
        }
        let mut next = leave(self.place.get_mut());
        // Not by recursion: who made the image decides how deep it is.
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            next = leave(node.place.get_mut());
        }
    }
}

/// Takes a dying node out of its parent's list, and returns the parent.
fn leave(place: &mut Option<Place>) -> Option<Arc<Node>> {
    let Place { parent, name } = place.take()?;
    let mut children = parent.children.lock();
    if children.get(&name).is_some_and(|child| child.strong_count() == 0) {
        children.remove(&name);
    }
    drop(children);
    Some(parent)
}

impl Node {
    fn new(fs: Arc<OverlayFs>, kind: FileType, lowers: Vec<Lower>, place: Option<Place>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            fs,
            kind,
            lowers,
            upper: OnceLock::new(),
            place: Mutex::new(place),
            removed: AtomicBool::new(false),
            copying: StdMutex::default(),
            gate: RwLock::default(),
            children: Mutex::default(),
            names: OnceLock::new(),
            misses: AtomicU32::new(0),
        })
    }

    /// For [`OverlayFs::adopt`] only, which sees to it that there is one a file.
    pub(crate) fn with_upper(fs: Arc<OverlayFs>, upper: Arc<dyn Inode>, lowers: Vec<Lower>) -> Arc<Self> {
        let node = Self::new(fs, upper.kind(), lowers, None);
        let _ = node.upper.set(Upper { inode: upper, ino: OnceLock::new() });
        node
    }

    /// The child `name` that exists only below, as `lowers`. Under the gate.
    pub(crate) fn adopt_lower(&self, name: &[u8], lowers: Vec<Lower>) -> Result<Arc<Self>> {
        let kind = lowers.first().ok_or(Errno::ENOENT)?.inode.kind();
        let place = Place { parent: self.arc()?, name: name.to_vec() };
        let node = Self::new(Arc::clone(&self.fs), kind, lowers, Some(place));
        let known;
        let mut children = self.children.lock();
        known = children.get(name).and_then(Weak::upgrade);
        if let Some(known) = known {
            drop(children);
            return Ok(known);
        }
        children.insert(name.to_vec(), Arc::downgrade(&node));
        Ok(node)
    }

    /// The living child `name` that exists only below.
    pub(crate) fn lower_child(&self, name: &[u8]) -> Option<Arc<Self>> {
        self.children.lock().get(name).and_then(Weak::upgrade)
    }

    /// `name` is not that of a child that exists only below any more. Under the gate.
    pub(crate) fn forget_lower(&self, name: &[u8]) {
        let gone = self.children.lock().remove(name);
        drop(gone);
    }

    pub(crate) fn arc(&self) -> Result<Arc<Self>> {
        self.me.upgrade().ok_or(Errno::EIO)
    }

    pub(crate) fn overlay(&self) -> &Arc<OverlayFs> {
        &self.fs
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub(crate) fn lowers(&self) -> &[Lower] {
        &self.lowers
    }

    pub(crate) fn upper(&self) -> Option<&Arc<dyn Inode>> {
        self.upper.get().map(|upper| &upper.inode)
    }

    /// The inode that is seen: the upper one, or the topmost below.
    pub(crate) fn real(&self) -> Result<&Arc<dyn Inode>> {
        match self.upper() {
            Some(upper) => Ok(upper),
            None => self.lowers.first().map(|lower| &lower.inode).ok_or(Errno::EIO),
        }
    }

    /// Gives it an upper inode, for good.
    pub(crate) fn set_upper(&self, inode: Arc<dyn Inode>) -> Result<()> {
        self.fs.enter(&inode, &self.arc()?);
        let _ = self.upper.set(Upper { inode, ino: OnceLock::new() });
        let place = self.place.lock().take();
        drop(place);
        Ok(())
    }

    /// Where it is, while it exists only below.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place.lock().clone()
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    pub(crate) fn set_removed(&self) {
        self.removed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn lock_copying(&self) -> MutexGuard<'_, ()> {
        self.copying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn gate(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn gate_mut(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inode number shown, when the seen inode has number `real`.
    fn number(&self, real: u64) -> Result<u64> {
        let Some(upper) = self.upper.get() else {
            let system = self.lowers.first().map_or(0, |lower| lower.system);
            return Ok(self.fs.lower_number(system, real));
        };
        if let Some(ino) = upper.ino.get() {
            return Ok(*ino);
        }
        let ino = match self.lowers.first() {
            Some(lower) if self.is_dir() => self.fs.lower_number(lower.system, lower.inode.attr()?.ino),
            _ => upper_number(&self.fs, &upper.inode)?,
        };
        Ok(*upper.ino.get_or_init(|| ino))
    }
}

/// The number an upper inode shows that is not merged with anything.
pub(crate) fn upper_number(fs: &OverlayFs, inode: &Arc<dyn Inode>) -> Result<u64> {
    match work::origin(inode)? {
        Some(ino) => Ok(ino),
        None => Ok(fs.upper_number(inode.attr()?.ino)),
    }
}

/// The node behind an inode of this file system; `EXDEV` for another's.
pub(crate) fn node_of(fs: &Arc<OverlayFs>, inode: &Arc<dyn Inode>) -> Result<Arc<Node>> {
    let any: Arc<dyn std::any::Any + Send + Sync> = Arc::clone(inode) as _;
    let node = any.downcast::<Node>().map_err(|_| Errno::EXDEV)?;
    if Arc::ptr_eq(&node.fs, fs) { Ok(node) } else { Err(Errno::EXDEV) }
}

fn check_public(name: &[u8]) -> Result<()> {
    if name.starts_with(PRIVATE) { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

impl Inode for Node {
    fn kind(&self) -> FileType {
        self.kind
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.fs) as Arc<dyn FileSystem>
    }

    fn attr(&self) -> Result<Attr> {
        let only_below = self.upper().is_none();
        let mut attr = self.real()?.attr()?;
        attr.ino = self.number(attr.ino)?;
        if self.is_dir() && self.lowers.len() + usize::from(!only_below) > 1 {
            // As on Linux: how many subdirectories there are would have to be counted.
            attr.nlink = 1;
        }
        if only_below && self.is_removed() {
            attr.nlink = if self.is_dir() { 0 } else { attr.nlink.saturating_sub(1) };
        }
        Ok(attr)
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        // Data that is cut off right away need not be copied.
        self.copy_up(change.size.unwrap_or(copy_up::WHOLE))?.set_attr(change)
    }

    fn accessed(&self) {
        if let Some(upper) = self.upper() {
            upper.accessed();
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let _gate = self.gate();
        self.child(name).map(|node| node as Arc<dyn Inode>)
    }

    fn create(&self, name: &[u8], new: &NewNode) -> Result<Arc<dyn Inode>> {
        self.make(name, new).map(|node| node as Arc<dyn Inode>)
    }

    fn create_unnamed(&self, new: &NewNode) -> Result<Arc<dyn Inode>> {
        let inode = self.fs.work.dir.create_unnamed(new)?;
        self.fs.adopt(inode, Vec::new()).map(|node| node as Arc<dyn Inode>)
    }

    fn symlink(&self, name: &[u8], target: &[u8], uid: u32, gid: u32) -> Result<Arc<dyn Inode>> {
        self.make_symlink(name, target, uid, gid).map(|node| node as Arc<dyn Inode>)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.make_link(name, &node_of(&self.fs, target)?)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.remove_file(name)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.remove_dir(name)
    }

    fn rename(
        &self,
        name: &[u8],
        new_parent: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        let to: Arc<Node> = node_of(&self.fs, new_parent)?;
        self.move_child(name, &to, new_name, flags)
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        self.real()?.readlink()
    }

    fn open(&self, cx: &FileContext<'_>, flags: OpenFlags) -> Result<Arc<dyn File>> {
        match self.kind {
            FileType::Regular => file::open(self.arc()?, cx, flags),
            FileType::Directory if flags.writable() => Err(Errno::EISDIR),
            FileType::Directory => Ok(Arc::new(OverlayDir::new(self.arc()?))),
            _ => self.real()?.open(cx, flags),
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        check_public(name)?;
        self.real()?.xattr(name)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        check_public(name)?;
        self.copy_up(copy_up::WHOLE)?.set_xattr(name, value, how)
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        check_public(name)?;
        if self.upper().is_none() {
            // Nothing is copied for what is not there.
            self.real()?.xattr(name)?;
        }
        self.copy_up(copy_up::WHOLE)?.remove_xattr(name)
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        let mut names = self.real()?.list_xattr()?;
        names.retain(|name| !name.starts_with(PRIVATE));
        Ok(names)
    }
}
