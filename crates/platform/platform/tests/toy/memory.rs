//! The toy's address spaces: pages in a map.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use abi::Errno;
use abi::mm::Prot;
use guestmem::{Fault, UserAddr, UserMem};
use memmap::Backing;
use platform::space::MemoryUse;
use platform::{AddressSpace, Advice, MapError, MapOp};

const PAGE: u64 = 4096;

#[derive(Clone)]
struct Page {
    bytes: Box<[u8; PAGE as usize]>,
    prot: Prot,
}

type Pages = BTreeMap<u64, Page>;

/// One address space. Every access takes the one lock, which makes a word's exchange atomic.
#[derive(Default)]
pub(crate) struct Space {
    pages: Mutex<Pages>,
    /// Threads in it, as soon as there has been one.
    threads: Mutex<Option<usize>>,
}

impl Space {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread begins to run in it.
    pub(crate) fn enter(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        *threads = Some(threads.unwrap_or(0) + 1);
    }

    /// A thread runs in it no more. With the last one nothing can be mapped any more.
    pub(crate) fn leave(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        *threads = threads.map(|threads| threads.saturating_sub(1));
    }

    /// A copy, for a fork.
    pub(crate) fn copy(&self) -> Self {
        Self { pages: Mutex::new(self.pages().clone()), ..Self::default() }
    }

    /// Copies bytes in or out as long as `want` allows; `copy` gets the place in the buffer.
    fn each(
        pages: &mut Pages,
        addr: u64,
        len: usize,
        want: Prot,
        mut copy: impl FnMut(usize, &mut u8),
    ) -> Result<(), Fault> {
        for copied in 0..len {
            let at = addr.checked_add(copied as u64).ok_or(Fault { copied })?;
            let page = pages.get_mut(&(at / PAGE)).filter(|page| page.prot.contains(want));
            let byte = page.and_then(|page| page.bytes.get_mut((at % PAGE) as usize));
            copy(copied, byte.ok_or(Fault { copied })?);
        }
        Ok(())
    }

    fn load(pages: &mut Pages, addr: u64, buf: &mut [u8], want: Prot) -> Result<(), Fault> {
        let len = buf.len();
        Self::each(pages, addr, len, want, |i, byte| {
            buf.iter_mut().skip(i).take(1).for_each(|to| *to = *byte)
        })
    }

    fn store(pages: &mut Pages, addr: u64, buf: &[u8], want: Prot) -> Result<(), Fault> {
        Self::each(pages, addr, buf.len(), want, |i, byte| {
            buf.iter().skip(i).take(1).for_each(|from| *byte = *from)
        })
    }

    /// Fetches an instruction's bytes: as many as can be executed.
    pub(crate) fn fetch(&self, at: u64) -> [u8; 8] {
        let mut bytes = [0xcc; 8];
        let _ = Self::load(&mut self.pages(), at, &mut bytes, Prot::EXEC);
        bytes
    }

    fn op(pages: &mut Pages, op: &MapOp) -> Result<(), Errno> {
        let range = |addr: &UserAddr, len: &u64| addr.0 / PAGE..(addr.0 + len) / PAGE;
        match op {
            MapOp::Map { addr, len, prot, backing, .. } => {
                for (i, page) in range(addr, len).enumerate() {
                    let mut bytes = Box::new([0; PAGE as usize]);
                    if let Backing::Host { object, offset } = backing {
                        use std::os::fd::AsFd;
                        let fd = object.as_fd().try_clone_to_owned().map_err(|_| Errno::EBADF)?;
                        let at = offset + i as u64 * PAGE;
                        std::fs::File::from(fd).read_at(&mut *bytes, at).map_err(|_| Errno::EIO)?;
                    }
                    pages.insert(page, Page { bytes, prot: *prot });
                }
            }
            MapOp::Unmap { addr, len } => pages.retain(|page, _| !range(addr, len).contains(page)),
            MapOp::Protect { addr, len, prot } => {
                for page in range(addr, len) {
                    pages.get_mut(&page).ok_or(Errno::ENOMEM)?.prot = *prot;
                }
            }
            MapOp::Remap { from, from_len, to, to_len, keep } => {
                let moved: Vec<_> = range(from, from_len).map(|page| pages.remove(&page)).collect();
                let first = moved.iter().flatten().next().ok_or(Errno::EFAULT)?;
                let empty = Page { bytes: Box::new([0; PAGE as usize]), prot: first.prot };
                let mut moved = moved.into_iter().flatten();
                for page in range(to, to_len) {
                    pages.insert(page, moved.next().unwrap_or_else(|| empty.clone()));
                }
                for page in range(from, from_len).filter(|_| *keep) {
                    pages.insert(page, empty.clone());
                }
            }
            MapOp::Advise { addr, len, advice: Advice::DontNeed } => {
                pages.range_mut(range(addr, len)).for_each(|(_, page)| page.bytes.fill(0));
            }
            MapOp::Advise { .. } => {}
        }
        Ok(())
    }
}

impl UserMem for Space {
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
        Self::load(&mut self.pages(), addr.0, buf, Prot::READ)
    }

    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        Self::store(&mut self.pages(), addr.0, buf, Prot::WRITE)
    }

    fn compare_exchange_u32(&self, addr: UserAddr, old: u32, new: u32) -> Result<u32, Fault> {
        let (mut pages, mut now) = (self.pages(), [0; 4]);
        Self::load(&mut pages, addr.0, &mut now, Prot::READ)?;
        if u32::from_ne_bytes(now) == old {
            Self::store(&mut pages, addr.0, &new.to_ne_bytes(), Prot::WRITE)?;
        }
        Ok(u32::from_ne_bytes(now))
    }
}

impl AddressSpace for Space {
    fn apply(&self, ops: &[MapOp]) -> Result<(), MapError> {
        if *self.threads.lock().unwrap_or_else(PoisonError::into_inner) == Some(0) {
            return Err(MapError { index: 0, errno: Errno::ESRCH });
        }
        let mut pages = self.pages();
        ops.iter()
            .enumerate()
            .try_for_each(|(index, op)| Self::op(&mut pages, op).map_err(|errno| MapError { index, errno }))
    }

    fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        Self::store(&mut self.pages(), addr.0, buf, Prot::empty())
    }

    fn memory_use(&self) -> MemoryUse {
        let resident = self.pages().len() as u64 * PAGE;
        MemoryUse { resident, shared: 0, peak_resident: resident }
    }

    fn resident_pages(&self, addr: UserAddr, pages: usize) -> Result<Vec<bool>, Errno> {
        let first = addr.0 / PAGE;
        let held = self.pages();
        let all = (first..first + pages as u64).all(|page| held.contains_key(&page));
        if all { Ok(vec![true; pages]) } else { Err(Errno::ENOMEM) }
    }

    fn map_vdso(&self, _addr: UserAddr) -> Result<(UserAddr, u64), MapError> {
        Err(MapError { index: 0, errno: Errno::ENOSYS })
    }

    fn futex_wake(&self, _addr: UserAddr, _count: u32, _bitset: u32) -> Result<u32, Errno> {
        Ok(0)
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        Default::default()
    }
}
