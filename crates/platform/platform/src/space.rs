//! One guest address space.

use std::time::Duration;

use abi::mm::Prot;
use guestmem::{UserAddr, UserMem};
use memmap::Backing;

/// One change to the mappings of an address space. Addresses and lengths are page multiples, within
/// [`Features`](crate::Features) bounds; the memory manager has checked everything a guest chose.
#[derive(Clone, Debug)]
pub enum MapOp {
    /// Map, replacing what is there.
    Map {
        /// First byte.
        addr: UserAddr,
        /// Bytes.
        len: u64,
        /// Protection.
        prot: Prot,
        /// Where the pages come from.
        backing: Backing,
        /// Writes go to the backing object, and a fork shares the pages. For [`Backing::Anonymous`]
        /// always `false`: shared anonymous memory is a memfd.
        shared: bool,
        /// Do not reserve memory for it.
        no_reserve: bool,
        /// Bring the pages in now.
        populate: bool,
    },
    /// Unmap; holes are fine.
    Unmap {
        /// First byte.
        addr: UserAddr,
        /// Bytes.
        len: u64,
    },
    /// Change protection; the range is fully mapped.
    Protect {
        /// First byte.
        addr: UserAddr,
        /// Bytes.
        len: u64,
        /// Protection.
        prot: Prot,
    },
    /// Move or resize one mapping, replacing what is at `to`; when `to == from` it never moves.
    Remap {
        /// First byte.
        from: UserAddr,
        /// Bytes.
        from_len: u64,
        /// New first byte.
        to: UserAddr,
        /// New length.
        to_len: u64,
        /// Leave the old range mapped and empty (`MREMAP_DONTUNMAP`).
        keep: bool,
    },
    /// Advice with an effect.
    Advise {
        /// First byte.
        addr: UserAddr,
        /// Bytes.
        len: u64,
        /// Which.
        advice: Advice,
    },
}

/// Advice the host carries out (`madvise(2)`); everything else is settled in the memory manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// `MADV_DONTNEED`: drop the pages.
    DontNeed,
    /// `MADV_FREE`: the pages may be dropped.
    Free,
    /// `MADV_WILLNEED`: bring them in.
    WillNeed,
    /// `MADV_HUGEPAGE`.
    HugePage,
    /// `MADV_NOHUGEPAGE`.
    NoHugePage,
    /// `MADV_DONTFORK`: a fork does not get the range.
    DontFork,
    /// `MADV_DOFORK`: undoes it.
    DoFork,
    /// `MADV_WIPEONFORK`: a fork gets zero pages.
    WipeOnFork,
    /// `MADV_KEEPONFORK`: undoes it.
    KeepOnFork,
    /// `MADV_POPULATE_READ`: fault in for reading.
    PopulateRead,
    /// `MADV_POPULATE_WRITE`: fault in for writing.
    PopulateWrite,
}

/// A mapping operation that failed. The ones before it in the batch have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mapping operation {index} failed: {errno}")]
pub struct MapError {
    /// Position in the batch.
    pub index: usize,
    /// The host's answer (`ENOMEM`, mostly); `ESRCH` when the guest's process is gone.
    pub errno: abi::Errno,
}

impl From<MapError> for abi::Errno {
    fn from(error: MapError) -> Self {
        error.errno
    }
}

/// Memory the host holds for an address space (`/proc/PID/statm`), in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Resident, all kinds.
    pub resident: u64,
    /// Resident and shared or file-backed.
    pub shared: u64,
    /// Highest `resident` so far.
    pub peak_resident: u64,
}

/// One guest address space. Dropping the last reference frees it; guest threads hold one each.
pub trait AddressSpace: UserMem {
    /// Carries out `ops` in order, and returns when they are done.
    ///
    /// Usually called while a trap of a thread of this space is being handled on the calling OS thread
    /// (the backend lets that thread do it) or before any thread runs; from elsewhere it is slower.
    fn apply(&self, ops: &[MapOp]) -> Result<(), MapError>;

    /// Reads or writes ignoring the page protections a guest gave (`ptrace(2)` pokes).
    fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), guestmem::Fault>;

    /// What the host holds for it.
    fn memory_use(&self) -> MemoryUse;

    /// Residency of each page of a range, for `mincore(2)`; `ENOMEM` where nothing is mapped.
    fn resident_pages(&self, addr: UserAddr, pages: usize) -> Result<Vec<bool>, abi::Errno>;

    /// Maps the host's vDSO (and its data pages) at `addr`, when [`Features::host_vdso`] says so.
    /// Returns the address of its ELF header and the bytes used.
    ///
    /// [`Features::host_vdso`]: crate::Features::host_vdso
    fn map_vdso(&self, addr: UserAddr) -> Result<(UserAddr, u64), MapError>;

    /// Wakes up to `count` native futex waiters at `addr` with `bitset`; returns how many. A waiter whose
    /// thread the backend had to fetch for this looks at the word again instead and is not counted, so
    /// the word must have been changed before, as every futex protocol does.
    /// Only with [`Features::native_futex`](crate::Features::native_futex).
    fn futex_wake(&self, addr: UserAddr, count: u32, bitset: u32) -> Result<u32, abi::Errno>;

    /// User and system time spent by all threads that ran in this space.
    fn cpu_time(&self) -> (Duration, Duration);
}
