//! What is said: requests, replies, and the types in them.

use std::io::Error;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use abi::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::metrics::Family;
use crate::network::{EgressConfig, NetworkConfig};

/// Longest message in bytes. Fits the default send buffer of a Unix socket.
pub const MAX_MESSAGE: usize = 160 * 1024;

/// What runsc asks a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Whether it has booted. Answered by [`Reply::Done`] once the container is created.
    Hello,
    /// Start the program of a created container. Answered by [`Reply::Done`].
    Start,
    /// Send a signal. Answered by [`Reply::Done`].
    Signal {
        /// To whom.
        target: Target,
        /// Which, 1 to 64.
        signal: u8,
    },
    /// Wait for a process that [`Request::Exec`] started, or without a pid for the container's first.
    /// Answered by [`Reply::Ended`].
    Wait {
        /// Pid in the container.
        pid: Option<u32>,
    },
    /// List processes. Answered by [`Reply::Processes`].
    Processes,
    /// Run another program; the descriptors beside it, at least three, become its first ones. Answered by
    /// [`Reply::Started`].
    Exec(Box<Process>),
    /// Create another container. Answered by [`Reply::Done`].
    Create(Box<Member>),
    /// Something about another container than the first.
    Of {
        /// Its id.
        container: String,
        /// What.
        request: Box<Request>,
    },
    /// End another container, if it runs, and forget it. Answered by [`Reply::Done`], also when there is none.
    Destroy(String),
    /// Change the limit of tasks, or without a number lift it. Answered by [`Reply::Done`].
    LimitTasks(Option<u32>),
    /// Give a container that has not started links to the outside; the descriptors beside it are theirs. Answered
    /// by [`Reply::Done`].
    Attach(Box<NetworkConfig>),
    /// Replace the rules about who may be reached. Answered by [`Reply::Done`].
    Egress(Box<EgressConfig>),
    /// Tell what has been counted. Answered by [`Reply::Metrics`].
    Metrics,
}

/// Another container of a sandbox, to be created beside its first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its configuration, a document in JSON as the Sentry is started with.
    pub config: String,
    /// How many of the descriptors beside it are connections to its Gofer; the others are its first ones.
    pub connections: usize,
}

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The container's first process, which ignores what it has not asked for, as the first of a pid
    /// namespace does.
    First,
    /// The container's first process, as if it were any other.
    Program,
    /// Every process.
    All,
    /// The process with this pid in the container.
    Pid(u32),
}

/// What a sandbox answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// Done; nothing to tell.
    Done,
    /// A program runs, with this pid in the container.
    Started(u32),
    /// A process has ended.
    Ended(ExitStatus),
    /// The processes there are.
    Processes(Vec<ProcessInfo>),
    /// What has been counted.
    Metrics(Vec<Family>),
    /// It cannot be done, for this reason.
    Refused(String),
}

/// A process of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its pid in the container.
    pub pid: u32,
    /// Its parent's.
    pub ppid: u32,
    /// Its real user id.
    pub uid: u32,
    /// Its short name (`comm`).
    pub name: String,
}

/// A process to start: the first of a container, or another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Arguments; never empty. The first is looked up in the `PATH` of `env`.
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Bounding capabilities, a bit each (`capabilities(7)`): what root has, and others can get.
    pub capabilities: u64,
    /// Inheritable capabilities.
    pub inheritable: u64,
    /// Ambient capabilities: what others than root have.
    pub ambient: u64,
    /// Resource limits that differ from the defaults.
    pub rlimits: Vec<Rlimit>,
    /// Standard input, output and error are one terminal.
    pub terminal: bool,
    /// `/proc/self/oom_score_adj`, when it is not that of whoever starts it.
    pub oom_score_adj: Option<i32>,
    /// `PR_SET_NO_NEW_PRIVS` is set.
    pub no_new_privs: bool,
    /// Bits that files lose when they are made (`umask(2)`).
    pub umask: u16,
}

/// A resource limit (`getrlimit(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// How a process of a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// With an exit code.
    Exited(u8),
    /// By a signal.
    Signaled(u8),
}

impl ExitStatus {
    /// The code that `runsc` ends with: the guest's own, or 128 and the number of the signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128_u8.saturating_add(signal),
        }
    }
}

/// Why a conversation failed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The socket cannot be made or reached.
    #[error("control socket {path:?}: {source}")]
    Socket {
        /// Where it is.
        path: PathBuf,
        /// What the host said.
        source: Error,
    },
    /// The connection is of no further use.
    #[error("control connection: {0}")]
    Connection(#[from] Errno),
    /// The other side is gone.
    #[error("the sandbox is gone")]
    Gone,
    /// Not a message of ours.
    #[error("control message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A thread cannot be made.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] Error),
    /// The sandbox said no.
    #[error("{0}")]
    Refused(String),
    /// The sandbox answered something else than was asked.
    #[error("the sandbox answered {0:?}")]
    Unexpected(Box<Reply>),
}

/// Sends one message.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), ControlError> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(Errno::EMSGSIZE.into());
    }
    match hostsys::file::send_message_with(socket, &bytes, fds) {
        Err(Errno::EPIPE | Errno::ECONNRESET) => Err(ControlError::Gone),
        other => Ok(other?),
    }
}

/// Receives one message.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> Result<(T, Vec<OwnedFd>), ControlError> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let received = match hostsys::file::receive_message(socket, &mut buffer) {
        Err(Errno::ECONNRESET) => return Err(ControlError::Gone),
        other => other?,
    };
    match buffer.get(..received.len) {
        None | Some([]) => Err(ControlError::Gone),
        Some(bytes) => Ok((serde_json::from_slice(bytes)?, received.fds)),
    }
}
