//! The file system: its layers, its numbers, and which of its nodes are alive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak};

use abi::Errno;
use abi::fs::{FileType, StatFs};
use cred::Credentials;
use sync::{Mutex, order};
use vfs::{FileContext, FileSystem, Inode, NewNode, Result, SetAttr};

use crate::node::{Lower, Node};
use crate::work::Work;

/// Lower trees an overlay may have, as on Linux.
const LOWERS_MAX: usize = 500;

/// `OVERLAYFS_SUPER_MAGIC`.
const MAGIC: i64 = 0x794c_7630;

/// What an overlay is made of: directories of other file systems.
pub struct Layers {
    /// Where changes go.
    pub upper: Arc<dyn Inode>,
    /// An empty directory of the upper file system, outside of `upper`, in which things are prepared.
    pub work: Arc<dyn Inode>,
    /// What lies below, topmost first. Nobody changes it.
    pub lowers: Vec<Arc<dyn Inode>>,
}

impl Layers {
    /// Upper and work directory (`upper`, `work`) in the root of `fs`, made where they are missing. A new
    /// upper directory gets owner and mode of the topmost lower one.
    pub fn over(fs: &dyn FileSystem, lowers: Vec<Arc<dyn Inode>>) -> Result<Self> {
        let root = fs.root();
        let like = lowers.first().unwrap_or(&root).attr()?;
        let new =
            NewNode { kind: FileType::Directory, perm: like.perm, uid: like.uid, gid: like.gid, rdev: 0 };
        let dir = |name: &[u8]| match root.lookup(name) {
            Err(Errno::ENOENT) => root.create(name, &new),
            found => found,
        };
        Ok(Self { upper: dir(b"upper")?, work: dir(b"work")?, lowers })
    }
}

/// Which inode numbers the files of a layer get: the number there, and the layer's file system above it.
struct Numbers {
    /// The distinct file systems, by address.
    systems: Vec<usize>,
    /// Bits a number may have to be taken as it is.
    bits: u32,
}

impl Numbers {
    fn new(layers: &Layers) -> Self {
        let mut systems = Vec::new();
        for inode in layers.lowers.iter().chain([&layers.upper]) {
            let key = Self::key(inode);
            if !systems.contains(&key) {
                systems.push(key);
            }
        }
        // One more for numbers that do not fit; the sign bit stays clear.
        let bits = 63 - (systems.len() + 1).next_power_of_two().trailing_zeros();
        Self { systems, bits }
    }

    fn key(inode: &Arc<dyn Inode>) -> usize {
        Arc::as_ptr(&inode.fs()).cast::<()>() as usize
    }

    fn system(&self, inode: &Arc<dyn Inode>) -> u64 {
        let key = Self::key(inode);
        self.systems.iter().position(|system| *system == key).unwrap_or_default() as u64
    }

    fn number(&self, system: u64, ino: u64) -> u64 {
        if ino >> self.bits == 0 {
            return system << self.bits | ino;
        }
        // Rare (numbers a file system makes by hashing). Two of them may meet, like any two hashes.
        let mixed = (ino ^ system.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (self.systems.len() as u64) << self.bits | mixed >> (64 - self.bits)
    }
}

/// A union of trees.
pub struct OverlayFs {
    me: Weak<Self>,
    dev: u64,
    upper: Arc<dyn Inode>,
    upper_system: u64,
    lowers: Vec<Lower>,
    /// The layers' file systems: an inode does not keep its own alive.
    _systems: Vec<Arc<dyn FileSystem>>,
    numbers: Numbers,
    pub(crate) work: Work,
    cred: Credentials,
    root: Mutex<order::Leaf, Weak<Node>>,
    /// Living nodes that have an upper inode, by its address. Hard links are one node this way.
    uppers: Mutex<order::Leaf, HashMap<usize, Weak<Node>>>,
    /// Held by who takes the gates of more than one directory. Like the gates not one of the ordered locks,
    /// because calls to other file systems are made under it.
    several: StdMutex<()>,
}

impl std::fmt::Debug for OverlayFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OverlayFs").field("lowers", &self.lowers.len()).finish_non_exhaustive()
    }
}

fn address(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>() as usize
}

