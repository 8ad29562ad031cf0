//! From a trap to a handler.

use std::sync::Arc;

use abi::{Errno, SysError, SysResult};
use kernel::Task;
use kernel::kernel::SyscallTable;
use platform::{GuestThread, SyscallTrap};

use crate::cx::Cx;
use crate::x86_64::X86_64;

/// The system calls of x86-64, for a kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct X86Calls;

impl SyscallTable for X86Calls {
    fn dispatch(&self, task: &Arc<Task>, thread: &mut dyn GuestThread, call: SyscallTrap) -> SysResult<u64> {
        let Some(row) = X86_64.row(call.nr) else {
            tracing::debug!(nr = call.nr, name = abi::syscall::name(call.nr), "system call without a row");
            return Err(SysError::Errno(Errno::ENOSYS));
        };
        (row.call)(&mut Cx { task, thread }, call.args)
    }
}
