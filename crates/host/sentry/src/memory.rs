//! Host memory for tmpfs: one memfd a file.
//!
//! Unlike the memory of shared anonymous mappings, these grow and shrink with the file, so their size is
//! not sealed: the Sentry never maps them, it only reads and writes them by descriptor, and a guest that
//! touches a page beyond the end gets the `SIGBUS` Linux gives.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use abi::Errno;
use abi::mm::Prot;
use memmap::HostObject;
use nix::fcntl::FallocateFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use tmpfs::{MemoryProvider, SharedMemory};

/// Makes memfds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostMemory;

impl MemoryProvider for HostMemory {
    fn create(&self) -> vfs::Result<Arc<dyn SharedMemory>> {
        let fd = memfd_create(c"tmpfs", MFdFlags::MFD_CLOEXEC).map_err(|_| Errno::ENOMEM)?;
        let file = File::from(fd.try_clone().map_err(|_| Errno::ENOMEM)?);
        Ok(Arc::new(Memfd { object: HostObject::new(fd, Prot::all()), file }))
    }
}

struct Memfd {
    object: Arc<HostObject>,
    /// The same memfd, for reads and writes by offset.
    file: File,
}

/// The errno of a host error on memory of our own: what is not said by the host is a lack of memory.
fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().and_then(Errno::from_raw).unwrap_or(Errno::ENOMEM)
}

impl SharedMemory for Memfd {
    fn object(&self) -> Option<Arc<HostObject>> {
        Some(Arc::clone(&self.object))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> vfs::Result<()> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(n) => done += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> vfs::Result<()> {
        self.file.write_all_at(buf, offset).map_err(|error| errno(&error))
    }

    fn punch(&self, offset: u64, len: u64) -> vfs::Result<()> {
        let (offset, len) = (i64::try_from(offset), i64::try_from(len));
        let (Ok(offset), Ok(len)) = (offset, len) else { return Err(Errno::EFBIG) };
        let mode = FallocateFlags::FALLOC_FL_KEEP_SIZE | FallocateFlags::FALLOC_FL_PUNCH_HOLE;
        nix::fcntl::fallocate(self.file.as_fd(), mode, offset, len)
            .map_err(|error| Errno::from_raw(error as i32).unwrap_or(Errno::ENOMEM))
    }

    fn set_len(&self, size: u64) -> vfs::Result<()> {
        nix::unistd::ftruncate(self.file.as_fd(), i64::try_from(size).map_err(|_| Errno::EFBIG)?)
            .map_err(|error| Errno::from_raw(error as i32).unwrap_or(Errno::ENOMEM))
    }
}

#[cfg(test)]
mod tests {
    use tmpfs::MemoryProvider;

    use super::HostMemory;

    #[test]
    fn what_is_written_is_read_and_the_rest_is_zero() {
        let memory = HostMemory.create().expect("a memfd");
        memory.write_at(4094, b"abcd").expect("room");
        let mut buf = [9; 8];
        memory.read_at(4093, &mut buf).expect("there");
        assert_eq!(&buf, b"\0abcd\0\0\0");
        memory.set_len(4095).expect("shrinks");
        memory.read_at(4094, &mut buf).expect("there");
        assert_eq!(&buf, b"a\0\0\0\0\0\0\0");
        memory.write_at(0, &[1; 5]).expect("room");
        memory.punch(1, 2).expect("a hole");
        memory.read_at(0, &mut buf).expect("there");
        assert_eq!(&buf, b"\x01\0\0\x01\x01\0\0\0");
        assert!(memory.object().is_some());
    }
}
