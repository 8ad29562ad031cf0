//! How Unix sockets get their names and meet.

use std::collections::VecDeque;
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::{AF_UNSPEC, SOMAXCONN, SocketKind, Ucred};
use vfs::Result;

use super::address::{self, Address};
use super::names::Name;
use super::state::{Bound, Core, Relay, Role, Shut};
use super::{Names, UnixSocket};
use crate::{Asker, Stall, Try, family};

fn identity(asker: &Asker<'_>) -> Option<(Ucred, Arc<[u32]>)> {
    Some((asker.effective(), Arc::clone(&asker.cred.groups)))
}

impl UnixSocket {
    /// Two sockets connected to each other (`socketpair(2)`).
    pub fn pair(kind: SocketKind, names: &Arc<Names>, asker: &Asker<'_>) -> [Arc<Self>; 2] {
        let pair = [Self::new(kind, names), Self::new(kind, names)];
        let [a, b] = &pair;
        for (one, other) in [(a, b), (b, a)] {
            let peer = Arc::clone(&other.core);
            let role = if one.is_connection_based() { Role::Connected(peer) } else { one.aimed(peer) };
            let mut state = one.core.state.lock();
            (state.role, state.identity) = (role, identity(asker));
        }
        pair
    }

    /// Binds to a free abstract name, unless it is bound.
    pub(super) fn bind_any(&self) -> Result<()> {
        let mut state = self.core.state.lock();
        if state.bound.is_none() {
            let name = self.names.claim_any(self.core.kind, &self.core)?;
            let address = Address::Abstract(&name).shown();
            state.bound = Some(Bound { name: Some(Name::Abstract(self.core.kind, name)), address });
        }
        Ok(())
    }

    /// Binds to a path, which it makes, or to an abstract name.
    pub(super) fn bind_to(&self, asker: &Asker<'_>, address: &[u8]) -> Result<()> {
        let parsed = address::parse(address)?;
        let name = match parsed {
            Address::Abstract(name) => Name::Abstract(self.core.kind, name.to_vec()),
            Address::Path(path) => {
                if self.core.state.lock().bound.is_some() {
                    // A path that is there comes first; one that is not is not to stay behind.
                    return Err(match asker.paths.find(path) {
                        Err(Errno::ENOENT) => Errno::EINVAL,
                        Ok(_) | Err(Errno::EACCES | Errno::ECONNREFUSED) => Errno::EADDRINUSE,
                        Err(errno) => errno,
                    });
                }
                Name::Node(asker.paths.make(path)?)
            }
        };
        let mut state = self.core.state.lock();
        if state.bound.is_some() {
            return Err(Errno::EINVAL);
        }
        self.names.claim(name.clone(), &self.core)?;
        state.bound = Some(Bound { name: Some(name), address: parsed.shown() });
        Ok(())
    }

    /// A socket that passes credentials must have a name to pass along (`unix(7)`).
    pub(super) fn bind_if_credentials(&self) -> Result<()> {
        let wanted = {
            let state = self.core.state.lock();
            state.passes_credentials && state.bound.is_none()
        };
        if wanted { self.bind_any() } else { Ok(()) }
    }

    /// The socket that `address` names. `EPROTOTYPE` when it is of another type.
    pub(super) fn find(&self, asker: &Asker<'_>, address: &[u8]) -> Result<Arc<Core>> {
        let name = match address::parse(address)? {
            Address::Abstract(name) => Name::Abstract(self.core.kind, name.to_vec()),
            Address::Path(path) => Name::Node(asker.paths.find(path)?),
        };
        let found = self.names.find(&name)?;
        if found.kind == self.core.kind { Ok(found) } else { Err(Errno::EPROTOTYPE) }
    }

    /// `listen(2)`.
    pub(super) fn start_listening(&self, asker: &Asker<'_>, backlog: i32) -> Result<()> {
        if !self.is_connection_based() {
            return Err(Errno::EOPNOTSUPP);
        }
        // A negative one is as large as can be.
        let limit = usize::try_from(backlog).unwrap_or(SOMAXCONN).min(SOMAXCONN);
        let mut state = self.core.state.lock();
        if state.bound.is_none() {
            return Err(Errno::EINVAL);
        }
        match &mut state.role {
            Role::Listening { backlog, .. } => *backlog = limit,
            role @ Role::Idle => *role = Role::Listening { backlog: limit, pending: VecDeque::new() },
            Role::Connected(_) | Role::Aimed { .. } => return Err(Errno::EINVAL),
        }
        state.identity = identity(asker);
        drop(state);
        self.core.room.notify(PollEvents::WRITABLE);
        Ok(())
    }

