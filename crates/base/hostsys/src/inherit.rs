//! Descriptors that came over an `execve(2)`, known by their numbers only.

mod raw;

use std::os::fd::{OwnedFd, RawFd};

use abi::Errno;
use nix::fcntl::{F_SETFD, FdFlag, fcntl};

use crate::errno;

/// Takes ownership of an inherited descriptor, once, and makes it close-on-exec.
///
/// `EBADF` when there is none of that number or it is one of the standard ones; `EBUSY` when it is
/// close-on-exec: then it was taken before, or opened since, by somebody who owns it.
pub fn take(number: RawFd) -> Result<OwnedFd, Errno> {
    if number <= libc::STDERR_FILENO {
        return Err(Errno::EBADF);
    }
    if raw::descriptor_flags(number)?.contains(FdFlag::FD_CLOEXEC) {
        return Err(Errno::EBUSY);
    }
    let fd = raw::own(number);
    fcntl(&fd, F_SETFD(FdFlag::FD_CLOEXEC)).map_err(errno)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::take;
    use abi::Errno;
    use nix::fcntl::{F_SETFD, FdFlag, fcntl};
    use std::os::fd::{AsRawFd, IntoRawFd};

    #[test]
    fn only_once_and_never_what_somebody_owns() {
        let file = tempfile::tempfile().expect("tempfile");
        assert_eq!(take(file.as_raw_fd()).err(), Some(Errno::EBUSY));
        fcntl(&file, F_SETFD(FdFlag::empty())).expect("as if inherited");
        let number = file.into_raw_fd();
        let taken = take(number).expect("takes");
        assert_eq!(taken.as_raw_fd(), number);
        assert_eq!(take(number).err(), Some(Errno::EBUSY));
        assert_eq!(take(2).err(), Some(Errno::EBADF));
        assert_eq!(take(1 << 20).err(), Some(Errno::EBADF));
    }
}
