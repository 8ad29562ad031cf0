//! Operations on attributes: chmod, chown, truncate, utimens, access, xattrs.
//!
//! They take a [`VfsPath`], so that `fchmod` and `chmod` are one; the caller has walked.

use abi::Errno;
use abi::fs::{FileType, Permissions};
use cred::{CapSet, Credentials};

use super::Caller;
use crate::mount::VfsPath;
use crate::perm::{self, Access};
use crate::watch::{self, WatchMask};
use crate::{Attr, Result, SetAttr, SetTime, XattrSet};

/// Longest name of an extended attribute.
const XATTR_NAME_MAX: usize = 255;
/// Longest value, in bytes.
const XATTR_SIZE_MAX: usize = 65536;

/// New access and modification times; `None` leaves one as it is (`UTIME_OMIT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Access.
    pub atime: Option<SetTime>,
    /// Modification.
    pub mtime: Option<SetTime>,
}

impl Caller<'_> {
    /// `chmod(2)`: `EPERM` unless the caller owns the file.
    pub fn chmod(&self, path: &VfsPath, mode: u32) -> Result<()> {
        path.mount.want_write()?;
        if path.inode().kind() == FileType::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        let attr = path.inode().attr()?;
        if !perm::is_owner(&attr, self.cx.cred) {
            return Err(Errno::EPERM);
        }
        let mut perm = Permissions::from_bits_truncate((mode & 0o7777) as u16);
        if !self.cx.cred.in_group(attr.gid) && !self.cx.cred.capable(CapSet::FSETID) {
            perm.remove(Permissions::SETGID);
        }
        path.inode().set_attr(&SetAttr { perm: Some(perm), ..SetAttr::default() })?;
        watch::happened(&path.dentry, WatchMask::ATTRIB);
        Ok(())
    }

    /// `chown(2)`; `None` leaves an id. Clears set-id bits of what is not a directory.
    pub fn chown(&self, path: &VfsPath, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        path.mount.want_write()?;
        let attr = path.inode().attr()?;
        let cred = self.cx.cred;
        if !cred.capable(CapSet::CHOWN) {
            let owner = cred.fsuid == attr.uid;
            let uid_fine = uid.is_none_or(|uid| owner && uid == attr.uid);
            let gid_fine = gid.is_none_or(|gid| owner && (gid == attr.gid || cred.in_group(gid)));
            if !uid_fine || !gid_fine {
                return Err(Errno::EPERM);
            }
        }
        let perm = (attr.kind != FileType::Directory).then(|| perm::without_set_id(&attr));
        let perm = perm.filter(|perm| *perm != attr.perm);
        path.inode().set_attr(&SetAttr { uid, gid, perm, ..SetAttr::default() })?;
        watch::happened(&path.dentry, WatchMask::ATTRIB);
        Ok(())
    }

    /// `truncate(2)`: the caller must be able to write.
    pub fn truncate(&self, path: &VfsPath, size: u64) -> Result<()> {
        match path.inode().kind() {
            FileType::Directory => return Err(Errno::EISDIR),
            FileType::Regular => {}
            _ => return Err(Errno::EINVAL),
        }
        path.mount.want_write()?;
        perm::check(&path.inode().attr()?, Access::WRITE, self.cx.cred)?;
        self.set_size(path, size)
    }

    /// `ftruncate(2)`, once the descriptor is known to be open for writing; also `O_TRUNC`.
    pub fn set_size(&self, path: &VfsPath, size: u64) -> Result<()> {
        if i64::try_from(size).is_err() {
            return Err(Errno::EFBIG);
        }
        let perm = cleared_by_write(&path.inode().attr()?, self.cx.cred);
        path.inode().set_attr(&SetAttr { size: Some(size), perm, ..SetAttr::default() })?;
        watch::happened(&path.dentry, WatchMask::MODIFY);
        Ok(())
    }

    /// `utimensat(2)`. Both `Now` needs write permission, anything else ownership.
    pub fn utimens(&self, path: &VfsPath, times: Times) -> Result<()> {
        if times.atime.is_none() && times.mtime.is_none() {
            return Ok(());
        }
        path.mount.want_write()?;
        let attr = path.inode().attr()?;
        let both_now = times == Times { atime: Some(SetTime::Now), mtime: Some(SetTime::Now) };
        if !perm::is_owner(&attr, self.cx.cred) {
            if !both_now {
                return Err(Errno::EPERM);
            }
            perm::check(&attr, Access::WRITE, self.cx.cred)?;
        }
        path.inode().set_attr(&SetAttr { atime: times.atime, mtime: times.mtime, ..SetAttr::default() })?;
        let what = match (times.atime, times.mtime) {
            (Some(_), None) => WatchMask::ACCESS,
            (None, Some(_)) => WatchMask::MODIFY,
            _ => WatchMask::ATTRIB,
        };
        watch::happened(&path.dentry, what);
        Ok(())
    }

    /// `access(2)` with the caller's credentials; the system call swaps in the real ids first.
    pub fn access(&self, path: &VfsPath, want: Access) -> Result<()> {
        let attr = path.inode().attr()?;
        let special = matches!(
            attr.kind,
            FileType::CharDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket
        );
        if want.contains(Access::WRITE) && !special {
            path.mount.want_write()?;
        }
        if want.contains(Access::EXECUTE)
            && attr.kind == FileType::Regular
            && path.mount.flags().contains(crate::mount::MountFlags::NOEXEC)
        {
            return Err(Errno::EACCES);
        }
        perm::check(&attr, want, self.cx.cred)
    }

    /// `getxattr(2)`.
    pub fn xattr(&self, path: &VfsPath, name: &[u8]) -> Result<Vec<u8>> {
        self.check_xattr(path, name, Access::READ)?;
        path.inode().xattr(name)
    }

    /// `setxattr(2)`.
    pub fn set_xattr(&self, path: &VfsPath, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        if value.len() > XATTR_SIZE_MAX {
            return Err(Errno::E2BIG);
        }
        path.mount.want_write()?;
        self.check_xattr(path, name, Access::WRITE)?;
        path.inode().set_xattr(name, value, how)?;
        watch::happened(&path.dentry, WatchMask::ATTRIB);
        Ok(())
    }

    /// `removexattr(2)`.
    pub fn remove_xattr(&self, path: &VfsPath, name: &[u8]) -> Result<()> {
        path.mount.want_write()?;
        self.check_xattr(path, name, Access::WRITE)?;
        path.inode().remove_xattr(name)?;
        watch::happened(&path.dentry, WatchMask::ATTRIB);
        Ok(())
    }

    /// `listxattr(2)`: names with their NULs. `trusted.*` only for the privileged.
    pub fn list_xattr(&self, path: &VfsPath) -> Result<Vec<u8>> {
        let trusted = self.cx.cred.capable(CapSet::SYS_ADMIN);
        let mut list = Vec::new();
        for name in path.inode().list_xattr()? {
            if trusted || !name.starts_with(b"trusted.") {
                list.extend_from_slice(&name);
                list.push(0);
            }
        }
        Ok(list)
    }

    /// Namespaces of extended attributes (`xattr(7)`).
    fn check_xattr(&self, path: &VfsPath, name: &[u8], want: Access) -> Result<()> {
        if name.is_empty() || name.len() > XATTR_NAME_MAX {
            return Err(Errno::ERANGE);
        }
        let write = want == Access::WRITE;
        let attr = path.inode().attr()?;
        if name.starts_with(b"trusted.") {
            let denied = if write { Errno::EPERM } else { Errno::ENODATA };
            return if self.cx.cred.capable(CapSet::SYS_ADMIN) { Ok(()) } else { Err(denied) };
        }
        if name.starts_with(b"user.") {
            if !matches!(attr.kind, FileType::Regular | FileType::Directory) {
                return Err(if write { Errno::EPERM } else { Errno::ENODATA });
            }
            return perm::check(&attr, want, self.cx.cred);
        }
        if name.starts_with(b"security.") {
            let denied = write && !self.cx.cred.capable(CapSet::SYS_ADMIN);
            return if denied { Err(Errno::EPERM) } else { Ok(()) };
        }
        Err(Errno::EOPNOTSUPP)
    }
}

/// The permission bits a write by `cred` leaves, when it changes them.
pub(crate) fn cleared_by_write(attr: &Attr, cred: &Credentials) -> Option<Permissions> {
    if attr.kind != FileType::Regular || cred.capable(CapSet::FSETID) {
        return None;
    }
    let perm = perm::without_set_id(attr);
    (perm != attr.perm).then_some(perm)
}
