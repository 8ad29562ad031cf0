//! What a terminal wants from the process table (`credentials(7)`, sessions and groups).

use std::sync::Arc;

use abi::signal::Signal;
use vfs::{FileContext, Result};

use crate::tty::Tty;

/// Where a process stands in job control. Ids are those of the root pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Session.
    pub session: i32,
    /// Process group.
    pub group: i32,
    /// Does it lead its session?
    pub is_leader: bool,
    /// Has its session a controlling terminal?
    pub has_terminal: bool,
}

/// The process table, as terminals see it. Called with no lock of a terminal held.
pub trait JobControl: Send + Sync {
    /// Where the caller stands; `None` for the Sentry itself, which may do anything.
    fn job(&self, cx: &FileContext<'_>) -> Option<Job>;

    /// Is this group one of this session?
    fn group_in_session(&self, group: i32, session: i32) -> bool;

    /// What the caller calls a group or session: another number in a pid namespace below the first, and 0 when it
    /// does not know it.
    fn number(&self, _cx: &FileContext<'_>, id: i32) -> i32 {
        id
    }

    /// What the caller means by a number; `None` when there is no such thing.
    fn id(&self, _cx: &FileContext<'_>, number: i32) -> Option<i32> {
        Some(number)
    }

    /// Signals every process of a group.
    fn signal_group(&self, group: i32, signal: Signal);

    /// A member of a background group wants to read (`SIGTTIN`) or to change the terminal (`SIGTTOU`).
    /// `Ok(true)`: the signal is blocked or ignored and it may go on (for `SIGTTOU`); `Ok(false)`: its
    /// group has been signalled, and the call is to be interrupted; `EIO`: orphaned group, or a read
    /// with the signal blocked or ignored.
    fn background(&self, cx: &FileContext<'_>, signal: Signal) -> Result<bool>;

    /// Makes `tty` the controlling terminal of the caller's session.
    fn attach(&self, cx: &FileContext<'_>, tty: &Arc<Tty>) -> Result<()>;

    /// Takes the controlling terminal from a session; with `hangup`, its leader and the foreground group
    /// get `SIGHUP` and `SIGCONT`.
    fn detach(&self, session: i32, foreground: Option<i32>, hangup: bool);

    /// The controlling terminal of the caller.
    fn terminal(&self, cx: &FileContext<'_>) -> Option<Arc<Tty>>;
}

/// A process table without processes: for terminals that only the Sentry drives.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoJobs;

impl JobControl for NoJobs {
    fn job(&self, _cx: &FileContext<'_>) -> Option<Job> {
        None
    }

    fn group_in_session(&self, _group: i32, _session: i32) -> bool {
        false
    }

    fn signal_group(&self, _group: i32, _signal: Signal) {}

    fn background(&self, _cx: &FileContext<'_>, _signal: Signal) -> Result<bool> {
        Ok(true)
    }

    fn attach(&self, _cx: &FileContext<'_>, _tty: &Arc<Tty>) -> Result<()> {
        Ok(())
    }

    fn detach(&self, _session: i32, _foreground: Option<i32>, _hangup: bool) {}

    fn terminal(&self, _cx: &FileContext<'_>) -> Option<Arc<Tty>> {
        None
    }
}
