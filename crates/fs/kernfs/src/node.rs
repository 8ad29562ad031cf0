//! Nodes of the tree: what stands in it ([`Spec`]) and the inode made of that ([`Node`]).

use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags, Permissions};
use cred::Credentials;
use sync::{Mutex, order};
use vfs::{Attr, File, FileContext, FileSystem, Inode, LinkTarget, Result, SetAttr};

use crate::dir::{DirFile, Directory};
use crate::fs::KernFs;
use crate::text::{Text, TextFile};

/// A symbolic link.
pub trait Link: Send + Sync {
    /// What `readlink(2)` shows.
    fn readlink(&self) -> Result<Vec<u8>>;

    /// Where a walk goes; magic links jump. `cred` is who follows.
    fn follow(&self, _cred: &Credentials) -> Result<LinkTarget> {
        self.readlink().map(LinkTarget::Path)
    }
}

impl<F: Fn() -> Result<Vec<u8>> + Send + Sync> Link for F {
    fn readlink(&self) -> Result<Vec<u8>> {
        self()
    }
}

/// What opens a device node, or anything else that makes a [`File`] of its own.
pub trait Opener: Send + Sync {
    /// The open file.
    fn open(&self, cx: &FileContext<'_>, flags: OpenFlags) -> Result<Arc<dyn File>>;
}

impl<F: Fn(&FileContext<'_>, OpenFlags) -> Result<Arc<dyn File>> + Send + Sync> Opener for F {
    fn open(&self, cx: &FileContext<'_>, flags: OpenFlags) -> Result<Arc<dyn File>> {
        self(cx, flags)
    }
}

/// What a node is.
#[derive(Clone)]
pub enum Content {
    /// A directory.
    Dir(Arc<dyn Directory>),
    /// A text made on demand.
    Text(Arc<dyn Text>),
    /// A symbolic link.
    Link(Arc<dyn Link>),
    /// A node of another kind, or a regular file that is no text, with its device number (or 0).
    Other {
        /// Type.
        kind: FileType,
        /// Device number.
        rdev: u64,
        /// Makes the open file.
        opener: Arc<dyn Opener>,
    },
}

/// Owner and permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits.
    pub perm: Permissions,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What stands in the tree under a name.
#[derive(Clone)]
pub struct Spec {
    /// What it is.
    pub content: Content,
    meta: Arc<Mutex<order::Leaf, Meta>>,
    /// May `chmod` and `chown` change it?
    changeable: bool,
}

impl Spec {
    /// Anything, owned by root.
    pub fn new(mode: u16, content: Content) -> Self {
        let meta = Meta { perm: Permissions::from_bits_truncate(mode), uid: 0, gid: 0 };
        Self { content, meta: Arc::new(Mutex::new(meta)), changeable: false }
    }

    /// A directory.
    pub fn dir(mode: u16, dir: impl Directory + 'static) -> Self {
        Self::new(mode, Content::Dir(Arc::new(dir)))
    }

    /// A text file.
    pub fn text(mode: u16, text: impl Text + 'static) -> Self {
        Self::new(mode, Content::Text(Arc::new(text)))
    }

    /// A symbolic link to a fixed path.
    pub fn symlink(target: impl Into<Vec<u8>>) -> Self {
        let target = target.into();
        Self::link(move || Ok(target.clone()))
    }

    /// A symbolic link that is asked each time.
    pub fn link(link: impl Link + 'static) -> Self {
        Self::new(0o777, Content::Link(Arc::new(link)))
    }

    /// A character device.
    pub fn char_device(mode: u16, rdev: u64, opener: impl Opener + 'static) -> Self {
        let opener = Arc::new(opener);
        Self::new(mode, Content::Other { kind: FileType::CharDevice, rdev, opener })
    }

    /// Owned by others than root.
    #[must_use]
    pub fn owned(self, uid: u32, gid: u32) -> Self {
        {
            let mut meta = self.meta.lock();
            (meta.uid, meta.gid) = (uid, gid);
        }
        self
    }

