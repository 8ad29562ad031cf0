//! The system calls behind [`file`](super).
//!
//! # Soundness
//!
//! Every pointer handed to the host is made from a Rust reference or slice in the same function, with
//! that slice's length, and the host keeps none after the call. Descriptors are borrowed for the call.
//! Descriptors received in a control message are new and ours alone, so each is owned once, here.

use std::ffi::CStr;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use abi::Errno;
use abi::fs::StatFs;
use abi::tty::Winsize;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::MAX_FDS;

/// A datagram received.
pub(super) struct Message {
    pub(super) len: usize,
    pub(super) fds: Vec<OwnedFd>,
    pub(super) truncated: bool,
}

pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = (!fds.is_empty()).then_some(ControlMessage::ScmRights(&fds));
    loop {
        let sent = sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            rights.as_slice(),
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Err(nix::Error::EINTR) => {}
            other => return other.map_err(errno),
        }
    }
}

pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Message, Errno> {
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let message = match recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(nix::Error::EINTR) => continue,
            other => other.map_err(errno)?,
        };
        let short = MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC;
        // A truncated control message still delivers the descriptors that fitted, which nix does not
        // list when it reports the truncation; they are few (at most MAX_FDS) and the connection ends.
        let mut truncated = message.flags.intersects(short);
        let mut fds = Vec::new();
        match message.cmsgs() {
            Ok(list) => list.for_each(|control| {
                if let ControlMessageOwned::ScmRights(raw) = control {
                    // SAFETY: the host has just made these descriptors for us; nothing else owns them.
                    fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }),
            Err(_) => truncated = true,
        }
        return Ok(Message { len: message.bytes, fds, truncated });
    }
}

pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    use nix::sys::socket::{SockFlag, accept4};
    loop {
        match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Err(nix::Error::EINTR) => {}
            // SAFETY: the host has just made it for us.
            other => return other.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).map_err(errno),
        }
    }
}

pub(super) fn window_size(terminal: BorrowedFd<'_>) -> Result<Winsize, Errno> {
    // `abi::tty::Winsize` is the host's `struct winsize`, and any bytes are a valid value of it.
    const { assert!(size_of::<Winsize>() == size_of::<libc::winsize>()) };
    let mut size = Winsize::default();
    // SAFETY: `size` is writable and has the size and layout the host writes.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    length(result as isize).map(|_| size)
}

pub(super) fn set_window_size(terminal: BorrowedFd<'_>, size: Winsize) -> Result<(), Errno> {
    const { assert!(size_of::<Winsize>() == size_of::<libc::winsize>()) };
    // SAFETY: `size` is readable and has the size and layout the host reads.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    length(result as isize).map(drop)
}

pub(super) fn getdents64(dir: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer is writable for its length.
    let result = unsafe {
        libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len().min(1 << 20))
    };
    length(result as isize)
}

pub(super) fn append(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the one part is readable for its length, and a write does not change it.
    let result = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, 0, libc::RWF_APPEND) };
    length(result)
}

pub(super) fn fgetxattr(file: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the name ends in a NUL; the value is writable for its length.
    let result =
        unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    length(result)
}

pub(super) fn fsetxattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: i32) -> Result<(), Errno> {
    // SAFETY: the name ends in a NUL; the value is readable for its length.
    let result = unsafe {
        libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    };
    length(result as isize).map(drop)
}

pub(super) fn flistxattr(file: BorrowedFd<'_>, names: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the list is writable for its length.
    let result = unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    length(result)
}

pub(super) fn fremovexattr(file: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    // SAFETY: the name ends in a NUL.
    let result = unsafe { libc::fremovexattr(file.as_raw_fd(), name.as_ptr()) };
    length(result as isize).map(drop)
}

pub(super) fn fstatfs(file: BorrowedFd<'_>) -> Result<StatFs, Errno> {
    // `abi::fs::StatFs` is the host's `struct statfs` of x86-64, of the same size and layout, and any
    // bytes are a valid value of it.
    const { assert!(size_of::<StatFs>() == size_of::<libc::statfs>()) };
    let mut stat = StatFs::default();
    // SAFETY: `stat` is writable and has the size and layout the host writes.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), (&raw mut stat).cast()) };
    length(result as isize).map(|_| stat)
}

/// The result of a call that returns a count, or -1 with `errno`.
fn length(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| errno(nix::Error::last()))
}

pub(super) fn errno(error: nix::Error) -> Errno {
    Errno::from_raw(error as i32).unwrap_or(Errno::EIO)
}
