//! Guest to Sentry: a file that is executed.

use std::sync::Arc;

use abi::{Errno, PAGE_SIZE};
use kernel::fake::Space;
use loader::{Arguments, CpuFacts, Entropy, ExecFile, Ids, LoadRequest, Opener};
use memmap::{Backing, MapIdentity, MapRequest, Mappable};
use mm::{MmLimits, SharedMemory};
use platform::Features;

/// A file that is the program, and, when its first byte is odd, what every path leads to.
struct Bytes(Arc<[u8]>);

impl ExecFile for Bytes {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Ok(n)
    }

    fn mappable(&self) -> Result<Arc<dyn Mappable>, Errno> {
        Ok(Arc::new(NoBytes))
    }

    fn path(&self) -> Vec<u8> {
        b"/program".into()
    }
}

impl Opener for Bytes {
    fn open(&self, path: &[u8]) -> Result<Arc<dyn ExecFile>, Errno> {
        assert!(path.len() <= 4096, "an unbounded path");
        Ok(Arc::new(Bytes(Arc::clone(&self.0))))
    }
}

/// The fake address space keeps no pages.
struct NoBytes;

impl Mappable for NoBytes {
    fn backing(&self, _: MapRequest) -> Result<Backing, Errno> {
        Ok(Backing::Anonymous)
    }

    fn identity(&self) -> MapIdentity {
        MapIdentity::default()
    }
}

impl SharedMemory for NoBytes {
    fn create(&self, _: u64) -> Result<Arc<dyn Mappable>, Errno> {
        Err(Errno::ENOMEM)
    }
}

const FEATURES: Features = Features {
    min_address: 16 * PAGE_SIZE,
    max_address: 1 << 47,
    native_futex: true,
    xsave_size: 2696,
    xcr0: 7,
    host_vdso: false,
};

/// `execve(2)` of a file of these bytes. What loads begins in the guest's half.
pub fn load(data: &[u8]) {
    let file = Bytes(data.into());
    let mut args = Arguments::new(1 << 20);
    if args.push_arg(b"program".into()).is_err() {
        return;
    }
    let Ok(opened) = file.open(b"/program") else { return };
    let Ok(program) = loader::resolve(opened, b"/program".into(), args, &file) else { return };
    let request = LoadRequest {
        space: Arc::new(Space::default()),
        features: &FEATURES,
        shared_memory: Arc::new(NoBytes),
        limits: MmLimits { stack: 8 << 20, ..MmLimits::UNLIMITED },
        opener: &file,
        ids: Ids { uid: 0, euid: 0, gid: 0, egid: 0, secure: false },
        cpu: CpuFacts { hwcap: 0, hwcap2: 0, min_signal_stack: 2048 },
        entropy: Entropy::new(std::array::from_fn(|index| index as u8)),
    };
    let Ok(loaded) = loader::load(program, request) else { return };
    assert!(loaded.ip < FEATURES.max_address && loaded.sp < FEATURES.max_address);
    assert!(loaded.image.start <= loaded.image.end && loaded.image.end <= FEATURES.max_address);
}

/// A program of two segments, one with an interpreter (itself), and a script.
pub fn seeds() -> Vec<Vec<u8>> {
    const LOAD: u32 = 1;
    const INTERP: u32 = 3;
    let code = (LOAD, 5, [0, 0x40_0000, 0x40_0000, 0x200, 0x200, 0x1000]);
    let data = (LOAD, 6, [0, 0x60_1000, 0x60_1000, 0x100, 0x5000, 0x1000]);
    let name = (INTERP, 4, [0x10, 0x10, 0x10, 3, 3, 1]);
    vec![
        elf(2, &[code, data]),
        elf(3, &[(LOAD, 5, [0, 0, 0, 0x200, 0x200, 0x1000])]),
        elf(2, &[name, code]),
        b"#!/bin/sh -e\n".to_vec(),
    ]
}

/// An ELF file with these program headers: kind, flags, and offset, addresses, sizes and alignment.
fn elf(kind: u16, headers: &[(u32, u32, [u64; 6])]) -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend(kind.to_le_bytes());
    out.extend(62u16.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend([0x40_0078u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    out.extend(0u32.to_le_bytes());
    let count = u16::try_from(headers.len()).unwrap_or_default();
    out.extend([64, 56, count, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    for (kind, flags, words) in headers {
        out.extend(kind.to_le_bytes());
        out.extend(flags.to_le_bytes());
        out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    out.resize(0x200, 0);
    out
}
