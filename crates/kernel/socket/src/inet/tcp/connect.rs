//! How TCP sockets get their addresses, meet, and part.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use abi::Errno;
use abi::poll::PollEvents;
use vfs::Result;

use super::end::End;
use super::splice::{self, Closed, Side};
use super::state::{Backlog, Core, Role, State};
use super::{TcpSocket, address};
use crate::inet::check_port;
use crate::inet::network::{Streams, Tuple};
use crate::inet::show::Shown;
use crate::{Asker, Shutdown, Stall, Try};

impl TcpSocket {
    /// `bind(2)`.
    pub(super) fn bind_to(&self, asker: &Asker<'_>, address: &[u8]) -> Result<()> {
        let core = &self.core;
        let wanted = crate::inet::bind_address(core.v6, address)?;
        let mut state = core.state.lock();
        let settings = &state.settings;
        crate::inet::check_bind(&core.network, &settings.ip, wanted)?;
        check_port(asker, &core.network, wanted.port())?;
        if state.local.is_some() || !matches!(state.role, Role::Idle) {
            return Err(Errno::EINVAL);
        }
        let claim = core.claim(wanted, settings);
        let port = core.network.streams(|streams| match wanted.port() {
            0 => streams.ports.claim_any(core.id, claim, |_| true),
            port => streams.ports.claim(port, core.id, claim).map(|()| port),
        })?;
        state.local = Some(with_port(wanted, port));
        state.bound = true;
        Ok(())
    }

    /// `listen(2)`: of a socket without a port on any.
    pub(super) fn start_listening(&self, _: &Asker<'_>, backlog: i32) -> Result<()> {
        let core = &self.core;
        // A negative one is as large as can be.
        let most = core.network.settings().backlog();
        let limit = usize::try_from(backlog).unwrap_or(most).min(most);
        let mut state = core.state.lock();
        match &mut state.role {
            Role::Listening(backlog) => {
                backlog.limit = limit;
                return Ok(());
            }
            Role::Idle => {}
            Role::Calling | Role::Dialing(_) | Role::Connected(_) => return Err(Errno::EINVAL),
        }
        let local = match state.local {
            Some(local) => {
                core.network.streams(|streams| streams.ports.listen(local.port(), core.id))?;
                local
            }
            None => {
                let any = address::nothing(core.v6);
                let mut claim = core.claim(any, &state.settings);
                claim.listening = true;
                let port =
                    core.network.streams(|streams| streams.ports.claim_any(core.id, claim, |_| true))?;
                with_port(any, port)
            }
        };
        state.local = Some(local);
        (state.failed, state.connecting) = (false, false);
        state.role = Role::Listening(Backlog { limit, ready: VecDeque::new(), late: VecDeque::new() });
        Ok(())
    }

    /// `accept(2)`.
    pub(super) fn next_ready(&self) -> Result<Arc<Self>> {
        let (next, late) = {
            let mut state = self.core.state.lock();
            let Role::Listening(backlog) = &mut state.role else { return Err(Errno::EINVAL) };
            let next = backlog.ready.pop_front().ok_or(Errno::EAGAIN)?;
            (next, backlog.late.pop_front())
        };
        if let Some(client) = late.and_then(|late| late.upgrade()) {
            client.try_again(&self.core);
        }
        Ok(next)
    }

    /// `connect(2)`.
    pub(super) fn connect_to(&self, asker: &Asker<'_>, bytes: &[u8]) -> Try<()> {
        let core = &self.core;
        if address::is_unspecified(bytes)? {
            self.disconnect();
            return Ok(());
        }
        let mut state = core.state.lock();
        match &state.role {
            Role::Listening(_) => return Err(Errno::EISCONN.into()),
            Role::Calling | Role::Dialing(_) => return Err(self.underway(Errno::EALREADY)),
            Role::Connected(_) if state.connecting => {
                state.connecting = false;
                return Ok(());
            }
            Role::Connected(_) => return Err(Errno::EISCONN.into()),
            Role::Idle if state.connecting => {
                state.connecting = false;
                return Err(state.error.take().unwrap_or(Errno::ECONNABORTED).into());
            }
            Role::Idle => {}
        }
        let tuple = self.choose(asker, &mut state, bytes)?;
        (state.remote, state.connecting, state.failed) = (Some(tuple.1), true, false);
        let outcome = if core.network.is_local(tuple.1.ip()) {
            match core.find_listener(tuple.1) {
                Some(listener) => core.call(&mut state, &listener, tuple),
                None => Err(Errno::ECONNREFUSED),
            }
        } else {
            core.dial(&mut state, tuple).map(|()| None)
        };
        match outcome {
            Ok(Some(listener)) => {
                drop(state);
                listener.wait.notify(PollEvents::READABLE);
            }
            Ok(None) => {}
            Err(errno) => core.fail(&mut state, errno),
        }
        Err(self.underway(Errno::EINPROGRESS))
    }

    fn underway(&self, otherwise: Errno) -> Stall {
        Stall::Underway { queue: self.core.wait.clone(), otherwise }
    }

