//! An address space with real bytes, files in memory, and ELF files made by hand.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use abi::mm::Prot;
use abi::{Errno, PAGE_SIZE};
use guestmem::{Fault, UserAddr, UserMem};
use memmap::{Backing, HostObject, MapIdentity, MapRequest, Mappable};
use mm::{MmLimits, SharedMemory};
use platform::space::MemoryUse;
use platform::{AddressSpace, Features, MapError, MapOp};

use crate::{Arguments, CpuFacts, Entropy, ExecFile, Ids, LoadError, LoadRequest, Loaded, Opener};

type Page = (Prot, Box<[u8; 4096]>);

/// Pages in memory, filled from files as `mmap` would. Huge mappings are kept as far as 4 MiB.
#[derive(Default)]
pub(crate) struct FakeSpace(Mutex<BTreeMap<u64, Page>>);

impl FakeSpace {
    fn pages(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Page>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each(
        &self,
        addr: UserAddr,
        len: usize,
        need: Prot,
        mut f: impl FnMut(usize, &mut u8),
    ) -> Result<(), Fault> {
        let mut pages = self.pages();
        for copied in 0..len {
            let at = addr.0.checked_add(copied as u64).ok_or(Fault { copied })?;
            match pages.get_mut(&(at / PAGE_SIZE)) {
                Some((prot, page)) if prot.contains(need) => f(copied, &mut page[(at % PAGE_SIZE) as usize]),
                _ => return Err(Fault { copied }),
            }
        }
        Ok(())
    }
}

impl UserMem for FakeSpace {
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
        self.each(addr, buf.len(), Prot::READ, |at, byte| buf[at] = *byte)
    }

    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        self.each(addr, buf.len(), Prot::WRITE, |at, byte| *byte = buf[at])
    }

    fn compare_exchange_u32(&self, _: UserAddr, _: u32, _: u32) -> Result<u32, Fault> {
        Err(Fault { copied: 0 })
    }
}

impl AddressSpace for FakeSpace {
    fn apply(&self, ops: &[MapOp]) -> Result<(), MapError> {
        let mut pages = self.pages();
        for op in ops {
            let MapOp::Map { addr, len, prot, backing, .. } = op else { continue };
            let first = addr.0 / PAGE_SIZE;
            for index in 0..(len / PAGE_SIZE).min(1024) {
                let mut page = Box::new([0; 4096]);
                if let Backing::Host { object, offset } = backing {
                    let file = File::from(object.as_fd().try_clone_to_owned().unwrap());
                    let _ = file.read_at(page.as_mut_slice(), offset + index * PAGE_SIZE);
                }
                pages.insert(first + index, (*prot, page));
            }
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
        Ok((UserAddr(addr.0 + 2 * PAGE_SIZE), 4 * PAGE_SIZE))
    }

    fn futex_wake(&self, _: UserAddr, _: u32, _: u32) -> Result<u32, Errno> {
        Ok(0)
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        Default::default()
    }
}

/// A file of these bytes.
pub(crate) struct FakeFile {
    bytes: Vec<u8>,
    object: Arc<HostObject>,
    name: &'static str,
}

impl FakeFile {
    pub(crate) fn new(name: &'static str, bytes: &[u8]) -> Arc<Self> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let object = HostObject::new(file.into(), Prot::READ);
        Arc::new(Self { bytes: bytes.to_vec(), object, name })
    }
}

struct FakeMappable(Arc<HostObject>, &'static str);

impl Mappable for FakeMappable {
    fn backing(&self, request: MapRequest) -> Result<Backing, Errno> {
        Ok(Backing::Host { object: Arc::clone(&self.0), offset: request.offset })
    }

    fn identity(&self) -> MapIdentity {
        MapIdentity { name: self.1.into(), ..MapIdentity::default() }
    }
}

impl ExecFile for FakeFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        // Short reads are allowed to happen.
        let n = rest.len().min(buf.len()).min(1000);
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>, Errno> {
        Ok(Arc::new(FakeMappable(Arc::clone(&self.object), self.name)))
    }

    fn path(&self) -> Vec<u8> {
        self.name.into()
    }
}

/// Files by path.
#[derive(Default)]
pub(crate) struct FakeFiles(pub(crate) BTreeMap<Vec<u8>, Arc<dyn ExecFile>>);

impl FakeFiles {
    pub(crate) fn with(mut self, name: &'static str, bytes: &[u8]) -> Self {
        self.0.insert(name.into(), FakeFile::new(name, bytes));
        self
    }
}

impl Opener for FakeFiles {
    fn open(&self, path: &[u8]) -> Result<Arc<dyn ExecFile>, Errno> {
        self.0.get(path).cloned().ok_or(Errno::ENOENT)
    }
}

struct NoShared;

impl SharedMemory for NoShared {
    fn create(&self, _: u64) -> Result<Arc<dyn Mappable>, Errno> {
        Err(Errno::ENOMEM)
    }
}

pub(crate) const FEATURES: Features = Features {
    min_address: 0x1_0000,
    max_address: 1 << 47,
    native_futex: true,
    xsave_size: 2696,
    xcr0: 7,
    host_vdso: true,
};

/// `execve(path, argv, envp)` with a fresh address space.
pub(crate) fn exec(files: &FakeFiles, path: &str, argv: &[&str], envp: &[&str]) -> Result<Loaded, LoadError> {
    let mut args = Arguments::new(8 << 20);
    for arg in argv {
        args.push_arg((*arg).into())?;
    }
    for env in envp {
        args.push_env((*env).into())?;
    }
    let file = files.open(path.as_bytes())?;
    let program = crate::resolve(file, path.into(), args, files)?;
    let request = LoadRequest {
        space: Arc::new(FakeSpace::default()),
        features: &FEATURES,
        shared_memory: Arc::new(NoShared),
        limits: MmLimits { stack: 8 << 20, ..MmLimits::UNLIMITED },
        opener: files,
        ids: Ids { uid: 1, euid: 2, gid: 3, egid: 4, secure: true },
        cpu: CpuFacts { hwcap: 5, hwcap2: 6, min_signal_stack: 7 },
        entropy: Entropy::new(std::array::from_fn(|index| (index as u8).wrapping_mul(37))),
    };
    crate::load(program, request)
}

/// One program header.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ph {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) vaddr: u64,
    pub(crate) file_size: u64,
    pub(crate) mem_size: u64,
    pub(crate) align: u64,
}

/// An ELF file of `len` bytes with these headers; the rest is `0xaa`.
pub(crate) fn elf(kind: u16, entry: u64, headers: &[Ph], len: usize) -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend(kind.to_le_bytes());
    out.extend(62u16.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    for word in [entry, 64, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend(0u32.to_le_bytes());
    for half in [64u16, 56, headers.len() as u16, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    for ph in headers {
        out.extend(ph.kind.to_le_bytes());
        out.extend(ph.flags.to_le_bytes());
        for word in [ph.offset, ph.vaddr, ph.vaddr, ph.file_size, ph.mem_size, ph.align] {
            out.extend(word.to_le_bytes());
        }
    }
    out.resize(len.max(out.len()), 0xaa);
    out
}