impl OverlayFs {
    /// An overlay with device number `dev`. `ENOTDIR` when a layer is no directory, `EXDEV` when upper and
    /// work directory are of different file systems, `EINVAL` when there are too many layers.
    pub fn new(dev: u64, layers: Layers) -> Result<Arc<Self>> {
        let is_dir = |inode: &Arc<dyn Inode>| inode.kind() == FileType::Directory;
        if !layers.lowers.iter().chain([&layers.upper, &layers.work]).all(is_dir) {
            return Err(Errno::ENOTDIR);
        }
        if layers.lowers.len() > LOWERS_MAX {
            return Err(Errno::EINVAL);
        }
        if Numbers::key(&layers.upper) != Numbers::key(&layers.work) {
            return Err(Errno::EXDEV);
        }
        let systems = layers.lowers.iter().chain([&layers.upper]).map(|inode| inode.fs()).collect();
        let numbers = Numbers::new(&layers);
        let cred = Credentials::root();
        let work = Work::new(layers.work, &FileContext { cred: &cred, pid: 0, tid: 0 })?;
        let lower = |inode| Lower { system: numbers.system(&inode), inode };
        let lowers = layers.lowers.into_iter().map(lower).collect();
        Ok(Arc::new_cyclic(|me| Self {
            me: me.clone(),
            dev,
            upper_system: numbers.system(&layers.upper),
            upper: layers.upper,
            lowers,
            _systems: systems,
            numbers,
            work,
            cred,
            root: Mutex::default(),
            uppers: Mutex::default(),
            several: StdMutex::default(),
        }))
    }

    /// As an `Arc`; `EIO` for a file system that is being dropped.
    fn arc(&self) -> Result<Arc<Self>> {
        self.me.upgrade().ok_or(Errno::EIO)
    }

    /// In whose name layers are read and written: permissions have been checked on the union.
    pub(crate) fn cx(&self) -> FileContext<'_> {
        FileContext { cred: &self.cred, pid: 0, tid: 0 }
    }

    /// The number a lower file of number `ino` shows.
    pub(crate) fn lower_number(&self, system: u64, ino: u64) -> u64 {
        self.numbers.number(system, ino)
    }

    /// The number a file shows that never was below.
    pub(crate) fn upper_number(&self, ino: u64) -> u64 {
        self.numbers.number(self.upper_system, ino)
    }

    pub(crate) fn lock_several(&self) -> MutexGuard<'_, ()> {
        self.several.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The living node of an upper inode.
    pub(crate) fn known(&self, upper: &Arc<dyn Inode>) -> Option<Arc<Node>> {
        self.uppers.lock().get(&address(upper)).and_then(Weak::upgrade)
    }

    /// The node of an upper inode; a new one lies over `lowers`.
    pub(crate) fn adopt(&self, upper: Arc<dyn Inode>, lowers: Vec<Lower>) -> Result<Arc<Node>> {
        let key = address(&upper);
        let node = Node::with_upper(self.arc()?, upper, lowers);
        // Outlives the guard: the end of a node takes the lock.
        let known;
        let mut uppers = self.uppers.lock();
        known = uppers.get(&key).and_then(Weak::upgrade);
        if let Some(known) = known {
            drop(uppers);
            return Ok(known);
        }
        uppers.insert(key, Arc::downgrade(&node));
        Ok(node)
    }

    /// `node` has just got `upper`.
    pub(crate) fn enter(&self, upper: &Arc<dyn Inode>, node: &Arc<Node>) {
        let before = self.uppers.lock().insert(address(upper), Arc::downgrade(node));
        drop(before);
    }

    /// A node of `upper` is gone.
    pub(crate) fn forget(&self, upper: &Arc<dyn Inode>) {
        let key = address(upper);
        let mut uppers = self.uppers.lock();
        // Another node of the same inode may have come in the meantime.
        if uppers.get(&key).is_some_and(|node| node.strong_count() == 0) {
            uppers.remove(&key);
        }
    }

    /// The root's node. It is the one of the upper directory, like every other.
    fn root_node(&self) -> Result<Arc<Node>> {
        let known = self.root.lock().upgrade();
        if let Some(root) = known {
            return Ok(root);
        }
        let root = self.adopt(Arc::clone(&self.upper), self.lowers.clone())?;
        *self.root.lock() = Arc::downgrade(&root);
        Ok(root)
    }
}

impl FileSystem for OverlayFs {
    fn type_name(&self) -> &'static str {
        "overlay"
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn root(&self) -> Arc<dyn Inode> {
        match self.root_node() {
            Ok(root) => root,
            // Nobody can ask a file system that is being dropped; if somebody did, this tells no lies.
            Err(_) => Arc::clone(&self.upper),
        }
    }

    fn statfs(&self) -> Result<StatFs> {
        Ok(StatFs { fs_type: MAGIC, ..self.upper.fs().statfs()? })
    }

    fn sync(&self) -> Result<()> {
        self.upper.fs().sync()
    }
}

/// The change that gives a file the times of `attr`.
pub(crate) fn times(attr: &vfs::Attr) -> SetAttr {
    SetAttr {
        atime: Some(vfs::SetTime::At(attr.atime)),
        mtime: Some(vfs::SetTime::At(attr.mtime)),
        ..SetAttr::default()
    }
}