    /// The two addresses of a connection to be made, and the claim on a port here.
    fn choose(&self, asker: &Asker<'_>, state: &mut State, bytes: &[u8]) -> Result<Tuple> {
        let core = &self.core;
        let to = crate::inet::destination(address::parse(core.v6, bytes)?);
        if state.settings.ip.v6only && to.is_ipv4() {
            return Err(Errno::ENETUNREACH);
        }
        if to.ip().is_multicast() || core.network.is_broadcast(to.ip()) {
            return Err(Errno::ENETUNREACH);
        }
        let source = core.network.source(to.ip())?;
        let ip = match state.local.map(|local| local.ip()).filter(|ip| !ip.is_unspecified()) {
            None => source,
            Some(ip) if ip.is_ipv4() == to.is_ipv4() => ip,
            Some(_) => return Err(Errno::ENETUNREACH),
        };
        let now = Instant::now();
        let mut claim = core.claim(SocketAddr::new(ip, 0), &state.settings);
        claim.connected = true;
        claim.uid = asker.cred.euid;
        let bound = state.local.map(|local| local.port());
        let port = core.network.streams(|streams| {
            let Streams { ports, connections } = streams;
            let free = |port| connections.is_free((SocketAddr::new(ip, port), to), now);
            let port = match bound {
                Some(port) if free(port) => port,
                Some(_) => return Err(Errno::EADDRNOTAVAIL),
                None => {
                    // No socket is to meet itself.
                    let usable = |port| free(port) && (port != to.port() || ip != to.ip());
                    ports.claim_any(core.id, claim, usable).map_err(|_| Errno::EADDRNOTAVAIL)?
                }
            };
            streams.connect((SocketAddr::new(ip, port), to), core.id);
            Ok(port)
        })?;
        let local = SocketAddr::new(ip, port);
        state.local = Some(local);
        Ok((local, to))
    }

    /// `connect(2)` to nowhere: a connection ends with a RST, a listener listens no more.
    fn disconnect(&self) {
        let role = self.core.forget();
        self.core.part(role, true);
        let mut state = self.core.state.lock();
        (state.connecting, state.failed, state.error) = (false, false, None);
    }

    /// `shutdown(2)`.
    pub(super) fn shut(&self, how: Shutdown) -> Result<()> {
        let end = {
            let state = self.core.state.lock();
            match &state.role {
                Role::Connected(end) => end.clone(),
                Role::Idle => return Err(Errno::ENOTCONN),
                // Waits on: nothing of it can be closed yet, as on Linux.
                Role::Listening(_) if how == Shutdown::Write => return Ok(()),
                Role::Listening(_) | Role::Calling | Role::Dialing(_) => {
                    drop(state);
                    let role = self.core.forget();
                    self.core.part(role, false);
                    return Ok(());
                }
            }
        };
        let closed = end.shutdown(how)?;
        self.core.remember(&end, closed);
        Ok(())
    }

    /// The handle goes.
    pub(super) fn release(&self) {
        let core = &self.core;
        let (role, abort, local) = {
            let mut state = core.state.lock();
            state.bound = false;
            let abort = state.settings.linger == Some(0);
            (std::mem::take(&mut state.role), abort, state.local)
        };
        // Remembers first, with the addresses that are given up then.
        core.part(role, abort);
        let remote = core.state.lock().remote;
        if let Some(local) = local {
            core.network.streams(|streams| {
                streams.ports.release(local.port(), core.id);
                if let Some(remote) = remote {
                    streams.disconnect((local, remote), core.id);
                }
            });
        }
    }
}

impl Core {
    /// The listener a connection to `to` meets: one of those whose address fits best, in turn.
    fn find_listener(&self, to: SocketAddr) -> Option<Arc<Self>> {
        let found = self.network.streams(|streams| streams.ports.listeners(to));
        let turn = if found.len() > 1 { self.network.turn() % found.len() } else { 0 };
        found.get(turn).and_then(|(_, socket)| socket.upgrade())
    }

    /// Connects to `listener`, or waits for a place in its backlog. Returns the listener when it is to hear of
    /// a new connection.
    fn call(
        self: &Arc<Self>,
        state: &mut State,
        listener: &Arc<Self>,
        tuple: Tuple,
    ) -> Result<Option<Arc<Self>>> {
        let mut theirs = listener.state.lock();
        let settings = theirs.settings.clone();
        let Role::Listening(backlog) = &mut theirs.role else { return Err(Errno::ECONNREFUSED) };
        if backlog.is_full() {
            backlog.late.retain(|late| late.strong_count() > 0);
            backlog.late.push_back(Arc::downgrade(self));
            state.role = Role::Calling;
            return Ok(None);
        }
        let server = Self::new(listener.v6, &listener.network, State::default());
        let sizes = (state.settings.sizes(), settings.sizes());
        let (mine, other) = splice::End::pair((&self.wait, sizes.0), (&server.wait, sizes.1));
        let (mine, other) = (End::Spliced(mine), End::Spliced(other));
        let (here, there) = (tuple.1, tuple.0);
        // Who owns it is known once it is accepted; until then it is the listener's.
        server.attached(0, listener.uid());
        let claim = server.claim(here, &settings);
        self.network.streams(|streams| {
            streams.ports.add(here.port(), server.id, claim);
            streams.connect((here, there), server.id);
        });
        {
            let mut state = server.state.lock();
            (state.local, state.remote, state.bound) = (Some(here), Some(there), true);
            (state.settings, state.role) = (settings, Role::Connected(other));
        }
        backlog.ready.push_back(Arc::new(TcpSocket { core: server }));
        state.role = Role::Connected(mine);
        Ok(Some(Arc::clone(listener)))
    }

