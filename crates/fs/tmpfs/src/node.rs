//! Inodes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use abi::Errno;
use abi::fs::{FileType, OpenFlags, Permissions};
use abi::time::Timespec;
use sync::{Mutex, order};
use vfs::{
    Attr, File, FileContext, FileSystem, Inode, NewNode, RenameFlags, Result, Seals, SetAttr, SetTime,
    XattrSet,
};

use crate::data::Data;
use crate::file::{DirFile, RegularFile};
use crate::{Options, TmpFs};

/// Bytes of names and values of extended attributes an inode may have.
const XATTR_BYTES_MAX: usize = 128 * 1024;

/// An access time is at most this many seconds behind (`relatime`).
const DAY: i64 = 24 * 60 * 60;

/// What an entry of a directory is: the position in listings it was given, and the inode.
pub(crate) struct Entry {
    pub(crate) cookie: u64,
    pub(crate) node: Arc<Node>,
}

/// A directory: names, and the same by the position a listing goes on from.
#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) names: BTreeMap<Vec<u8>, Entry>,
    pub(crate) order: BTreeMap<u64, Vec<u8>>,
    next: u64,
}

impl Directory {
    pub(crate) fn insert(&mut self, name: &[u8], node: Arc<Node>) {
        self.next += 1;
        let entry = Entry { cookie: self.next, node };
        self.order.insert(entry.cookie, name.to_vec());
        if let Some(old) = self.names.insert(name.to_vec(), entry) {
            self.order.remove(&old.cookie);
        }
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Arc<Node>> {
        let entry = self.names.remove(name)?;
        self.order.remove(&entry.cookie);
        Some(entry.node)
    }

    pub(crate) fn get(&self, name: &[u8]) -> Result<Arc<Node>> {
        self.names.get(name).map(|entry| Arc::clone(&entry.node)).ok_or(Errno::ENOENT)
    }
}

pub(crate) enum Body {
    Directory(Directory),
    Regular(Data),
    Symlink(Vec<u8>),
    Special,
}

pub(crate) struct State {
    pub(crate) attr: Attr,
    pub(crate) body: Body,
    /// Only what `memfd_create(2)` makes can have others than `SEAL`.
    pub(crate) seals: Seals,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl State {
    pub(crate) fn touch(&mut self) {
        let now = now();
        self.attr.mtime = now;
        self.attr.ctime = now;
    }

    /// Writes to a regular file; returns how many bytes there was room for.
    pub(crate) fn write(&mut self, fs: &TmpFs, at: u64, bytes: &[u8]) -> Result<usize> {
        let len = self.writable(at, bytes.len())?;
        let Body::Regular(data) = &mut self.body else { return Err(Errno::EINVAL) };
        let written = data.write(fs, at, bytes.get(..len).ok_or(Errno::EIO)?)?;
        self.touch();
        Ok(written)
    }

    pub(crate) fn dir(&mut self) -> Result<&mut Directory> {
        match &mut self.body {
            Body::Directory(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// One name less; a directory has none left. `ENOTEMPTY` for one that is needed.
    pub(crate) fn lose_name(&mut self) -> Result<()> {
        self.attr.nlink = match &self.body {
            Body::Directory(dir) if !dir.names.is_empty() => return Err(Errno::ENOTEMPTY),
            Body::Directory(_) => 0,
            _ => self.attr.nlink.saturating_sub(1),
        };
        self.attr.ctime = now();
        Ok(())
    }
}

/// An inode of a tmpfs.
pub struct Node {
    me: Weak<Node>,
    fs: Weak<TmpFs>,
    pub(crate) kind: FileType,
    /// Held by who appends, so that what one appends stays together. Not one of the ordered locks: the guest's
    /// memory is read meanwhile, and nothing is waited for with it held.
    pub(crate) appending: std::sync::Mutex<()>,
    /// Shared mappings that may be written, or may be about to come. Grows under the lock of the state only;
    /// it is let go of under any.
    pub(crate) writable_maps: AtomicU64,
    /// Do the seals forbid new writable mappings? For who must not lock the state.
    pub(crate) write_sealed: AtomicBool,
    pub(crate) state: Mutex<order::Inode, State>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(fs) = self.fs.upgrade() {
            if let Body::Regular(data) = &self.state.get_mut().body {
                fs.uncharge_pages(data.pages());
            }
            fs.uncharge_inode();
        }
        // A tree dies without recursion: a guest decides how deep it is.
        let mut dying = take_children(self.state.get_mut());
        while let Some(node) = dying.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                dying.append(&mut take_children(node.state.get_mut()));
            }
        }
    }
}

fn take_children(state: &mut State) -> Vec<Arc<Node>> {
    match &mut state.body {
        Body::Directory(dir) => std::mem::take(&mut dir.names).into_values().map(|e| e.node).collect(),
        _ => Vec::new(),
    }
}

/// The wall clock. The host's: a sandbox shares it.
pub(crate) fn now() -> Timespec {
    SystemTime::now().duration_since(UNIX_EPOCH).map(Timespec::from).unwrap_or_default()
}

impl Node {
    pub(crate) fn root(fs: Weak<TmpFs>, options: &Options) -> Arc<Self> {
        let node = NewNode {
            kind: FileType::Directory,
            perm: options.mode,
            uid: options.uid,
            gid: options.gid,
            rdev: 0,
        };
        let ino = fs.upgrade().map_or(1, |fs| {
            let _ = fs.charge_inode();
            fs.next_ino()
        });
        Self::new(fs, ino, &node, Body::Directory(Directory::default()))
    }

