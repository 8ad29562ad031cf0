//! The system calls behind [`packet`](super).
//!
//! # Soundness
//!
//! Structures are handed over by reference, with their size, for the duration of the call. The descriptor that
//! `socket` returns is new and ours alone.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use abi::Errno;

use crate::errno;

/// A socket that hears nothing yet.
pub(super) fn socket() -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(errno(nix::Error::last()));
    }
    // SAFETY: the host has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets an option whose value is a plain number or structure of the C library.
fn set_any<T>(socket: &OwnedFd, level: i32, name: i32, value: &T) -> Result<(), Errno> {
    let (at, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: `at` points to `len` bytes, which live until the call returns.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, at, len) };
    if result < 0 { Err(errno(nix::Error::last())) } else { Ok(()) }
}

/// Sets a numeric option.
pub(super) fn set(socket: &OwnedFd, level: i32, name: i32, value: &i32) -> Result<(), Errno> {
    set_any(socket, level, name, value)
}

/// Has interface `index` take frames to every group.
pub(super) fn hear_all_groups(socket: &OwnedFd, index: i32) -> Result<(), Errno> {
    let request = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_ALLMULTI as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_any(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// Binds to all protocols on interface `index`.
pub(super) fn bind(socket: &OwnedFd, index: i32) -> Result<(), Errno> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let (at, len) = (std::ptr::from_ref(&address).cast(), size_of_val(&address) as libc::socklen_t);
    // SAFETY: `at` points to `len` bytes, which live until the call returns.
    let result = unsafe { libc::bind(socket.as_raw_fd(), at, len) };
    if result < 0 { Err(errno(nix::Error::last())) } else { Ok(()) }
}
