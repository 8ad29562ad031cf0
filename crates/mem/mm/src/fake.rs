//! A platform address space that only remembers what it was told, page by page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use abi::mm::Prot;
use abi::{Errno, PAGE_SIZE};
use guestmem::{Fault, UserAddr, UserMem};
use memmap::{Backing, HostObject, MapIdentity, MapRequest, Mappable};
use platform::space::MemoryUse;
use platform::{AddressSpace, MapError, MapOp};
use quiet::Cell;

use crate::{Layout, MemoryManager, MmLimits, SharedMemory};

/// A std mutex that does not poison loudly; the order checker has no class for tests.
mod quiet {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    #[derive(Default)]
    pub(crate) struct Cell<T>(Mutex<T>);

    impl<T> Cell<T> {
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// One page of the fake host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPage {
    pub(crate) prot: Prot,
    pub(crate) shared: bool,
    /// Page of the host object; `None` for anonymous.
    pub(crate) page: Option<u64>,
}

#[derive(Default)]
pub(crate) struct FakeSpace {
    pub(crate) pages: Cell<BTreeMap<u64, HostPage>>,
    /// The next batch fails with this.
    pub(crate) fail: Cell<Option<Errno>>,
}

impl FakeSpace {
    fn one(&self, op: &MapOp) -> Result<(), Errno> {
        let mut pages = self.pages.lock();
        let range = |addr: UserAddr, len: u64| addr.0 / PAGE_SIZE..(addr.0 + len) / PAGE_SIZE;
        match op {
            MapOp::Map { addr, len, prot, backing, shared, .. } => {
                for (index, at) in range(*addr, *len).enumerate() {
                    let page = match backing {
                        Backing::Anonymous => None,
                        Backing::Host { offset, .. } => Some(offset / PAGE_SIZE + index as u64),
                    };
                    pages.insert(at, HostPage { prot: *prot, shared: *shared, page });
                }
            }
            MapOp::Unmap { addr, len } => pages.retain(|at, _| !range(*addr, *len).contains(at)),
            MapOp::Protect { addr, len, prot } => {
                for at in range(*addr, *len) {
                    pages.get_mut(&at).ok_or(Errno::ENOMEM)?.prot = *prot;
                }
            }
            MapOp::Remap { from, from_len, to, to_len, keep } => {
                let old: Vec<HostPage> = range(*from, *from_len)
                    .map(|at| pages.get(&at).copied().ok_or(Errno::EFAULT))
                    .collect::<Result<_, _>>()?;
                if !keep {
                    pages.retain(|at, _| !range(*from, *from_len).contains(at));
                }
                let first = *old.first().ok_or(Errno::EINVAL)?;
                for (index, at) in range(*to, *to_len).enumerate() {
                    let grown = HostPage { page: first.page.map(|page| page + index as u64), ..first };
                    pages.insert(at, old.get(index).copied().unwrap_or(grown));
                }
            }
            MapOp::Advise { .. } => {}
        }
        Ok(())
    }
}

impl UserMem for FakeSpace {
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
        buf.fill(0);
        self.write(addr, buf)
    }

    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        let pages = self.pages.lock();
        for copied in 0..buf.len() {
            if !pages.contains_key(&((addr.0 + copied as u64) / PAGE_SIZE)) {
                return Err(Fault { copied });
            }
        }
        Ok(())
    }

    fn compare_exchange_u32(&self, _: UserAddr, _: u32, _: u32) -> Result<u32, Fault> {
        Err(Fault { copied: 0 })
    }
}

impl AddressSpace for FakeSpace {
    fn apply(&self, ops: &[MapOp]) -> Result<(), MapError> {
        if let Some(errno) = self.fail.lock().take() {
            return Err(MapError { index: 0, errno });
        }
        for (index, op) in ops.iter().enumerate() {
            self.one(op).map_err(|errno| MapError { index, errno })?;
        }
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
        Ok((UserAddr(addr.0 + 4 * PAGE_SIZE), 6 * PAGE_SIZE))
    }

    fn futex_wake(&self, _: UserAddr, _: u32, _: u32) -> Result<u32, Errno> {
        Ok(0)
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        Default::default()
    }
}

/// A file whose byte `n` is byte `n` of a host object, and which counts its mapped pages.
pub(crate) struct FakeFile {
    object: Arc<HostObject>,
    pub(crate) mapped_pages: AtomicI64,
}

impl FakeFile {
    pub(crate) fn new() -> Arc<Self> {
        let null = std::fs::File::open("/dev/null").expect("/dev/null opens");
        let object = HostObject::new(null.into(), Prot::all());
        Arc::new(Self { object, mapped_pages: AtomicI64::new(0) })
    }
}

impl Mappable for FakeFile {
    fn backing(&self, request: MapRequest) -> Result<Backing, Errno> {
        Ok(Backing::Host { object: Arc::clone(&self.object), offset: request.offset })
    }

    fn mapped(&self, request: MapRequest) {
        self.mapped_pages.fetch_add((request.len / PAGE_SIZE) as i64, Ordering::SeqCst);
    }

    fn unmapped(&self, request: MapRequest) {
        self.mapped_pages.fetch_sub((request.len / PAGE_SIZE) as i64, Ordering::SeqCst);
    }

    fn identity(&self) -> MapIdentity {
        MapIdentity { dev: abi::fs::make_dev(8, 1), ino: 77, name: b"/lib/libc.so".to_vec() }
    }
}

pub(crate) struct FakeShared;

impl SharedMemory for FakeShared {
    fn create(&self, _len: u64) -> Result<Arc<dyn Mappable>, Errno> {
        Ok(FakeFile::new())
    }
}

pub(crate) const LAYOUT: Layout =
    Layout { min: 0x1_0000, max: 0x7fff_ffff_f000, mmap_top: 0x7fff_0000_0000, brk_start: 0x60_0000 };

/// A manager over a fake host.
pub(crate) fn manager() -> (Arc<MemoryManager>, Arc<FakeSpace>) {
    let space = Arc::new(FakeSpace::default());
    let mm = MemoryManager::new(space.clone(), Arc::new(FakeShared), LAYOUT, MmLimits::UNLIMITED);
    (mm, space)
}
