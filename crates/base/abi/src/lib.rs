//! The Linux x86-64 user ABI as Rust types.
//!
//! One module a family; each says which header or man page it follows. Constants come from
//! `linux-raw-sys` (re-exported as [`raw`]); structures that cross the guest boundary are declared
//! here because they need `zerocopy` bounds, and flags are `bitflags` so that a handler can refuse
//! an unknown bit in its first line.
//!
//! Deliberately absent: anything that depends on the *host's* C library. These are the guest's
//! layouts, and they do not change with the machine the Sentry is built on.
#![forbid(unsafe_code)]

pub mod errno;
pub mod fs;
pub mod ioctl;
pub mod limits;
pub mod mm;
pub mod poll;
pub mod process;
pub mod signal;
pub mod socket;
pub mod syscall;
pub mod time;
pub mod tty;

pub use errno::{Errno, Restart, SysError, SysResult};
pub use linux_raw_sys as raw;

/// Bytes in a page. x86-64 has no other base page size.
pub const PAGE_SIZE: u64 = 4096;
/// `log2(PAGE_SIZE)`.
pub const PAGE_SHIFT: u32 = 12;

/// Rounds down to a page boundary.
pub const fn page_down(value: u64) -> u64 {
    value & !(PAGE_SIZE - 1)
}

/// Rounds up to a page boundary, or `None` when that does not fit in 64 bits.
pub const fn page_up(value: u64) -> Option<u64> {
    match value.checked_add(PAGE_SIZE - 1) {
        Some(v) => Some(page_down(v)),
        None => None,
    }
}
