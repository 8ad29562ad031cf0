//! `open(2)`.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};

use super::{Caller, create};
use crate::mount::{MountFlags, VfsPath};
use crate::open_file::OpenFile;
use crate::perm::{self, Access};
use crate::walk::{Last, LastName, WalkFlags};
use crate::watch::WatchMask;
use crate::{Attr, File, FileContext, Result};

/// Opens what is not a file system's own: device nodes by number, fifos by inode.
pub trait DeviceOpener: Send + Sync {
    /// The file behind the node at `path`. `ENXIO` when there is no such device.
    fn open(
        &self,
        cx: &FileContext<'_>,
        path: &VfsPath,
        attr: &Attr,
        flags: OpenFlags,
    ) -> Result<Arc<dyn File>>;
}

/// Knows no device (`ENXIO`).
#[derive(Clone, Copy, Debug)]
pub struct NoDevices;

impl DeviceOpener for NoDevices {
    fn open(&self, _: &FileContext<'_>, _: &VfsPath, _: &Attr, _: OpenFlags) -> Result<Arc<dyn File>> {
        Err(Errno::ENXIO)
    }
}

/// What an `O_PATH` descriptor can do: nothing (`EBADF`).
struct PathOnly;

impl File for PathOnly {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Caller<'_> {
    /// `openat(2)`. `extra` adds the `RESOLVE_*` limits of `openat2(2)`.
    pub fn open(
        &self,
        path: &[u8],
        flags: OpenFlags,
        mode: u32,
        extra: WalkFlags,
        devices: &dyn DeviceOpener,
    ) -> Result<Arc<OpenFile>> {
        let mut follow = extra;
        if !flags.contains(OpenFlags::NOFOLLOW) {
            follow |= WalkFlags::FOLLOW;
        }
        if flags.contains(OpenFlags::PATH) {
            return self.open_path(path, flags, follow);
        }
        if flags.contains(OpenFlags::TMPFILE_BIT) {
            return self.open_unnamed(path, flags, mode, follow);
        }
        if flags.contains(OpenFlags::CREAT) {
            return self.open_create(path, flags, mode, follow, devices);
        }
        if flags.contains(OpenFlags::DIRECTORY) {
            follow |= WalkFlags::DIRECTORY;
        }
        let found = self.lookup(path, follow)?;
        self.open_found(found, flags, devices)
    }

    fn open_path(&self, path: &[u8], flags: OpenFlags, mut follow: WalkFlags) -> Result<Arc<OpenFile>> {
        if flags.contains(OpenFlags::DIRECTORY) {
            follow |= WalkFlags::DIRECTORY;
        }
        let found = self.lookup(path, follow)?;
        let kept = flags & (OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW);
        Ok(OpenFile::new(found, Arc::new(PathOnly), kept))
    }

    fn open_unnamed(
        &self,
        path: &[u8],
        flags: OpenFlags,
        mode: u32,
        follow: WalkFlags,
    ) -> Result<Arc<OpenFile>> {
        if !flags.contains(OpenFlags::DIRECTORY) || !flags.writable() {
            return Err(Errno::EINVAL);
        }
        let dir = self.lookup(path, follow | WalkFlags::DIRECTORY)?;
        dir.mount.want_write()?;
        self.may_create(&dir)?;
        let node = self.new_node(dir.inode(), FileType::Regular, mode)?;
        let inode = dir.inode().create_unnamed(&node)?;
        let file = inode.open(&self.cx, flags - OpenFlags::TMPFILE_BIT - OpenFlags::DIRECTORY)?;
        let name = format!("/#{} (deleted)", inode.attr()?.ino);
        let dentry = crate::dentry::Dentry::root(inode, true, name.as_bytes());
        Ok(OpenFile::new(VfsPath { mount: dir.mount, dentry }, file, flags))
    }

    fn open_create(
        &self,
        path: &[u8],
        flags: OpenFlags,
        mode: u32,
        mut follow: WalkFlags,
        devices: &dyn DeviceOpener,
    ) -> Result<Arc<OpenFile>> {
        if flags.contains(OpenFlags::DIRECTORY) {
            return Err(Errno::EINVAL);
        }
        if flags.contains(OpenFlags::EXCL) {
            follow.remove(WalkFlags::FOLLOW);
        }
        let Last { parent, name, target, trailing_slash } = self.last(path, follow | WalkFlags::PARENT)?;
        let name = match name {
            LastName::Name(_) if trailing_slash => return Err(Errno::EISDIR),
            LastName::Name(name) => Some(name),
            _ => None,
        };
        if let Some(found) = target {
            if flags.contains(OpenFlags::EXCL) {
                return Err(Errno::EEXIST);
            }
            if found.inode().kind() == FileType::Directory {
                return Err(Errno::EISDIR);
            }
            return self.open_found(found, flags, devices);
        }
        let name = name.ok_or(Errno::EISDIR)?;
        parent.mount.want_write()?;
        self.may_create(&parent)?;
        let node = self.new_node(parent.inode(), FileType::Regular, mode)?;
        match create::make(parent.clone(), &name, |dir| dir.create(&name, &node)) {
            Ok(found) => {
                // Whoever makes a file may open it whatever its mode says.
                let file = found.inode().open(&self.cx, carried(flags))?;
                Ok(opened(found, file, flags))
            }
            // Somebody else was faster.
            Err(Errno::EEXIST) if !flags.contains(OpenFlags::EXCL) => {
                let dentry = parent.dentry.lookup(&name)?;
                self.open_found(VfsPath { mount: parent.mount, dentry }.topmost(), flags, devices)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens what a walk has found: types, permissions, truncation (`may_open`).
    pub fn open_found(
        &self,
        found: VfsPath,
        flags: OpenFlags,
        devices: &dyn DeviceOpener,
    ) -> Result<Arc<OpenFile>> {
        let attr = found.inode().attr()?;
        let mut want = Access::empty();
        want.set(Access::READ, flags.readable());
        want.set(Access::WRITE, flags.writable() || flags.contains(OpenFlags::TRUNC));
        let device = matches!(attr.kind, FileType::CharDevice | FileType::BlockDevice);
        match attr.kind {
            FileType::Symlink => return Err(Errno::ELOOP),
            FileType::Directory if want.contains(Access::WRITE) => return Err(Errno::EISDIR),
            FileType::Regular if want.contains(Access::WRITE) => found.mount.want_write()?,
            _ if device && found.mount.flags().contains(MountFlags::NODEV) => return Err(Errno::EACCES),
            _ => {}
        }
        perm::check(&attr, want, self.cx.cred)?;
        if flags.contains(OpenFlags::NOATIME) && !perm::is_owner(&attr, self.cx.cred) {
            return Err(Errno::EPERM);
        }
        if flags.contains(OpenFlags::TRUNC) && attr.kind == FileType::Regular {
            self.set_size(&found, 0)?;
        }
        let file = match found.inode().open(&self.cx, carried(flags)) {
            // An inode that has no opening of its own says ENXIO: the registries may know.
            Err(Errno::ENXIO) if device || attr.kind == FileType::Fifo => {
                devices.open(&self.cx, &found, &attr, carried(flags))?
            }
            opened => opened?,
        };
        Ok(opened(found, file, flags))
    }
}

fn opened(found: VfsPath, file: Arc<dyn File>, flags: OpenFlags) -> Arc<OpenFile> {
    let file = OpenFile::new(found, file, flags);
    file.happened(WatchMask::OPEN);
    file
}

/// The flags an inode's `open` hears of.
fn carried(flags: OpenFlags) -> OpenFlags {
    flags - OpenFlags::CREAT - OpenFlags::EXCL
}
