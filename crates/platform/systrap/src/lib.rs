//! The systrap platform: guests as host processes with private memory, caught by seccomp.
//!
//! - `layout`: where stub and mailbox lie.
//! - `calls`: the table of host calls the Sentry makes for this.
//! - `carry`: mapping operations.
//! - `children`: guests' host processes: the zygote they are clones of, and their end.
//! - `crew`: the OS threads for all that.
//! - `filter`: the table of host calls a guest reaches.
//! - `patch`: rewritten call sites of programs.
//! - `raw`: the stub, the mailbox, host calls; all unsafe code.
//! - `frame`: the signal frame a stopped thread rests on.
//! - `host`: host threads and processes, and what one can be told to do while it is held.
//! - `serve`: listeners, and the leader/follower threads that serve them.
//! - `space`: address spaces.
//! - `spare`: the space made ahead.
//! - `spin`: who looks for the calls that such sites post.
//! - `task`: guest threads as a kernel sees them.
//! - `watch`: relieves leaders that sleep without having told.
//!
//! A call enters as a seccomp notification, which knows its arguments only, or by `SIGSYS` where all
//! registers or the mappings are needed (`filter` has the list); then, as for faults and interrupts, the stub's handler
//! rings a doorbell, a notification too, and the thread can be told to act. A thread that is at a call is
//! taken to its doorbell when it must act after all.
//!
//! The third way is that of calls of a rewritten program: the thread posts them to its mailbox and looks for the
//! result there, while a thread of ours looks for such calls. Nobody enters the host then. When nobody looks, the
//! thread waits for the result by a notification, with what the call points to in the mailbox all the same.
//!
//! Missing in this version: peak memory of a space, and the rewriting of code that guests write.
//!
//! A [`Systrap`] must be made before the Sentry installs its seccomp filter, because it clones the zygote, which must
//! not inherit it; afterwards [`HOST_CALLS`] are enough. A [`HostView`] must be taken before `/proc` goes.

#[cfg(test)]
mod attack;
#[cfg(test)]
mod burst;
mod calls;
mod carry;
mod children;
mod crew;
mod filter;
mod frame;
mod host;
mod layout;
mod marshal;
mod patch;
mod raw;
mod serve;
mod space;
mod spare;
mod spin;
mod task;
#[cfg(test)]
mod travel;
mod watch;
mod window;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use platform::{AddressSpace, Features, NewThread, Platform, PlatformError};

use crate::children::Children;

pub use calls::HOST_CALLS;
pub use hostproc::HostView;

/// By which ways guests' calls enter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paths {
    /// By all there are.
    #[default]
    All,
    /// Through the host only: programs are not rewritten.
    Slow,
}

/// The backend. Guest processes end with it: when it is dropped, or when this program ends in any way.
pub struct Systrap {
    shared: Arc<host::Shared>,
}

impl Systrap {
    /// Probes the host and readies what all address spaces share, while the host's `/proc` is there.
    pub fn new() -> Result<Self, PlatformError> {
        Self::with(HostView::take())
    }

    /// The same by somebody who has looked around earlier.
    pub fn with(host: HostView) -> Result<Self, PlatformError> {
        Self::with_paths(host, Paths::All)
    }

    /// The same with some paths only.
    pub fn with_paths(host: HostView, paths: Paths) -> Result<Self, PlatformError> {
        let unsupported = |reason: String| PlatformError::Unsupported { platform: "systrap", reason };
        let filter = filter::build().map_err(|e| unsupported(e.to_string()))?;
        let xcr0 = platform::xstate::granted(raw::sys::xcr0());
        let xsave_size = platform::xstate::size(xcr0);
        if xsave_size > layout::MAX_XSAVE {
            return Err(unsupported(format!("an XSAVE area of {xsave_size} bytes does not fit a slot")));
        }
        if !raw::sys::has_fsgsbase() {
            return Err(unsupported("FSGSBASE is missing".to_owned()));
        }
        // Without the table everything works, but no call is posted.
        let (table, fd) = match paths {
            Paths::All => raw::table::Table::new().ok().unzip(),
            Paths::Slow => (None, None),
        };
        let spinner = (table.is_some() && raw::sys::has_spare_processor()).then(spin::Spinner::new);
        let shared = Arc::new(host::Shared {
            children: Children::start(&filter, host.vdso(), fd)?,
            patches: table.map(patch::Patches::new),
            spinner,
            xsave_size,
            xcr0,
            vdso: OnceLock::new(),
            view: host,
            spare: spare::Spare::default(),
            spaces: Mutex::new(HashMap::new()),
        });
        let systrap = Self { shared };
        let space = space::Space::fresh(&systrap.shared)?;
        if let Some(vdso) = systrap.shared.view.vdso().cloned()
            && space.holds(vdso.header(), b"\x7fELF")
        {
            let _ = systrap.shared.vdso.set(vdso);
        }
        // The space that showed that it works here is for the first to ask.
        systrap.shared.spare.put(space);
        Ok(systrap)
    }
}

impl Drop for Systrap {
    fn drop(&mut self) {
        self.shared.spare.close();
        self.shared.children.close();
    }
}

impl Platform for Systrap {
    fn name(&self) -> &'static str {
        "systrap"
    }

    fn features(&self) -> Features {
        Features {
            min_address: match self.shared.patches {
                Some(_) => layout::MIN_ADDRESS_FAST,
                None => layout::MIN_ADDRESS,
            },
            max_address: layout::MAX_ADDRESS,
            native_futex: true,
            xsave_size: self.shared.xsave_size,
            xcr0: self.shared.xcr0,
            host_vdso: self.shared.vdso.get().is_some(),
        }
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(spare::take(&self.shared)?)
    }

    fn spawn(&self, space: &Arc<dyn AddressSpace>, thread: NewThread) -> Result<(), PlatformError> {
        task::spawn(&self.shared, space, thread)
    }
}
