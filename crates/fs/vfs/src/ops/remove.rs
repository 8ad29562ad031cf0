//! Operations that remove or move names: unlink, rmdir, rename.

use std::sync::Arc;

use abi::Errno;
use abi::fs::FileType;

use super::Caller;
use crate::dentry::Names;
use crate::mount::VfsPath;
use crate::perm;
use crate::walk::{Last, LastName, WalkFlags};
use crate::watch;
use crate::{RenameFlags, Result};

/// One side of a rename.
struct Side {
    parent: VfsPath,
    name: Vec<u8>,
    target: Option<VfsPath>,
    slash: bool,
}

impl Caller<'_> {
    /// `unlink(2)`: `EISDIR` for a directory.
    pub fn unlink(&self, path: &[u8]) -> Result<()> {
        let Last { parent, name, target, trailing_slash } = self.last(path, WalkFlags::PARENT)?;
        let LastName::Name(name) = name else { return Err(Errno::EISDIR) };
        target.ok_or(Errno::ENOENT)?;
        let names = parent.dentry.lock_names();
        let target = child(&parent, &names, &name)?.ok_or(Errno::ENOENT)?;
        let directory = target.inode().kind() == FileType::Directory;
        if trailing_slash {
            return Err(if directory { Errno::EISDIR } else { Errno::ENOTDIR });
        }
        parent.mount.want_write()?;
        self.may_delete(&parent, &target)?;
        if directory {
            return Err(Errno::EISDIR);
        }
        if self.is_busy(&target) {
            return Err(Errno::EBUSY);
        }
        parent.inode().unlink(&name)?;
        names.removed(&name);
        drop(names);
        watch::removed(&parent.dentry, &name, &target.dentry);
        Ok(())
    }

    /// `rmdir(2)`.
    pub fn rmdir(&self, path: &[u8]) -> Result<()> {
        let Last { parent, name, target, .. } = self.last(path, WalkFlags::PARENT)?;
        let name = match name {
            LastName::Name(name) => name,
            LastName::Dot => return Err(Errno::EINVAL),
            LastName::DotDot => return Err(Errno::ENOTEMPTY),
            LastName::None => return Err(Errno::EBUSY),
        };
        target.ok_or(Errno::ENOENT)?;
        let names = parent.dentry.lock_names();
        let target = child(&parent, &names, &name)?.ok_or(Errno::ENOENT)?;
        parent.mount.want_write()?;
        self.may_delete(&parent, &target)?;
        if target.inode().kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if self.is_busy(&target) {
            return Err(Errno::EBUSY);
        }
        parent.inode().rmdir(&name)?;
        names.removed(&name);
        drop(names);
        watch::removed(&parent.dentry, &name, &target.dentry);
        Ok(())
    }

    /// Is it a mount's root, or a place for one, where the caller is?
    fn is_busy(&self, path: &VfsPath) -> bool {
        path.is_mount_root() || self.fs.mounts.is_mount_point(&path.dentry)
    }

    fn may_delete(&self, parent: &VfsPath, victim: &VfsPath) -> Result<()> {
        perm::check_delete(&parent.inode().attr()?, &victim.inode().attr()?, self.cx.cred)
    }

    fn side(&self, path: &[u8]) -> Result<Side> {
        let Last { parent, name, target, trailing_slash } = self.last(path, WalkFlags::PARENT)?;
        let LastName::Name(name) = name else { return Err(Errno::EBUSY) };
        Ok(Side { parent, name, target, slash: trailing_slash })
    }

    /// `renameat2(2)`: `old` as this caller sees it becomes `new` as seen from `to`.
    pub fn rename(&self, old: &[u8], to: &Caller<'_>, new: &[u8], flags: RenameFlags) -> Result<()> {
        if flags.contains(RenameFlags::EXCHANGE)
            && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT)
        {
            return Err(Errno::EINVAL);
        }
        let mut from = self.side(old)?;
        let mut to = to.side(new)?;
        if !Arc::ptr_eq(&from.parent.mount, &to.parent.mount) {
            return Err(Errno::EXDEV);
        }
        from.parent.mount.want_write()?;
        let (source, dest) = (Arc::clone(&from.parent.dentry), Arc::clone(&to.parent.dentry));
        let _tree = source.lock_tree();
        let names = source.lock_names();
        let to_names = (!Arc::ptr_eq(&source, &dest)).then(|| dest.lock_names());
        // What the walks found may have been moved or removed before the gates closed.
        from.target = child(&from.parent, &names, &from.name)?;
        to.target = child(&to.parent, to_names.as_ref().unwrap_or(&names), &to.name)?;
        let victim = from.target.clone().ok_or(Errno::ENOENT)?;
        check_tree(&from, &victim, &to, flags)?;
        self.check_sides(&from, &victim, &to, flags)?;
        if to.target.as_ref().is_some_and(|target| Arc::ptr_eq(target.inode(), victim.inode())) {
            return Ok(()); // Two names of one inode: nothing happens.
        }
        from.parent.inode().rename(&from.name, to.parent.inode(), &to.name, flags)?;
        update_dentries((&names, &from.name), &victim, (to_names.as_ref(), &to), flags);
        drop((to_names, names));
        report(&from, &victim, &to, flags);
        Ok(())
    }

    fn check_sides(&self, from: &Side, victim: &VfsPath, to: &Side, flags: RenameFlags) -> Result<()> {
        self.may_delete(&from.parent, victim)?;
        let moving_dir = victim.inode().kind() == FileType::Directory;
        let Some(target) = &to.target else {
            self.may_create(&to.parent)?;
            return self.may_reparent(from, victim, to);
        };
        self.may_delete(&to.parent, target)?;
        let over_dir = target.inode().kind() == FileType::Directory;
        if !flags.contains(RenameFlags::EXCHANGE) {
            match (moving_dir, over_dir) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        if self.is_busy(victim) || self.is_busy(target) {
            return Err(Errno::EBUSY);
        }
        self.may_reparent(from, victim, to)
    }

    /// A directory that gets another parent has its `..` written.
    fn may_reparent(&self, from: &Side, victim: &VfsPath, to: &Side) -> Result<()> {
        if self.is_busy(victim) {
            return Err(Errno::EBUSY);
        }
        if victim.inode().kind() != FileType::Directory || from.parent == to.parent {
            return Ok(());
        }
        perm::check(&victim.inode().attr()?, perm::Access::WRITE, self.cx.cred)
    }
}

