//! From a trap to a handler.

use std::sync::{Arc, OnceLock};

use abi::{Errno, SysError, SysResult};
use kernel::Task;
use kernel::kernel::SyscallTable;
use obs::{Counter, Tally};
use platform::{GuestThread, SyscallTrap};

use crate::cx::Cx;
use crate::services::Services;
use crate::x86_64::X86_64;

/// Target of the log lines that show every call (`--strace`).
pub const STRACE: &str = "strace";

/// Numbers that are counted; those of x86-64 are below.
const COUNTED: usize = 512;

static CALLS: Tally<COUNTED> =
    Tally::new("syscalls", "System calls of guests that the Sentry answered", "name", |nr| {
        abi::syscall::name(nr as u64)
    });

static UNKNOWN: Counter =
    Counter::new("syscalls.unknown", "System calls of guests that there are not, or not here");

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
        let traced = tracing::enabled!(target: STRACE, tracing::Level::DEBUG);
        if traced {
            trace_entry(task, &call);
        }
        // `/proc/self` has no caller in its arguments.
        let result = procfs::view::with_current(task, || self.call(task, thread, &call));
        if traced {
            trace_exit(task, &call, result);
        }
        result
    }
}

impl X86Calls {
    fn call(&self, task: &Arc<Task>, thread: &mut dyn GuestThread, call: &SyscallTrap) -> SysResult<u64> {
        let Some(row) = X86_64.row(call.nr) else {
            UNKNOWN.increment();
            tracing::debug!(nr = call.nr, name = abi::syscall::name(call.nr), "system call without a row");
            return Err(SysError::Errno(Errno::ENOSYS));
        };
        CALLS.increment(usize::try_from(call.nr).unwrap_or(usize::MAX));
        let services = self.services.get().ok_or(Errno::ENOSYS)?;
        (row.call)(&mut Cx { task, thread, services }, call.args)
    }
}

/// `read(3, 0x7ffe..., 4096)`, as far as the registers tell.
fn describe(call: &SyscallTrap) -> String {
    match X86_64.row(call.nr) {
        Some(row) => format!("{}({})", row.name(), (row.describe)(call.args)),
        None => format!("{}({:x?})", abi::syscall::name(call.nr).unwrap_or("?"), call.args),
    }
}

fn trace_entry(task: &Task, call: &SyscallTrap) {
    let name = task.name();
    tracing::debug!(target: STRACE, "[{} {}] {} ...", task.tid(), String::from_utf8_lossy(&name), describe(call));
}

fn trace_exit(task: &Task, call: &SyscallTrap, result: SysResult<u64>) {
    let shown = match result {
        Ok(value) => format!("{:#x}", value),
        Err(SysError::Errno(errno)) => format!("-1 {errno}"),
        Err(SysError::Restart(restart)) => format!("? {restart:?}"),
    };
    tracing::debug!(target: STRACE, "[{}] {} = {shown}", task.tid(), describe(call));
}
