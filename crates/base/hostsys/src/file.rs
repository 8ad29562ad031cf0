//! Host files and the messages that carry their descriptors: what nix lacks or does not own.
//!
//! Key functions: [`send_message`] and [`receive_message`] (one datagram of a Unix socket, with
//! descriptors as [`OwnedFd`]), [`read_dir`] with [`dir_entries`] (`getdents64(2)`), extended
//! attributes of an open file, and `fstatfs(2)` with all its fields. Everything returns the host's
//! errno. `EINTR` is retried in the message functions only; the others are not interruptible in
//! practice.

mod raw;

use std::os::fd::{BorrowedFd, OwnedFd};

use abi::Errno;
use abi::fs::{Stat, StatFs};
use abi::time::Timespec;
use abi::tty::Winsize;

/// Most descriptors in one message received.
pub const MAX_FDS: usize = 16;

/// What [`receive_message`] got.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the datagram; 0 when the other side is gone.
    pub len: usize,
    /// Descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Sends one datagram, with a descriptor beside it when there is one (`sendmsg(2)`, `unix(7)`).
/// Blocks while the other side does not read. `EPIPE` without a signal when it is gone.
pub fn send_message(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    send_message_with(socket, bytes, fd.as_slice())
}

/// As [`send_message`], with any number of descriptors; a receiver of ours takes at most [`MAX_FDS`].
pub fn send_message_with(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let sent = raw::send(socket, bytes, fds)?;
    if sent == bytes.len() { Ok(()) } else { Err(Errno::EMSGSIZE) }
}

/// Receives one datagram into `buffer` (`recvmsg(2)`). `EMSGSIZE` when the buffer or [`MAX_FDS`] is too
/// small for it; the connection is then to be given up.
pub fn receive_message(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    let raw::Message { len, fds, truncated } = raw::receive(socket, buffer)?;
    if truncated { Err(Errno::EMSGSIZE) } else { Ok(Received { len, fds }) }
}

/// Accepts a connection of a listening socket (`accept4(2)`), close-on-exec.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    raw::accept(listener)
}

/// The size of a terminal's window (`TIOCGWINSZ`, `ioctl_tty(2)`). `ENOTTY` for what is none.
pub fn window_size(terminal: BorrowedFd<'_>) -> Result<Winsize, Errno> {
    raw::window_size(terminal)
}

/// Sets the size of a terminal's window (`TIOCSWINSZ`, `ioctl_tty(2)`).
pub fn set_window_size(terminal: BorrowedFd<'_>, size: Winsize) -> Result<(), Errno> {
    raw::set_window_size(terminal, size)
}

/// An entry of a directory, as the host gives it (`getdents(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostDirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Offset at which the next entry is found.
    pub next: i64,
    /// `DT_*`, 0 when unknown.
    pub d_type: u8,
    /// Name, without its NUL.
    pub name: &'a [u8],
}

/// Reads entries from the position of an open directory; returns how many bytes of `buffer` hold them,
/// 0 at the end. See [`dir_entries`].
pub fn read_dir(dir: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    raw::getdents64(dir, buffer)
}

/// The entries in bytes filled by [`read_dir`]. Ends at the first that is malformed.
pub fn dir_entries(bytes: &[u8]) -> impl Iterator<Item = HostDirEntry<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let ino = u64::from_ne_bytes(*rest.first_chunk()?);
        let next = i64::from_ne_bytes(*rest.get(8..)?.first_chunk()?);
        let reclen = usize::from(u16::from_ne_bytes(*rest.get(16..)?.first_chunk()?));
        let d_type = *rest.get(18)?;
        let name = rest.get(19..reclen)?;
        let name = name.get(..name.iter().position(|&b| b == 0)?)?;
        rest = rest.get(reclen..)?;
        Some(HostDirEntry { ino, next, d_type, name })
    })
}

/// `fgetxattr(2)`: the value, at most `max` bytes (`ERANGE` when it is longer).
pub fn get_xattr(file: BorrowedFd<'_>, name: &[u8], max: usize) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; max];
    let len = raw::fgetxattr(file, &c_string(name)?, &mut value)?;
    value.truncate(len);
    Ok(value)
}

/// `fsetxattr(2)` with `XATTR_*` flags.
pub fn set_xattr(file: BorrowedFd<'_>, name: &[u8], value: &[u8], flags: i32) -> Result<(), Errno> {
    raw::fsetxattr(file, &c_string(name)?, value, flags)
}

/// `flistxattr(2)`: the names, each with its NUL, at most `max` bytes (`ERANGE`).
pub fn list_xattr(file: BorrowedFd<'_>, max: usize) -> Result<Vec<u8>, Errno> {
    let mut names = vec![0; max];
    let len = raw::flistxattr(file, &mut names)?;
    names.truncate(len);
    Ok(names)
}

