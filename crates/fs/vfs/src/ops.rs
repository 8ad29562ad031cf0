//! Operations on paths: what the path system calls do once their arguments are decoded.
//!
//! Everything starts from a [`Caller`]: who asks, and from where. Errors and the order of checks are
//! those of the man page each method names.

mod attr;
mod create;
mod open;
mod remove;

use abi::fs::StatFs;

use crate::mount::VfsPath;
use crate::walk::{self, FsContext, Last, WalkFlags, WalkStart};
use crate::{Attr, FileContext, Result};

pub use attr::Times;
pub(crate) use attr::cleared_by_write;
pub use open::{DeviceOpener, NoDevices};

/// Who asks, and where relative paths begin.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Root, working directory, umask.
    pub fs: &'a FsContext,
    /// Start of relative paths, where it is not the working directory (`dirfd`).
    pub at: Option<&'a VfsPath>,
    /// Credentials and ids.
    pub cx: FileContext<'a>,
}

impl<'a> Caller<'a> {
    /// From the working directory.
    pub fn new(fs: &'a FsContext, cx: FileContext<'a>) -> Self {
        Self { fs, at: None, cx }
    }

    /// The same caller, from `at`.
    pub fn from(self, at: &'a VfsPath) -> Self {
        Self { at: Some(at), ..self }
    }

    fn start(&self) -> WalkStart<'a> {
        WalkStart { root: &self.fs.root, at: self.at.unwrap_or(&self.fs.cwd) }
    }

    /// Where `path` leads.
    pub fn lookup(&self, path: &[u8], flags: WalkFlags) -> Result<VfsPath> {
        walk::walk(self.start(), path, flags, self.cx.cred)
    }

    fn last(&self, path: &[u8], flags: WalkFlags) -> Result<Last> {
        walk::walk_last(self.start(), path, flags, self.cx.cred)
    }

    /// `stat(2)`, `lstat(2)`.
    pub fn stat(&self, path: &[u8], flags: WalkFlags) -> Result<(VfsPath, Attr)> {
        let path = self.lookup(path, flags)?;
        let attr = path.inode().attr()?;
        Ok((path, attr))
    }

    /// `statfs(2)`.
    pub fn statfs(&self, path: &[u8]) -> Result<StatFs> {
        self.lookup(path, WalkFlags::FOLLOW)?.mount.fs().statfs()
    }

    /// `readlink(2)`: `EINVAL` for what is no link.
    pub fn readlink(&self, path: &[u8]) -> Result<Vec<u8>> {
        let path = self.lookup(path, WalkFlags::EMPTY_PATH)?;
        let root = &self.fs.root;
        if path.inode().kind() != abi::fs::FileType::Symlink {
            return Err(abi::Errno::EINVAL);
        }
        // A magic link shows the path as the reader sees it.
        if let Ok(crate::LinkTarget::Jump(to)) = path.inode().follow(self.cx.cred)
            && let Some(to) = to.downcast_ref::<VfsPath>()
        {
            return Ok(to.display(root));
        }
        let target = path.inode().readlink()?;
        path.mount.accessed(path.inode());
        Ok(target)
    }

    /// `chdir(2)`, `chroot(2)`: the directory at `path`, when the caller may search it.
    pub fn directory(&self, path: &[u8]) -> Result<VfsPath> {
        let path = self.lookup(path, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
        crate::perm::check(&path.inode().attr()?, crate::perm::Access::EXECUTE, self.cx.cred)?;
        Ok(path)
    }

    /// `getcwd(2)`: `ENOENT` when the directory has been removed.
    pub fn getcwd(&self) -> Result<Vec<u8>> {
        if self.fs.cwd.dentry.is_unlinked() {
            return Err(abi::Errno::ENOENT);
        }
        let (path, reachable) = self.fs.cwd.components(&self.fs.root);
        if reachable {
            return Ok(path);
        }
        let mut shown = b"(unreachable)".to_vec();
        shown.extend_from_slice(&path);
        Ok(shown)
    }
}
