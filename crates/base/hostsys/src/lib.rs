//! Safe wrappers for the host system calls that nix lacks: namespaces, seccomp, memfds, fd passing.
//!
//! - [`file`]: files and messages with descriptors.
//! - [`spawn`]: this program again, as a child in namespaces of its own.
//! - [`namespace`]: which namespaces, and the id maps of a user namespace.
//! - [`mount`]: copies of mounts, and an empty root.
//! - [`privilege`]: giving up capabilities.
//! - [`seccomp`]: allow-lists of system calls.
//! - [`pidfd`]: processes by descriptor.
//! - [`inherit`]: descriptors that came over an `execve(2)`.
//! - [`packet`]: whole frames of an interface.

pub mod file;
pub mod inherit;
pub mod mount;
pub mod namespace;
pub mod packet;
pub mod pidfd;
pub mod privilege;
pub mod seccomp;
pub mod spawn;

use abi::Errno;

/// nix's error number as ours.
fn errno(error: nix::Error) -> Errno {
    Errno::from_raw(error as i32).unwrap_or(Errno::EIO)
}

/// The error of an operation of the standard library as ours; `EIO` when it is none of the host's.
fn io_errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().and_then(Errno::from_raw).unwrap_or(Errno::EIO)
}
