//! Processes by descriptor (`pidfd_open(2)`): no other process can take their place.

mod raw;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use abi::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::errno;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with a code.
    Exited(u8),
    /// By a signal.
    Signaled(u8),
}

/// Opens a process by its id. `ESRCH` when there is none.
pub fn open(pid: i32) -> Result<OwnedFd, Errno> {
    raw::open(pid)
}

/// Sends a signal (`pidfd_send_signal(2)`); 0 only asks whether that is allowed. `ESRCH` when the process
/// has ended and been waited for.
pub fn send_signal(process: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    raw::send_signal(process, signal)
}

/// Waits for a child's end, and reaps it. `ECHILD` when it is not ours.
pub fn wait(child: BorrowedFd<'_>) -> Result<Ended, Errno> {
    loop {
        match waitid(Id::PIDFd(child), WaitPidFlag::WEXITED) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Ended::Exited(code as u8)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ended::Signaled(signal as i32 as u8)),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(errno(error)),
        }
    }
}

/// Waits until a process has ended, ours or not, at most `timeout`; whether it has. Does not reap it.
pub fn wait_for_end(process: BorrowedFd<'_>, timeout: PollTimeout) -> Result<bool, Errno> {
    let mut polled = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut polled, timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(errno(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, open, send_signal, wait, wait_for_end};
    use abi::Errno;
    use std::os::fd::AsFd;
    use std::process::Command;

    #[test]
    #[allow(clippy::zombie_processes, reason = "waited for by its descriptor")]
    fn a_process_is_signalled_and_waited_for() {
        let child = Command::new("sleep").arg("100").spawn().expect("spawns");
        let process = open(child.id() as i32).expect("opens");
        assert_eq!(wait_for_end(process.as_fd(), 0_u8.into()), Ok(false));
        send_signal(process.as_fd(), 0).expect("lives");
        send_signal(process.as_fd(), libc::SIGKILL).expect("sends");
        assert_eq!(wait_for_end(process.as_fd(), nix::poll::PollTimeout::NONE), Ok(true));
        assert_eq!(wait(process.as_fd()), Ok(Ended::Signaled(9)));
        assert_eq!(send_signal(process.as_fd(), 0), Err(Errno::ESRCH));
        assert_eq!(wait(process.as_fd()), Err(Errno::ECHILD));
    }

    #[test]
    #[allow(clippy::zombie_processes, reason = "waited for by its descriptor")]
    fn an_exit_code_is_told() {
        let child = Command::new("sh").args(["-c", "exit 7"]).spawn().expect("spawns");
        let process = open(child.id() as i32).expect("opens");
        assert_eq!(wait(process.as_fd()), Ok(Ended::Exited(7)));
        assert_eq!(open(-1).err(), Some(Errno::EINVAL));
    }
}