    fn new(fs: Weak<TmpFs>, ino: u64, new: &NewNode, body: Body) -> Arc<Self> {
        let now = now();
        let attr = Attr {
            ino,
            kind: new.kind,
            perm: new.perm,
            nlink: if new.kind == FileType::Directory { 2 } else { 1 },
            uid: new.uid,
            gid: new.gid,
            rdev: new.rdev,
            size: 0,
            blocks: 0,
            blksize: abi::PAGE_SIZE as u32,
            atime: now,
            mtime: now,
            ctime: now,
            btime: Some(now),
        };
        let (seals, xattrs) = (Seals::SEAL, BTreeMap::new());
        let state = State { attr, body, seals, xattrs };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            fs,
            kind: new.kind,
            appending: std::sync::Mutex::default(),
            writable_maps: AtomicU64::new(0),
            write_sealed: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn create_unnamed_node(&self, new: &NewNode) -> Result<Arc<Self>> {
        let node = self.make(new, Body::Regular(Data::default()))?;
        node.state.lock().attr.nlink = 0;
        Ok(node)
    }

    pub(crate) fn tmpfs(&self) -> Result<Arc<TmpFs>> {
        self.fs.upgrade().ok_or(Errno::EIO)
    }

    pub(crate) fn make(&self, new: &NewNode, body: Body) -> Result<Arc<Self>> {
        let fs = self.tmpfs()?;
        fs.charge_inode()?;
        Ok(Self::new(self.fs.clone(), fs.next_ino(), new, body))
    }

    /// Enters `node` as `name`; the directory must still have a name itself.
    fn enter(&self, name: &[u8], node: &Arc<Self>) -> Result<()> {
        let mut state = self.state.lock();
        if state.attr.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        let dir = state.dir()?;
        if dir.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        dir.insert(name, Arc::clone(node));
        if node.kind == FileType::Directory {
            state.attr.nlink += 1;
        }
        state.touch();
        Ok(())
    }

    fn child(&self, name: &[u8]) -> Result<Arc<Self>> {
        self.state.lock().dir()?.get(name)
    }
}

fn node_of(inode: &Arc<dyn Inode>) -> Result<Arc<Node>> {
    let any: Arc<dyn std::any::Any + Send + Sync> = Arc::clone(inode) as _;
    any.downcast::<Node>().map_err(|_| Errno::EXDEV)
}

impl Inode for Node {
    fn kind(&self) -> FileType {
        self.kind
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        match self.fs.upgrade() {
            Some(fs) => fs,
            // Outlives its mount: an empty stand-in, so that nobody has to ask twice.
            None => TmpFs::new(Options::new(0), Arc::new(crate::HeapMemory)),
        }
    }

