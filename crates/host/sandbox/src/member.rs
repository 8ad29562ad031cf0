//! A container that joins a sandbox: a Gofer of its own, whose connections are for the Sentry there is.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hostsys::spawn::ParentDeath;

use crate::launch::{Attachment, Common, Half, pair, pipe, start_gofer};
use crate::{SandboxError, identity::ProcessId};

/// Connections from the Sentry to such a Gofer; a message takes few descriptors.
const CONNECTIONS: usize = 2;

/// The Gofer of a container that joins a sandbox. It is ended when this is dropped, unless it is
/// [left to itself](Self::detach); and it ends when nobody holds its connections any more.
#[derive(Debug)]
pub struct MemberGofer {
    half: Half,
    noted: File,
    watched: bool,
}

impl MemberGofer {
    /// Starts one. Returns it with the connections for the Sentry.
    pub fn launch(
        attachments: &[Attachment],
        flags: &[OsString],
        log: BorrowedFd<'_>,
    ) -> Result<(Self, Vec<OwnedFd>), SandboxError> {
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|source| SandboxError::Host { doing: "cannot open /dev/null", source })?;
        let common = Common { flags, null: null.as_fd(), log, parent_death: ParentDeath::Survived };
        let pairs = (0..CONNECTIONS).map(|_| pair()).collect::<Result<Vec<_>, _>>()?;
        let (for_sentry, for_gofer): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        // Nobody reads it: the Sentry outlives its containers.
        let (_, lifeline) = pipe()?;
        let (noted_read, noted) = pipe()?;
        let half = start_gofer(&common, attachments, &for_gofer, lifeline.as_fd(), noted_read.as_fd())?;
        Ok((Self { half, noted: noted.into(), watched: true }, for_sentry))
    }

    /// Its host pid.
    pub fn pid(&self) -> i32 {
        self.half.pid()
    }

    pub(crate) fn id(&self) -> Option<ProcessId> {
        ProcessId::of(self.pid())
    }

    /// Lets it serve, now that whoever is to end it can find it.
    pub fn noted(&mut self) -> Result<(), SandboxError> {
        let noted = self.noted.write_all(b"n");
        noted.map_err(|source| SandboxError::Host { doing: "cannot let the Gofer go on", source })
    }

    /// Leaves it to itself.
    pub fn detach(mut self) {
        self.watched = false;
    }
}

impl Drop for MemberGofer {
    fn drop(&mut self) {
        if self.watched
            && let Err(error) = self.half.kill()
        {
            tracing::warn!(pid = self.pid(), %error, "cannot reap");
        }
    }
}