    /// Lets `chmod` and `chown` change it, for all who hold a clone.
    #[must_use]
    pub fn changeable(mut self) -> Self {
        self.changeable = true;
        self
    }

    /// Owner and permissions now.
    pub fn meta(&self) -> Meta {
        *self.meta.lock()
    }

    /// Its type.
    pub fn kind(&self) -> FileType {
        match &self.content {
            Content::Dir(_) => FileType::Directory,
            Content::Text(_) => FileType::Regular,
            Content::Link(_) => FileType::Symlink,
            Content::Other { kind, .. } => *kind,
        }
    }
}

/// Inode number of `name` in the directory `parent`: a hash, so that it is the same each time.
pub(crate) fn child_ino(parent: u64, name: &[u8]) -> u64 {
    // FNV-1a; the top bit stays clear for programs that read the number as signed.
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let seed = parent.to_le_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, mix);
    (name.iter().copied().fold(seed, mix) & (i64::MAX as u64)).max(2)
}

/// An inode of a [`KernFs`].
pub struct Node {
    fs: Arc<KernFs>,
    ino: u64,
    spec: Spec,
}

impl Node {
    pub(crate) fn new(fs: Arc<KernFs>, ino: u64, spec: Spec) -> Self {
        Self { fs, ino, spec }
    }

    /// What it was made of.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }
}

impl Inode for Node {
    fn kind(&self) -> FileType {
        self.spec.kind()
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::<KernFs>::clone(&self.fs)
    }

    fn attr(&self) -> Result<Attr> {
        let (meta, now) = (self.spec.meta(), self.fs.info().now);
        let rdev = if let Content::Other { rdev, .. } = self.spec.content { rdev } else { 0 };
        Ok(Attr {
            ino: self.ino,
            kind: self.kind(),
            perm: meta.perm,
            nlink: if self.kind() == FileType::Directory { 2 } else { 1 },
            uid: meta.uid,
            gid: meta.gid,
            rdev,
            // Unknown before it is made; programs read these files to their end.
            size: 0,
            blocks: 0,
            blksize: 1024,
            atime: now,
            mtime: now,
            ctime: now,
            btime: None,
        })
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        let SetAttr { perm, uid, gid, .. } = *change;
        if perm.is_none() && uid.is_none() && gid.is_none() {
            // Sizes (`O_TRUNC` on a control file) and times are accepted and mean nothing.
            return Ok(());
        }
        if !self.spec.changeable {
            return Err(Errno::EPERM);
        }
        let mut meta = self.spec.meta.lock();
        let old = *meta;
        *meta =
            Meta { perm: perm.unwrap_or(old.perm), uid: uid.unwrap_or(old.uid), gid: gid.unwrap_or(old.gid) };
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let Content::Dir(dir) = &self.spec.content else { return Err(Errno::ENOTDIR) };
        let spec = dir.lookup(name)?;
        Ok(Arc::new(Self::new(Arc::clone(&self.fs), child_ino(self.ino, name), spec)))
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match &self.spec.content {
            Content::Link(link) => link.readlink(),
            _ => Err(Errno::EINVAL),
        }
    }

    fn follow(&self, cred: &Credentials) -> Result<LinkTarget> {
        match &self.spec.content {
            Content::Link(link) => link.follow(cred),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(&self, cx: &FileContext<'_>, flags: OpenFlags) -> Result<Arc<dyn File>> {
        match &self.spec.content {
            Content::Dir(dir) => Ok(Arc::new(DirFile { dir: Arc::clone(dir), ino: self.ino })),
            Content::Text(text) => Ok(Arc::new(TextFile::new(Arc::clone(text)))),
            Content::Link(_) => Err(Errno::ELOOP),
            Content::Other { opener, .. } => opener.open(cx, flags),
        }
    }
}
