//! What can go wrong with a container.

use std::os::fd::RawFd;
use std::path::PathBuf;

use abi::Errno;
use thiserror::Error;

use crate::Status;

/// Why an operation on a container failed.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The id cannot name a container.
    #[error("container id {0:?}: 1 to 255 of letters, digits and \"_+-.\", not only dots")]
    BadId(String),
    /// There is such a container already.
    #[error("container {0:?} already exists")]
    Exists(String),
    /// There is no such container.
    #[error("container {0:?} does not exist")]
    NotFound(String),
    /// The seccomp profile of the spec cannot be kept.
    #[error(transparent)]
    Profile(#[from] oci::seccomp::ProfileError),
    /// The container's status does not allow the operation.
    #[error("container {id:?} is {status}: cannot {operation} it")]
    WrongStatus {
        /// Its id.
        id: String,
        /// Its status.
        status: Status,
        /// What was asked for.
        operation: &'static str,
    },
    /// The state directory cannot be used.
    #[error("{path:?}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// A state file is damaged.
    #[error("{path:?}: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A host call failed.
    #[error("{doing}: {source}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// What the host said.
        source: std::io::Error,
    },
    /// A tree or file of the host cannot be shown to the guest.
    #[error("{path:?}: {errno}")]
    Attachment {
        /// Where it is.
        path: PathBuf,
        /// What the host said.
        errno: Errno,
    },
    /// A spec asks for what cannot be.
    #[error("{field}: {reason}")]
    Spec {
        /// Its field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A hook failed.
    #[error("hook {path:?}: {reason}")]
    Hook {
        /// Its program.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Its control groups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// A process of the sandbox does not start.
    #[error(transparent)]
    Spawn(#[from] hostsys::spawn::SpawnError),
    /// A process of the sandbox was started by hand.
    #[error("descriptor {number} was not handed over: {errno}")]
    NotInherited {
        /// Its number.
        number: RawFd,
        /// What the host said.
        errno: Errno,
    },
    /// A process of the sandbox could not lock itself in.
    #[error("{doing}: {errno}")]
    Jail {
        /// What was being done.
        doing: &'static str,
        /// What the host said.
        errno: Errno,
    },
    /// A process of the sandbox could not give up its privileges.
    #[error(transparent)]
    Privilege(#[from] hostsys::privilege::PrivilegeError),
    /// In the Gofer.
    #[error(transparent)]
    Gofer(#[from] gofer::GoferError),
    /// In the Sentry.
    #[error(transparent)]
    Boot(#[from] sentry::BootError),
    /// A process of the sandbox says why it ended.
    #[error("{name}: {reason}")]
    Failed {
        /// Which one.
        name: &'static str,
        /// What it says, on one line.
        reason: String,
    },
    /// The Gofer has ended before the Sentry.
    #[error("the gofer ended: {0:?}")]
    GoferEnded(hostsys::pidfd::Ended),
    /// A process of the sandbox cannot be waited for.
    #[error("cannot wait for a process: {0}")]
    Wait(Errno),
}
