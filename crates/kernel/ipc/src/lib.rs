//! System V semaphores, message queues and shared memory of one IPC namespace (`sysvipc(7)`).
//!
//! - [`registry`]: ids, keys, permissions; one bounded table a kind of object.
//! - [`sem`]: semaphore sets, with `SEM_UNDO`.
//! - [`msg`]: message queues.
//! - [`shm`]: shared memory segments.
//! - [`namespace`]: all of them together, and their limits.
//!
//! Nothing here blocks: an operation that must wait says `EAGAIN`, and the caller waits on the object's
//! queue.
#![forbid(unsafe_code)]

pub mod limits;
pub mod msg;
pub mod namespace;
pub mod registry;
pub mod sem;
pub mod shm;

pub use namespace::Namespace;

/// Results of IPC calls: what a guest sees.
pub type Result<T> = core::result::Result<T, abi::Errno>;
