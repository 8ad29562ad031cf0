//! The seam between a kernel and what catches its guests' system calls.
//!
//! The platform drives and the kernel is called: a [`Platform`] owns its OS threads and decides how a
//! guest thread meets one; it calls a [`TrapHandler`] for every [`Trap`], and the handler says with a
//! [`Resume`] how the guest goes on. A handler may block the OS thread it runs on, after the blocking
//! primitive has told the backend through `sync::block`.
//!
//! - [`space`]: [`AddressSpace`], one guest address space; mappings in, bytes in and out.
//! - [`thread`]: [`GuestThread`], one guest thread while it is stopped in a trap.
//! - [`regs`]: the x86-64 register set.
//! - [`trap`]: what can happen.
//! - [`xstate`]: how long the processor's vector state is.
//! - [`conformance`]: what every backend must do, as tests.
//!
//! Invariant: nothing above this crate asks *which* backend it runs on; it asks for [`Features`].
#![forbid(unsafe_code)]

use std::sync::Arc;

pub mod conformance;
pub mod regs;
pub mod space;
pub mod thread;
pub mod trap;
pub mod xstate;

pub use regs::Registers;
pub use space::{AddressSpace, Advice, MapError, MapOp};
pub use thread::{GuestThread, NewThread, ThreadHandle};
pub use trap::{Fault, HostExit, Resume, SyscallTrap, Trap, TrapHandler};

/// Something the host refused, or a host too old. Says what was being done.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The backend cannot work on this machine at all.
    #[error("platform {platform} cannot work here: {reason}")]
    Unsupported {
        /// Backend.
        platform: &'static str,
        /// What is missing.
        reason: String,
    },
    /// A host call failed.
    #[error("{doing}: {source}")]
    Host {
        /// What was being done, and to what.
        doing: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
    /// Host processes, threads or memory are at their limit: `EAGAIN`/`ENOMEM` to a guest.
    #[error("out of {0}")]
    Exhausted(&'static str),
    /// The guest's host process died while it was needed.
    #[error("the guest's process is gone")]
    Gone,
}

impl From<PlatformError> for abi::Errno {
    fn from(error: PlatformError) -> Self {
        match error {
            PlatformError::Exhausted("memory") => Self::ENOMEM,
            PlatformError::Exhausted(_) => Self::EAGAIN,
            PlatformError::Unsupported { .. } => Self::ENOSYS,
            PlatformError::Host { source, .. } => {
                source.raw_os_error().and_then(Self::from_raw).unwrap_or(Self::EAGAIN)
            }
            PlatformError::Gone => Self::ESRCH,
        }
    }
}

/// What a backend can do; asked once at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Lowest address a guest may map.
    pub min_address: u64,
    /// First address above what a guest may map.
    pub max_address: u64,
    /// The host answers private and shared futex wait and wake without a trap.
    pub native_futex: bool,
    /// Bytes of the XSAVE area a signal frame must hold.
    pub xsave_size: usize,
    /// The features in it, as in `XCR0`; without those that a process would have to ask for.
    pub xcr0: u64,
    /// The guest can be given the host's vDSO, mapped where [`AddressSpace::vdso`] says.
    pub host_vdso: bool,
}

/// A backend.
pub trait Platform: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What it can do.
    fn features(&self) -> Features;

    /// A new, empty address space that no thread runs in yet. It can be mapped, read and written at once.
    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError>;

    /// Starts the first thread in `space`, which must be fresh from
    /// [`new_address_space`](Self::new_address_space).
    fn spawn(&self, space: &Arc<dyn AddressSpace>, thread: NewThread) -> Result<(), PlatformError>;
}
