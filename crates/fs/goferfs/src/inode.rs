//! Inodes: files and directories of the Gofer.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use abi::mm::Prot;
use gofer_proto::{Attributes, NodeAttr, NodeId, Ownership, RemoveKind, Request, Response};
use memmap::HostObject;
use sync::Mutex;
use sync::order::Leaf;
use vfs::{Attr, File, FileContext, FileSystem, Inode, NewNode, RenameFlags, SetAttr, XattrSet};

use crate::convert;
use crate::file::{GoferDir, GoferFile};
use crate::fs::{GoferFs, Key, key_of};
use crate::host;

/// The extended attributes that the Gofer has, and of which files.
const USER_XATTRS: &[u8] = b"user.";

/// A file of the Gofer. Dropping it gives its node back.
pub(crate) struct GoferInode {
    fs: Arc<GoferFs>,
    node: NodeId,
    kind: FileType,
    key: Key,
    /// Where a link leads, once it was asked for.
    target: OnceLock<Box<[u8]>>,
    /// It was read since its attributes were asked for: its time of access may be another.
    touched: AtomicBool,
    state: Mutex<Leaf, State>,
}

/// What is known of it.
#[derive(Default)]
struct State {
    /// Attributes, and the file system's count of changes when they were asked for.
    kept: Option<(Attributes, u64)>,
    /// Descriptors in use, by a file or a mapping: one for reading, one for reading and writing.
    read: Weak<HostObject>,
    write: Weak<HostObject>,
}

impl State {
    fn object(&self) -> Option<Arc<HostObject>> {
        self.write.upgrade().or_else(|| self.read.upgrade())
    }
}

impl GoferInode {
    pub(crate) fn new(fs: Arc<GoferFs>, found: NodeAttr) -> Self {
        let (kind, key) = (found.attr.file_type(), key_of(&found.attr));
        let (target, touched) = (OnceLock::new(), AtomicBool::new(false));
        Self { fs, node: found.node, kind, key, target, touched, state: Mutex::default() }
    }

    /// The file system.
    pub(crate) fn gofer_fs(&self) -> &GoferFs {
        &self.fs
    }

    /// The Gofer's number for it.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Keeps attributes that were asked for when there had been `changes`. Those of a file that is open for
    /// writing are not kept, for it changes without a message.
    pub(crate) fn keep(&self, attr: Attributes, changes: u64) {
        if self.fs.exclusive() {
            let mut state = self.state.lock();
            state.kept = match state.write.upgrade() {
                None => Some((attr, changes)),
                Some(_) => None,
            };
        }
    }

