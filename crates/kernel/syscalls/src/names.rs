//! Names: made, removed, moved and read (`mkdir(2)`, `unlink(2)`, `rename(2)`, `link(2)`,
//! `readlink(2)`), and the directories a task is in (`chdir(2)`, `chroot(2)`, `getcwd(2)`, `umask(2)`).

use abi::fs::{AT_FDCWD, AtFlags};
use abi::{Errno, SysResult};
use cred::CapSet;
use guestmem::{UserAddr, UserCStr, UserMem};
use vfs::{Access, Caller, RenameFlags, WalkFlags};

use crate::args::Fd;
use crate::at::{At, at_flags, load_path};
use crate::cx::Cx;
use crate::stat::kind_of_mode;

const CWD: Fd = Fd(AT_FDCWD);

/// `mkdir(2)`.
pub(crate) fn mkdir(cx: &mut Cx<'_>, path: UserCStr, mode: u32) -> SysResult<()> {
    mkdirat(cx, CWD, path, mode)
}

/// `mkdirat(2)`.
pub(crate) fn mkdirat(cx: &mut Cx<'_>, dirfd: Fd, path: UserCStr, mode: u32) -> SysResult<()> {
    let at = At::new(cx, dirfd, path)?;
    at.caller().mkdir(&at.path, mode)?;
    Ok(())
}

/// `mknod(2)`.
pub(crate) fn mknod(cx: &mut Cx<'_>, path: UserCStr, mode: u32, dev: u32) -> SysResult<()> {
    mknodat(cx, CWD, path, mode, dev)
}

/// `mknodat(2)`. The device number has the low half of the user-space form.
pub(crate) fn mknodat(cx: &mut Cx<'_>, dirfd: Fd, path: UserCStr, mode: u32, dev: u32) -> SysResult<()> {
    let kind = kind_of_mode(mode)?;
    let at = At::new(cx, dirfd, path)?;
    at.caller().mknod(&at.path, kind, mode & 0o7777, u64::from(dev))?;
    Ok(())
}

/// `rmdir(2)`.
pub(crate) fn rmdir(cx: &mut Cx<'_>, path: UserCStr) -> SysResult<()> {
    unlinkat(cx, CWD, path, AtFlags::REMOVEDIR.bits())
}

/// `unlink(2)`.
pub(crate) fn unlink(cx: &mut Cx<'_>, path: UserCStr) -> SysResult<()> {
    unlinkat(cx, CWD, path, 0)
}

/// `unlinkat(2)`.
pub(crate) fn unlinkat(cx: &mut Cx<'_>, dirfd: Fd, path: UserCStr, flags: u32) -> SysResult<()> {
    let flags = at_flags(flags, AtFlags::REMOVEDIR)?;
    let at = At::new(cx, dirfd, path)?;
    let caller = at.caller();
    Ok(if flags.contains(AtFlags::REMOVEDIR) { caller.rmdir(&at.path) } else { caller.unlink(&at.path) }?)
}

/// `rename(2)`.
pub(crate) fn rename(cx: &mut Cx<'_>, old: UserCStr, new: UserCStr) -> SysResult<()> {
    renameat2(cx, CWD, old, CWD, new, 0)
}

/// `renameat(2)`.
pub(crate) fn renameat(cx: &mut Cx<'_>, from: Fd, old: UserCStr, to: Fd, new: UserCStr) -> SysResult<()> {
    renameat2(cx, from, old, to, new, 0)
}

/// `renameat2(2)`.
pub(crate) fn renameat2(
    cx: &mut Cx<'_>,
    from: Fd,
    old: UserCStr,
    to: Fd,
    new: UserCStr,
    flags: u32,
) -> SysResult<()> {
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let from = At::new(cx, from, old)?;
    let to = At::new(cx, to, new)?;
    Ok(from.caller().rename(&from.path, &to.caller(), &to.path, flags)?)
}

/// `link(2)`.
pub(crate) fn link(cx: &mut Cx<'_>, old: UserCStr, new: UserCStr) -> SysResult<()> {
    linkat(cx, CWD, old, CWD, new, 0)
}

