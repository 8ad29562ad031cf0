//! /proc: the kernel's state as files (`proc(5)`).
//!
//! - [`source`]: what `/proc` asks of the process table, as traits the assembled kernel implements. So
//!   this crate formats and the kernel answers; neither knows the other's insides.
//! - [`view`]: the kernel's tasks as that source.
//! - [`root`]: the top directory. [`pid`]: one process or thread. [`fd`]: descriptors and links.
//! - [`status`]: the long texts of a process. [`system`]: the texts of the whole system.
//!
//! Deliberately absent so far: `/proc/PID/mem`, `pagemap`, `clear_refs`, `coredump_filter`, `stack`,
//! `/proc/sys` files that change anything, and hiding of other users' processes (`hidepid`).
#![forbid(unsafe_code)]

use std::sync::Arc;

use abi::time::Timespec;
use kernfs::{FsInfo, KernFs, Spec};

mod fd;
mod pid;
mod root;
pub mod source;
mod status;
mod system;
pub mod view;

pub use source::{
    CpuModel, Facts, FdFacts, LinkFacts, ProcConfig, Process, Processes, Setting, State, SystemFacts, Which,
};

/// `PROC_SUPER_MAGIC`.
const MAGIC: i64 = 0x9fa0;

/// The file system to mount at `/proc`.
pub fn mount(dev: u64, now: Timespec, config: ProcConfig) -> Arc<KernFs> {
    let info = FsInfo { type_name: "proc", magic: MAGIC, dev, now, stable: false };
    KernFs::new(info, Spec::dir(0o555, root::Root::new(Arc::new(config))))
}

#[cfg(test)]
mod tests;
