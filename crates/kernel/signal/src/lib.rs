//! Signals as data: sets, queues, actions, and the x86-64 signal frame.
//!
//! - [`queue`]: [`SignalQueue`], what is pending for a task or a thread group.
//! - [`action`]: [`Actions`], what a thread group does about each signal.
//! - [`frame`]: the bytes a handler finds on its stack, and back.
//!
//! Nothing here sends or delivers: that is `kernel`.
#![forbid(unsafe_code)]

pub mod action;
pub mod frame;
pub mod queue;

pub use action::{Actions, Default, Disposition};
pub use frame::{Frame, Restored, RtFrame};
pub use queue::{QueueFull, SignalQueue};
