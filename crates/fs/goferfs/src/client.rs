//! The client's end of the protocol: a pool of connections.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use abi::Errno;
use gofer_proto::{Attributes, MAX_MESSAGE, NodeAttr, ProtoError, Request, Response};
use obs::Counter;
use sync::order::Gofer;
use sync::{Mutex, MutexGuard};

static REQUESTS: Counter = Counter::new("gofer.requests", "Requests to Gofers");

/// Carries one message there and its reply back.
pub trait Transport: Send {
    /// Sends `request`, and receives the reply into `reply`; returns its length and the descriptor that
    /// came with it. Blocks. An error means that the connection is of no further use.
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno>;
}

/// A `SOCK_SEQPACKET` Unix socket to a Gofer.
#[derive(Debug)]
pub struct SocketTransport {
    socket: OwnedFd,
}

impl SocketTransport {
    /// Wraps a connected socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }
}

impl Transport for SocketTransport {
    fn exchange(&mut self, request: &[u8], reply: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
        hostsys::file::send_message(self.socket.as_fd(), request, None)?;
        let mut received = hostsys::file::receive_message(self.socket.as_fd(), reply)?;
        if received.len == 0 || received.fds.len() > 1 {
            return Err(Errno::EIO);
        }
        Ok((received.len, received.fds.pop()))
    }
}

/// Connections to one Gofer, one for each who asks at the same time, as far as they go. Shared by the mounts of a sandbox.
pub struct Client {
    connections: Box<[Mutex<Gofer, Connection>]>,
    next: AtomicUsize,
}

struct Connection {
    transport: Box<dyn Transport>,
    last_id: u64,
    request: Vec<u8>,
    reply: Vec<u8>,
    /// After an error the state of the stream of messages is unknown.
    broken: bool,
}

impl Client {
    /// A client with one connection a transport; `EINVAL` when there is none.
    pub fn new(transports: Vec<Box<dyn Transport>>) -> Result<Arc<Self>, Errno> {
        if transports.is_empty() {
            return Err(Errno::EINVAL);
        }
        let connections = transports.into_iter().map(|transport| {
            Mutex::new(Connection {
                transport,
                last_id: 0,
                request: Vec::new(),
                reply: vec![0; MAX_MESSAGE],
                broken: false,
            })
        });
        Ok(Arc::new(Self { connections: connections.collect(), next: AtomicUsize::new(0) }))
    }

    /// The first connection that is free: the same as before, mostly, whose thread in the Gofer has been awake
    /// just now and knows the directory that is being listed.
    fn connection(&self) -> Result<MutexGuard<'_, Gofer, Connection>, Errno> {
        if let Some(free) = self.connections.iter().find_map(Mutex::try_lock) {
            return Ok(free);
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len();
        Ok(self.connections.get(turn).ok_or(Errno::EIO)?.lock())
    }

    /// Asks, and waits for the reply. `EIO` when the Gofer is gone or does not keep to the protocol.
    pub(crate) fn call(&self, request: &Request<'_>) -> Result<(Response, Option<OwnedFd>), Errno> {
        REQUESTS.increment();
        let mut connection = self.connection()?;
        if connection.broken {
            return Err(Errno::EIO);
        }
        connection.prepare(request)?;
        match connection.exchange() {
            Ok((Response::Error(errno), _)) => Err(errno),
            Ok(reply) => Ok(reply),
            Err(error) => {
                connection.broken = true;
                tracing::error!(%error, "a connection to the Gofer is broken");
                Err(Errno::EIO)
            }
        }
    }

    /// A request answered without a descriptor.
    pub(crate) fn ask(&self, request: &Request<'_>) -> Result<Response, Errno> {
        self.call(request).map(|(response, _)| response)
    }

    /// A request answered by `Done`.
    pub(crate) fn done(&self, request: &Request<'_>) -> Result<(), Errno> {
        match self.ask(request)? {
            Response::Done => Ok(()),
            _ => Err(Errno::EIO),
        }
    }

    /// A request answered by `Node`.
    pub(crate) fn node(&self, request: &Request<'_>) -> Result<NodeAttr, Errno> {
        match self.ask(request)? {
            Response::Node(node) => Ok(node),
            _ => Err(Errno::EIO),
        }
    }

    /// A request answered by `Attr`.
    pub(crate) fn attr(&self, request: &Request<'_>) -> Result<Attributes, Errno> {
        match self.ask(request)? {
            Response::Attr(attr) => Ok(attr),
            _ => Err(Errno::EIO),
        }
    }

    /// A request answered by `Bytes`.
    pub(crate) fn bytes(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        match self.ask(request)? {
            Response::Bytes(bytes) => Ok(bytes),
            _ => Err(Errno::EIO),
        }
    }
}

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error(transparent)]
    Proto(#[from] ProtoError),
    #[error(transparent)]
    Transport(#[from] Errno),
    #[error("a reply to another request")]
    WrongId,
}

impl Connection {
    /// Encodes a request. What the Gofer would take for an attack, and end the connection of, is not
    /// sent: `EINVAL`, for it can only come from an argument of the guest.
    fn prepare(&mut self, request: &Request<'_>) -> Result<(), Errno> {
        self.last_id = self.last_id.wrapping_add(1);
        let encoded = request.encode(self.last_id, &mut self.request);
        encoded.and_then(|()| Request::decode(&self.request).map(drop)).map_err(|error| {
            tracing::debug!(%error, "a request is not sent");
            Errno::EINVAL
        })
    }

    fn exchange(&mut self) -> Result<(Response, Option<OwnedFd>), ExchangeError> {
        let (len, fd) = self.transport.exchange(&self.request, &mut self.reply)?;
        let (id, response) = Response::decode(self.reply.get(..len).unwrap_or_default())?;
        if id != self.last_id {
            return Err(ExchangeError::WrongId);
        }
        Ok((response, fd))
    }
}