/// Existence, ancestry and trailing slashes, in Linux's order.
fn check_tree(from: &Side, victim: &VfsPath, to: &Side, flags: RenameFlags) -> Result<()> {
    if flags.contains(RenameFlags::NOREPLACE) && to.target.is_some() {
        return Err(Errno::EEXIST);
    }
    if flags.contains(RenameFlags::EXCHANGE) && to.target.is_none() {
        return Err(Errno::ENOENT);
    }
    if victim.inode().kind() != FileType::Directory && (from.slash || to.slash) {
        return Err(Errno::ENOTDIR);
    }
    if victim.dentry.is_ancestor_of(&to.parent.dentry) {
        return Err(Errno::EINVAL);
    }
    if let Some(target) = &to.target
        && target.dentry.is_ancestor_of(&from.parent.dentry)
    {
        return Err(if flags.contains(RenameFlags::EXCHANGE) { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    Ok(())
}

fn update_dentries(
    (source, old): (&Names<'_>, &[u8]),
    victim: &VfsPath,
    (dest, to): (Option<&Names<'_>>, &Side),
    flags: RenameFlags,
) {
    let at_dest = dest.unwrap_or(source);
    if flags.contains(RenameFlags::EXCHANGE) {
        if let Some(target) = &to.target {
            at_dest.moved(&target.dentry, Some(source), old);
        }
    } else {
        at_dest.removed(&to.name);
    }
    source.moved(&victim.dentry, dest, &to.name);
    if flags.contains(RenameFlags::WHITEOUT) {
        source.forget(old);
    }
}

/// Tells who watches.
fn report(from: &Side, victim: &VfsPath, to: &Side, flags: RenameFlags) {
    let (old, new) = ((&*from.parent.dentry, &*from.name), (&*to.parent.dentry, &*to.name));
    watch::moved(old, new, victim.inode());
    match &to.target {
        Some(target) if flags.contains(RenameFlags::EXCHANGE) => {
            watch::moved_self(victim.inode());
            watch::moved(new, old, target.inode());
            watch::moved_self(target.inode());
        }
        Some(target) => {
            watch::lost_name(&target.dentry);
            watch::moved_self(victim.inode());
            watch::ended(&target.dentry);
        }
        None => watch::moved_self(victim.inode()),
    }
}

/// What `name` is in `parent`, whose gate is held; mounts crossed.
fn child(parent: &VfsPath, names: &Names<'_>, name: &[u8]) -> Result<Option<VfsPath>> {
    match names.lookup(name) {
        Ok(dentry) => Ok(Some(VfsPath { mount: Arc::clone(&parent.mount), dentry }.topmost())),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