    /// It is read: what is kept does not say when.
    pub(crate) fn touch(&self) {
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Release);
        }
    }

    /// Attributes, from the nearest source that is right.
    pub(crate) fn attributes(&self) -> Result<Attributes, Errno> {
        let (open, written, kept) = {
            let state = self.state.lock();
            (state.object(), state.write.strong_count() > 0, state.kept)
        };
        if let Some(object) = open.as_ref().filter(|_| written || !self.fs.exclusive()) {
            return host::attributes(&**object);
        }
        let changes = self.fs.changes();
        let touched = self.touched.swap(false, Ordering::AcqRel);
        if let Some((attr, then)) = kept
            && then == changes
            && !touched
        {
            return Ok(attr);
        }
        let attr = match open {
            Some(object) => host::attributes(&*object)?,
            None => self.fs.client().attr(&Request::Stat { node: self.node })?,
        };
        self.keep(attr, changes);
        Ok(attr)
    }

    /// A descriptor for reading, or for reading and writing. Shared with everyone who has it open
    /// likewise, unless every write is to be synchronous.
    fn object(&self, flags: OpenFlags) -> Result<Arc<HostObject>, Errno> {
        let write = flags.writable();
        let synchronous = flags & OpenFlags::DSYNC.union(OpenFlags::SYNC_BIT);
        if synchronous.is_empty() {
            let fresh = self.fs.take_fresh(self.key).filter(|_| write);
            let mut state = self.state.lock();
            let known = if write { &state.write } else { &state.read };
            if let Some(object) = known.upgrade().or(fresh) {
                state.remember(&object, write);
                return Ok(object);
            }
        }
        let access = if write { OpenFlags::RDWR } else { OpenFlags::empty() };
        let request = Request::Open { node: self.node, flags: access | synchronous };
        let (Response::Opened, Some(fd)) = self.fs.client().call(&request)? else {
            return Err(Errno::EIO);
        };
        let object = HostObject::new(fd, max_prot(write));
        self.state.lock().remember(&object, write);
        if !write && synchronous.is_empty() && self.fs.exclusive() {
            self.fs.linger(&object);
        }
        Ok(object)
    }

    fn other<'a>(&self, inode: &'a Arc<dyn Inode>) -> Result<&'a Self, Errno> {
        let any: &dyn Any = &**inode;
        let other = any.downcast_ref::<Self>().ok_or(Errno::EXDEV)?;
        if Arc::ptr_eq(&self.fs, &other.fs) { Ok(other) } else { Err(Errno::EXDEV) }
    }

    /// A request that makes an entry here.
    fn make(&self, request: &Request<'_>) -> Result<Arc<dyn Inode>, Errno> {
        let before = self.fs.changes();
        let made = self.fs.client().node(request);
        let changes = self.fs.changed(before);
        Ok(self.fs.adopt(made?, changes))
    }

    /// A request that changes something and is answered by `Done`.
    fn change(&self, request: &Request<'_>) -> Result<(), Errno> {
        let done = self.fs.client().done(request);
        self.fs.changed(u64::MAX);
        done
    }

    fn create_regular(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let request = Request::Create {
            dir: self.node,
            name: convert::name(name)?,
            flags: OpenFlags::RDWR,
            mode: u32::from(node.perm.bits()),
            owner: Ownership { uid: node.uid, gid: node.gid },
        };
        self.create_open(&request)
    }

    /// A request that makes a regular file and brings its descriptor.
    fn create_open(&self, request: &Request<'_>) -> Result<Arc<dyn Inode>, Errno> {
        let before = self.fs.changes();
        let made = self.fs.client().call(request);
        let changes = self.fs.changed(before);
        let (Response::Node(found), Some(fd)) = made? else { return Err(Errno::EIO) };
        let inode = self.fs.adopt(found, changes);
        self.fs.keep_fresh(inode.key, HostObject::new(fd, max_prot(true)));
        Ok(inode)
    }
}

impl State {
    fn remember(&mut self, object: &Arc<HostObject>, write: bool) {
        if write {
            self.kept = None;
        }
        let slot = if write { &mut self.write } else { &mut self.read };
        *slot = Arc::downgrade(object);
    }
}

/// What a descriptor opened so can be mapped for.
fn max_prot(write: bool) -> Prot {
    let read = Prot::READ | Prot::EXEC;
    if write { read | Prot::WRITE } else { read }
}

