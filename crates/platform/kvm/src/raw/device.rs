//! The device, which somebody else has opened.
//!
//! # Soundness
//! A descriptor that is owned here goes over to its new owner. That it may be of anything is no matter of memory: it
//! is only asked what it is before it is used.

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use kvm_ioctls::Kvm;

/// The device that `fd` should be.
pub(crate) fn of(fd: OwnedFd) -> Kvm {
    // SAFETY: an open descriptor that nobody else owns.
    unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) }
}
