//! Making an owned descriptor from a number.
//!
//! # Soundness
//!
//! Everything in this process that owns a descriptor made it close-on-exec: the standard library, nix as
//! we call it, and this crate all do. One that is not has therefore come over an `execve(2)`, and no value
//! owns it. [`take`](super::take) sets the flag, so that it owns none twice; it is called while the
//! process has one thread.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use abi::Errno;
use nix::fcntl::FdFlag;

use crate::errno;

pub(super) fn descriptor_flags(number: RawFd) -> Result<FdFlag, Errno> {
    // SAFETY: reads the flags of whatever it is; no memory is involved.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 { Err(errno(nix::Error::last())) } else { Ok(FdFlag::from_bits_retain(flags)) }
}

pub(super) fn own(number: RawFd) -> OwnedFd {
    // SAFETY: it is open and nobody owns it, see the module.
    unsafe { OwnedFd::from_raw_fd(number) }
}
