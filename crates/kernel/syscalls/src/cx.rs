//! What a handler runs in.

use std::sync::Arc;

use kernel::Task;
use platform::GuestThread;

use crate::handler::Context;

/// The calling task, and its thread while it is stopped in the call.
pub struct Cx<'a> {
    /// The task.
    pub task: &'a Arc<Task>,
    /// Its thread. Few calls need it: those that read or set all registers.
    pub thread: &'a mut dyn GuestThread,
}

/// The tables of the kernel.
#[derive(Debug)]
pub struct KernelCalls;

impl Context for KernelCalls {
    type Of<'a> = Cx<'a>;
}
