//! The system calls behind [`pidfd`](super).
//!
//! # Soundness
//!
//! Arguments are numbers and a borrowed descriptor; no memory is handed over. The descriptor that
//! `pidfd_open` returns is new and ours alone.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use abi::Errno;

use crate::errno;

pub(super) fn open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(result).unwrap_or(-1);
    if fd < 0 {
        return Err(errno(nix::Error::last()));
    }
    // SAFETY: the host has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn send_signal(process: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no siginfo is given, so that no memory is involved.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, none, 0) };
    if result < 0 { Err(errno(nix::Error::last())) } else { Ok(()) }
}
