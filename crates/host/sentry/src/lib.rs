//! The thin runtime: assembles the kernel from its parts, locks itself in, and runs.
//!
//! - [`BootConfig`] and [`Inherited`]: its whole input, made by the `sandbox` crate outside.
//! - [`Early`]: what must be gathered before the host's root is taken away.
//! - [`run`]: kernel, file systems, first process; returns how that ended.
//!
//! [`platforms`] has the backends and the choice among them.
//!
//! `tree` makes the mounts, `dev` fills `/dev`, `sysctl` has what can be changed in `/proc/sys`, `files` shows them in `/proc`, `memory`, `random` and `stdio` are the host's
//! part of tmpfs, `/dev/urandom` and descriptors 0 to 2; `jobs` and `console` connect terminals;
//! `net` reads and sends the frames of links to the outside. `watch` wakes those who wait for descriptors of the host. `process` gets
//! processes ready, `guest` lets `runsc` control them, and `metrics` tells it what was counted.
#![forbid(unsafe_code)]

mod boot;
mod console;
mod dev;
mod files;
mod guest;
mod jobs;
mod members;
mod memory;
mod metrics;
mod net;
mod paths;
pub mod platforms;
mod process;
mod random;
pub mod seccomp;
mod services;
mod start;
mod stdio;
mod sysctl;
mod tree;
mod watch;

pub use boot::{
    BootConfig, BootError, Confinement, Device, DeviceKind, ExitStatus, Inherited, InheritedFds, Mount,
    Overlay, Process, Resources, Rlimit, Source,
};
pub use start::{Early, run};