    fn attr(&self) -> Result<Attr> {
        let state = self.state.lock();
        let mut attr = state.attr;
        match &state.body {
            Body::Directory(dir) => attr.size = 20 * (dir.names.len() as u64 + 2),
            Body::Regular(data) => {
                attr.size = data.size();
                attr.blocks = data.pages() * (abi::PAGE_SIZE / 512);
            }
            Body::Symlink(target) => attr.size = target.len() as u64,
            Body::Special => {}
        }
        Ok(attr)
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        let fs = self.tmpfs()?;
        let mut state = self.state.lock();
        state.check_seals(change)?;
        if let Some(size) = change.size {
            match &mut state.body {
                Body::Regular(data) => data.resize(&fs, size)?,
                Body::Directory(_) => return Err(Errno::EISDIR),
                _ => return Err(Errno::EINVAL),
            }
            state.touch();
        }
        let now = now();
        let at = |time: SetTime| match time {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        let attr = &mut state.attr;
        attr.perm = change.perm.unwrap_or(attr.perm);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.map_or(attr.atime, at);
        attr.mtime = change.mtime.map_or(attr.mtime, at);
        attr.ctime = now;
        Ok(())
    }

    fn accessed(&self) {
        let now = now();
        let attr = &mut self.state.lock().attr;
        let behind = attr.atime <= attr.mtime || attr.atime <= attr.ctime;
        if behind || now.sec - attr.atime.sec >= DAY {
            attr.atime = now;
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.child(name).map(|node| node as Arc<dyn Inode>)
    }

    fn create(&self, name: &[u8], new: &NewNode) -> Result<Arc<dyn Inode>> {
        let body = match new.kind {
            FileType::Regular => Body::Regular(Data::default()),
            FileType::Directory => Body::Directory(Directory::default()),
            FileType::Symlink => return Err(Errno::EINVAL),
            _ => Body::Special,
        };
        let node = self.make(new, body)?;
        self.enter(name, &node)?;
        Ok(node)
    }

    fn create_unnamed(&self, new: &NewNode) -> Result<Arc<dyn Inode>> {
        self.create_unnamed_node(new).map(|node| node as Arc<dyn Inode>)
    }

    fn symlink(&self, name: &[u8], target: &[u8], uid: u32, gid: u32) -> Result<Arc<dyn Inode>> {
        let perm = Permissions::from_bits_truncate(0o777);
        let new = NewNode { kind: FileType::Symlink, perm, uid, gid, rdev: 0 };
        let node = self.make(&new, Body::Symlink(target.to_vec()))?;
        self.enter(name, &node)?;
        Ok(node)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let node = node_of(target)?;
        if node.kind == FileType::Directory {
            return Err(Errno::EPERM);
        }
        if node.state.lock().attr.nlink == u32::MAX {
            return Err(Errno::EMLINK);
        }
        self.enter(name, &node)?;
        let mut state = node.state.lock();
        state.attr.nlink += 1;
        state.attr.ctime = now();
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let node = {
            let mut state = self.state.lock();
            let node = state.dir()?.get(name)?;
            if node.kind == FileType::Directory {
                return Err(Errno::EISDIR);
            }
            state.dir()?.remove(name);
            state.touch();
            node
        };
        node.state.lock().lose_name()
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
        self.move_child(name, &*node_of(new_parent)?, new_name, flags)
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match &self.state.lock().body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(&self, _cx: &FileContext<'_>, _flags: OpenFlags) -> Result<Arc<dyn File>> {
        let node = self.me.upgrade().ok_or(Errno::EIO)?;
        match self.kind {
            FileType::Regular => Ok(Arc::new(RegularFile { node })),
            FileType::Directory => Ok(Arc::new(DirFile { node })),
            _ => Err(Errno::ENXIO),
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.state.lock().xattrs.get(name).cloned().ok_or(Errno::ENODATA)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        let mut state = self.state.lock();
        match (how, state.xattrs.contains_key(name)) {
            (XattrSet::Create, true) => return Err(Errno::EEXIST),
            (XattrSet::Replace, false) => return Err(Errno::ENODATA),
            _ => {}
        }
        let others = state.xattrs.iter().filter(|(n, _)| n.as_slice() != name);
        let used: usize = others.map(|(n, v)| n.len() + v.len()).sum();
        if used + name.len() + value.len() > XATTR_BYTES_MAX {
            return Err(Errno::ENOSPC);
        }
        state.xattrs.insert(name.to_vec(), value.to_vec());
        state.attr.ctime = now();
        Ok(())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let mut state = self.state.lock();
        state.xattrs.remove(name).ok_or(Errno::ENODATA)?;
        state.attr.ctime = now();
        Ok(())
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        Ok(self.state.lock().xattrs.keys().cloned().collect())
    }
}
