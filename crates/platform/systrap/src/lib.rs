//! The systrap platform: guests as host processes with private memory, caught by seccomp.
//!
//! - `layout`: where stub and mailbox lie.
//! - `filter`: the table of host calls a guest reaches.
//! - `raw`: the stub, the mailbox, host calls; all unsafe code.
//! - `frame`: the signal frame a stopped thread rests on.
//! - `host`: host threads and processes, and what one can be told to do while it is held.
//! - `serve`: listeners, and the leader/follower threads that serve them.
//! - `space`: address spaces.
//! - `task`: guest threads as a kernel sees them.
//!
//! State of this version: every trapped call enters by `SECCOMP_RET_TRAP`, so that registers are always
//! at hand; the doorbell is a notification. Missing: the cheaper direct notification, trampolines, the
//! zygote (processes are cloned from the Sentry), the host's vDSO,
//! and times of single threads.

mod filter;
mod frame;
mod host;
mod layout;
mod raw;
mod serve;
mod space;
mod task;

use std::sync::Arc;

use platform::{AddressSpace, Features, NewThread, Platform, PlatformError};

/// The backend.
pub struct Systrap {
    shared: Arc<host::Shared>,
}

impl Systrap {
    /// Probes the host and readies what all address spaces share.
    pub fn new() -> Result<Self, PlatformError> {
        let unsupported = |reason: String| PlatformError::Unsupported { platform: "systrap", reason };
        let filter = filter::build().map_err(|e| unsupported(e.to_string()))?;
        let (xsave_size, xcr0) = raw::sys::xsave();
        if xsave_size > layout::MAX_XSAVE {
            return Err(unsupported(format!("an XSAVE area of {xsave_size} bytes does not fit a slot")));
        }
        if !raw::sys::has_fsgsbase() {
            return Err(unsupported("FSGSBASE is missing".to_owned()));
        }
        Ok(Self { shared: Arc::new(host::Shared::new(filter, xsave_size, xcr0)) })
    }
}

impl Platform for Systrap {
    fn name(&self) -> &'static str {
        "systrap"
    }

    fn features(&self) -> Features {
        Features {
            min_address: layout::MIN_ADDRESS,
            max_address: layout::MAX_ADDRESS,
            native_futex: true,
            xsave_size: self.shared.xsave_size,
            xcr0: self.shared.xcr0,
            host_vdso: false,
        }
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(space::Space::fresh(&self.shared)?)
    }

    fn spawn(&self, space: &Arc<dyn AddressSpace>, thread: NewThread) -> Result<(), PlatformError> {
        task::spawn(&self.shared, space, thread)
    }
}
