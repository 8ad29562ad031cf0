//! A backend that runs nothing: tests make the traps by hand. Also for the tests of crates above, with
//! feature `fake`.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use abi::limits::Limits;
use abi::{Errno, SysResult};
use cred::Credentials;
use guestmem::{Fault, UserAddr, UserMem};
use memmap::Mappable;
use mm::{Layout, MemoryManager, MmLimits, SharedMemory};
use platform::space::MemoryUse;
use platform::{
    AddressSpace, Features, GuestThread, MapError, MapOp, NewThread, Platform, PlatformError, Registers,
    Resume, SyscallTrap, ThreadHandle, Trap, TrapHandler,
};

use crate::{FileTable, FirstProcess, FsView, Kernel, Parts, SyscallTable, Task};

/// Bytes anywhere but in the first page. Its processes use a processor all the time.
pub struct Space(Mutex<HashMap<u64, u8>>, Instant);

impl Default for Space {
    fn default() -> Self {
        Self(Mutex::default(), Instant::now())
    }
}

impl Space {
    fn bytes(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most bytes a guest of a test writes.
const MAX_BYTES: usize = 8 << 20;

/// Where there is memory: below 16 MiB but for the first page, and around the stacks of tests.
fn check(addr: UserAddr, len: usize) -> Result<(), Fault> {
    let regions = [0x1000..0x100_0000, 0x6000_0000..0x6100_0000, 0x6f00_0000..0x7200_0000];
    let end = addr.0.saturating_add(len as u64);
    let there = regions.iter().any(|region| region.start <= addr.0 && end <= region.end);
    if there { Ok(()) } else { Err(Fault { copied: 0 }) }
}

impl UserMem for Space {
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
        check(addr, buf.len())?;
        let bytes = self.bytes();
        for (index, byte) in buf.iter_mut().enumerate() {
            *byte = bytes.get(&(addr.0 + index as u64)).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        check(addr, buf.len())?;
        let mut bytes = self.bytes();
        if bytes.len().saturating_add(buf.len()) > MAX_BYTES {
            return Err(Fault { copied: 0 });
        }
        bytes.extend(buf.iter().enumerate().map(|(index, byte)| (addr.0 + index as u64, *byte)));
        Ok(())
    }

    fn compare_exchange_u32(&self, addr: UserAddr, old: u32, new: u32) -> Result<u32, Fault> {
        let mut word = [0; 4];
        self.read(addr, &mut word)?;
        let found = u32::from_le_bytes(word);
        if found == old {
            self.write(addr, &new.to_le_bytes())?;
        }
        Ok(found)
    }
}

impl AddressSpace for Space {
    fn apply(&self, _: &[MapOp]) -> Result<(), MapError> {
        Ok(())
    }

    fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        self.write(addr, buf)
    }

    fn memory_use(&self) -> MemoryUse {
        MemoryUse::default()
    }

    fn resident_pages(&self, _: UserAddr, pages: usize) -> Result<Vec<bool>, Errno> {
        Ok(vec![true; pages])
    }

    fn map_vdso(&self, addr: UserAddr) -> Result<(UserAddr, u64), MapError> {
        Ok((addr, 4096))
    }

    fn futex_wake(&self, _: UserAddr, _: u32, _: u32) -> Result<u32, Errno> {
        Ok(0)
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        (self.1.elapsed(), Duration::ZERO)
    }
}

struct Handle;

impl ThreadHandle for Handle {
    fn interrupt(&self) {}
    fn kill_process(&self) {}
    fn cpu_time(&self) -> (Duration, Duration) {
        Default::default()
    }
}

/// A guest thread, stopped for ever until a test traps it.
pub struct Thread {
    /// Its registers.
    pub registers: Registers,
    space: Arc<dyn AddressSpace>,
    handler: Arc<dyn TrapHandler>,
    /// What it made, newest last.
    pub children: Vec<Self>,
}

impl Thread {
    fn start(space: Arc<dyn AddressSpace>, new: NewThread) -> Self {
        new.handler.started(Arc::new(Handle));
        Self { registers: new.registers, space, handler: new.handler, children: Vec::new() }
    }

    /// Makes a system call.
    pub fn call(&mut self, nr: u64, args: [u64; 6]) -> Resume {
        self.registers.orig_rax = nr;
        self.registers.rip += 2;
        let ip = self.registers.rip;
        self.trap(Trap::Syscall(SyscallTrap { nr, args, ip }))
    }

    /// Traps.
    pub fn trap(&mut self, trap: Trap) -> Resume {
        let handler = Arc::clone(&self.handler);
        handler.trap(self, trap)
    }

