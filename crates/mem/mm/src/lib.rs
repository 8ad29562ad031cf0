//! The memory manager: VMA tree, brk, mremap, limits and the /proc views of them.
//!
//! A [`MemoryManager`] is one guest address space as the kernel sees it: it decides where mappings go
//! and what they may do, checks limits, and answers `/proc/PID/maps`; the platform's
//! [`AddressSpace`](platform::AddressSpace) carries the decisions out.
//!
//! - [`vma`]: [`Vma`], one mapping. - [`manager`]: [`MemoryManager`] itself, fork, stack growth.
//! - `tree`: the mappings in order, split and merged. - `map`, `protect`, `remap`, `heap`, `advise`,
//!   `lock`: the system calls, each with the errors of Linux in the order of Linux.
//! - `memfd`: [`Memfds`], the objects behind shared anonymous mappings.
//! - `proc`: the texts of `/proc/PID/{maps,smaps,statm}`.
//!
//! Invariants: the tree and the host's mappings change together, so the `Vmas` lock is held over
//! `AddressSpace::apply` (the one host call made under a lock; it copies no guest bytes). A
//! [`Mappable`](memmap::Mappable) is never called with the lock held: what it must hear of is collected
//! and delivered after the lock is gone.
//!
//! Deliberately absent: page tables, page faults and copy-on-write. They are the platform's; the only
//! fault that comes here is the one below a stack ([`MemoryManager::grow_stack`]). Huge pages
//! (`MAP_HUGETLB`) answer `ENOMEM`, as a kernel with an empty pool does.
#![forbid(unsafe_code)]
// A test that fails with a panic is a test that fails.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advise;
mod gone;
mod heap;
mod lock;
pub mod manager;
mod map;
mod memfd;
mod proc;
mod protect;
mod remap;
mod tree;
pub mod vma;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use manager::{Layout, MemoryManager, MmLimits, SharedMemory, Sizes};
pub use map::{MapArgs, MapFile};
pub use memfd::Memfds;
pub use vma::{Source, Vma, VmaFlags};

/// Most mappings of one address space (`vm.max_map_count`).
pub const MAX_MAP_COUNT: usize = 65530;
/// Distance kept free below a mapping that grows downwards (`stack_guard_gap`), bytes.
pub const STACK_GUARD_GAP: u64 = 256 * abi::PAGE_SIZE;
