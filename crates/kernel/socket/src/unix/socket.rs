//! The handle of a Unix socket.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use abi::ioctl::{FIONREAD, TIOCOUTQ};
use abi::poll::PollEvents;
use abi::socket::{AF_UNIX, MsgFlags, SocketKind, Ucred};
use guestmem::{IoSink, IoSource};
use sync::wait::WaitQueue;
use vfs::{IoctlRequest, Result};

use super::state::{Core, Role, Shut, State};
use super::{Names, address};
use crate::{Asker, Outgoing, Received, Shutdown, Socket, Try};

/// A Unix-domain socket. Dropping it closes it.
pub struct UnixSocket {
    pub(super) core: Arc<Core>,
    pub(super) names: Arc<Names>,
}

impl UnixSocket {
    /// A fresh socket (`socket(2)`). As on Linux, `SOCK_RAW` makes a datagram socket.
    pub fn new(kind: SocketKind, names: &Arc<Names>) -> Arc<Self> {
        let kind = if kind == SocketKind::Raw { SocketKind::Datagram } else { kind };
        Arc::new(Self { core: Core::new(kind), names: Arc::clone(names) })
    }

    pub(super) fn is_connection_based(&self) -> bool {
        self.core.kind != SocketKind::Datagram
    }

    /// Closes it. An `embryo` has never been accepted, so that its peer hears of a reset in any case.
    fn release(&self, embryo: bool) {
        let State { role, queue, .. } = {
            let mut state = self.core.state.lock();
            if state.dead {
                return;
            }
            let mut bound = state.bound.take();
            if let Some(name) = bound.as_mut().and_then(|bound| bound.name.take()) {
                self.names.release(&name, &self.core);
            }
            // The peer can still ask for the address.
            let gone = State { dead: true, shut: Shut::all(), bound, ..State::default() };
            std::mem::replace(&mut *state, gone)
        };
        match role {
            Role::Connected(peer) => peer.peer_died(embryo || !queue.is_empty()),
            Role::Listening { pending, .. } => {
                for socket in pending {
                    socket.release(true);
                }
            }
            Role::Idle | Role::Aimed { .. } => {}
        }
        drop(queue);
        // Those who wait to connect or to send hear that nobody is there.
        self.core.announce(PollEvents::HUP);
    }

    /// What `FIONREAD` says: bytes of the stream, or of the first packet.
    fn pending(&self) -> Result<usize> {
        let state = self.core.state.lock();
        if matches!(state.role, Role::Listening { .. }) {
            return Err(Errno::EINVAL);
        }
        let mut sizes = state.queue.iter().map(|message| message.unread().len());
        Ok(if self.core.kind == SocketKind::Stream { sizes.sum() } else { sizes.next().unwrap_or(0) })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        self.release(false);
    }
}

impl Socket for UnixSocket {
    fn family(&self) -> u16 {
        AF_UNIX
    }

    fn kind(&self) -> SocketKind {
        self.core.kind
    }

    fn bind(&self, asker: &Asker<'_>, address: &[u8]) -> Result<()> {
        if address::is_unnamed(address) { self.bind_any() } else { self.bind_to(asker, address) }
    }

    fn connect(&self, asker: &Asker<'_>, address: &[u8]) -> Try<()> {
        if self.is_connection_based() { self.join(asker, address) } else { self.aim(asker, address) }
    }

    fn listen(&self, asker: &Asker<'_>, backlog: i32) -> Result<()> {
        self.start_listening(asker, backlog)
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Ok(self.next_pending()?)
    }

    fn name(&self) -> Vec<u8> {
        self.core.address()
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let peer = self.core.state.lock().role.peer().ok_or(Errno::ENOTCONN)?;
        Ok(peer.address())
    }

    fn send(&self, asker: &Asker<'_>, source: &mut dyn IoSource, message: &Outgoing<'_>) -> Try<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        match self.core.kind {
            SocketKind::Stream => self.send_stream(asker, source, message),
            _ => self.send_packet(asker, source, message),
        }
    }

    fn receive(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        match self.core.kind {
            SocketKind::Stream => self.receive_stream(sink, flags),
            _ => self.receive_packet(sink, flags),
        }
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let (mut ours, mut theirs) = (Shut::empty(), Shut::empty());
        ours.set(Shut::READ, how.reads());
        theirs.set(Shut::WRITE, how.reads());
        ours.set(Shut::WRITE, how.writes());
        theirs.set(Shut::READ, how.writes());
        let peer = {
            let mut state = self.core.state.lock();
            state.shut |= ours;
            state.role.peer()
        };
        if let Some(peer) = peer.filter(|_| self.is_connection_based()) {
            peer.shut(theirs);
        }
        self.core.announce(PollEvents::HUP | PollEvents::RDHUP);
        Ok(())
    }

    fn poll(&self) -> PollEvents {
        let (mut events, aim) = {
            let state = self.core.state.lock();
            let mut events = PollEvents::empty();
            events.set(PollEvents::ERR, state.error.is_some());
            events.set(PollEvents::HUP, state.shut == Shut::all());
            let ended = state.shut.contains(Shut::READ);
            events.set(PollEvents::RDHUP, ended);
            events.set(PollEvents::READABLE, ended || !state.queue.is_empty());
            let aim = match &state.role {
                Role::Listening { pending, .. } => {
                    events.set(PollEvents::READABLE, ended || !pending.is_empty());
                    return events;
                }
                Role::Idle if self.is_connection_based() => {
                    events |= PollEvents::HUP;
                    None
                }
                Role::Aimed { peer, .. } => Some(Arc::clone(peer)),
                Role::Idle | Role::Connected(_) => None,
            };
            (events, aim)
        };
        let crowded = aim.is_some_and(|peer| peer.is_crowded_for(&self.core));
        let writable = PollEvents::WRITABLE | PollEvents::WRBAND;
        events.set(writable, self.core.buffer.is_writable() && !crowded);
        events
    }

    fn wait_queue(&self) -> &WaitQueue {
        &self.core.wait
    }

    fn ioctl(&self, request: &IoctlRequest<'_>) -> Result<u64> {
        let bytes = match request.cmd {
            FIONREAD => self.pending()?,
            TIOCOUTQ => self.core.buffer.used(),
            _ => return Err(Errno::ENOTTY),
        };
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        request.mem.write(request.addr(), &bytes.to_ne_bytes())?;
        Ok(0)
    }

    fn take_error(&self) -> Option<Errno> {
        self.core.state.lock().error.take()
    }

    fn is_listening(&self) -> bool {
        matches!(self.core.state.lock().role, Role::Listening { .. })
    }

    fn set_send_buffer(&self, bytes: usize) {
        self.core.buffer.set_limit(bytes);
    }

    fn set_passes_credentials(&self, on: bool) -> Result<()> {
        self.core.state.lock().passes_credentials = on;
        Ok(())
    }

    fn passes_credentials(&self) -> bool {
        self.core.state.lock().passes_credentials
    }

    fn peer_identity(&self) -> Option<(Ucred, Arc<[u32]>)> {
        self.core.state.lock().identity.clone()
    }
}

/// For callers that know the family.
impl UnixSocket {
    /// As [`Any`].
    pub fn of(socket: &dyn Socket) -> Option<&Self> {
        let socket: &dyn Any = socket;
        socket.downcast_ref()
    }
}
