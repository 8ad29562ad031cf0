//! Noticing processes that a sandbox leaves behind.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Makes orphans of what this process starts its children, so that [`settle`] sees them.
///
/// # Errors
/// The host does not support it (Linux before 3.4).
pub fn adopt() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Waits until this process has no children, reaping them; false when some are left after `limit`. No
/// other thread may be waiting for a child meanwhile.
pub fn settle(limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return true,
            Ok(WaitStatus::StillAlive) if Instant::now() >= deadline => return false,
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            _ => {}
        }
    }
}