    /// `connect(2)` of a stream: waits on the listener for a place in its backlog.
    pub(super) fn join(&self, asker: &Asker<'_>, address: &[u8]) -> Try<()> {
        address::parse(address)?;
        self.bind_if_credentials()?;
        let listener = self.find(asker, address)?;
        let server = Self::new(self.core.kind, &self.names);
        listener.has_room()?;
        let (bound, of_listener, passes) = {
            let state = listener.state.lock();
            let bound = state.bound.as_ref().map(|b| Bound { name: None, address: b.address.clone() });
            (bound, state.identity.clone(), state.passes_credentials)
        };
        {
            let mut state = server.core.state.lock();
            (state.bound, state.identity, state.passes_credentials) = (bound, identity(asker), passes);
            state.role = Role::Connected(Arc::clone(&self.core));
        }
        // First this end, so that an accepted socket's peer is never one that does not know of it.
        let refused = {
            let mut state = self.core.state.lock();
            match state.role {
                Role::Idle => {
                    state.role = Role::Connected(Arc::clone(&server.core));
                    state.identity = of_listener;
                    None
                }
                Role::Connected(_) => Some(Errno::EISCONN),
                Role::Listening { .. } | Role::Aimed { .. } => Some(Errno::EINVAL),
            }
        };
        let outcome = match refused {
            Some(errno) => Err(errno.into()),
            None => listener.offer(&server).inspect_err(|_| {
                // The place was taken, or the listener left, while nobody held a lock.
                let mut state = self.core.state.lock();
                (state.role, state.identity) = (Role::Idle, None);
            }),
        };
        if outcome.is_err() {
            // Or its drop would reset this socket.
            let role = std::mem::take(&mut server.core.state.lock().role);
            drop(role);
            return outcome;
        }
        listener.wait.notify(PollEvents::READABLE);
        self.core.wait.notify(PollEvents::WRITABLE);
        Ok(())
    }

    /// `accept(2)`.
    pub(super) fn next_pending(&self) -> Result<Arc<Self>> {
        if !self.is_connection_based() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.core.state.lock();
        let ended = state.shut.contains(Shut::READ);
        let Role::Listening { pending, .. } = &mut state.role else {
            return Err(Errno::EINVAL);
        };
        let next = pending.pop_front();
        drop(state);
        if next.is_some() {
            self.core.room.notify(PollEvents::WRITABLE);
        }
        next.ok_or(if ended { Errno::EINVAL } else { Errno::EAGAIN })
    }

    /// The role of a datagram socket whose destination is `peer`.
    fn aimed(&self, peer: Arc<Core>) -> Role {
        let relay = Arc::new(Relay(self.core.wait.clone()));
        let room = peer.room.register(relay, PollEvents::OUT);
        Role::Aimed { peer, _room: room }
    }

    /// `connect(2)` of a datagram socket.
    pub(super) fn aim(&self, asker: &Asker<'_>, address: &[u8]) -> Try<()> {
        let role = if family(address) == Some(AF_UNSPEC) {
            Role::Idle
        } else {
            address::parse(address)?;
            self.bind_if_credentials()?;
            let peer = self.find(asker, address)?;
            peer.admits(&self.core)?;
            self.aimed(peer)
        };
        let old = std::mem::replace(&mut self.core.state.lock().role, role);
        drop(old);
        self.core.wait.notify(PollEvents::WRITABLE);
        Ok(())
    }
}

impl Core {
    /// May one more connect? `ECONNREFUSED` when nobody listens.
    fn has_room(&self) -> Try<()> {
        let state = self.state.lock();
        match &state.role {
            Role::Listening { pending, backlog } if !state.shut.contains(Shut::READ) => {
                if pending.len() > *backlog { Err(Stall::Wait(self.room.clone())) } else { Ok(()) }
            }
            _ => Err(Errno::ECONNREFUSED.into()),
        }
    }

    /// Takes `server` into the backlog.
    fn offer(&self, server: &Arc<UnixSocket>) -> Try<()> {
        let mut state = self.state.lock();
        if state.shut.contains(Shut::READ) {
            return Err(Errno::ECONNREFUSED.into());
        }
        match &mut state.role {
            Role::Listening { pending, backlog } if pending.len() <= *backlog => {
                pending.push_back(Arc::clone(server));
                Ok(())
            }
            Role::Listening { .. } => Err(Stall::Wait(self.room.clone())),
            _ => Err(Errno::ECONNREFUSED.into()),
        }
    }

    /// A datagram socket with a destination of its own takes nothing from others: `EPERM`.
    pub(super) fn admits(&self, sender: &Core) -> Result<()> {
        let state = self.state.lock();
        match &state.role {
            Role::Aimed { .. } if !state.role.leads_to(sender) => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }
}
