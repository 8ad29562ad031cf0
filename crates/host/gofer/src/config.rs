//! What a Gofer serves, and what can go wrong in starting it.

use std::os::fd::OwnedFd;

use abi::Errno;
use thiserror::Error;

/// A tree of files, or a single file, that the Sentry may mount.
#[derive(Debug)]
pub struct Attach {
    /// Its root: an `O_PATH` descriptor of a directory or a file.
    pub root: OwnedFd,
    /// Refuse every change with `EROFS`.
    pub readonly: bool,
}

/// Whether serving threads give up their privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// [`lock_in`](crate::lock_in) before the first request.
    LockedIn,
    /// Nothing is given up. For tests and debugging only.
    None,
}

/// What to serve.
#[derive(Debug)]
pub struct Config {
    /// What can be mounted, by index.
    pub attachments: Vec<Attach>,
    /// `/proc/self/fd`, opened by [`Config::open_proc_fd`] in this very process while a procfs is in
    /// reach. Nodes are reopened through it.
    pub proc_fd: OwnedFd,
    /// Most nodes held at a time, of all connections. The limit on open files bounds them as well.
    pub max_nodes: usize,
    /// Allow `Open` of character and block devices.
    pub devices: bool,
    /// Allow `Mknod` of FIFOs and sockets.
    pub special_files: bool,
    /// Whether the serving threads lock themselves in.
    pub confinement: Confinement,
}

impl Config {
    /// A configuration with the defaults: no devices, no special files, locked in.
    pub fn new(attachments: Vec<Attach>, proc_fd: OwnedFd) -> Self {
        Self {
            attachments,
            proc_fd,
            max_nodes: 1 << 16,
            devices: false,
            special_files: false,
            confinement: Confinement::LockedIn,
        }
    }

    /// Opens `/proc/self/fd` of the calling process. Not inherited usefully by a forked child.
    pub fn open_proc_fd() -> Result<OwnedFd, GoferError> {
        use nix::fcntl::{OFlag, open};
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open("/proc/self/fd", flags, nix::sys::stat::Mode::empty())
            .map_err(|error| GoferError::ProcFd(crate::host::errno(error)))
    }
}

/// Why a Gofer does not start, or ended with an error.
#[derive(Debug, Error)]
pub enum GoferError {
    /// `/proc/self/fd` cannot be opened.
    #[error("cannot open /proc/self/fd: {0}")]
    ProcFd(Errno),
    /// More sockets than threads allowed.
    #[error("{given} sockets, at most {max} are served")]
    TooManySockets {
        /// Sockets given.
        given: usize,
        /// Most.
        max: usize,
    },
    /// A thread cannot be made.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// Capabilities cannot be dropped.
    #[error("cannot drop capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// `PR_SET_NO_NEW_PRIVS` failed.
    #[error("cannot set no_new_privs: {0}")]
    NoNewPrivs(Errno),
    /// The filter cannot be built or installed.
    #[error("cannot lock in: {0}")]
    Seccomp(#[from] hostsys::seccomp::SeccompError),
    /// A serving thread panicked.
    #[error("a serving thread panicked")]
    Panicked,
}
