//! What stops a guest thread, and how it goes on.

use abi::signal::{SigInfo, Signal};
use std::sync::Arc;

use crate::{GuestThread, ThreadHandle};

/// A system call as every entry knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallTrap {
    /// Number; may be anything.
    pub nr: u64,
    /// Arguments.
    pub args: [u64; 6],
    /// Address behind the instruction.
    pub ip: u64,
}

/// A synchronous fault of the guest: the signal it would get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `SIGSEGV`, `SIGBUS`, `SIGILL`, `SIGFPE` or `SIGTRAP`.
    pub signal: Signal,
    /// Code and address, in the signal's own layout.
    pub info: SigInfo,
    /// x86 trap number (`uc_mcontext.trapno`).
    pub trap_number: u64,
    /// x86 error code.
    pub error_code: u64,
    /// `CR2`.
    pub cr2: u64,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A system call. `Resume::Return` gives its result.
    Syscall(SyscallTrap),
    /// A fault the guest's kernel must deal with.
    Fault(Fault),
    /// [`ThreadHandle::interrupt`] was called.
    Interrupted,
}

/// How the guest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Only after [`Trap::Syscall`]: return this in `rax`, everything else as the thread has it.
    Return(u64),
    /// With the registers as they are now set in the thread.
    Continue,
    /// The thread ends here. Its `clear_tid` word is cleared and woken when it shares its space.
    Exit,
    /// The thread and all threads of its host process end here.
    ExitProcess,
}

/// How a guest's host process ended without the kernel's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostExit {
    /// By a signal, `SIGKILL` from the host's OOM killer most likely.
    Signaled(i32),
    /// The backend found its shared state destroyed and ended it.
    Corrupt,
    /// It ended because [`ThreadHandle::kill_process`] or `Resume::ExitProcess` said so.
    Requested,
}

/// Implemented by a kernel: one handler a guest thread.
pub trait TrapHandler: Send + Sync {
    /// The thread is about to run for the first time; `handle` is how to reach it.
    fn started(&self, handle: Arc<dyn ThreadHandle>);

    /// The thread trapped. Runs on one of the backend's OS threads, at most once at a time a thread.
    fn trap(&self, thread: &mut dyn GuestThread, trap: Trap) -> Resume;

    /// The thread's host process is gone. May be called while `trap` runs on another OS thread (which
    /// then ends without resuming anything); called at most once.
    fn host_exit(&self, exit: HostExit);
}
