//! Locks with an order, wait queues, and the hook that tells a platform a thread is about to block.
//!
//! - [`mod@order`]: the lock classes, outermost first. [`Mutex<Class, T>`](Mutex) and [`RwLock`] take
//!   their place in it and panic in debug builds when taken out of order.
//! - [`wait`]: [`WaitQueue`](wait::WaitQueue), how a task sleeps until a file becomes ready.
//! - [`block`]: what runs before an OS thread sleeps.
//!
//! Invariant: no guard is held over a copy from or to a guest, a Gofer call, a guest entry or a wake-up.
#![forbid(unsafe_code)]

pub mod block;
pub mod lock;
pub mod order;
pub mod wait;

pub use lock::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
