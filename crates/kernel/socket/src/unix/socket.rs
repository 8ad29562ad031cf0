//! The socket itself: what it is bound to, connected to, and listening for.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::{AF_UNIX, MsgFlags, SOMAXCONN, SocketKind, Ucred};
use guestmem::{IoSink, IoSource};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::{File, FileContext, IoctlRequest, Result};

use super::channel::{Channel, Sender};
use super::{Name, Names};
use crate::{Ancillary, Received, Shutdown, Socket};

/// `SIOCINQ`/`FIONREAD`.
const FIONREAD: u32 = 0x541b;

/// A Unix-domain socket.
pub struct UnixSocket {
    kind: SocketKind,
    names: Arc<Names>,
    wait: WaitQueue,
    state: Mutex<order::FileState, State>,
    /// Datagram sockets: what others have sent us.
    inbox: Option<Arc<Channel>>,
    me: Weak<UnixSocket>,
}

#[derive(Default)]
struct State {
    bound: Option<Bound>,
    role: Role,
    passes_credentials: bool,
}

/// What a socket is called.
struct Bound {
    /// Its claim in [`Names`]; a socket from `accept` only shows its listener's address.
    name: Option<Name>,
    /// The bytes `getsockname(2)` shows.
    path: Vec<u8>,
}

#[derive(Default)]
enum Role {
    #[default]
    Idle,
    Listening {
        backlog: usize,
        cred: Ucred,
        pending: VecDeque<Arc<UnixSocket>>,
    },
    Connected(Link),
    /// Default destination of a datagram socket.
    Aimed(Weak<UnixSocket>),
}

/// A connection, seen from one end.
#[derive(Clone)]
struct Link {
    incoming: Arc<Channel>,
    outgoing: Arc<Channel>,
    peer_cred: Ucred,
    peer: Weak<UnixSocket>,
    peer_name: Option<Vec<u8>>,
}

impl Link {
    /// This end is gone.
    fn close(&self) {
        self.outgoing.close_writer();
        self.incoming.close_reader(true);
    }
}

impl UnixSocket {
    /// A fresh socket (`socket(2)`); `ESOCKTNOSUPPORT` for kinds Unix sockets have not.
    pub fn new(kind: SocketKind, names: &Arc<Names>) -> Result<Arc<Self>> {
        // Linux makes a datagram socket of SOCK_RAW (unix(7) is silent; net/unix says so).
        let kind = if kind == SocketKind::Raw { SocketKind::Datagram } else { kind };
        let wait = WaitQueue::new();
        let inbox = (kind == SocketKind::Datagram)
            .then(|| Arc::new(Channel::new(wait.clone(), WaitQueue::new(), true)));
        Ok(Arc::new_cyclic(|me| Self {
            kind,
            names: Arc::clone(names),
            wait,
            state: Mutex::default(),
            inbox,
            me: me.clone(),
        }))
    }

    /// Two sockets connected to each other (`socketpair(2)`), made by a process with `cred`.
    pub fn pair(kind: SocketKind, names: &Arc<Names>, cred: Ucred) -> Result<(Arc<Self>, Arc<Self>)> {
        let (a, b) = (Self::new(kind, names)?, Self::new(kind, names)?);
        if a.kind == SocketKind::Datagram {
            a.state.lock().role = Role::Aimed(Arc::downgrade(&b));
            b.state.lock().role = Role::Aimed(Arc::downgrade(&a));
        } else {
            let (ours, theirs) = Self::links(&a, &b, cred, cred);
            a.state.lock().role = Role::Connected(ours);
            b.state.lock().role = Role::Connected(theirs);
        }
        Ok((a, b))
    }

    fn links(a: &Arc<Self>, b: &Arc<Self>, a_cred: Ucred, b_cred: Ucred) -> (Link, Link) {
        let packets = a.kind != SocketKind::Stream;
        let to_a = Arc::new(Channel::new(a.wait.clone(), b.wait.clone(), packets));
        let to_b = Arc::new(Channel::new(b.wait.clone(), a.wait.clone(), packets));
        let for_a = Link {
            incoming: Arc::clone(&to_a),
            outgoing: Arc::clone(&to_b),
            peer_cred: b_cred,
            peer: Arc::downgrade(b),
            peer_name: b.local_name(),
        };
        let for_b = Link {
            incoming: to_b,
            outgoing: to_a,
            peer_cred: a_cred,
            peer: Arc::downgrade(a),
            peer_name: a.local_name(),
        };
        (for_a, for_b)
    }

    /// Binds to `name`, shown to others as `path`. `EINVAL` when bound already, `EADDRINUSE`.
    pub fn bind(&self, name: Name, path: Vec<u8>) -> Result<()> {
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let mut state = self.state.lock();
        if state.bound.is_some() {
            return Err(Errno::EINVAL);
        }
        self.names.claim(name.clone(), &me)?;
        state.bound = Some(Bound { name: Some(name), path });
        Ok(())
    }

