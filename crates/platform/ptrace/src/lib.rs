//! The ptrace platform: guests as host processes with private memory, caught by their tracers.
//!
//! The portable fallback: it needs no device and no seccomp *notification*, only `ptrace(2)` and a filter.
//! Each guest thread is a host thread, and has an OS thread of the Sentry that traces it and runs its handler;
//! `ptrace(2)` wants all requests from one thread. A filter whose verdict is *ask the tracer* stops a guest at
//! each call, which costs what `PTRACE_SYSEMU` costs, but it cannot be slipped by a wrong request, covers the
//! vsyscall page, lets futexes run on the host, and fails calls of a thread that nobody traces.
//!
//! - `layout`, `filter`: the stub's page, and what guests reach on the host.
//! - `master`: the process that all guest processes are clones of, and its tracer, the guardian.
//! - `tracee`: one thread under its tracer: stops, injected calls.
//! - `space`: address spaces, and the agents by which others act in them.
//! - `task`, `stopped`: guest threads, from outside and in a handler.
//! - `process`, `watch`: host processes and their ends.
//! - `files`: descriptors that guests map files by.
//! - `fault`, `fpstate`: what a fault was; the XSAVE area.
//! - `calls`: the table of host calls the Sentry makes for this.
//! - `raw`: all unsafe code.
//!
//! A [`Ptrace`] must be made before the Sentry installs its filter, which the master must not inherit. Needs
//! Linux 5.9 (`close_range`); traces its own descendants only, so `ptrace_scope` may be 1.
//!
//! Absent: the processor's own trap numbers and error codes (they are inferred), and threads are not kept on
//! their tracer's core.

#[cfg(test)]
mod attack;
mod calls;
mod fault;
mod files;
mod filter;
mod fpstate;
mod layout;
mod master;
mod process;
mod raw;
mod space;
mod stopped;
mod task;
mod tracee;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use hostproc::Vdso;
use parking_lot::Mutex;
use platform::{AddressSpace, Features, NewThread, Platform, PlatformError};

use crate::files::Files;
use crate::fpstate::Facts;
use crate::master::Master;
use crate::space::Space;
use crate::task::{FpStart, Place};
use crate::watch::Watch;

pub use calls::HOST_CALLS;
pub use hostproc::HostView;

/// What all address spaces share.
struct Shared {
    master: Arc<Master>,
    files: Files,
    watch: Watch,
    view: HostView,
    /// The vDSO that every new process has, unless the host keeps it from being moved.
    vdso: OnceLock<Vdso>,
    /// Spaces by address, to find ours again behind the trait object.
    spaces: Mutex<HashMap<usize, Weak<Space>>>,
}

/// The backend. Guest processes end with it: when it is dropped, or when this program ends in any way.
pub struct Ptrace {
    shared: Arc<Shared>,
    /// The space that showed that it works here, for the first to ask.
    spare: Mutex<Option<Arc<Space>>>,
}

impl Ptrace {
    /// Probes the host and readies what all address spaces share, while the host's `/proc` is there.
    pub fn new() -> Result<Self, PlatformError> {
        Self::with(HostView::take())
    }

    /// The same by somebody who has looked around earlier.
    pub fn with(view: HostView) -> Result<Self, PlatformError> {
        let unsupported = |reason: String| PlatformError::Unsupported { platform: "ptrace", reason };
        let filter = filter::build().map_err(|e| unsupported(e.to_string()))?;
        let master = Arc::new(Master::start(&filter, view.vdso())?);
        let shared = Arc::new(Shared {
            files: Files::new(Arc::clone(&master)),
            master,
            watch: Watch::default(),
            view,
            vdso: OnceLock::new(),
            spaces: Mutex::new(HashMap::new()),
        });
        Watch::start(&shared)
            .map_err(|source| PlatformError::Host { doing: "starting the watch", source })?;
        let platform = Self { spare: Mutex::new(None), shared };
        let space = Space::fresh(&platform.shared)?;
        let mut magic = [0; 4];
        if let Some(vdso) = platform.shared.view.vdso()
            && hostproc::memory::read(space.pid(), vdso.header(), &mut magic) == 4
            && magic == *b"\x7fELF"
        {
            let _ = platform.shared.vdso.set(vdso.clone());
        }
        *platform.spare.lock() = Some(space);
        Ok(platform)
    }
}

impl Drop for Ptrace {
    fn drop(&mut self) {
        self.spare.lock().take();
        self.shared.watch.close();
        self.shared.master.close();
    }
}

impl Platform for Ptrace {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn features(&self) -> Features {
        let Facts { size: xsave_size, xcr0, .. } = self.shared.master.facts;
        Features {
            min_address: layout::MIN_ADDRESS,
            max_address: layout::MAX_ADDRESS,
            native_futex: true,
            xsave_size,
            xcr0,
            host_vdso: self.shared.vdso.get().is_some(),
        }
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        let spare = self.spare.lock().take();
        Ok(spare.map_or_else(|| Space::fresh(&self.shared), Ok)?)
    }

    fn spawn(&self, space: &Arc<dyn AddressSpace>, thread: NewThread) -> Result<(), PlatformError> {
        let space = task::ours(&self.shared, space)?;
        let process = space.unpark()?;
        let tid = process.tgid;
        task::start(Place { space, process, tid }, thread, FpStart::Reset).map(drop)
    }
}
