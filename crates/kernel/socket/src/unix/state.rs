//! The part of a socket that its peers reach.

use std::collections::VecDeque;
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::{SocketKind, Ucred};
use bitflags::bitflags;
use sync::wait::{Notify, WaitQueue, Waiter};
use sync::{Mutex, order};
use vfs::Result;

use super::address;
use super::buffer::{Charge, SendBuffer};
use super::flight::InFlight;
use super::names::Name;
use super::socket::UnixSocket;

/// Datagrams a socket takes from those it is not connected to (`net.unix.max_dgram_qlen`).
const MAX_DATAGRAMS: usize = 10;

bitflags! {
    /// Directions that are closed.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Shut: u8 {
        const READ = 1;
        const WRITE = 2;
    }
}

/// A message in a queue.
pub(super) struct Message {
    pub(super) data: Vec<u8>,
    /// Bytes already read (streams).
    pub(super) read: usize,
    pub(super) files: InFlight,
    pub(super) credentials: Ucred,
    /// Sender's address.
    pub(super) from: Option<Vec<u8>>,
    /// Its part of the sender's buffer, given back with it.
    pub(super) _charge: Option<Charge>,
}

impl Message {
    pub(super) fn unread(&self) -> &[u8] {
        self.data.get(self.read..).unwrap_or_default()
    }
}

/// What a socket is called.
pub(super) struct Bound {
    /// Its claim on a name; a socket from `accept` only shows its listener's address.
    pub(super) name: Option<Name>,
    /// As `getsockname(2)` shows it.
    pub(super) address: Vec<u8>,
}

/// How a socket stands to others.
#[derive(Default)]
pub(super) enum Role {
    #[default]
    Idle,
    Listening {
        backlog: usize,
        /// Connected sockets nobody has accepted.
        pending: VecDeque<Arc<UnixSocket>>,
    },
    Connected(Arc<Core>),
    /// A datagram socket's default destination.
    Aimed {
        peer: Arc<Core>,
        /// Hears when the destination has room.
        _room: Waiter,
    },
}

#[derive(Default)]
pub(super) struct State {
    pub(super) bound: Option<Bound>,
    pub(super) role: Role,
    pub(super) queue: VecDeque<Message>,
    pub(super) shut: Shut,
    /// To be told once (`SO_ERROR`).
    pub(super) error: Option<Errno>,
    /// Its handle is gone.
    pub(super) dead: bool,
    /// Who is at the other end (`SO_PEERCRED`); of a listener, itself.
    pub(super) identity: Option<(Ucred, Arc<[u32]>)>,
    pub(super) passes_credentials: bool,
}

/// A socket without its handle.
pub(super) struct Core {
    pub(super) kind: SocketKind,
    pub(super) wait: WaitQueue,
    /// Those who wait for room in its queue or backlog.
    pub(super) room: WaitQueue,
    pub(super) buffer: Arc<SendBuffer>,
    pub(super) state: Mutex<order::FileState, State>,
}

impl Core {
    pub(super) fn new(kind: SocketKind) -> Arc<Self> {
        let wait = WaitQueue::new();
        let buffer = SendBuffer::new(wait.clone());
        Arc::new(Self { kind, wait, room: WaitQueue::new(), buffer, state: Mutex::default() })
    }

    /// Address as `getsockname(2)` shows it.
    pub(super) fn address(&self) -> Vec<u8> {
        self.state.lock().bound.as_ref().map_or_else(address::unnamed, |bound| bound.address.clone())
    }

    /// As [`address`](Self::address); `None` when unbound.
    pub(super) fn bound_address(&self) -> Option<Vec<u8>> {
        self.state.lock().bound.as_ref().map(|bound| bound.address.clone())
    }

    /// Appends a message from the peer of a connection; `EPIPE` when nobody will read it.
    pub(super) fn push(&self, message: Message) -> Result<()> {
        let mut state = self.state.lock();
        if state.dead || state.shut.contains(Shut::READ) {
            drop(state);
            drop(message);
            return Err(Errno::EPIPE);
        }
        state.queue.push_back(message);
        drop(state);
        self.wait.notify(PollEvents::READABLE);
        Ok(())
    }

    /// Has it no room for a datagram of `sender`? Those connected to each other have room always: their
    /// send buffers bound them.
    pub(super) fn is_crowded_for(&self, sender: &Core) -> bool {
        let state = self.state.lock();
        state.queue.len() > MAX_DATAGRAMS && !state.role.leads_to(sender)
    }

    /// The other end of a connection has died, with data unread or not.
    pub(super) fn peer_died(&self, unread: bool) {
        {
            let mut state = self.state.lock();
            state.shut = Shut::all();
            if unread {
                state.error = Some(Errno::ECONNRESET);
            }
        }
        self.announce(PollEvents::HUP | PollEvents::RDHUP | PollEvents::ERR);
    }

    /// The other end has closed these directions of ours.
    pub(super) fn shut(&self, shut: Shut) {
        self.state.lock().shut |= shut;
        self.announce(PollEvents::HUP | PollEvents::RDHUP);
    }

    /// Wakes everybody: reads and writes end now.
    pub(super) fn announce(&self, events: PollEvents) {
        self.wait.notify(PollEvents::READABLE | PollEvents::WRITABLE | events);
        self.room.notify(PollEvents::WRITABLE);
    }
}

impl Role {
    /// Is `core` the peer?
    pub(super) fn leads_to(&self, core: &Core) -> bool {
        match self {
            Self::Connected(peer) | Self::Aimed { peer, .. } => std::ptr::eq(Arc::as_ptr(peer), core),
            Self::Idle | Self::Listening { .. } => false,
        }
    }

    /// The peer.
    pub(super) fn peer(&self) -> Option<Arc<Core>> {
        match self {
            Self::Connected(peer) | Self::Aimed { peer, .. } => Some(Arc::clone(peer)),
            Self::Idle | Self::Listening { .. } => None,
        }
    }
}

/// Tells a datagram socket that its destination has room.
pub(super) struct Relay(pub(super) WaitQueue);

impl Notify for Relay {
    fn notify(&self, _events: PollEvents) {
        self.0.notify(PollEvents::WRITABLE);
    }
}
