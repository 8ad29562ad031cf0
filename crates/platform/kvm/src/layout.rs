//! Where things are: in guests' address spaces, and in the machine's memory.
//!
//! All spaces share one GiB above what guests can map, the *system window*. It holds the gate, at which system calls
//! arrive, and what the processor needs to take exceptions: descriptor tables, the exceptions' entries, and a page
//! for each virtual processor with its task state and its stack. Only the gate is ever user-accessible.

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// Lowest address a guest may map.
pub(crate) const MIN_ADDRESS: u64 = 0x1_0000;
/// First address a guest may not map.
pub(crate) const MAX_ADDRESS: u64 = 0x7ffe_0000_0000;
/// End of user space.
pub(crate) const USER_END: u64 = 1 << 47;
/// First byte of the vsyscall page.
pub(crate) const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;

/// The system window.
pub(crate) const SYSTEM: u64 = 0x7fff_0000_0000;
/// `LSTAR`.
pub(crate) const GATE: u64 = SYSTEM;
/// Interrupt descriptors.
pub(crate) const IDT: u64 = SYSTEM + PAGE;
/// Segment descriptors.
pub(crate) const GDT: u64 = SYSTEM + 2 * PAGE;
/// Entries of exceptions.
pub(crate) const ENTRIES: u64 = SYSTEM + 3 * PAGE;
/// Bytes of an entry.
pub(crate) const ENTRY: u64 = 8;
/// Pages of virtual processors.
pub(crate) const CPUS: u64 = SYSTEM + 0x10_0000;
/// Most virtual processors.
pub(crate) const MAX_CPUS: u64 = 256;

/// Code selector of ring 0.
pub(crate) const RING0_CS: u16 = 0x10;
/// Data selector of ring 0.
pub(crate) const RING0_SS: u16 = 0x18;
/// Selector of the task state.
pub(crate) const TASK: u16 = 0x40;

/// Machine address of the page with nothing behind it.
pub(crate) const NOTHING_GPA: u64 = 0x10_0000;
/// Machine address of the page that is taken away and given back.
pub(crate) const SWITCH_GPA: u64 = 0x20_0000;
/// Machine address of the host's vDSO.
pub(crate) const VDSO_GPA: u64 = 0x30_0000;
/// Machine address of the first frame.
pub(crate) const ARENA_GPA: u64 = 1 << 32;
/// First machine address of windows into files.
pub(crate) const WINDOWS_GPA: u64 = 1 << 38;
/// Bits of machine addresses that this takes.
pub(crate) const GPA_BITS: u32 = 40;

/// Page of virtual processor `index`.
pub(crate) const fn cpu_page(index: u64) -> u64 {
    CPUS + index * PAGE
}
