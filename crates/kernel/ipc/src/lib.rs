//! System V semaphores and message queues of one IPC namespace (`sysvipc(7)`).
//!
//! - [`registry`]: ids, keys, permissions; one bounded table a kind of object.
//! - [`sem`]: semaphore sets, with `SEM_UNDO`.
//! - [`msg`]: message queues.
//!
//! Nothing here blocks: an operation that must wait says `EAGAIN`, and the caller waits on the object's
//! queue. Shared memory segments live with the memory manager's shared objects and use the
//! [`registry`] from there.
#![forbid(unsafe_code)]

pub mod msg;
pub mod registry;
pub mod sem;

/// Results of IPC calls: what a guest sees.
pub type Result<T> = core::result::Result<T, abi::Errno>;
