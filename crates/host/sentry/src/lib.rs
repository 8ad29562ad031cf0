//! The thin runtime: assembles the kernel from its parts, locks itself in, and runs.
//!
//! Its whole input is a [`BootConfig`], which the `sandbox` crate makes outside and hands over in a
//! sealed way. The composition itself is not here yet: see [`run`].
#![forbid(unsafe_code)]

mod boot;

pub use boot::{
    BootConfig, BootError, ExitStatus, InheritedFds, Mount, Overlay, Process, Rlimit, Source, run,
};
