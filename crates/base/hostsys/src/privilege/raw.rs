//! The `prctl(2)` operations behind [`privilege`](super).
//!
//! # Soundness
//!
//! All arguments are numbers.

use abi::Errno;

use crate::errno;

pub(super) fn in_bounding_set(capability: u32) -> Result<bool, Errno> {
    prctl(libc::PR_CAPBSET_READ, capability).map(|is| is != 0)
}

pub(super) fn drop_from_bounding_set(capability: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, capability).map(drop)
}

fn prctl(operation: libc::c_int, capability: u32) -> Result<libc::c_int, Errno> {
    // SAFETY: both operations take numbers only.
    let result = unsafe { libc::prctl(operation, libc::c_ulong::from(capability), 0, 0, 0) };
    if result < 0 { Err(errno(nix::Error::last())) } else { Ok(result) }
}
