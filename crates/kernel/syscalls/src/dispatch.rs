//! From a trap to a handler.

use std::sync::{Arc, OnceLock};

use abi::{Errno, SysError, SysResult};
use kernel::Task;
use kernel::kernel::SyscallTable;
use platform::{GuestThread, SyscallTrap};

use crate::cx::Cx;
use crate::services::Services;
use crate::x86_64::X86_64;

/// The system calls of x86-64, for a kernel.
#[derive(Default)]
pub struct X86Calls {
    services: OnceLock<Services>,
}

impl X86Calls {
    /// Without services: the kernel is made with its calls, and its mounts with the kernel.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Gives it what the calls need beside the kernel, once, before a process starts: until then every
    /// call answers `ENOSYS`.
    pub fn provide(&self, services: Services) {
        if self.services.set(services).is_err() {
            tracing::error!("services of a sandbox given twice; the second are ignored");
        }
    }
}

impl SyscallTable for X86Calls {
    fn dispatch(&self, task: &Arc<Task>, thread: &mut dyn GuestThread, call: SyscallTrap) -> SysResult<u64> {
        let Some(row) = X86_64.row(call.nr) else {
            tracing::debug!(nr = call.nr, name = abi::syscall::name(call.nr), "system call without a row");
            return Err(SysError::Errno(Errno::ENOSYS));
        };
        let services = self.services.get().ok_or(Errno::ENOSYS)?;
        (row.call)(&mut Cx { task, thread, services }, call.args)
    }
}
