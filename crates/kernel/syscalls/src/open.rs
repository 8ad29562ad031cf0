//! `open(2)`, `creat(2)`, `openat2(2)`.

use std::sync::Arc;

use abi::fs::{AT_FDCWD, OpenFlags};
use abi::poll::PollEvents;
use abi::{Errno, PAGE_SIZE, SysError, SysResult};
use anonfs::PipeEnd;
use bitflags::bitflags;
use guestmem::{MemExt, UserCStr, UserMem, UserPtr};
use vfs::{OpenFile, WalkFlags};

use crate::args::Fd;
use crate::at::At;
use crate::cx::Cx;

/// `struct open_how` of `openat2(2)`: flags, mode, resolve.
pub(crate) type OpenHow = [u64; 3];

bitflags! {
    /// `RESOLVE_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Resolve: u64 {
        const NO_XDEV = 1;
        const NO_MAGICLINKS = 2;
        const NO_SYMLINKS = 4;
        const BENEATH = 8;
        const IN_ROOT = 16;
        const CACHED = 32;
    }
}

/// Flags that go with `O_PATH`.
const WITH_PATH: OpenFlags =
    OpenFlags::PATH.union(OpenFlags::DIRECTORY).union(OpenFlags::NOFOLLOW).union(OpenFlags::CLOEXEC);

/// `open(2)`.
pub(crate) fn open(cx: &mut Cx<'_>, path: UserCStr, flags: u32, mode: u32) -> SysResult<Fd> {
    openat(cx, Fd(AT_FDCWD), path, flags, mode)
}

/// `creat(2)`.
pub(crate) fn creat(cx: &mut Cx<'_>, path: UserCStr, mode: u32) -> SysResult<Fd> {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    openat(cx, Fd(AT_FDCWD), path, flags.bits(), mode)
}

/// `openat(2)`: flags it does not know are ignored.
pub(crate) fn openat(cx: &mut Cx<'_>, dirfd: Fd, path: UserCStr, flags: u32, mode: u32) -> SysResult<Fd> {
    let mut flags = OpenFlags::from_bits_truncate(flags);
    if flags.contains(OpenFlags::PATH) {
        flags &= WITH_PATH;
    }
    let at = At::new(cx, dirfd, path)?;
    finish(cx, &at, flags, mode & 0o7777, WalkFlags::empty())
}

/// `openat2(2)`: everything unknown is refused.
pub(crate) fn openat2(
    cx: &mut Cx<'_>,
    dirfd: Fd,
    path: UserCStr,
    how: UserPtr<OpenHow>,
    size: usize,
) -> SysResult<Fd> {
    let [flags, mode, resolve] = load_how(cx, how, size)?;
    let flags = u32::try_from(flags).ok().and_then(OpenFlags::from_bits).ok_or(Errno::EINVAL)?;
    let resolve = Resolve::from_bits(resolve).ok_or(Errno::EINVAL)?;
    let creates = flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT);
    if resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT)
        || mode & !0o7777 != 0
        || (mode != 0 && !creates)
        || (flags.contains(OpenFlags::PATH) && !WITH_PATH.contains(flags))
    {
        return Err(Errno::EINVAL.into());
    }
    if resolve.contains(Resolve::CACHED) {
        // As if nothing were in a cache: the caller asks again without it.
        return Err(Errno::EAGAIN.into());
    }
    let mut at = At::new(cx, dirfd, path)?;
    if resolve.contains(Resolve::IN_ROOT) {
        // An absolute path does not look at the descriptor otherwise.
        at = At::of(cx, dirfd, [b"./", at.path.as_slice()].concat())?;
        at.enclose();
    }
    let mut walk = WalkFlags::empty();
    walk.set(WalkFlags::NO_XDEV, resolve.contains(Resolve::NO_XDEV));
    walk.set(WalkFlags::NO_MAGICLINKS, resolve.intersects(Resolve::NO_MAGICLINKS | Resolve::NO_SYMLINKS));
    walk.set(WalkFlags::NO_SYMLINKS, resolve.contains(Resolve::NO_SYMLINKS));
    walk.set(WalkFlags::BENEATH, resolve.contains(Resolve::BENEATH));
    finish(cx, &at, flags, mode as u32, walk)
}

/// A structure that may grow: what is beyond our size must be zero.
fn load_how(cx: &Cx<'_>, how: UserPtr<OpenHow>, size: usize) -> SysResult<OpenHow> {
    let known = size_of::<OpenHow>();
    if size < known {
        return Err(Errno::EINVAL.into());
    }
    if size > PAGE_SIZE as usize {
        return Err(Errno::E2BIG.into());
    }
    let mut rest = vec![0u8; size - known];
    let mm = cx.mm();
    let value = mm.load(how)?;
    mm.read(how.addr().checked_add(known as u64).ok_or(Errno::EFAULT)?, &mut rest)?;
    if rest.iter().any(|byte| *byte != 0) { Err(Errno::E2BIG.into()) } else { Ok(value) }
}

fn finish(cx: &Cx<'_>, at: &At, flags: OpenFlags, mode: u32, walk: WalkFlags) -> SysResult<Fd> {
    if flags.contains(OpenFlags::PATH) {
        let file = at.caller().open(&at.path, flags, mode, walk, &cx.services.openers)?;
        return cx.install(file, flags.contains(OpenFlags::CLOEXEC));
    }
    // As on every 64-bit Linux, and shown by F_GETFL.
    let opened = flags | OpenFlags::LARGEFILE;
    let file = at.caller().open(&at.path, opened, mode, walk, &cx.services.openers)?;
    if !flags.contains(OpenFlags::NONBLOCK) {
        meet_peer(cx, &file)?;
    }
    cx.install(file, flags.contains(OpenFlags::CLOEXEC))
}

/// A blocking open of a fifo waits for the other side (`fifo(7)`).
fn meet_peer(cx: &Cx<'_>, file: &Arc<OpenFile>) -> SysResult<()> {
    let Some(end) = file.file().as_any().downcast_ref::<PipeEnd>() else { return Ok(()) };
    let met = || end.peer_seen().then_some(());
    cx.task.wait_for(end.pipe().open_queue(), PollEvents::all(), None, met).map_err(SysError::from)
}
