//! Operations that make names: mkdir, mknod, symlink, link.

use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, PATH_MAX, Permissions};
use cred::CapSet;

use super::Caller;
use crate::mount::VfsPath;
use crate::perm::{self, Access};
use crate::walk::{Last, LastName, WalkFlags};
use crate::watch;
use crate::{Inode, NewNode, Result};

impl Caller<'_> {
    /// Parent and name for a creation: the name must be new, the mount and the parent writable.
    fn new_name(&self, path: &[u8], directory: bool) -> Result<(VfsPath, Vec<u8>)> {
        let Last { parent, name, target, trailing_slash } = self.last(path, WalkFlags::PARENT)?;
        let LastName::Name(name) = name else { return Err(Errno::EEXIST) };
        if target.is_some() {
            return Err(Errno::EEXIST);
        }
        if trailing_slash && !directory {
            return Err(Errno::ENOENT);
        }
        parent.mount.want_write()?;
        self.may_create(&parent)?;
        Ok((parent, name))
    }

    /// May the caller make names in `parent`? `ENOENT` when that has been removed.
    pub(super) fn may_create(&self, parent: &VfsPath) -> Result<()> {
        if parent.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        perm::check(&parent.inode().attr()?, Access::WRITE | Access::EXECUTE, self.cx.cred)
    }

    /// Owner and mode of a new object in `parent`: the umask, and inheritance from set-gid directories.
    pub(super) fn new_node(&self, parent: &Arc<dyn Inode>, kind: FileType, mode: u32) -> Result<NewNode> {
        let mut perm = Permissions::from_bits_truncate((mode & 0o7777) as u16 & !(self.fs.umask & 0o777));
        let dir = parent.attr()?;
        let inherit = dir.perm.contains(Permissions::SETGID);
        let gid = if inherit { dir.gid } else { self.cx.cred.fsgid };
        if inherit && kind == FileType::Directory {
            perm.insert(Permissions::SETGID);
        } else if inherit
            && perm.contains(Permissions::SETGID | Permissions::GROUP_EXECUTE)
            && !self.cx.cred.in_group(gid)
            && !self.cx.cred.capable(CapSet::FSETID)
        {
            perm.remove(Permissions::SETGID);
        }
        Ok(NewNode { kind, perm, uid: self.cx.cred.fsuid, gid, rdev: 0 })
    }

    /// `mkdir(2)`.
    pub fn mkdir(&self, path: &[u8], mode: u32) -> Result<VfsPath> {
        let (parent, name) = self.new_name(path, true)?;
        let node = self.new_node(parent.inode(), FileType::Directory, mode & 0o1777)?;
        make(parent, &name, |dir| dir.create(&name, &node))
    }

    /// `mknod(2)`, without regular files' special case: kind 0 is the caller's to turn into `Regular`.
    /// Also how `bind(2)` makes a socket's name.
    pub fn mknod(&self, path: &[u8], kind: FileType, mode: u32, rdev: u64) -> Result<VfsPath> {
        match kind {
            FileType::Directory => return Err(Errno::EPERM),
            FileType::Symlink => return Err(Errno::EINVAL),
            _ => {}
        }
        let (parent, name) = self.new_name(path, false)?;
        let device = matches!(kind, FileType::CharDevice | FileType::BlockDevice);
        // A whiteout (device 0:0) needs no privilege.
        let whiteout = kind == FileType::CharDevice && rdev == 0;
        if device && !whiteout && !self.cx.cred.capable(CapSet::MKNOD) {
            return Err(Errno::EPERM);
        }
        let mut node = self.new_node(parent.inode(), kind, mode)?;
        if device {
            node.rdev = rdev;
        }
        make(parent, &name, |dir| dir.create(&name, &node))
    }

    /// `symlink(2)`.
    pub fn symlink(&self, target: &[u8], path: &[u8]) -> Result<VfsPath> {
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        if target.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let (parent, name) = self.new_name(path, false)?;
        let node = self.new_node(parent.inode(), FileType::Symlink, 0o777)?;
        make(parent, &name, |dir| dir.symlink(&name, target, node.uid, node.gid))
    }

    /// `linkat(2)`: another name, `path`, for what `old` names.
    pub fn link(&self, old: &VfsPath, path: &[u8]) -> Result<()> {
        let (parent, name) = self.new_name(path, false)?;
        if !Arc::ptr_eq(&old.mount, &parent.mount) {
            return Err(Errno::EXDEV);
        }
        let attr = old.inode().attr()?;
        if attr.kind == FileType::Directory {
            return Err(Errno::EPERM);
        }
        // `/proc/self/fd/N` of a removed file; an `O_TMPFILE` one may be given its first name.
        if attr.nlink == 0 && old.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        let link = |dir: &Arc<dyn Inode>| dir.link(&name, old.inode()).map(|()| Arc::clone(old.inode()));
        let made = make_name(parent, &name, link)?;
        watch::linked(made.inode());
        watch::created(&made.dentry);
        Ok(())
    }
}

/// Lets `make` make `name` in `parent`; the path of what was made.
fn make_name(
    parent: VfsPath,
    name: &[u8],
    make: impl FnOnce(&Arc<dyn Inode>) -> Result<Arc<dyn Inode>>,
) -> Result<VfsPath> {
    let dentry = parent.dentry.lock_names().make(name, make)?;
    Ok(VfsPath { mount: parent.mount, dentry })
}

/// As [`make_name`], for what had no name before.
pub(super) fn make(
    parent: VfsPath,
    name: &[u8],
    make: impl FnOnce(&Arc<dyn Inode>) -> Result<Arc<dyn Inode>>,
) -> Result<VfsPath> {
    let made = make_name(parent, name, make)?;
    watch::created(&made.dentry);
    Ok(made)
}