    /// The listener has a place, or listens no more.
    fn try_again(self: &Arc<Self>, listener: &Arc<Self>) {
        let outcome = {
            let mut state = self.state.lock();
            let (Role::Calling, Some(local), Some(remote)) = (&state.role, state.local, state.remote) else {
                return;
            };
            let outcome = self.call(&mut state, listener, (local, remote));
            if let Err(errno) = outcome {
                self.fail(&mut state, errno);
            }
            outcome
        };
        if let Ok(Some(listener)) = outcome {
            listener.wait.notify(PollEvents::READABLE);
        }
        self.wait.notify(PollEvents::WRITABLE | PollEvents::ALWAYS);
    }

    /// A connect has failed.
    pub(super) fn fail(&self, state: &mut State, errno: Errno) {
        state.role = Role::Idle;
        (state.error, state.failed) = (Some(errno), true);
        self.give_up(state);
    }

    /// Gives up the connection's entry, and the port unless it was asked for.
    fn give_up(&self, state: &mut State) {
        let (local, remote) = (state.local, state.remote.take());
        let keep = state.bound;
        self.network.streams(|streams| {
            if let (Some(local), Some(remote)) = (local, remote) {
                streams.disconnect((local, remote), self.id);
            }
            if let Some(local) = local.filter(|_| !keep) {
                streams.ports.release(local.port(), self.id);
            } else if let Some(local) = local {
                streams.ports.change(local.port(), self.id, |claim| claim.listening = false);
            }
        });
        if !keep {
            state.local = None;
        }
    }

    /// Takes the role away, with what belongs to it; the role is to be parted with without a lock.
    fn forget(&self) -> Role {
        let mut state = self.state.lock();
        let role = std::mem::take(&mut state.role);
        self.give_up(&mut state);
        role
    }

    /// Ends what a socket was; `abort` with a RST.
    fn part(self: &Arc<Self>, role: Role, abort: bool) {
        match role {
            Role::Connected(end) => {
                let closed = end.close(abort);
                self.remember(&end, closed);
            }
            Role::Listening(Backlog { ready, late, .. }) => {
                for socket in ready {
                    // Nobody has accepted it: its client hears of a RST.
                    let role = std::mem::take(&mut socket.core.state.lock().role);
                    socket.core.part(role, true);
                }
                for client in late.iter().filter_map(Weak::upgrade) {
                    client.try_again(self);
                }
            }
            Role::Dialing(wire) => {
                wire.close(true);
            }
            Role::Idle | Role::Calling => {}
        }
        self.wait.notify(PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::ALWAYS);
    }

    /// When a connection has ended in order, the side that closed first is remembered (`TIME_WAIT`).
    fn remember(self: &Arc<Self>, end: &End, closed: Closed) {
        let Closed::Waiting(first, reuse) = closed else { return };
        let (local, remote, settings) = {
            let state = self.state.lock();
            (state.local, state.remote, state.settings.clone())
        };
        let (Some(local), Some(remote)) = (local, remote) else { return };
        let tuple = if first == end.side() { (local, remote) } else { (remote, local) };
        let mut claim = self.claim(tuple.0, &settings);
        // Its socket may outlive it, or have gone before.
        (claim.waiting, claim.reuse, claim.socket) = (true, reuse, Weak::new());
        let server = if end.side() == Side::Server { local } else { remote };
        claim.connected = tuple.0 != server;
        let id = self.network.id();
        self.network.streams(|streams| streams.remember(tuple, id, claim));
    }

    /// Addresses, state and numbers, and `TCP_INFO` if that is wanted, for `/proc/net/tcp` and `SOCK_DIAG`.
    pub(in crate::inet) fn shown(&self, with_info: bool) -> Shown {
        let state = self.state.lock();
        let info = if with_info { super::info::info(&state) } else { Vec::new() };
        let facts = state.end().map(End::facts);
        let (mut unread, mut unsent) = facts.map_or((0, 0), |facts| (facts.unread, facts.unsent));
        if let Role::Listening(backlog) = &state.role {
            (unread, unsent) = (backlog.ready.len(), backlog.limit);
        }
        Shown {
            v6: self.v6,
            local: state.local.unwrap_or(address::nothing(self.v6)),
            remote: state.remote.unwrap_or(address::nothing(self.v6)),
            state: state.tcp_state() as u8,
            unread,
            unsent,
            drops: 0,
            uid: self.uid(),
            ino: self.ino(),
            only: state.settings.ip.v6only,
            info,
        }
    }
}

fn with_port(address: SocketAddr, port: u16) -> SocketAddr {
    let mut address = address;
    address.set_port(port);
    address
}
