//! What the system calls of this sandbox need beside its kernel.

use std::sync::Arc;

use anonfs::AnonFs;
use devfs::Randomness;
use vfs::{Attr, DeviceOpener, File, FileContext, VfsPath};

use abi::fs::{FileType, OpenFlags, make_dev};
use syscalls::services::Services;

/// Opens the memory devices by number, for nodes that `mknod(2)` made.
struct Devices {
    random: Arc<dyn Randomness>,
}

impl DeviceOpener for Devices {
    fn open(
        &self,
        _cx: &FileContext<'_>,
        _path: &VfsPath,
        attr: &Attr,
        _flags: OpenFlags,
    ) -> vfs::Result<Arc<dyn File>> {
        match attr.kind {
            FileType::CharDevice => devfs::devices::open_memory(attr.rdev, &self.random),
            _ => Err(abi::Errno::ENXIO),
        }
    }
}

/// Puts them together.
pub(crate) fn services(random: Arc<dyn Randomness>) -> Services {
    Services {
        pipefs: AnonFs::pipefs(make_dev(0, 10)),
        anon: AnonFs::anon_inodefs(make_dev(0, 11)),
        devices: Arc::new(Devices { random }),
    }
}
