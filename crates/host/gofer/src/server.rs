//! Connections: one thread each, one request at a time.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use abi::Errno;
use gofer_proto::{MAX_MESSAGE, Request, Response};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use thiserror::Error;

use crate::ops::{Connection, Shared};
use crate::{Config, Confinement, GoferError, lock_in};

/// Most connections, and so threads.
const MAX_CONNECTIONS: usize = 64;
/// Stack of a serving thread in bytes. Messages are on the heap.
const STACK_SIZE: usize = 256 * 1024;

/// Why a connection ended other than by its peer closing it.
#[derive(Debug, Error)]
enum ConnectionError {
    #[error("malformed message: {0}")]
    Malformed(#[from] gofer_proto::ProtoError),
    #[error("a descriptor came with a request")]
    UnexpectedDescriptor,
    #[error("socket: {0}")]
    Socket(#[from] Errno),
}

/// Serves `SOCK_SEQPACKET` sockets until the peer has closed all of them. Nodes are shared by the
/// connections. Sets the process's umask to zero (the Sentry applies the guest's) and raises its soft
/// limit on open files; with [`Confinement::LockedIn`] the calling thread is locked in for good.
pub fn serve(config: Config, sockets: Vec<OwnedFd>) -> Result<(), GoferError> {
    if sockets.len() > MAX_CONNECTIONS {
        return Err(GoferError::TooManySockets { given: sockets.len(), max: MAX_CONNECTIONS });
    }
    umask(Mode::empty());
    let confinement = config.confinement;
    let shared = Arc::new(Shared::new(config, open_file_budget()));
    let mut threads = Vec::with_capacity(sockets.len());
    for (index, socket) in sockets.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("gofer-{index}"))
            .stack_size(STACK_SIZE)
            .spawn(move || serve_one(&shared, socket, confinement))
            .map_err(GoferError::Thread)?;
        threads.push(thread);
    }
    if confinement == Confinement::LockedIn {
        lock_in()?;
    }
    let mut result = Ok(());
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => result = Err(error),
            Err(_) => result = Err(GoferError::Panicked),
        }
    }
    result
}

/// How many nodes the limit on open files leaves room for; the rest is for files being opened.
fn open_file_budget() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 256 };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    usize::try_from(limit / 4 * 3).unwrap_or(usize::MAX)
}

fn serve_one(shared: &Shared, socket: OwnedFd, confinement: Confinement) -> Result<(), GoferError> {
    if confinement == Confinement::LockedIn {
        lock_in()?;
    }
    if let Err(error) = converse(shared, &socket) {
        tracing::warn!(%error, "closing a connection");
    }
    Ok(())
}

/// Answers requests until the peer closes the socket.
fn converse(shared: &Shared, socket: &OwnedFd) -> Result<(), ConnectionError> {
    let mut connection = Connection::new(shared);
    let mut message = vec![0; MAX_MESSAGE];
    let mut reply = Vec::new();
    loop {
        let received = match hostsys::file::receive_message(socket.as_fd(), &mut message) {
            Err(Errno::ECONNRESET) => return Ok(()),
            other => other?,
        };
        if !received.fds.is_empty() {
            return Err(ConnectionError::UnexpectedDescriptor);
        }
        if received.len == 0 {
            return Ok(());
        }
        let bytes = message.get(..received.len).unwrap_or_default();
        let (id, request) = Request::decode(bytes)?;
        let (response, donated) = connection.answer(&request);
        if response.encode(id, &mut reply).is_err() {
            // Only a reply that is too long fails, and none here is made so.
            Response::Error(Errno::EIO).encode(id, &mut reply)?;
        }
        match hostsys::file::send_message(socket.as_fd(), &reply, donated.as_ref().map(AsFd::as_fd)) {
            Err(Errno::EPIPE) => return Ok(()),
            other => other?,
        }
    }
}