/// `fremovexattr(2)`.
pub fn remove_xattr(file: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    raw::fremovexattr(file, &c_string(name)?)
}

/// `fstat(2)`; works on an `O_PATH` descriptor too.
pub fn stat(file: BorrowedFd<'_>) -> Result<Stat, Errno> {
    let host = nix::sys::stat::fstat(file).map_err(raw::errno)?;
    let time = |sec, nsec| Timespec { sec, nsec };
    Ok(Stat {
        dev: host.st_dev,
        ino: host.st_ino,
        nlink: host.st_nlink,
        mode: host.st_mode,
        uid: host.st_uid,
        gid: host.st_gid,
        rdev: host.st_rdev,
        size: host.st_size,
        blksize: host.st_blksize,
        blocks: host.st_blocks,
        atime: time(host.st_atime, host.st_atime_nsec),
        mtime: time(host.st_mtime, host.st_mtime_nsec),
        ctime: time(host.st_ctime, host.st_ctime_nsec),
        ..Stat::default()
    })
}

/// Writes at the end of a file, whatever flags it was opened with (`pwritev2(2)`, `RWF_APPEND`).
pub fn append(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    raw::append(file, bytes)
}

/// `fstatfs(2)`.
pub fn statfs(file: BorrowedFd<'_>) -> Result<StatFs, Errno> {
    raw::fstatfs(file)
}

fn c_string(name: &[u8]) -> Result<std::ffi::CString, Errno> {
    std::ffi::CString::new(name).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::{MAX_FDS, dir_entries, read_dir, receive_message, send_message, statfs};
    use abi::Errno;
    use std::io::Read;
    use std::os::fd::{AsFd, OwnedFd};

    fn pair() -> (OwnedFd, OwnedFd) {
        nix::sys::socket::socketpair(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::SeqPacket,
            None,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        )
        .expect("socketpair")
    }

    #[test]
    fn a_descriptor_travels_with_its_message() {
        let (a, b) = pair();
        let mut file = tempfile::tempfile().expect("tempfile");
        std::io::Write::write_all(&mut file, b"inside").expect("write");
        std::io::Seek::rewind(&mut file).expect("seek");
        send_message(a.as_fd(), b"hello", Some(file.as_fd())).expect("send");
        let mut buffer = [0; 16];
        let mut received = receive_message(b.as_fd(), &mut buffer).expect("receive");
        assert_eq!(&buffer[..received.len], b"hello");
        assert_eq!(received.fds.len(), 1);
        let mut text = String::new();
        let fd = received.fds.pop().expect("fd");
        std::fs::File::from(fd).read_to_string(&mut text).expect("read");
        assert_eq!(text, "inside");
        super::send_message_with(a.as_fd(), b"two", &[b.as_fd(), a.as_fd()]).expect("send");
        assert_eq!(receive_message(b.as_fd(), &mut buffer).expect("receive").fds.len(), 2);
        drop(a);
        assert_eq!(receive_message(b.as_fd(), &mut buffer).expect("receive").len, 0);
    }

    #[test]
    fn too_long_a_message_is_an_error() {
        let (a, b) = pair();
        send_message(a.as_fd(), &[7; 32], Some(a.as_fd())).expect("send");
        assert_eq!(receive_message(b.as_fd(), &mut [0; 8]).err(), Some(Errno::EMSGSIZE));
        const { assert!(MAX_FDS >= 1) };
    }

    #[test]
    fn directories_are_read_whole() {
        let dir = tempfile::tempdir().expect("tempdir");
        for index in 0..300 {
            std::fs::write(dir.path().join(format!("file{index}")), b"").expect("write");
        }
        let fd = std::fs::File::open(dir.path()).expect("open");
        let (mut seen, mut buffer) = (Vec::new(), [0; 1024]);
        loop {
            let len = read_dir(fd.as_fd(), &mut buffer).expect("getdents64");
            if len == 0 {
                break;
            }
            seen.extend(dir_entries(&buffer[..len]).map(|entry| entry.name.to_vec()));
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 302);
    }

    #[test]
    fn malformed_entries_end_the_list() {
        for len in 0..64 {
            assert!(dir_entries(&vec![0xff; len]).next().is_none());
            assert!(dir_entries(&vec![0; len]).next().is_none());
        }
    }

    #[test]
    fn statfs_has_a_block_size() {
        let file = tempfile::tempfile().expect("tempfile");
        assert!(statfs(file.as_fd()).expect("statfs").bsize > 0);
    }
}
