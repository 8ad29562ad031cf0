//! `inotify(7)`.

use abi::fs::OpenFlags;
use abi::{Errno, SysResult};
use anonfs::Inotify;
use guestmem::UserCStr;
use vfs::watch::WatchMask;
use vfs::{Access, OpenFile, WalkFlags};

use crate::anon::{creation_flags, install};
use crate::args::Fd;
use crate::at::At;
use crate::cx::Cx;

/// `inotify_init(2)`.
pub(crate) fn inotify_init(cx: &mut Cx<'_>) -> SysResult<Fd> {
    inotify_init1(cx, 0)
}

/// `inotify_init1(2)`.
pub(crate) fn inotify_init1(cx: &mut Cx<'_>, flags: u32) -> SysResult<Fd> {
    let flags = creation_flags(flags, OpenFlags::empty())?;
    install(cx, "inotify", Inotify::new(), flags)
}

fn inotify(file: &OpenFile) -> SysResult<&Inotify> {
    Ok(file.file().as_any().downcast_ref().ok_or(Errno::EINVAL)?)
}

/// `inotify_add_watch(2)`.
pub(crate) fn inotify_add_watch(cx: &mut Cx<'_>, fd: Fd, path: UserCStr, mask: u32) -> SysResult<i32> {
    let mask = WatchMask::from_bits(mask).ok_or(Errno::EINVAL)?;
    let file = cx.io_file(fd)?;
    let watches = inotify(&file)?;
    let mut walk = WalkFlags::empty();
    walk.set(WalkFlags::FOLLOW, !mask.contains(WatchMask::DONT_FOLLOW));
    walk.set(WalkFlags::DIRECTORY, mask.contains(WatchMask::ONLYDIR));
    let path = At::cwd(cx, path)?.lookup(walk)?;
    let attr = path.inode().attr()?;
    vfs::perm::check(&attr, Access::READ, &cx.task.cred())?;
    Ok(watches.add_watch(path.inode(), mask)?)
}

/// `inotify_rm_watch(2)`.
pub(crate) fn inotify_rm_watch(cx: &mut Cx<'_>, fd: Fd, wd: i32) -> SysResult<()> {
    let file = cx.io_file(fd)?;
    Ok(inotify(&file)?.remove_watch(wd)?)
}
