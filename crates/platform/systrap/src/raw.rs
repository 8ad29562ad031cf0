//! Everything unsafe of this crate: the stub's code, host calls without a safe wrapper, and the
//! Sentry's view of a mailbox.
//!
//! # Soundness
//! The mailbox is shared with a hostile process, so it is only ever touched by volatile accesses through
//! raw pointers, with checked offsets, and no reference into it exists. Host calls pass pointers to live
//! buffers of the lengths given. The code that runs between `clone` and the stub in a child makes raw
//! system calls only.

pub(crate) mod child;
pub(crate) mod mailbox;
pub(crate) mod stub;
pub(crate) mod sys;
