//! One guest thread, while it is stopped in a trap.

use std::sync::Arc;
use std::time::Duration;

use crate::{AddressSpace, PlatformError, Registers, TrapHandler};

/// A guest thread to start.
pub struct NewThread {
    /// Registers it begins with.
    pub registers: Registers,
    /// Floating-point state in the layout of a signal frame's XSAVE area; `None` is the reset state (a
    /// new program), and for a clone the caller's.
    pub fp_state: Option<Vec<u8>>,
    /// Called for all its traps.
    pub handler: Arc<dyn TrapHandler>,
    /// Zero this guest word and wake its futex when the thread ends (`CLONE_CHILD_CLEARTID`);
    /// zero for none. Given only to a backend with [`native_futex`](crate::Features::native_futex): without, its
    /// kernel has the waiters.
    pub clear_tid: u64,
}

/// What may be done to a guest thread at any time, from any OS thread.
pub trait ThreadHandle: Send + Sync {
    /// Makes the thread trap with [`Trap::Interrupted`](crate::Trap::Interrupted) soon: at once when it
    /// runs guest code or waits natively, else before it next would. A call that comes while the thread
    /// is in a handler is not lost. Several before the trap count as one.
    fn interrupt(&self);

    /// Ends the thread's host process for good (`SIGKILL`): all threads of its thread group.
    /// `TrapHandler::host_exit` follows.
    fn kill_process(&self);

    /// User and system time this thread has run.
    fn cpu_time(&self) -> (Duration, Duration);
}

/// The thread a trap is about. Valid only during the call of the handler.
pub trait GuestThread {
    /// All registers. During [`Trap::Syscall`](crate::Trap::Syscall): `rip` is behind the instruction,
    /// `orig_rax` the number, `rax` `-ENOSYS`. May cost a round trip through the guest (systrap's cold
    /// entry knows only the arguments), so call it only where the whole set matters.
    fn registers(&mut self) -> Result<Registers, PlatformError>;

    /// Replaces all registers; takes effect when the thread resumes with [`Resume::Continue`]
    /// (crate::Resume::Continue). They are sanitised first.
    fn set_registers(&mut self, registers: &Registers) -> Result<(), PlatformError>;

    /// Floating-point and vector state: the XSAVE area in the standard (not compacted) form, as a signal
    /// frame holds it, `Features::xsave_size` bytes.
    fn fp_state(&mut self) -> Result<Vec<u8>, PlatformError>;

    /// Replaces it. Malformed or foreign state falls back to the reset state.
    fn set_fp_state(&mut self, state: &[u8]) -> Result<(), PlatformError>;

    /// Back to what a new program sees.
    fn reset_fp_state(&mut self) -> Result<(), PlatformError>;

    /// The address space it runs in.
    fn address_space(&self) -> Arc<dyn AddressSpace>;

    /// Starts a thread in the same address space and the same thread group (`CLONE_THREAD`).
    fn clone_thread(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError>;

    /// Starts a new process whose first thread shares this address space (`vfork`, `CLONE_VM`).
    fn clone_shared(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError>;

    /// Starts a new process with a copy-on-write copy of this address space (`fork`).
    fn fork(
        &mut self,
        new: NewThread,
    ) -> Result<(Arc<dyn AddressSpace>, Arc<dyn ThreadHandle>), PlatformError>;

    /// Moves this thread into `space` (fresh from `new_address_space`) and forgets the old one (`exec`).
    /// Registers and floating-point state must be set afterwards.
    fn exec_into(&mut self, space: Arc<dyn AddressSpace>) -> Result<(), PlatformError>;

    /// A handle for use from elsewhere. Stays valid after `exec_into`.
    fn handle(&self) -> Arc<dyn ThreadHandle>;
}
