//! What the system calls need beside the kernel, handed in by whoever boots a sandbox.

use std::sync::Arc;

use anonfs::AnonFs;
use devfs::Randomness;
use ktime::Clock;
use loader::CpuFacts;
use mm::SharedMemory;
use socket::inet::Network;
use socket::netlink::Ports;
use socket::unix::Names;
use tmpfs::TmpFs;
use vfs::DeviceOpener;

use crate::fifos::Openers;
pub use crate::mounts::FileSystemTypes;

/// Parts of a sandbox that only system calls use, as they are handed in. One of each a sandbox.
pub struct Parts {
    /// Makes file systems for `mount(2)`.
    pub file_systems: Arc<dyn FileSystemTypes>,
    /// Opens device nodes that their file system does not open itself.
    pub devices: Arc<dyn DeviceOpener>,
    /// Makes the memory behind shared mappings.
    pub shared_memory: Arc<dyn SharedMemory>,
    /// Random bytes.
    pub random: Arc<dyn Randomness>,
    /// What programs are told of the processor.
    pub cpu: CpuFacts,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The machine the guest is told of.
    pub machine: Machine,
    /// Where the files of `memfd_create(2)` live.
    pub memory_files: Arc<TmpFs>,
    /// Where pipes live.
    pub pipefs: Arc<AnonFs>,
    /// Where eventfd, epoll, timerfd and their like live.
    pub anon: Arc<AnonFs>,
    /// Where sockets live.
    pub sockfs: Arc<AnonFs>,
    /// Interfaces, addresses and ports.
    pub network: Arc<Network>,
}

/// A machine, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processors, at least one.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
}

/// The parts, and what the calls keep themselves.
pub struct Services {
    pub(crate) file_systems: Arc<dyn FileSystemTypes>,
    pub(crate) openers: Openers,
    pub(crate) shared_memory: Arc<dyn SharedMemory>,
    pub(crate) random: Arc<dyn Randomness>,
    pub(crate) cpu: CpuFacts,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) machine: Machine,
    pub(crate) memory_files: Arc<TmpFs>,
    pub(crate) pipefs: Arc<AnonFs>,
    pub(crate) anon: Arc<AnonFs>,
    pub(crate) sockfs: Arc<AnonFs>,
    pub(crate) unix: Arc<Names>,
    pub(crate) netlink: Arc<Ports>,
    pub(crate) network: Arc<Network>,
}

impl Services {
    /// From its parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            file_systems: parts.file_systems,
            openers: Openers::new(parts.devices),
            shared_memory: parts.shared_memory,
            random: parts.random,
            cpu: parts.cpu,
            clock: parts.clock,
            machine: parts.machine,
            memory_files: parts.memory_files,
            pipefs: parts.pipefs,
            anon: parts.anon,
            sockfs: parts.sockfs,
            unix: Names::new(),
            netlink: Ports::new(),
            network: parts.network,
        }
    }
}
