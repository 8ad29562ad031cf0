//! Processes of a sandbox whose parent we may not be: who they are, and killing them.

use std::fs;
use std::os::fd::AsFd;

use abi::Errno;
use hostsys::pidfd;
use serde::{Deserialize, Serialize};

use crate::{Sandbox, SandboxError};

/// How long to wait for the end of a killed process, in milliseconds.
const KILL_MS: u16 = 10_000;

/// A host process that cannot be mistaken for another one with its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot (`proc_pid_stat(5)`, field 22).
    pub(crate) started: u64,
}

/// The processes of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    pub(crate) sentry: ProcessId,
    pub(crate) gofer: ProcessId,
}

impl ProcessId {
    /// Of a process that lives.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may contain anything but ends at the last parenthesis.
        let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        // A zombie is dead, whoever has yet to reap it.
        (!matches!(state, "Z" | "X")).then_some(Self { pid, started })
    }

    /// Whether it is still there.
    pub(crate) fn lives(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Kills it, and waits for its end; nothing when it does not live.
    pub(crate) fn kill(self) -> Result<(), Errno> {
        let process = match pidfd::open(self.pid) {
            Err(Errno::ESRCH) => return Ok(()),
            other => other?,
        };
        // Looked at after the descriptor was opened: it is this one or none.
        if !self.lives() {
            return Ok(());
        }
        match pidfd::send_signal(process.as_fd(), libc::SIGKILL) {
            Ok(()) => pidfd::wait_for_end(process.as_fd(), KILL_MS.into()).map(drop),
            Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Processes {
    /// Of a sandbox that runs.
    pub fn of(sandbox: &Sandbox) -> Result<Self, SandboxError> {
        let find = |pid| ProcessId::of(pid).ok_or(SandboxError::Wait(Errno::ESRCH));
        Ok(Self { sentry: find(sandbox.pid())?, gofer: find(sandbox.gofer_pid())? })
    }

    /// Kills what lives of them, and waits for the end of that.
    pub(crate) fn kill(self) -> Result<(), SandboxError> {
        self.sentry.kill().and_then(|()| self.gofer.kill()).map_err(SandboxError::Wait)
    }
}
