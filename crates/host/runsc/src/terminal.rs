//! Terminals of the host: the one that runsc was started on, while a guest uses it, and one that is made for
//! a guest and whose other end somebody else holds.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// The terminal in raw mode, so that every key reaches the guest's own line discipline; as it was before
/// when this is dropped.
pub(crate) struct Raw {
    terminal: BorrowedFd<'static>,
    before: Termios,
}

impl Raw {
    /// Changes the terminal behind `fd`.
    pub(crate) fn enter(terminal: BorrowedFd<'static>) -> Result<Self> {
        let before = tcgetattr(terminal).context("the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal, SetArg::TCSADRAIN, &raw).context("setting the terminal to raw mode")?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before) {
            tracing::warn!(%error, "cannot restore the terminal");
        }
    }
}

/// A pseudo-terminal (`pty(7)`). The guest has a line discipline of its own, so that this one only carries
/// bytes.
pub(crate) struct Pty(OpenptyResult);

impl Pty {
    /// Makes one.
    pub(crate) fn open() -> Result<Self> {
        let pty = openpty(None, None).context("a pseudo-terminal")?;
        let mut settings = tcgetattr(&pty.slave).context("the terminal's settings")?;
        cfmakeraw(&mut settings);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).context("setting the terminal to raw mode")?;
        Ok(Self(pty))
    }

    /// The end that a program uses.
    pub(crate) fn slave(&self) -> BorrowedFd<'_> {
        self.0.slave.as_fd()
    }

    /// Sends the other end to whoever listens at `socket`.
    pub(crate) fn send_master(&self, socket: &Path) -> Result<()> {
        let stream = UnixStream::connect(socket).with_context(|| format!("--console-socket {socket:?}"))?;
        hostsys::file::send_message(stream.as_fd(), b"pty", Some(self.0.master.as_fd()))
            .with_context(|| format!("--console-socket {socket:?}"))
    }
}
