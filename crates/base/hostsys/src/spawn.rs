//! This program again, as a child in namespaces of its own.
//!
//! [`spawn_self`] clones, maps ids, places descriptors and executes `/proc/self/exe`: the child starts
//! from nothing but its arguments and the descriptors it was given, so that no state of the parent (heap,
//! threads, environment, open files) reaches it.

mod raw;

use std::ffi::{CString, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use abi::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use thiserror::Error;

use crate::namespace::{Ids, Mapped, Namespaces, map_ids};
use crate::{errno, io_errno, pidfd};

/// What becomes of a child when its parent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentDeath {
    /// It is killed.
    Kills,
    /// It lives on.
    Survived,
}

/// What to start.
#[derive(Debug)]
pub struct Program<'a> {
    /// Arguments, the name of the program first.
    pub args: Vec<OsString>,
    /// Namespaces that the child gets of its own.
    pub namespaces: Namespaces,
    /// What its ids are outside, when it gets a user namespace.
    pub ids: Ids,
    /// Its descriptors: the one at index `i` is number `i` there. All others are closed.
    pub fds: Vec<BorrowedFd<'a>>,
    /// What becomes of it when the thread that started it ends.
    pub parent_death: ParentDeath,
}

/// A child that was started. Not waited for when dropped.
#[derive(Debug)]
pub struct Child {
    /// Its id, as we see it.
    pub pid: i32,
    /// The process (`pidfd_open(2)`).
    pub process: OwnedFd,
}

/// What a child was doing when it failed, before the program ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Session = 1,
    Ids,
    ParentDeath,
    Descriptors,
    Exec,
}

/// Why a child was not started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// An argument has a NUL in it.
    #[error("an argument contains a NUL")]
    Argument(#[from] std::ffi::NulError),
    /// No pipe to speak with the child.
    #[error("cannot make a pipe: {0}")]
    Pipe(Errno),
    /// No process.
    #[error("cannot clone a process with namespaces {0:?}: {1}")]
    Clone(Namespaces, Errno),
    /// Its user namespace stays without ids.
    #[error("cannot map the ids of a user namespace: {0}")]
    Map(Errno),
    /// It failed before the program ran.
    #[error("a child cannot {0}: {1}")]
    Child(&'static str, Errno),
    /// It was gone before the program ran.
    #[error("a child died before it started")]
    Died,
}

/// Starts this program again. Returns when the child is executing it. The child has an empty
/// environment, a session of its own and no signal blocked.
pub fn spawn_self(program: &Program<'_>) -> Result<Child, SpawnError> {
    let args = program.args.iter().map(|arg| CString::new(arg.clone().into_vec()));
    let args = args.collect::<Result<Vec<_>, _>>()?;
    let (go_read, go_write) = pipe()?;
    let (report_read, report_write) = pipe()?;
    let plan = raw::Plan::new(program, &args, [go_read.as_fd(), go_write.as_fd()], report_write.as_fd());
    let (pid, process) = raw::start(plan).map_err(|error| SpawnError::Clone(program.namespaces, error))?;
    drop((go_read, report_write));
    let child = Child { pid, process };
    match release(program, pid, go_write, report_read) {
        Ok(()) => Ok(child),
        Err(error) => {
            // Both fail only when it is gone already.
            let _ = pidfd::send_signal(child.process.as_fd(), libc::SIGKILL);
            let _ = pidfd::wait(child.process.as_fd());
            Err(error)
        }
    }
}

/// Maps the ids of a child, lets it go on, and waits until it executes the program.
fn release(program: &Program<'_>, pid: i32, go: OwnedFd, report: OwnedFd) -> Result<(), SpawnError> {
    let mapped = match program.namespaces.contains(Namespaces::CLONE_NEWUSER) {
        true => map_ids(pid, program.ids).map_err(SpawnError::Map)?,
        false => Mapped::Already,
    };
    // Open until the child executes the program: it takes the other end's closing for our death.
    let mut go = std::fs::File::from(go);
    go.write_all(&[mapped as u8]).map_err(|_| SpawnError::Died)?;
    let mut text = Vec::new();
    std::fs::File::from(report).read_to_end(&mut text).map_err(|error| SpawnError::Pipe(io_errno(&error)))?;
    match text.as_slice() {
        [] => Ok(()),
        [step, code @ ..] => {
            let code = code.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
            let doing = [Step::Session, Step::Ids, Step::ParentDeath, Step::Descriptors, Step::Exec]
                .into_iter()
                .find(|known| *known as u8 == *step)
                .map_or("start", Step::doing);
            Err(SpawnError::Child(doing, Errno::from_raw(code).unwrap_or(Errno::EIO)))
        }
    }
}

impl Step {
    fn doing(self) -> &'static str {
        match self {
            Self::Session => "start a session",
            Self::Ids => "become root in its user namespace",
            Self::ParentDeath => "ask to die with its parent",
            Self::Descriptors => "place its descriptors",
            Self::Exec => "execute /proc/self/exe",
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    pipe2(OFlag::O_CLOEXEC).map_err(|error| SpawnError::Pipe(errno(error)))
}

#[cfg(test)]
mod tests;
