//! Branches that Linux has and we do not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::registry;

/// A branch that is not implemented; made by [`stub!`](crate::stub!).
#[derive(Debug)]
pub struct Stub {
    name: &'static str,
    reason: &'static str,
    hits: AtomicU64,
    registered: AtomicBool,
}

impl Stub {
    /// A stub never hit. `name` says what the guest asked for; `reason` why it is not there, or
    /// what happens instead.
    pub const fn new(name: &'static str, reason: &'static str) -> Self {
        Self { name, reason, hits: AtomicU64::new(0), registered: AtomicBool::new(false) }
    }

    /// What the guest asked for.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Why it is not there.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// How often it was asked for.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Counts a hit, and logs the first one: a guest in a loop must not fill the log.
    pub fn hit(&'static self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        if !self.registered.load(Ordering::Relaxed) && !self.registered.swap(true, Ordering::Relaxed) {
            registry::enter(registry::Entry::Stub(self));
            tracing::info!(name = self.name, reason = self.reason, "unimplemented");
        }
    }
}

/// Counts that a guest took a branch which is not implemented, then goes on.
///
/// The caller still returns the errno that Linux would:
/// ```
/// # fn ioctl() -> Result<(), i32> {
/// obs::stub!("ioctl.TIOCLINUX", "there is no virtual console");
/// Err(22)
/// # }
/// # assert!(ioctl().is_err());
/// ```
#[macro_export]
macro_rules! stub {
    ($name:expr, $reason:expr $(,)?) => {{
        static STUB: $crate::Stub = $crate::Stub::new($name, $reason);
        STUB.hit();
    }};
}