    /// Binds to a free abstract name, as `bind` with nothing but the family does.
    pub fn bind_any(&self) -> Result<()> {
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let mut state = self.state.lock();
        if state.bound.is_none() {
            let name = self.names.claim_any(&me)?;
            let mut path = vec![0];
            path.extend_from_slice(&name);
            state.bound = Some(Bound { name: Some(Name::Abstract(name)), path });
        }
        Ok(())
    }

    /// Connects to the socket bound to `name`. For a listener whose queue is full: `EAGAIN`; the caller
    /// may wait on that listener's queue for `WRITABLE`.
    pub fn connect(&self, name: &Name, cred: Ucred) -> Result<()> {
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        let target = self.names.find(name)?;
        if target.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        if self.kind == SocketKind::Datagram {
            self.state.lock().role = Role::Aimed(Arc::downgrade(&target));
            return Ok(());
        }
        match self.state.lock().role {
            Role::Idle => {}
            Role::Connected(_) => return Err(Errno::EISCONN),
            Role::Listening { .. } | Role::Aimed(_) => return Err(Errno::EINVAL),
        }
        let link = target.offer(&me, cred)?;
        let mut state = self.state.lock();
        if !matches!(state.role, Role::Idle) {
            // A racing connect of the same socket won; the listener's half sees a hang-up.
            drop(state);
            link.close();
            return Err(Errno::EISCONN);
        }
        state.role = Role::Connected(link);
        drop(state);
        target.wait.notify(PollEvents::READABLE);
        self.wait.notify(PollEvents::WRITABLE);
        Ok(())
    }

    /// A listener's side of `connect`: queues a socket connected to `client`, returns the client's link.
    fn offer(&self, client: &Arc<Self>, client_cred: Ucred) -> Result<Link> {
        let cred = match &self.state.lock().role {
            Role::Listening { cred, .. } => *cred,
            _ => return Err(Errno::ECONNREFUSED),
        };
        let server = Self::new(self.kind, &self.names)?;
        let bound = self.local_name();
        let (mut for_client, for_server) = Self::links(client, &server, client_cred, cred);
        for_client.peer_name.clone_from(&bound);
        {
            let mut inner = server.state.lock();
            inner.role = Role::Connected(for_server);
            inner.bound = bound.map(|path| Bound { name: None, path });
        }
        let mut state = self.state.lock();
        match &mut state.role {
            Role::Listening { pending, backlog, .. } if pending.len() <= *backlog => {
                pending.push_back(server)
            }
            Role::Listening { .. } => return Err(Errno::EAGAIN),
            _ => return Err(Errno::ECONNREFUSED),
        }
        Ok(for_client)
    }

    /// Sends one datagram to the socket bound to `to`.
    pub fn send_to(
        &self,
        to: &Name,
        source: &mut dyn IoSource,
        ancillary: Ancillary,
        cred: Option<Ucred>,
    ) -> Result<usize> {
        let target = self.names.find(to)?;
        if target.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        let inbox = target.inbox.as_ref().ok_or(Errno::EISCONN)?;
        inbox.write(source, ancillary, &self.sender(cred))
    }

    fn sender(&self, credentials: Option<Ucred>) -> Sender {
        Sender { credentials, name: if self.inbox.is_some() { self.local_name() } else { None } }
    }

    /// Address as `getsockname(2)` shows it; `None` when unbound.
    pub fn local_name(&self) -> Option<Vec<u8>> {
        self.state.lock().bound.as_ref().map(|bound| bound.path.clone())
    }

    /// Peer's address as `getpeername(2)` shows it (`Some(None)`: unnamed); `ENOTCONN`.
    pub fn peer_name(&self) -> Result<Option<Vec<u8>>> {
        let peer = match &self.state.lock().role {
            Role::Connected(link) => return Ok(link.peer_name.clone()),
            Role::Aimed(peer) => peer.upgrade().ok_or(Errno::ENOTCONN)?,
            _ => return Err(Errno::ENOTCONN),
        };
        Ok(peer.local_name())
    }

    /// `SO_PEERCRED`; `None` when there is no connection.
    pub fn peer_credentials(&self) -> Option<Ucred> {
        match &self.state.lock().role {
            Role::Connected(link) => Some(link.peer_cred),
            _ => None,
        }
    }

    /// `SO_PASSCRED`.
    pub fn set_passes_credentials(&self, on: bool) {
        self.state.lock().passes_credentials = on;
    }

    /// `SO_PASSCRED`.
    pub fn passes_credentials(&self) -> bool {
        self.state.lock().passes_credentials
    }

    /// `SO_ACCEPTCONN`.
    pub fn is_listening(&self) -> bool {
        matches!(self.state.lock().role, Role::Listening { .. })
    }

