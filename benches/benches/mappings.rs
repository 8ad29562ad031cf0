//! What mapping calls cost in the memory manager alone, over an address space that does nothing.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use abi::mm::Prot;
use abi::{Errno, PAGE_SIZE};
use criterion::{Criterion, criterion_group, criterion_main};
use guestmem::{Fault, UserAddr, UserMem};
use memmap::Mappable;
use mm::{Layout, MapArgs, MemoryManager, MmLimits, SharedMemory};
use platform::space::MemoryUse;
use platform::{AddressSpace, MapError, MapOp};

/// Maps everything, and has no memory.
struct Nothing;

impl UserMem for Nothing {
    fn read(&self, _addr: UserAddr, _buf: &mut [u8]) -> Result<(), Fault> {
        Err(Fault { copied: 0 })
    }

    fn write(&self, _addr: UserAddr, _buf: &[u8]) -> Result<(), Fault> {
        Err(Fault { copied: 0 })
    }

    fn compare_exchange_u32(&self, _addr: UserAddr, _old: u32, _new: u32) -> Result<u32, Fault> {
        Err(Fault { copied: 0 })
    }
}

impl AddressSpace for Nothing {
    fn apply(&self, ops: &[MapOp]) -> Result<(), MapError> {
        black_box(ops);
        Ok(())
    }

    fn write_forced(&self, _addr: UserAddr, _buf: &[u8]) -> Result<(), Fault> {
        Err(Fault { copied: 0 })
    }

    fn memory_use(&self) -> MemoryUse {
        MemoryUse::default()
    }

    fn resident_pages(&self, _addr: UserAddr, _pages: usize) -> Result<Vec<bool>, Errno> {
        Err(Errno::ENOSYS)
    }

    fn map_vdso(&self, _addr: UserAddr) -> Result<(UserAddr, u64), MapError> {
        Err(MapError { index: 0, errno: Errno::ENOSYS })
    }

    fn futex_wake(&self, _addr: UserAddr, _count: u32, _bitset: u32) -> Result<u32, Errno> {
        Ok(0)
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        (Duration::ZERO, Duration::ZERO)
    }
}

impl SharedMemory for Nothing {
    fn create(&self, _len: u64) -> Result<Arc<dyn Mappable>, Errno> {
        Err(Errno::ENOMEM)
    }
}

const LAYOUT: Layout =
    Layout { min: 0x1_0000, max: 0x7fff_ffff_f000, mmap_top: 0x7fff_0000_0000, brk_start: 0x60_0000 };
const WRITABLE: Prot = Prot::READ.union(Prot::WRITE);

/// A manager of so many mappings that do not join.
fn manager(mappings: u64) -> Arc<MemoryManager> {
    let mm = MemoryManager::new(Arc::new(Nothing), Arc::new(Nothing), LAYOUT, MmLimits::UNLIMITED);
    for index in 0..mappings {
        let prot = if index % 2 == 0 { Prot::READ } else { WRITABLE };
        mm.mmap(&MapArgs::anonymous(PAGE_SIZE, prot)).expect("there is room");
    }
    mm
}

fn mappings(c: &mut Criterion) {
    for count in [20, 2000] {
        let mm = manager(count);
        c.bench_function(&format!("mmap and munmap among {count}"), |b| {
            b.iter(|| {
                let at = mm.mmap(&MapArgs::anonymous(16 * PAGE_SIZE, WRITABLE)).expect("there is room");
                mm.munmap(at, 16 * PAGE_SIZE).expect("it is there");
            });
        });
        let at = mm.mmap(&MapArgs::anonymous(16 * PAGE_SIZE, WRITABLE)).expect("there is room");
        c.bench_function(&format!("find among {count}"), |b| b.iter(|| mm.find(black_box(at))));
        c.bench_function(&format!("mprotect of the middle among {count}"), |b| {
            b.iter(|| {
                for prot in [Prot::READ, WRITABLE] {
                    mm.mprotect(UserAddr(at.0 + PAGE_SIZE), PAGE_SIZE, prot.bits()).expect("it is there");
                }
            });
        });
    }
}

criterion_group!(benches, mappings);
criterion_main!(benches);
