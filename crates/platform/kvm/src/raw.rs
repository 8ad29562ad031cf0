//! All unsafe code of this crate.

pub(crate) mod cpu;
pub(crate) mod device;
pub(crate) mod memory;
pub(crate) mod signal;
