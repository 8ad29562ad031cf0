//! Shared anonymous memory as sealed memfds of the host: the usual [`SharedMemory`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use abi::mm::Prot;
use memmap::{Backing, HostObject, MapIdentity, MapRequest, Mappable};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use crate::SharedMemory;

/// Makes a memfd for each shared anonymous mapping (`memfd_create(2)`). Its size is sealed, so that no
/// guest process can take pages away under the Sentry or another.
#[derive(Debug, Default)]
pub struct Memfds {
    next_ino: AtomicU64,
}

impl Memfds {
    /// None made yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

impl SharedMemory for Memfds {
    fn create(&self, len: u64) -> Result<Arc<dyn Mappable>, Errno> {
        let host = |errno: nix::Error| Errno::from_raw(errno as i32).unwrap_or(Errno::ENOMEM);
        let size = i64::try_from(len).map_err(|_| Errno::ENOMEM)?;
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd_create(c"shared", flags).map_err(host)?;
        ftruncate(&fd, size).map_err(host)?;
        let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(host)?;
        // Inode numbers as of files that were made and deleted at once.
        let ino = self.next_ino.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        Ok(Arc::new(Memfd { object: HostObject::new(fd, Prot::all()), ino }))
    }
}

/// One object.
struct Memfd {
    object: Arc<HostObject>,
    ino: u64,
}

impl Mappable for Memfd {
    fn backing(&self, request: MapRequest) -> Result<Backing, Errno> {
        Ok(Backing::Host { object: Arc::clone(&self.object), offset: request.offset })
    }

    fn identity(&self) -> MapIdentity {
        MapIdentity { dev: abi::fs::make_dev(0, 1), ino: self.ino, name: b"/dev/zero (deleted)".to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use abi::mm::Prot;
    use memmap::{Backing, MapRequest};

    use super::Memfds;
    use crate::SharedMemory;

    #[test]
    fn an_object_has_its_size_for_good() {
        let memory = Memfds::new().create(8192).unwrap();
        let request = MapRequest { offset: 4096, len: 4096, shared: true, max_prot: Prot::all() };
        let Backing::Host { object, offset } = memory.backing(request).unwrap() else { panic!("a memfd") };
        assert_eq!(offset, 4096);
        let file = File::from(object.as_fd().try_clone_to_owned().unwrap());
        assert_eq!(file.metadata().unwrap().len(), 8192);
        assert!(file.set_len(1).is_err() && file.set_len(1 << 20).is_err());
        assert_eq!(memory.identity().name, b"/dev/zero (deleted)");
    }
}