    /// The queue a reader takes from.
    fn incoming(&self) -> Result<Arc<Channel>> {
        if let Some(inbox) = &self.inbox {
            return Ok(Arc::clone(inbox));
        }
        match &self.state.lock().role {
            Role::Connected(link) => Ok(Arc::clone(&link.incoming)),
            Role::Listening { .. } => Err(Errno::EINVAL),
            _ if self.kind == SocketKind::Stream => Err(Errno::EINVAL),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// The queue a writer appends to.
    fn outgoing(&self) -> Result<Arc<Channel>> {
        let peer = match &self.state.lock().role {
            Role::Connected(link) => return Ok(Arc::clone(&link.outgoing)),
            Role::Aimed(peer) => peer.upgrade().ok_or(Errno::ECONNREFUSED)?,
            _ => return Err(Errno::ENOTCONN),
        };
        peer.inbox.clone().ok_or(Errno::EPROTOTYPE)
    }

    fn link(&self) -> Option<Link> {
        match &self.state.lock().role {
            Role::Connected(link) => Some(link.clone()),
            _ => None,
        }
    }
}

impl Socket for UnixSocket {
    fn family(&self) -> u16 {
        AF_UNIX
    }

    fn kind(&self) -> SocketKind {
        self.kind
    }

    fn listen(&self, backlog: i32, cred: Ucred) -> Result<()> {
        if self.kind == SocketKind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let limit = usize::try_from(backlog).unwrap_or(SOMAXCONN).min(SOMAXCONN);
        let mut state = self.state.lock();
        if state.bound.is_none() {
            return Err(Errno::EINVAL);
        }
        match &mut state.role {
            Role::Listening { backlog, .. } => *backlog = limit,
            Role::Idle => state.role = Role::Listening { backlog: limit, cred, pending: VecDeque::new() },
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        if self.kind == SocketKind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        let Role::Listening { pending, .. } = &mut state.role else {
            return Err(Errno::EINVAL);
        };
        let next = pending.pop_front().ok_or(Errno::EAGAIN)?;
        drop(state);
        self.wait.notify(PollEvents::WRITABLE);
        Ok(next)
    }

    fn send(&self, source: &mut dyn IoSource, flags: MsgFlags, ancillary: Ancillary) -> Result<usize> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let sender = self.sender(ancillary.credentials);
        self.outgoing()?.write(source, ancillary, &sender)
    }

    fn receive(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.incoming()?.read(sink, flags)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        if let Some(inbox) = &self.inbox {
            if how.reads() {
                inbox.close_reader(false);
            }
            return Ok(());
        }
        let link = self.link().ok_or(Errno::ENOTCONN)?;
        if how.reads() {
            link.incoming.close_reader(false);
        }
        if how.writes() {
            link.outgoing.close_writer();
        }
        Ok(())
    }
}

impl File for UnixSocket {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        self.receive(sink, MsgFlags::empty()).map(|received| received.bytes)
    }

    fn write(&self, _cx: &FileContext<'_>, _offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        self.send(source, MsgFlags::empty(), Ancillary::default())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        let mut events = PollEvents::empty();
        if let Role::Listening { pending, .. } = &self.state.lock().role {
            if !pending.is_empty() {
                events |= PollEvents::READABLE;
            }
            return events;
        }
        if let Some(inbox) = &self.inbox {
            events.set(PollEvents::READABLE, inbox.readable());
            let writable = self.outgoing().map_or(true, |out| out.writable());
            events.set(PollEvents::WRITABLE, writable);
            return events;
        }
        let Some(link) = self.link() else {
            return PollEvents::WRITABLE | PollEvents::HUP;
        };
        events.set(PollEvents::READABLE, link.incoming.readable());
        events.set(PollEvents::WRITABLE, link.outgoing.writable());
        let ended = link.incoming.writer_is_gone() || link.incoming.reader_is_gone();
        events.set(PollEvents::RDHUP, ended);
        events.set(PollEvents::HUP, ended && link.outgoing.reader_is_gone());
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.wait)
    }

    fn ioctl(&self, _cx: &FileContext<'_>, request: &IoctlRequest<'_>) -> Result<u64> {
        if request.cmd != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let pending = i32::try_from(self.incoming()?.pending()).unwrap_or(i32::MAX);
        request.mem.write(request.addr(), &pending.to_le_bytes())?;
        Ok(0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let State { bound, role, .. } = std::mem::take(self.state.get_mut());
        if let Some(Bound { name: Some(name), .. }) = bound {
            self.names.release(&name, self);
        }
        match role {
            Role::Connected(link) => {
                link.close();
                if let Some(peer) = link.peer.upgrade() {
                    peer.wait.notify(PollEvents::HUP);
                }
            }
            // Connections nobody accepted end here, each by its own drop.
            Role::Listening { .. } | Role::Idle | Role::Aimed(_) => {}
        }
        if let Some(inbox) = &self.inbox {
            inbox.close_reader(true);
        }
    }
}
