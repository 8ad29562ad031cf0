//! A guest by hand: a kernel over the fake backend, a tmpfs root, and calls by name.

use std::sync::Arc;

use abi::Errno;
use anonfs::AnonFs;
use guestmem::{UserAddr, UserMem};
use kernel::fake::{Thread, boot_with};
use kernel::{Kernel, SharedFs, Task};
use loader::CpuFacts;
use platform::Resume;
use tmpfs::{HeapMemory, Options, TmpFs};
use vfs::{FdTable, FsContext, Mount, MountFlags, MountNamespace, NoDevices};

use crate::dispatch::X86Calls;
use crate::services::{FileSystemTypes, Machine, Parts, Services};

/// Where the guest of a test keeps its data.
pub(crate) const DATA: u64 = 0x10_0000;

/// Objects without bytes: the fake backend's memory has no pages.
struct NoPages;

impl mm::SharedMemory for NoPages {
    fn create(&self, _: u64) -> Result<Arc<dyn memmap::Mappable>, Errno> {
        Ok(Arc::new(Self))
    }
}

impl memmap::Mappable for NoPages {
    fn backing(&self, _: memmap::MapRequest) -> Result<memmap::Backing, Errno> {
        Ok(memmap::Backing::Anonymous)
    }

    fn identity(&self) -> memmap::MapIdentity {
        memmap::MapIdentity::default()
    }
}

struct Zeroes;

impl devfs::Randomness for Zeroes {
    fn fill(&self, buf: &mut [u8]) -> vfs::Result<()> {
        buf.fill(0);
        Ok(())
    }
}

struct NoTypes;

impl FileSystemTypes for NoTypes {
    fn make(&self, _: &Task, _: &[u8], _: &[u8]) -> vfs::Result<Arc<dyn vfs::FileSystem>> {
        Err(Errno::ENODEV)
    }
}

/// One process.
pub(crate) struct Guest {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) thread: Thread,
    pub(crate) task: Arc<Task>,
    _mounts: Arc<MountNamespace>,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let small = |dev| TmpFs::new(Options { size: 64 << 20, ..Options::new(dev) }, Arc::new(HeapMemory));
        let fs = small(1);
        let mounts = MountNamespace::new(Mount::new(fs, "none", MountFlags::empty()));
        let calls = X86Calls::new();
        calls.provide(Services::new(Parts {
            file_systems: Arc::new(NoTypes),
            shared_memory: Arc::new(NoPages),
            random: Arc::new(Zeroes),
            cpu: CpuFacts { hwcap: 0, hwcap2: 0, min_signal_stack: 4096 },
            clock: Arc::new(ktime::HostClock::default()),
            machine: Machine { cpus: 4, memory: 1 << 30 },
            memory_files: small(4),
            pipefs: AnonFs::pipefs(2),
            anon: AnonFs::anon_inodefs(3),
            sockfs: AnonFs::sockfs(4),
            network: socket::inet::Network::loopback(),
            devices: Arc::new(NoDevices),
        }));
        let fs = SharedFs::new(FsContext::new(&mounts));
        let (kernel, thread) = boot_with(calls, Arc::new(FdTable::new()), fs);
        let task = kernel.task(1).expect("the first process");
        Self { kernel, thread, task, _mounts: mounts }
    }

    /// Makes call `nr`.
    pub(crate) fn call<const N: usize>(&mut self, nr: u32, args: [u64; N]) -> Result<u64, Errno> {
        let mut all = [0; 6];
        all[..N].copy_from_slice(&args);
        let value = match self.thread.call(u64::from(nr), all) {
            Resume::Return(value) => value,
            other => panic!("call {nr} ended with {other:?}"),
        };
        match Errno::from_raw(-(value as i64) as i32) {
            Some(errno) if (value as i64) < 0 => Err(errno),
            _ => Ok(value),
        }
    }

    /// Puts bytes at `at`.
    pub(crate) fn put(&self, at: u64, bytes: &[u8]) -> u64 {
        self.task.mm().write(UserAddr(at), bytes).expect("mapped");
        at
    }

    /// Puts a string with its NUL into a place of its own (by `slot`).
    pub(crate) fn path(&self, slot: u64, path: &str) -> u64 {
        let at = DATA + 0x10_0000 + slot * 0x2000;
        self.put(at, path.as_bytes());
        self.put(at + path.len() as u64, &[0]);
        at
    }

    /// Bytes at `at`.
    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.task.mm().read(UserAddr(at), &mut bytes).expect("mapped");
        bytes
    }
}
