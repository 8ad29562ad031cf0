//! Everything unsafe of this crate: the stub's code, host calls without a safe wrapper, and the
//! Sentry's view of a mailbox.
//!
//! # Soundness
//! The mailbox is shared with a hostile process, so it is only ever touched by volatile accesses and
//! assembly through raw pointers, with checked offsets, and no reference into it exists. Host calls pass pointers to live
//! buffers of the lengths given. The zygote touches nothing but
//! registers and its own image.

pub(crate) mod mailbox;
pub(crate) mod stub;
pub(crate) mod sys;
pub(crate) mod table;
pub(crate) mod zygote;
