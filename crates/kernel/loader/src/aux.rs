//! The auxiliary vector (`getauxval(3)`).

use abi::raw::auxvec as raw;
use cred::Credentials;

/// Clock ticks a second (`AT_CLKTCK`).
const TICKS: u64 = 100;
/// The smallest signal stack when the host says nothing: an AVX-512 frame fits.
const MIN_SIGNAL_STACK: u64 = 3632;

/// What the auxiliary vector says of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFacts {
    /// `CPUID` 1, `EDX`.
    pub hwcap: u64,
    /// `HWCAP2_*`: user-mode `MONITOR`, `FSGSBASE`.
    pub hwcap2: u64,
    /// Bytes a signal frame needs.
    pub min_signal_stack: u64,
}

impl CpuFacts {
    /// From the bytes of an auxiliary vector, such as the kernel's own `/proc/self/auxv`.
    pub fn from_auxv(bytes: &[u8]) -> Self {
        let mut facts = Self { hwcap: 0, hwcap2: 0, min_signal_stack: MIN_SIGNAL_STACK };
        for pair in bytes.chunks_exact(16) {
            let (key, value) = pair.split_at(8);
            let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
            let value = word(value);
            match u32::try_from(word(key)) {
                Ok(raw::AT_HWCAP) => facts.hwcap = value,
                Ok(raw::AT_HWCAP2) => facts.hwcap2 = value,
                Ok(raw::AT_MINSIGSTKSZ) => facts.min_signal_stack = value,
                _ => {}
            }
        }
        facts
    }

    /// Of the machine this runs on. Ask at the start, before a sandbox takes `/proc` away.
    pub fn of_host() -> Self {
        Self::from_auxv(&std::fs::read("/proc/self/auxv").unwrap_or_default())
    }
}

/// Ids as the new program sees them in its user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Real user.
    pub uid: u32,
    /// Effective user.
    pub euid: u32,
    /// Real group.
    pub gid: u32,
    /// Effective group.
    pub egid: u32,
    /// The program gained privileges and must not trust its environment (`AT_SECURE`).
    pub secure: bool,
}

impl Ids {
    /// In the root user namespace.
    pub fn of(cred: &Credentials) -> Self {
        let Credentials { uid, euid, gid, egid, .. } = *cred;
        Self { uid, euid, gid, egid, secure: uid != euid || gid != egid }
    }
}

/// Addresses for the vector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pointers {
    pub(crate) vdso: Option<u64>,
    pub(crate) phdrs: u64,
    pub(crate) phnum: u16,
    pub(crate) interpreter_base: u64,
    pub(crate) entry: u64,
    pub(crate) random: u64,
    pub(crate) exec_fn: u64,
    pub(crate) platform: u64,
}

/// The vector, in the order of Linux, with its end.
pub(crate) fn vector(at: &Pointers, cpu: &CpuFacts, ids: &Ids) -> Vec<(u64, u64)> {
    let mut vector = Vec::new();
    let mut put = |key: u32, value: u64| vector.push((u64::from(key), value));
    if let Some(vdso) = at.vdso {
        put(raw::AT_SYSINFO_EHDR, vdso);
    }
    put(raw::AT_MINSIGSTKSZ, cpu.min_signal_stack);
    put(raw::AT_HWCAP, cpu.hwcap);
    put(raw::AT_PAGESZ, abi::PAGE_SIZE);
    put(raw::AT_CLKTCK, TICKS);
    put(raw::AT_PHDR, at.phdrs);
    put(raw::AT_PHENT, u64::from(crate::image::PHENT));
    put(raw::AT_PHNUM, u64::from(at.phnum));
    put(raw::AT_BASE, at.interpreter_base);
    put(raw::AT_FLAGS, 0);
    put(raw::AT_ENTRY, at.entry);
    put(raw::AT_UID, u64::from(ids.uid));
    put(raw::AT_EUID, u64::from(ids.euid));
    put(raw::AT_GID, u64::from(ids.gid));
    put(raw::AT_EGID, u64::from(ids.egid));
    put(raw::AT_SECURE, u64::from(ids.secure));
    put(raw::AT_RANDOM, at.random);
    put(raw::AT_HWCAP2, cpu.hwcap2);
    put(raw::AT_EXECFN, at.exec_fn);
    put(raw::AT_PLATFORM, at.platform);
    put(raw::AT_NULL, 0);
    vector
}
