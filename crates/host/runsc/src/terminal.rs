//! The terminal that runsc was started on, while a guest uses it.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
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