    fn child(&mut self, space: Arc<dyn AddressSpace>, new: NewThread) -> Arc<dyn ThreadHandle> {
        self.children.push(Self::start(space, new));
        Arc::new(Handle)
    }
}

impl GuestThread for Thread {
    fn registers(&mut self) -> Result<Registers, PlatformError> {
        Ok(self.registers)
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), PlatformError> {
        self.registers = *registers;
        Ok(())
    }

    fn fp_state(&mut self) -> Result<Vec<u8>, PlatformError> {
        Ok(vec![0; 832])
    }

    fn set_fp_state(&mut self, _: &[u8]) -> Result<(), PlatformError> {
        Ok(())
    }

    fn reset_fp_state(&mut self) -> Result<(), PlatformError> {
        Ok(())
    }

    fn address_space(&self) -> Arc<dyn AddressSpace> {
        Arc::clone(&self.space)
    }

    fn clone_thread(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError> {
        let space = Arc::clone(&self.space);
        Ok(self.child(space, new))
    }

    fn clone_shared(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError> {
        self.clone_thread(new)
    }

    fn fork(
        &mut self,
        new: NewThread,
    ) -> Result<(Arc<dyn AddressSpace>, Arc<dyn ThreadHandle>), PlatformError> {
        let space: Arc<dyn AddressSpace> = Arc::new(Space::default());
        Ok((Arc::clone(&space), self.child(space, new)))
    }

    fn exec_into(&mut self, space: Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        self.space = space;
        Ok(())
    }

    fn handle(&self) -> Arc<dyn ThreadHandle> {
        Arc::new(Handle)
    }
}

/// Keeps what is spawned.
#[derive(Default)]
pub struct Backend(Mutex<Vec<Thread>>);

impl Platform for Backend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn features(&self) -> Features {
        Features {
            min_address: 0x1_0000,
            max_address: 0x7fff_ffff_f000,
            native_futex: true,
            xsave_size: 832,
            xcr0: 7,
            host_vdso: false,
        }
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(Space::default()))
    }

    fn spawn(&self, space: &Arc<dyn AddressSpace>, thread: NewThread) -> Result<(), PlatformError> {
        let thread = Thread::start(Arc::clone(space), thread);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }
}

struct NoFiles;

impl FileTable for NoFiles {
    fn fork(&self) -> Arc<dyn FileTable> {
        Arc::new(Self)
    }
    fn close_on_exec(&self, _: i32) {}
    fn release(self: Arc<Self>, _: i32) {}
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl FsView for NoFiles {
    fn fork(&self) -> Arc<dyn FsView> {
        Arc::new(Self)
    }
    fn fork_apart(&self) -> Arc<dyn FsView> {
        Arc::new(Self)
    }
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

struct NoShared;

impl SharedMemory for NoShared {
    fn create(&self, _: u64) -> Result<Arc<dyn Mappable>, Errno> {
        Err(Errno::ENOMEM)
    }
}

/// System calls of a test, by a function.
pub struct Calls(
    /// Answers them.
    pub fn(&Arc<Task>, &mut dyn GuestThread, SyscallTrap) -> SysResult<u64>,
);

impl SyscallTable for Calls {
    fn dispatch(&self, task: &Arc<Task>, thread: &mut dyn GuestThread, call: SyscallTrap) -> SysResult<u64> {
        (self.0)(task, thread, call)
    }
}

/// Memory over a fresh space.
pub fn memory(platform: &dyn Platform) -> Arc<MemoryManager> {
    let space = platform.new_address_space().expect("the fake makes spaces");
    MemoryManager::new(space, Arc::new(NoShared), Layout::new(&platform.features()), MmLimits::UNLIMITED)
}

/// A kernel with its first process, whose thread comes back.
pub fn boot(calls: Calls) -> (Arc<Kernel>, Thread) {
    boot_with(Arc::new(calls), Arc::new(NoFiles), Arc::new(NoFiles))
}

/// As [`boot`], with files.
pub fn boot_with(
    syscalls: Arc<dyn SyscallTable>,
    fds: Arc<dyn FileTable>,
    fs: Arc<dyn FsView>,
) -> (Arc<Kernel>, Thread) {
    let backend = Arc::new(Backend::default());
    let kernel = Kernel::new(Parts { platform: backend.clone(), syscalls, max_tasks: 16 });
    let first = FirstProcess {
        mm: memory(backend.as_ref()),
        registers: Registers::entry(0x40_0000, 0x7000_0000),
        fds,
        fs,
        cred: Arc::new(Credentials::root()),
        limits: Limits::default(),
        name: b"init".to_vec(),
        exe: None,
        pid_ns: Arc::clone(kernel.pid_ns()),
    };
    kernel.start_process(first, |_| {}).expect("there is room");
    let thread = backend.0.lock().unwrap_or_else(PoisonError::into_inner).pop().expect("spawned");
    (kernel, thread)
}