impl Inode for GoferInode {
    fn kind(&self) -> FileType {
        self.kind
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.fs) as Arc<dyn FileSystem>
    }

    fn attr(&self) -> Result<Attr, Errno> {
        Ok(convert::attr(&self.attributes()?, self.fs.root_dev()))
    }

    fn set_attr(&self, change: &SetAttr) -> Result<(), Errno> {
        let changes = convert::changes(change);
        let before = self.fs.changes();
        let set = self.fs.client().attr(&Request::SetStat { node: self.node, changes });
        let now = self.fs.changed(before);
        set.map(|attr| self.keep(attr, now))
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>, Errno> {
        let names = vec![convert::name(name)?];
        let changes = self.fs.changes();
        if let Some(found) = self.fs.looked_up(self.node, name, changes)? {
            return Ok(self.fs.adopt(found, changes));
        }
        match self.fs.client().ask(&Request::WalkStat { dir: self.node, names })? {
            Response::Walk { stop: Some(errno), .. } => Err(errno),
            Response::Walk { mut nodes, stop: None } => {
                Ok(self.fs.adopt(nodes.pop().ok_or(Errno::EIO)?, changes))
            }
            _ => Err(Errno::EIO),
        }
    }

    fn create(&self, name: &[u8], node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let (dir, mode) = (self.node, u32::from(node.perm.bits()));
        let owner = Ownership { uid: node.uid, gid: node.gid };
        match node.kind {
            FileType::Regular => self.create_regular(name, node),
            FileType::Directory => {
                self.make(&Request::Mkdir { dir, name: convert::name(name)?, mode, owner })
            }
            FileType::Fifo | FileType::Socket => {
                let (name, file_type) = (convert::name(name)?, node.kind);
                self.make(&Request::Mknod { dir, name, file_type, mode, owner })
            }
            // A guest makes no devices on the host.
            FileType::CharDevice | FileType::BlockDevice | FileType::Symlink => Err(Errno::EPERM),
        }
    }

    fn create_unnamed(&self, node: &NewNode) -> Result<Arc<dyn Inode>, Errno> {
        let owner = Ownership { uid: node.uid, gid: node.gid };
        let mode = u32::from(node.perm.bits());
        self.create_open(&Request::CreateUnnamed { dir: self.node, mode, owner })
    }

    fn symlink(&self, name: &[u8], target: &[u8], uid: u32, gid: u32) -> Result<Arc<dyn Inode>, Errno> {
        let (dir, name) = (self.node, convert::name(name)?);
        self.make(&Request::Symlink { dir, name, target, owner: Ownership { uid, gid } })
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<(), Errno> {
        let (dir, name) = (self.node, convert::name(name)?);
        let node = self.other(target)?.node;
        let linked = self.fs.client().attr(&Request::Link { node, dir, name });
        self.fs.changed(u64::MAX);
        linked.map(drop)
    }

    fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        self.fs.end_lingering();
        let (dir, name) = (self.node, convert::name(name)?);
        self.change(&Request::Unlink { dir, name, kind: RemoveKind::File })
    }

    fn rmdir(&self, name: &[u8]) -> Result<(), Errno> {
        let (dir, name) = (self.node, convert::name(name)?);
        self.change(&Request::Unlink { dir, name, kind: RemoveKind::Directory })
    }

    fn rename(
        &self,
        name: &[u8],
        new_parent: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        self.fs.end_lingering();
        // A whiteout is a device node, of which the Gofer makes none.
        let flags = gofer_proto::RenameFlags::from_bits(flags.bits()).ok_or(Errno::EINVAL)?;
        self.change(&Request::Rename {
            from_dir: self.node,
            from: convert::name(name)?,
            to_dir: self.other(new_parent)?.node,
            to: convert::name(new_name)?,
            flags,
        })
    }

    fn readlink(&self) -> Result<Vec<u8>, Errno> {
        if self.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        // A link never leads elsewhere: whoever wants that makes another. Only where nobody but we does is it known
        // that it is still the same.
        if let Some(target) = self.target.get() {
            return Ok(target.to_vec());
        }
        let target = self.fs.client().bytes(&Request::Readlink { node: self.node })?;
        if self.fs.exclusive() {
            let _ = self.target.set(target.as_slice().into());
        }
        Ok(target)
    }

    fn open(&self, _cx: &FileContext<'_>, flags: OpenFlags) -> Result<Arc<dyn File>, Errno> {
        let Some(this) = self.fs.known(self.key) else { return Err(Errno::EIO) };
        match self.kind {
            FileType::Regular => Ok(Arc::new(GoferFile::new(this, self.object(flags)?))),
            FileType::Directory if flags.writable() => Err(Errno::EISDIR),
            FileType::Directory => Ok(Arc::new(GoferDir::new(this))),
            FileType::Symlink => Err(Errno::ELOOP),
            _ => Err(Errno::ENXIO),
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        // `ls -l` asks for two others of every file.
        if !name.starts_with(USER_XATTRS) || !matches!(self.kind, FileType::Regular | FileType::Directory) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.fs.client().bytes(&Request::GetXattr { node: self.node, name })
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], how: XattrSet) -> Result<(), Errno> {
        let flags = match how {
            XattrSet::Any => gofer_proto::XattrFlags::empty(),
            XattrSet::Create => gofer_proto::XattrFlags::CREATE,
            XattrSet::Replace => gofer_proto::XattrFlags::REPLACE,
        };
        self.change(&Request::SetXattr { node: self.node, name, value, flags })
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        self.change(&Request::RemoveXattr { node: self.node, name })
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let list = self.fs.client().bytes(&Request::ListXattr { node: self.node })?;
        let names = list.split(|&b| b == 0).filter(|name| !name.is_empty());
        Ok(names.map(<[u8]>::to_vec).collect())
    }
}

impl Drop for GoferInode {
    fn drop(&mut self) {
        self.fs.release(self.key, self.node);
    }
}
