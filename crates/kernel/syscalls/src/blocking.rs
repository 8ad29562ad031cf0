//! Waiting for files: the one loop around the non-blocking methods of [`vfs::File`].

use std::time::{Duration, Instant};

use abi::fs::OpenFlags;
use abi::poll::PollEvents;
use abi::{Errno, SysError, SysResult};
use kernel::{BlockError, Task};
use vfs::OpenFile;

/// How long a call may wait for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    Never,
    /// Until a signal comes.
    Forever,
    /// Until then (`SO_RCVTIMEO`): `EAGAIN`, and no restart after a signal.
    Until(Instant),
}

impl Patience {
    /// What the status flags say.
    pub(crate) fn of(file: &OpenFile) -> Self {
        if file.flags().contains(OpenFlags::NONBLOCK) { Self::Never } else { Self::Forever }
    }

    /// No longer than `limit` from now (`SO_RCVTIMEO`, `SO_SNDTIMEO`); `None` is no limit.
    pub(crate) fn at_most(self, limit: Option<Duration>) -> Self {
        match (self, limit.and_then(|limit| Instant::now().checked_add(limit))) {
            (Self::Forever, Some(at)) => Self::Until(at),
            (patience, _) => patience,
        }
    }

    /// Not at all when `now`, else as `self`.
    pub(crate) fn unless(self, now: bool) -> Self {
        if now { Self::Never } else { self }
    }
}

/// Tries until it is not `EAGAIN`; between the tries waits for one of `interest` on the file.
pub(crate) fn until_ready<T>(
    task: &Task,
    file: &OpenFile,
    interest: PollEvents,
    patience: Patience,
    mut attempt: impl FnMut() -> vfs::Result<T>,
) -> SysResult<T> {
    let first = attempt();
    let deadline = match patience {
        Patience::Never => return Ok(first?),
        Patience::Forever => None,
        Patience::Until(at) => Some(at),
    };
    // A file whose readiness never changes is not worth waiting for.
    let (Err(Errno::EAGAIN), Some(queue)) = (&first, file.file().wait_queue()) else { return Ok(first?) };
    let again = || match attempt() {
        Err(Errno::EAGAIN) => None,
        other => Some(other),
    };
    match task.wait_for(queue, interest, deadline, again) {
        Ok(result) => Ok(result?),
        Err(BlockError::TimedOut) => Err(Errno::EAGAIN.into()),
        Err(BlockError::Interrupted) if deadline.is_some() => Err(Errno::EINTR.into()),
        Err(error @ BlockError::Interrupted) => Err(SysError::from(error)),
    }
}
