//! runsc's end, and where both meet.

use std::fs::File;
use std::io::Error;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use abi::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_socket, connect, listen, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};

use crate::ControlError;
use crate::message::{ExitStatus, Member, Process, ProcessInfo, Reply, Request, Target, receive, send};
use crate::metrics::{Family, MAX_FAMILIES, MAX_SAMPLES};
use crate::network::{EgressConfig, NetworkConfig};

/// Name of the socket in a container's directory.
const NAME: &str = "control";

/// A connection to a sandbox.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    /// Whom it is about, when that is not the first container.
    container: Option<String>,
}

fn new_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
}

/// An address of the socket in `dir`, however long that path is; good while the file returned is open.
fn address(dir: &Path) -> nix::Result<(File, UnixAddr)> {
    let dir = open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()));
    Ok((dir.into(), UnixAddr::new(&path)?))
}

fn failed(dir: &Path) -> impl FnOnce(nix::Error) -> ControlError {
    let path = dir.join(NAME);
    move |error| ControlError::Socket { path, source: Error::from(error) }
}

/// Makes the listening socket of a container whose state is in `dir`.
pub fn bind(dir: &Path) -> Result<OwnedFd, ControlError> {
    let make = || {
        let (_dir, address) = address(dir)?;
        let socket = new_socket()?;
        bind_socket(socket.as_raw_fd(), &address)?;
        listen(&socket, Backlog::MAXCONN)?;
        Ok(socket)
    };
    make().map_err(failed(dir))
}

impl Client {
    /// Connects to the container whose state is in `dir`. [`ControlError::Gone`] when nobody listens.
    pub fn connect(dir: &Path) -> Result<Self, ControlError> {
        let make = || {
            let (_dir, address) = address(dir)?;
            let socket = new_socket()?;
            connect(socket.as_raw_fd(), &address)?;
            Ok(socket)
        };
        match make() {
            Ok(socket) => Ok(Self::new(socket)),
            Err(nix::Error::ECONNREFUSED) => Err(ControlError::Gone),
            Err(error) => Err(failed(dir)(error)),
        }
    }

    /// Over a socket that is connected.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, container: None }
    }

    /// How long to wait for an answer, in whole seconds: for ever without one. Then the connection is of no further use.
    pub fn set_patience(&self, patience: Option<Duration>) -> Result<(), ControlError> {
        let seconds =
            patience.map_or(0, |patience| i64::try_from(patience.as_secs().max(1)).unwrap_or(i64::MAX));
        let set = setsockopt(&self.socket, ReceiveTimeout, &TimeVal::seconds(seconds));
        set.map_err(|error| ControlError::Connection(Errno::from_raw(error as i32).unwrap_or(Errno::EIO)))
    }

    /// Waits until the container is created.
    pub fn hello(&self) -> Result<(), ControlError> {
        self.done(&Request::Hello)
    }

    /// Starts the program of a created container.
    pub fn start(&self) -> Result<(), ControlError> {
        self.done(&Request::Start)
    }

    /// Sends a signal.
    pub fn signal(&self, target: Target, signal: u8) -> Result<(), ControlError> {
        self.done(&Request::Signal { target, signal })
    }

    /// Waits for the end of a process started by [`Client::exec`], or of the first one.
    pub fn wait(&self, pid: Option<u32>) -> Result<ExitStatus, ControlError> {
        match self.ask(&Request::Wait { pid }, &[])? {
            Reply::Ended(status) => Ok(status),
            other => Err(unexpected(other)),
        }
    }

    /// From now on it is about another container of the sandbox than the first.
    pub fn of(self, container: &str) -> Self {
        Self { container: Some(container.into()), ..self }
    }

    /// Creates another container with these connections to its Gofer and first descriptors.
    pub fn create(&self, member: Member, fds: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        match self.ask(&Request::Create(Box::new(member)), fds)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Ends another container and has it forgotten.
    pub fn destroy(&self, container: &str) -> Result<(), ControlError> {
        self.done(&Request::Destroy(container.into()))
    }

    /// Lists the processes.
    pub fn processes(&self) -> Result<Vec<ProcessInfo>, ControlError> {
        match self.ask(&Request::Processes, &[])? {
            Reply::Processes(list) => Ok(list),
            other => Err(unexpected(other)),
        }
    }

    /// What the sandbox has counted, as far as it can be shown.
    pub fn metrics(&self) -> Result<Vec<Family>, ControlError> {
        let mut families = match self.ask(&Request::Metrics, &[])? {
            Reply::Metrics(families) => families,
            other => return Err(unexpected(other)),
        };
        families.truncate(MAX_FAMILIES);
        let mut left = MAX_SAMPLES;
        for family in &mut families {
            family.samples.truncate(left);
            left -= family.samples.len();
        }
        families.retain(Family::check);
        Ok(families)
    }

    /// Changes the limit of tasks.
    pub fn limit_tasks(&self, tasks: Option<u32>) -> Result<(), ControlError> {
        self.done(&Request::LimitTasks(tasks))
    }

    /// Gives a container that has not started links to the outside; `sockets` are theirs.
    pub fn attach(&self, config: NetworkConfig, sockets: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        match self.ask(&Request::Attach(Box::new(config)), sockets)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Replaces the rules about who may be reached.
    pub fn set_egress(&self, egress: EgressConfig) -> Result<(), ControlError> {
        self.done(&Request::Egress(Box::new(egress)))
    }

    /// Starts another program with these first descriptors; its pid in the container.
    pub fn exec(&self, process: Process, fds: &[BorrowedFd<'_>]) -> Result<u32, ControlError> {
        match self.ask(&Request::Exec(Box::new(process)), fds)? {
            Reply::Started(pid) => Ok(pid),
            other => Err(unexpected(other)),
        }
    }

    fn done(&self, request: &Request) -> Result<(), ControlError> {
        match self.ask(request, &[])? {
            Reply::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, ControlError> {
        match &self.container {
            Some(container) => {
                let (container, request) = (container.clone(), Box::new(request.clone()));
                send(self.socket.as_fd(), &Request::Of { container, request }, fds)?;
            }
            None => send(self.socket.as_fd(), request, fds)?,
        }
        receive(self.socket.as_fd()).map(|(reply, _)| reply)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn unexpected(reply: Reply) -> ControlError {
    match reply {
        Reply::Refused(reason) => ControlError::Refused(reason),
        other => ControlError::Unexpected(Box::new(other)),
    }
}
