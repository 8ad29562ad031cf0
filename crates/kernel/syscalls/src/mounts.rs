//! Mounts: `mount(2)`, `umount2(2)`, `pivot_root(2)`, `sync(2)`.

use std::sync::Arc;

use abi::{Errno, PAGE_SIZE, SysResult};
use bitflags::bitflags;
use cred::CapSet;
use guestmem::{MemExt, UserAddr, UserCStr};
use kernel::Task;
use vfs::{FileSystem, Mount, MountFlags, MountNamespace, VfsPath, WalkFlags};

use crate::at::At;
use crate::cx::Cx;

/// Makes file systems for `mount(2)`.
pub trait FileSystemTypes: Send + Sync {
    /// One of type `name` for `task`, whose pid namespace a `/proc` shows; `options` is the string of `mount(2)`.
    /// `ENODEV` for a type it does not know.
    fn make(&self, task: &Task, name: &[u8], options: &[u8]) -> vfs::Result<Arc<dyn FileSystem>>;
}

bitflags! {
    /// Flags of `mount(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct MsFlags: u64 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const REMOUNT = 32;
        const NOATIME = 1024;
        const BIND = 4096;
        const MOVE = 8192;
        const REC = 16384;
        const UNBINDABLE = 1 << 17;
        const PRIVATE = 1 << 18;
        const SLAVE = 1 << 19;
        const SHARED = 1 << 20;
    }
}

bitflags! {
    /// Flags of `umount2(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct UmountFlags: u32 {
        /// Even when busy; open files never keep a mount busy here.
        const FORCE = 1;
        /// Lazily.
        const DETACH = 2;
        /// Do not follow a link.
        const NOFOLLOW = 8;
    }
}

impl MsFlags {
    fn of_mount(self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.contains(Self::RDONLY));
        flags.set(MountFlags::NOSUID, self.contains(Self::NOSUID));
        flags.set(MountFlags::NODEV, self.contains(Self::NODEV));
        flags.set(MountFlags::NOEXEC, self.contains(Self::NOEXEC));
        flags.set(MountFlags::NOATIME, self.contains(Self::NOATIME));
        flags
    }
}

/// `mount(2)`.
pub(crate) fn mount(
    cx: &mut Cx<'_>,
    source: UserCStr,
    target: UserCStr,
    kind: UserCStr,
    flags: u64,
    data: UserAddr,
) -> SysResult<()> {
    // Bits without a meaning here (relatime, silent, the old magic) do no harm.
    let flags = MsFlags::from_bits_truncate(flags);
    let load = |string: UserCStr| match string.0.is_null() {
        true => Ok(Vec::new()),
        false => cx.mm().load_cstr(string, PAGE_SIZE as usize),
    };
    let (kind, source, options) = (load(kind)?, load(source)?, load(UserCStr(data))?);
    let at = At::cwd(cx, target)?.lookup(WalkFlags::FOLLOW)?;
    if !cx.task.cred().capable(CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    if flags.contains(MsFlags::REMOUNT) {
        return remount(&at, flags);
    }
    if flags.contains(MsFlags::BIND) {
        return bind(cx, &source, &at, flags);
    }
    if flags.intersects(MsFlags::SHARED | MsFlags::PRIVATE | MsFlags::SLAVE | MsFlags::UNBINDABLE) {
        return propagation(&at, flags);
    }
    if flags.contains(MsFlags::MOVE) {
        return Ok(at_mounts(cx)?.move_mount(&source_path(cx, &source)?, &at)?);
    }
    let fs = cx.services.file_systems.make(cx.task, &kind, &options)?;
    let source = String::from_utf8_lossy(&source).into_owned();
    at_mounts(cx)?.attach(Mount::new(fs, &source, flags.of_mount()), &at)?;
    Ok(())
}

/// The caller's mount namespace.
fn at_mounts(cx: &Cx<'_>) -> Result<Arc<MountNamespace>, Errno> {
    Ok(cx.task.fs_context()?.get().mounts)
}

fn remount(at: &VfsPath, flags: MsFlags) -> SysResult<()> {
    if !at.is_mount_root() {
        return Err(Errno::EINVAL.into());
    }
    at.mount.set_flags(flags.of_mount());
    Ok(())
}

/// What a first argument of `mount(2)` that is a path leads to.
fn source_path(cx: &Cx<'_>, source: &[u8]) -> SysResult<VfsPath> {
    let cwd = crate::args::Fd(abi::fs::AT_FDCWD);
    At::of(cx, cwd, source.to_vec())?.lookup(WalkFlags::FOLLOW)
}

fn bind(cx: &Cx<'_>, source: &[u8], at: &VfsPath, flags: MsFlags) -> SysResult<()> {
    let from = source_path(cx, source)?;
    let mounts = at_mounts(cx)?;
    if flags.contains(MsFlags::REC) {
        return Ok(mounts.bind_tree(&from, at)?);
    }
    Ok(mounts.attach(Mount::bind(&from), at)?)
}

/// Every mount is private, so that is all one can ask for.
fn propagation(at: &VfsPath, flags: MsFlags) -> SysResult<()> {
    if !at.is_mount_root() || flags.intersects(MsFlags::SHARED | MsFlags::UNBINDABLE) {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

/// `umount2(2)`.
pub(crate) fn umount2(cx: &mut Cx<'_>, target: UserCStr, flags: u32) -> SysResult<()> {
    let flags = UmountFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let mut walk = WalkFlags::empty();
    walk.set(WalkFlags::FOLLOW, !flags.contains(UmountFlags::NOFOLLOW));
    let at = At::cwd(cx, target)?.lookup(walk)?;
    if !cx.task.cred().capable(CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    Ok(at_mounts(cx)?.detach(&at, flags.contains(UmountFlags::DETACH))?)
}

/// `pivot_root(2)`: for every task of the mount namespace that was at the old root, too.
pub(crate) fn pivot_root(cx: &mut Cx<'_>, new: UserCStr, put_old: UserCStr) -> SysResult<()> {
    if !cx.task.cred().capable(CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    let walk = WalkFlags::FOLLOW | WalkFlags::DIRECTORY;
    let (new, put_old) = (At::cwd(cx, new)?.lookup(walk)?, At::cwd(cx, put_old)?.lookup(walk)?);
    let (mounts, old) = {
        let context = cx.task.fs_context()?.get();
        (context.mounts, context.root)
    };
    mounts.pivot(&old, &new, &put_old)?;
    let kernel = cx.task.kernel();
    for task in kernel.processes().into_iter().flat_map(|id| kernel.threads(id)) {
        let Ok(fs) = task.fs_context() else { continue };
        fs.update(|context| {
            for place in [&mut context.root, &mut context.cwd] {
                if *place == old {
                    place.clone_from(&new);
                }
            }
        });
    }
    Ok(())
}

/// `sync(2)`: what cannot be written back has nobody to be told.
pub(crate) fn sync(cx: &mut Cx<'_>) -> SysResult<()> {
    for mount in at_mounts(cx)?.mounts() {
        let _ = mount.fs().sync();
    }
    Ok(())
}
