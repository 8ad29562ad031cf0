//! What the system calls of this sandbox need beside its kernel.

use std::sync::Arc;
use std::time::Duration;

use abi::Errno;
use abi::fs::{FileType, OpenFlags, make_dev};
use anonfs::AnonFs;
use devfs::{Drivers, Randomness};
use kernel::Task;
use ktime::HostClock;
use loader::CpuFacts;
use mm::Memfds;
use nix::time::ClockId;
use socket::inet::Network;
use syscalls::services::{FileSystemTypes, Machine, Parts, Services};
use tmpfs::TmpFs;
use vfs::{Attr, DeviceOpener, File, FileContext, FileSystem, VfsPath};

use crate::memory::HostMemory;
use crate::tree::Materials;

/// Opens devices by number.
struct Devices(Drivers);

impl DeviceOpener for Devices {
    fn open(
        &self,
        cx: &FileContext<'_>,
        _path: &VfsPath,
        attr: &Attr,
        flags: OpenFlags,
    ) -> vfs::Result<Arc<dyn File>> {
        match attr.kind {
            FileType::CharDevice => self.0.open(cx, attr.rdev, flags),
            _ => Err(Errno::ENXIO),
        }
    }
}

/// What `mount(2)` can make.
struct Types(Arc<Materials>);

impl FileSystemTypes for Types {
    fn make(&self, task: &Task, name: &[u8], options: &[u8]) -> vfs::Result<Arc<dyn FileSystem>> {
        let options = String::from_utf8_lossy(options);
        let options: Vec<String> = options.split(',').map(str::to_owned).collect();
        match name {
            b"proc" => Ok(self.0.proc(&task.children_pid_ns())?),
            b"sysfs" => Ok(self.0.sys()),
            b"mqueue" => Ok(self.0.tmpfs("mqueue", &options)),
            b"devpts" => Ok(self.0.devpts()),
            b"tmpfs" | b"ramfs" => Ok(self.0.tmpfs("tmpfs", &options)),
            _ => Err(Errno::ENODEV),
        }
    }
}

/// Puts them together.
pub(crate) fn services(
    materials: &Arc<Materials>,
    random: Arc<dyn Randomness>,
    cpu: CpuFacts,
    machine: Machine,
    network: Arc<Network>,
) -> Services {
    Services::new(Parts {
        file_systems: Arc::new(Types(Arc::clone(materials))),
        devices: Arc::new(Devices(materials.drivers())),
        shared_memory: Memfds::new(),
        random,
        cpu,
        clock: Arc::new(host_clock()),
        machine,
        memory_files: TmpFs::new(tmpfs::Options::new(make_dev(0, 12)), Arc::new(HostMemory)),
        pipefs: AnonFs::pipefs(make_dev(0, 10)),
        anon: AnonFs::anon_inodefs(make_dev(0, 11)),
        sockfs: AnonFs::sockfs(make_dev(0, 12)),
        network,
    })
}

/// The host's clocks. Futexes of guests wait by the host's monotonic one, so theirs has its zero.
fn host_clock() -> HostClock {
    let read = |clock| nix::time::clock_gettime(clock).map(Duration::from).unwrap_or_default();
    HostClock::new(read(ClockId::CLOCK_MONOTONIC), read(ClockId::CLOCK_BOOTTIME))
}