/// `linkat(2)`.
pub(crate) fn linkat(
    cx: &mut Cx<'_>,
    from: Fd,
    old: UserCStr,
    to: Fd,
    new: UserCStr,
    flags: u32,
) -> SysResult<()> {
    let flags = at_flags(flags, AtFlags::SYMLINK_FOLLOW | AtFlags::EMPTY_PATH)?;
    let from = At::new(cx, from, old)?;
    let empty = flags.contains(AtFlags::EMPTY_PATH);
    if empty && from.path.is_empty() && !cx.task.cred().capable(CapSet::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT.into());
    }
    let mut walk = WalkFlags::empty();
    walk.set(WalkFlags::FOLLOW, flags.contains(AtFlags::SYMLINK_FOLLOW));
    walk.set(WalkFlags::EMPTY_PATH, empty);
    let old = from.lookup(walk)?;
    let to = At::new(cx, to, new)?;
    Ok(to.caller().link(&old, &to.path)?)
}

/// `symlink(2)`.
pub(crate) fn symlink(cx: &mut Cx<'_>, target: UserCStr, path: UserCStr) -> SysResult<()> {
    symlinkat(cx, target, CWD, path)
}

/// `symlinkat(2)`.
pub(crate) fn symlinkat(cx: &mut Cx<'_>, target: UserCStr, dirfd: Fd, path: UserCStr) -> SysResult<()> {
    let target = load_path(cx, target)?;
    let at = At::new(cx, dirfd, path)?;
    at.caller().symlink(&target, &at.path)?;
    Ok(())
}

/// `readlink(2)`.
pub(crate) fn readlink(cx: &mut Cx<'_>, path: UserCStr, buf: UserAddr, size: i32) -> SysResult<usize> {
    readlinkat(cx, CWD, path, buf, size)
}

/// `readlinkat(2)`: cut to `size` bytes, without a NUL.
pub(crate) fn readlinkat(
    cx: &mut Cx<'_>,
    dirfd: Fd,
    path: UserCStr,
    buf: UserAddr,
    size: i32,
) -> SysResult<usize> {
    let size = usize::try_from(size).ok().filter(|size| *size > 0).ok_or(Errno::EINVAL)?;
    let at = At::new(cx, dirfd, path)?;
    let target = match at.caller().readlink(&at.path) {
        // A descriptor of a link may stand for an empty path, nothing else may.
        Err(Errno::EINVAL) if at.path.is_empty() => return Err(Errno::ENOENT.into()),
        target => target?,
    };
    let shown = target.get(..size).unwrap_or(&target);
    cx.mm().write(buf, shown)?;
    Ok(shown.len())
}

/// `getcwd(2)`: the length with the NUL.
pub(crate) fn getcwd(cx: &mut Cx<'_>, buf: UserAddr, size: usize) -> SysResult<usize> {
    let (fs, who) = (cx.task.fs_context()?.get(), cx.who());
    let mut path = Caller::new(&fs, who.cx()).getcwd()?;
    path.push(0);
    if path.len() > size {
        return Err(Errno::ERANGE.into());
    }
    cx.mm().write(buf, &path)?;
    Ok(path.len())
}

/// `chdir(2)`.
pub(crate) fn chdir(cx: &mut Cx<'_>, path: UserCStr) -> SysResult<()> {
    let at = At::cwd(cx, path)?;
    let to = at.caller().directory(&at.path)?;
    cx.task.fs_context()?.update(|fs| fs.cwd = to);
    Ok(())
}

/// `fchdir(2)`.
pub(crate) fn fchdir(cx: &mut Cx<'_>, fd: Fd) -> SysResult<()> {
    let to = cx.file(fd)?.path().clone();
    let attr = to.inode().attr()?;
    if attr.kind != abi::fs::FileType::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    vfs::perm::check(&attr, Access::EXECUTE, &cx.task.cred())?;
    cx.task.fs_context()?.update(|fs| fs.cwd = to);
    Ok(())
}

/// `chroot(2)`.
pub(crate) fn chroot(cx: &mut Cx<'_>, path: UserCStr) -> SysResult<()> {
    let at = At::cwd(cx, path)?;
    let to = at.caller().directory(&at.path)?;
    if !cx.task.cred().capable(CapSet::SYS_CHROOT) {
        return Err(Errno::EPERM.into());
    }
    cx.task.fs_context()?.update(|fs| fs.root = to);
    Ok(())
}

/// `umask(2)`.
pub(crate) fn umask(cx: &mut Cx<'_>, mask: u32) -> SysResult<u32> {
    let new = (mask & 0o777) as u16;
    Ok(u32::from(cx.task.fs_context()?.update(|fs| std::mem::replace(&mut fs.umask, new))))
}
