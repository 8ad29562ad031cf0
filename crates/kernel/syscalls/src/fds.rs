//! Descriptors: `close(2)`, `dup(2)`, `fcntl(2)` and their kin.

use std::sync::Arc;

use abi::fs::OpenFlags;
use abi::{Errno, SysResult};
use anonfs::PipeEnd;
use bitflags::bitflags;
use guestmem::{UserAddr, UserPtr};
use vfs::locks::{Owner, release_all};
use vfs::{OpenFile, Seals};

use crate::args::Fd;
use crate::cx::Cx;
use crate::{locks, sigio};

/// `FD_CLOEXEC`.
const FD_CLOEXEC: u64 = 1;

bitflags! {
    /// Flags of `close_range(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct CloseRange: u32 {
        /// Unshare the table first.
        const UNSHARE = 2;
        /// Mark instead of closing.
        const CLOEXEC = 4;
    }
}

/// Gives a description up for the calling process: its record locks on the file go.
fn closed(cx: &Cx<'_>, file: &Arc<OpenFile>) -> vfs::Result<()> {
    let flushed = if file.require_io().is_ok() { file.file().flush(&cx.who().cx()) } else { Ok(()) };
    release_all(file.inode(), Owner::Process(cx.task.tgid()));
    flushed
}

/// `close(2)`. The descriptor is gone whatever the answer.
pub(crate) fn close(cx: &mut Cx<'_>, fd: Fd) -> SysResult<()> {
    let file = cx.fds()?.remove(fd.0)?;
    Ok(closed(cx, &file)?)
}

/// `close_range(2)`.
pub(crate) fn close_range(cx: &mut Cx<'_>, first: u32, last: u32, flags: u32) -> SysResult<()> {
    let flags = CloseRange::from_bits(flags).ok_or(Errno::EINVAL)?;
    if first > last {
        return Err(Errno::EINVAL.into());
    }
    if flags.contains(CloseRange::UNSHARE) {
        let own = cx.fds()?.fork();
        cx.task.set_fds(Arc::new(own));
    }
    let fds = cx.fds()?;
    if flags.contains(CloseRange::CLOEXEC) {
        fds.set_cloexec_range(first..=last);
        return Ok(());
    }
    for file in fds.remove_range(first..=last) {
        // Errors have nobody to go to.
        let _ = closed(cx, &file);
    }
    Ok(())
}

/// `dup(2)`.
pub(crate) fn dup(cx: &mut Cx<'_>, fd: Fd) -> SysResult<Fd> {
    let file = cx.file(fd)?;
    cx.install(file, false)
}

/// `dup2(2)`: onto itself it only checks.
pub(crate) fn dup2(cx: &mut Cx<'_>, from: Fd, to: Fd) -> SysResult<Fd> {
    if from == to {
        cx.file(from)?;
        return Ok(to);
    }
    replace(cx, from, to, false)
}

/// `dup3(2)`.
pub(crate) fn dup3(cx: &mut Cx<'_>, from: Fd, to: Fd, flags: u32) -> SysResult<Fd> {
    if flags & !OpenFlags::CLOEXEC.bits() != 0 || from == to {
        return Err(Errno::EINVAL.into());
    }
    replace(cx, from, to, flags != 0)
}

fn replace(cx: &Cx<'_>, from: Fd, to: Fd, cloexec: bool) -> SysResult<Fd> {
    let file = cx.file(from)?;
    if let Some(old) = cx.fds()?.replace(to.0, file, cloexec, cx.max_fds())? {
        let _ = closed(cx, &old);
    }
    Ok(to)
}

/// `fcntl(2)`. Numbers are those of `fcntl.h`.
pub(crate) fn fcntl(cx: &mut Cx<'_>, fd: Fd, command: u32, arg: u64) -> SysResult<u64> {
    let descriptor = cx.fds()?.descriptor(fd.0)?;
    let file = descriptor.file;
    match command {
        0 | 1030 => return duplicate(cx, file, arg, command == 1030),
        1 => return Ok(if descriptor.cloexec { FD_CLOEXEC } else { 0 }),
        2 => {
            cx.fds()?.set_cloexec(fd.0, arg & FD_CLOEXEC != 0)?;
            return Ok(0);
        }
        3 => return Ok(u64::from(file.flags().bits())),
        _ => file.require_io()?,
    }
    let lock = UserPtr::new(UserAddr(arg));
    match command {
        4 => {
            file.set_flags(OpenFlags::from_bits_truncate(arg as u32))?;
            sigio::follow_flags(cx, &file, fd.0);
            Ok(0)
        }
        5 => locks::test(cx, &file, lock, Owner::Process(cx.task.tgid())),
        6 | 7 => locks::set(cx, &file, lock, Owner::Process(cx.task.tgid()), command == 7),
        36 => locks::test(cx, &file, lock, Owner::Description(file.id())),
        37 | 38 => locks::set(cx, &file, lock, Owner::Description(file.id()), command == 38),
        8 => sigio::set_owner_by_id(cx, &file, arg as i32),
        9 => Ok(match sigio::owner(cx, &file) {
            sigio::Owner::Nobody => 0,
            sigio::Owner::Thread(id) | sigio::Owner::Process(id) => id as u64,
            // Indeed a negative number, which C libraries know how to take.
            sigio::Owner::Group(id) => -i64::from(id) as u64,
        }),
        10 => sigio::set_signal(cx, &file, arg),
        11 => Ok(sigio::signal(cx, &file)),
        15 => sigio::set_owner_ex(cx, &file, UserPtr::new(UserAddr(arg))),
        16 => sigio::owner_ex(cx, &file, UserPtr::new(UserAddr(arg))),
        1031 => {
            let pipe = file.file().as_any().downcast_ref::<PipeEnd>().ok_or(Errno::EBADF)?;
            Ok(pipe.pipe().set_capacity(&cx.task.cred(), u64::from(arg as u32))? as u64)
        }
        1032 => {
            let pipe = file.file().as_any().downcast_ref::<PipeEnd>().ok_or(Errno::EBADF)?;
            Ok(pipe.pipe().capacity() as u64)
        }
        1033 => {
            let seals = u32::try_from(arg).ok().and_then(Seals::from_bits).ok_or(Errno::EINVAL)?;
            file.add_seals(seals)?;
            Ok(0)
        }
        1034 => Ok(u64::from(file.seals()?.bits())),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn duplicate(cx: &Cx<'_>, file: Arc<OpenFile>, min: u64, cloexec: bool) -> SysResult<u64> {
    // An `int` that must not be negative.
    let min = u32::try_from(min as i32).map_err(|_| Errno::EINVAL)?;
    Ok(cx.fds()?.insert(file, cloexec, min, cx.max_fds())? as u64)
}
