//! Attributes changed: `chmod(2)`, `chown(2)`, `truncate(2)`, `utimensat(2)`.

use abi::fs::{AT_FDCWD, AtFlags};
use abi::time::{Timespec, Timeval};
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserCStr, UserPtr};
use vfs::{SetTime, Times, VfsPath, WalkFlags};

use crate::args::Fd;
use crate::at::{At, at_flags, walk_flags};
use crate::content::check_size_limit;
use crate::cx::Cx;

/// `UTIME_NOW`.
const UTIME_NOW: i64 = 0x3fff_ffff;
/// `UTIME_OMIT`.
const UTIME_OMIT: i64 = 0x3fff_fffe;

/// An operation on the file of a descriptor.
fn on_file<T>(
    cx: &Cx<'_>,
    path: &VfsPath,
    run: impl FnOnce(&vfs::Caller<'_>, &VfsPath) -> vfs::Result<T>,
) -> SysResult<T> {
    let (fs, who) = (cx.task.fs_context()?.get(), cx.who());
    Ok(run(&vfs::Caller::new(&fs, who.cx()), path)?)
}

/// `chmod(2)`.
pub(crate) fn chmod(cx: &mut Cx<'_>, path: UserCStr, mode: u32) -> SysResult<()> {
    fchmodat2(cx, Fd(AT_FDCWD), path, mode, 0)
}

/// `fchmodat(2)`, which has no flags.
pub(crate) fn fchmodat(cx: &mut Cx<'_>, dirfd: Fd, path: UserCStr, mode: u32) -> SysResult<()> {
    fchmodat2(cx, dirfd, path, mode, 0)
}

/// `fchmodat2(2)`.
pub(crate) fn fchmodat2(cx: &mut Cx<'_>, dirfd: Fd, path: UserCStr, mode: u32, flags: u32) -> SysResult<()> {
    let flags = at_flags(flags, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    let at = At::new(cx, dirfd, path)?;
    let path = at.lookup(walk_flags(flags))?;
    Ok(at.caller().chmod(&path, mode)?)
}

/// `fchmod(2)`.
pub(crate) fn fchmod(cx: &mut Cx<'_>, fd: Fd, mode: u32) -> SysResult<()> {
    let file = cx.io_file(fd)?;
    on_file(cx, file.path(), |caller, path| caller.chmod(path, mode))
}

/// An id, where -1 means "leave it".
fn id(raw: u32) -> Option<u32> {
    (raw != u32::MAX).then_some(raw)
}

/// `chown(2)`.
pub(crate) fn chown(cx: &mut Cx<'_>, path: UserCStr, uid: u32, gid: u32) -> SysResult<()> {
    fchownat(cx, Fd(AT_FDCWD), path, uid, gid, 0)
}

/// `lchown(2)`.
pub(crate) fn lchown(cx: &mut Cx<'_>, path: UserCStr, uid: u32, gid: u32) -> SysResult<()> {
    fchownat(cx, Fd(AT_FDCWD), path, uid, gid, AtFlags::SYMLINK_NOFOLLOW.bits())
}

/// `fchownat(2)`.
pub(crate) fn fchownat(
    cx: &mut Cx<'_>,
    dirfd: Fd,
    path: UserCStr,
    uid: u32,
    gid: u32,
    flags: u32,
) -> SysResult<()> {
    let flags = at_flags(flags, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    let at = At::new(cx, dirfd, path)?;
    let path = at.lookup(walk_flags(flags))?;
    Ok(at.caller().chown(&path, id(uid), id(gid))?)
}

/// `fchown(2)`.
pub(crate) fn fchown(cx: &mut Cx<'_>, fd: Fd, uid: u32, gid: u32) -> SysResult<()> {
    let file = cx.io_file(fd)?;
    on_file(cx, file.path(), |caller, path| caller.chown(path, id(uid), id(gid)))
}

/// `truncate(2)`.
pub(crate) fn truncate(cx: &mut Cx<'_>, path: UserCStr, size: i64) -> SysResult<()> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let at = At::cwd(cx, path)?;
    let path = at.lookup(WalkFlags::FOLLOW)?;
    if size > path.inode().attr()?.size {
        check_size_limit(cx, size)?;
    }
    Ok(at.caller().truncate(&path, size)?)
}

fn set_time(time: Timespec) -> Result<Option<SetTime>, Errno> {
    match time.nsec {
        UTIME_NOW => Ok(Some(SetTime::Now)),
        UTIME_OMIT => Ok(None),
        0..1_000_000_000 => Ok(Some(SetTime::At(time))),
        _ => Err(Errno::EINVAL),
    }
}

/// What a null pointer for the times means.
const NOW: Times = Times { atime: Some(SetTime::Now), mtime: Some(SetTime::Now) };

/// `utimensat(2)`; without a path, the descriptor's file (`futimens(3)`).
pub(crate) fn utimensat(
    cx: &mut Cx<'_>,
    dirfd: Fd,
    path: UserCStr,
    times: UserPtr<[Timespec; 2]>,
    flags: u32,
) -> SysResult<()> {
    let times = match times.non_null() {
        None => NOW,
        Some(at) => {
            let [atime, mtime] = cx.mm().load(at)?;
            if atime.nsec == UTIME_OMIT && mtime.nsec == UTIME_OMIT {
                return Ok(());
            }
            Times { atime: set_time(atime)?, mtime: set_time(mtime)? }
        }
    };
    set_times(cx, dirfd, path, times, flags)
}

fn set_times(cx: &Cx<'_>, dirfd: Fd, path: UserCStr, times: Times, flags: u32) -> SysResult<()> {
    if path.0.is_null() && dirfd.0 != AT_FDCWD {
        if flags != 0 {
            return Err(Errno::EINVAL.into());
        }
        let file = cx.io_file(dirfd)?;
        return on_file(cx, file.path(), |caller, path| caller.utimens(path, times));
    }
    let flags = at_flags(flags, AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    let at = At::new(cx, dirfd, path)?;
    let path = at.lookup(walk_flags(flags))?;
    Ok(at.caller().utimens(&path, times)?)
}

/// `futimesat(2)`.
pub(crate) fn futimesat(
    cx: &mut Cx<'_>,
    dirfd: Fd,
    path: UserCStr,
    times: UserPtr<[Timeval; 2]>,
) -> SysResult<()> {
    let times = match times.non_null() {
        None => NOW,
        Some(at) => {
            let [atime, mtime] = cx.mm().load(at)?;
            let exact = |time: Timeval| match time.usec {
                0..1_000_000 => Ok(Some(SetTime::At(Timespec { sec: time.sec, nsec: time.usec * 1000 }))),
                _ => Err(Errno::EINVAL),
            };
            Times { atime: exact(atime)?, mtime: exact(mtime)? }
        }
    };
    set_times(cx, dirfd, path, times, 0)
}

/// `utimes(2)`.
pub(crate) fn utimes(cx: &mut Cx<'_>, path: UserCStr, times: UserPtr<[Timeval; 2]>) -> SysResult<()> {
    futimesat(cx, Fd(AT_FDCWD), path, times)
}

/// `utime(2)`: whole seconds.
pub(crate) fn utime(cx: &mut Cx<'_>, path: UserCStr, times: UserPtr<[i64; 2]>) -> SysResult<()> {
    let times = match times.non_null() {
        None => NOW,
        Some(at) => {
            let [atime, mtime] = cx.mm().load(at)?;
            let exact = |sec| Some(SetTime::At(Timespec { sec, nsec: 0 }));
            Times { atime: exact(atime), mtime: exact(mtime) }
        }
    };
    set_times(cx, Fd(AT_FDCWD), path, times, 0)
}
