//! How TCP sockets meet others outside the sandbox.

use std::net::SocketAddr;
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use netstack::{ConnId, ConnectError, Syn, TcpPhase};
use vfs::Result;

use super::TcpSocket;
use super::end::End;
use super::state::{Core, Role, State};
use super::wire::{self, Wire, stack_settings};
use crate::inet::network::{Network, Tuple};
use crate::inet::outside::{ANY_CHANGE, Outside, Owner};

impl Core {
    /// Begins a connection to the outside.
    pub(super) fn dial(self: &Arc<Self>, state: &mut State, tuple: Tuple) -> Result<()> {
        let outside = Arc::clone(self.network.outside().ok_or(Errno::ENETUNREACH)?);
        if tuple.0.ip().is_loopback() {
            return Err(Errno::EINVAL);
        }
        let settings = stack_settings(&state.settings);
        let owner = Owner::Socket(Arc::downgrade(self));
        let begun = outside.with(|stack, now| stack.connect(tuple, &settings, owner, now));
        let id = begun.map_err(|error| match error {
            ConnectError::Denied => outside.denied("connection", tuple.1),
            ConnectError::InUse => Errno::EADDRNOTAVAIL,
            ConnectError::NoRoute => Errno::ENETUNREACH,
            ConnectError::TooMany => Errno::ENOBUFS,
        })?;
        state.role = Role::Dialing(Wire::new(&outside, id, &self.wait, state.settings.sizes()));
        Ok(())
    }

    /// The listener that a SYN from outside is for; of several that share the port always the same.
    pub(in crate::inet) fn find_listener_for(
        network: &Network,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<Arc<Self>> {
        let found = network.streams(|streams| streams.ports.listeners(to));
        let at = if found.len() > 1 { network.share_of(from, to, found.len()) } else { 0 };
        found.get(at).and_then(|(_, socket)| socket.upgrade())
    }

    /// Answers a SYN for this listener. While its backlog is full it does not, so that it is sent again.
    pub(in crate::inet) fn answer(self: &Arc<Self>, outside: &Outside, syn: &Syn) {
        let settings = {
            let state = self.state.lock();
            match &state.role {
                Role::Listening(backlog) if backlog.is_full() => return,
                Role::Listening(_) => Some(stack_settings(&state.settings)),
                Role::Idle | Role::Calling | Role::Dialing(_) | Role::Connected(_) => None,
            }
        };
        let owner = Owner::Listener(Arc::downgrade(self));
        outside.with(|stack, now| match settings {
            Some(settings) => drop(stack.accept(syn, &settings, owner, now)),
            None => stack.refuse(syn, now),
        });
    }

    /// Puts a connection that has come about into the queue; `false` when it is not wanted any more.
    pub(in crate::inet) fn enqueue(self: &Arc<Self>, outside: &Outside, id: ConnId) -> bool {
        let Some(network_outside) = self.network.outside() else { return false };
        let Some((here, there)) = outside.look(|stack| stack.ends(id)) else { return true };
        {
            let mut state = self.state.lock();
            let settings = state.settings.clone();
            let Role::Listening(backlog) = &mut state.role else { return false };
            // Some that were on their way when it was not full yet have a place, but not any number.
            if backlog.ready.len() > backlog.limit.saturating_mul(2).saturating_add(16) {
                return false;
            }
            let server = Self::new(self.v6, &self.network, State::default());
            // Who owns it is known once it is accepted; until then it is the listener's.
            server.attached(0, self.uid());
            let claim = server.claim(here, &settings);
            self.network.streams(|streams| {
                streams.ports.add(here.port(), server.id, claim);
                streams.connect((here, there), server.id);
            });
            let wire = Wire::new(network_outside, id, &server.wait, settings.sizes());
            {
                let mut accepted = server.state.lock();
                (accepted.local, accepted.remote, accepted.bound) = (Some(here), Some(there), true);
                (accepted.settings, accepted.role) = (settings, Role::Connected(End::Wire(wire)));
            }
            outside.with(|stack, _| stack.adopt(id, Owner::Socket(Arc::downgrade(&server))));
            backlog.ready.push_back(Arc::new(TcpSocket { core: server }));
        }
        self.wait.notify(PollEvents::READABLE);
        true
    }

    /// The stack has something new to say of the connection of this socket.
    pub(in crate::inet) fn moved(self: &Arc<Self>) {
        {
            let mut state = self.state.lock();
            if let Role::Dialing(wire) = &state.role {
                let wire = wire.clone();
                let status = wire.status();
                match status.map(|status| (status.phase, status.failure)) {
                    Some((TcpPhase::SynSent | TcpPhase::SynReceived, None)) => {}
                    Some((TcpPhase::Closed, failure)) => {
                        self.fail(&mut state, failure.map_or(Errno::ETIMEDOUT, wire::errno));
                        wire.close(true);
                    }
                    Some(_) => state.role = Role::Connected(End::Wire(wire)),
                    None => self.fail(&mut state, Errno::ECONNABORTED),
                }
            }
        }
        self.wait.notify(ANY_CHANGE);
    }
}
