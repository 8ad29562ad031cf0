//! Calls on donated descriptors. None of them follows a name.

use std::os::fd::AsFd;

use abi::Errno;
use gofer_proto::Attributes;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::Whence;

fn errno(error: nix::Error) -> Errno {
    Errno::from_raw(error as i32).unwrap_or(Errno::EIO)
}

/// An offset or length as the host takes it.
fn signed(value: u64) -> Result<i64, Errno> {
    i64::try_from(value).map_err(|_| Errno::EINVAL)
}

/// `pread(2)`.
pub(crate) fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    nix::sys::uio::pread(file, buffer, signed(offset)?).map_err(errno)
}

/// `pwrite(2)`.
pub(crate) fn write_at(file: impl AsFd, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    nix::sys::uio::pwrite(file, bytes, signed(offset)?).map_err(errno)
}

/// `fstat(2)`.
pub(crate) fn attributes(file: impl AsFd) -> Result<Attributes, Errno> {
    let stat = hostsys::file::stat(file.as_fd())?;
    Attributes::new(stat).map_err(Errno::from)
}

/// `lseek(2)` to data or a hole.
pub(crate) fn seek(file: impl AsFd, offset: u64, whence: Whence) -> Result<u64, Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno::ENXIO)?;
    nix::unistd::lseek(file, offset, whence).map_err(errno).map(i64::cast_unsigned)
}

/// `fsync(2)`, or `fdatasync(2)`.
pub(crate) fn sync(file: impl AsFd, data_only: bool) -> Result<(), Errno> {
    if data_only { nix::unistd::fdatasync(file) } else { nix::unistd::fsync(file) }.map_err(errno)
}

/// `fallocate(2)`.
pub(crate) fn allocate(file: impl AsFd, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
    let mode = FallocateFlags::from_bits(mode.cast_signed()).ok_or(Errno::EOPNOTSUPP)?;
    fallocate(file, mode, signed(offset)?, signed(len)?).map_err(errno)
}

/// Writes at the end, wherever that is by then; the host does both at once (`pwritev2(2)`).
pub(crate) fn append(file: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    hostsys::file::append(file.as_fd(), bytes)
}
