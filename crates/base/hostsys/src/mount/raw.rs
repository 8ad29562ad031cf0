//! The mount calls that nix lacks.
//!
//! # Soundness
//!
//! Paths are NUL-terminated and structures are locals, all alive during the call and not kept by the
//! host. The descriptor that `open_tree` returns is new and ours alone.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use abi::Errno;

use crate::errno;

pub(super) fn open_tree(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let recursive = if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive;
    // SAFETY: the path ends in a NUL.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = i32::try_from(result).unwrap_or(-1);
    if fd < 0 {
        return Err(errno(nix::Error::last()));
    }
    // SAFETY: the host has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes away from a tree and all below it: set-user-id, devices and, when `readonly`, writing.
pub(super) fn restrict(tree: BorrowedFd<'_>, readonly: bool) -> Result<(), Errno> {
    let readonly = if readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | readonly,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is empty, the structure is readable for its length.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(errno(nix::Error::last())) } else { Ok(()) }
}
