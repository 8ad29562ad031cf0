//! Host calls on names and nodes, with the resolution rules of the Gofer built in.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use abi::Errno;
use abi::fs::OpenFlags;
use gofer_proto::{Attributes, Name};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

/// The guest's view of a host error.
pub(crate) fn errno(error: nix::Error) -> Errno {
    Errno::from_raw(error as i32).unwrap_or(Errno::EIO)
}

/// A name as nix takes it.
pub(crate) fn os(name: Name<'_>) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

/// Nothing is followed and nothing is left.
fn beneath() -> ResolveFlag {
    ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS
}

/// How often a lookup that raced with a rename is tried again.
const RACE_RETRIES: usize = 8;

/// A handle of the entry `name` of `dir`; of the link itself when it is a symbolic link. `ENOENT` when
/// the entry was found, but had left the directory before the host looked whether it is beneath.
pub(crate) fn open_child(dir: BorrowedFd<'_>, name: Name<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(beneath());
    for _ in 0..RACE_RETRIES {
        match openat2(dir, os(name), how) {
            Err(nix::Error::EXDEV | nix::Error::EAGAIN) => {}
            other => return other.map_err(errno),
        }
    }
    Err(Errno::ENOENT)
}

/// Creates and opens a regular file that does not exist. One name that must not exist leads nowhere
/// else, so `RESOLVE_BENEATH` is left out: it would fail, the file made, when that is moved at once.
pub(crate) fn create_child(
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    flags: OpenFlags,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let flags = oflags(flags) | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).mode(Mode::from_bits_truncate(mode)).resolve(resolve);
    openat2(dir, os(name), how).map_err(errno)
}

/// Creates and opens a regular file without a name on the file system of `dir`.
pub(crate) fn create_unnamed(dir: BorrowedFd<'_>, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = oflags(OpenFlags::RDWR) | OFlag::O_TMPFILE;
    let how = OpenHow::new().flags(flags).mode(Mode::from_bits_truncate(mode)).resolve(beneath());
    openat2(dir, ".", how).map_err(errno)
}

/// Opens what `node` is a handle of, through `/proc/self/fd`. The one place where a magic link is
/// followed: to a file that is already held, whatever its names are by now.
pub(crate) fn reopen(proc_fd: BorrowedFd<'_>, node: BorrowedFd<'_>, flags: OFlag) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    openat2(proc_fd, link_name(node).as_str(), OpenHow::new().flags(flags)).map_err(errno)
}

/// A handle (`O_PATH`) of an open file.
pub(crate) fn handle_of(proc_fd: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    openat2(proc_fd, link_name(file).as_str(), how).map_err(errno)
}

/// The name of a descriptor's magic link in `/proc/self/fd`.
pub(crate) fn link_name(fd: BorrowedFd<'_>) -> String {
    fd.as_raw_fd().to_string()
}

/// Status flags as the host takes them. `NONBLOCK` is always set: opening must never block.
pub(crate) fn oflags(flags: OpenFlags) -> OFlag {
    let pairs = [
        (OpenFlags::WRONLY, OFlag::O_WRONLY),
        (OpenFlags::RDWR, OFlag::O_RDWR),
        (OpenFlags::TRUNC, OFlag::O_TRUNC),
        (OpenFlags::APPEND, OFlag::O_APPEND),
        (OpenFlags::DSYNC, OFlag::O_DSYNC),
        (OpenFlags::DSYNC.union(OpenFlags::SYNC_BIT), OFlag::O_SYNC),
        (OpenFlags::NOATIME, OFlag::O_NOATIME),
    ];
    pairs
        .into_iter()
        .filter(|(ours, _)| flags.contains(*ours))
        .fold(OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK, |all, (_, host)| all | host)
}

/// `fstat(2)`, checked.
pub(crate) fn attributes(fd: impl AsFd) -> Result<Attributes, Errno> {
    Ok(Attributes::new(hostsys::file::stat(fd.as_fd())?)?)
}
