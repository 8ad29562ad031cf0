//! What the owner of connections may do.

use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::socket::tcp::State;
use smoltcp::wire::IpEndpoint;

use super::table::{Phase, Tuple};
use super::{Cause, ConnId, ConnectError, Failure, Stack, Status, Syn, TcpPhase, apply, fresh};
use crate::TcpSettings;
use crate::packet;

fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint { addr: address.ip().into(), port: address.port() }
}

/// Without what only IPv6 sockets of a host know.
fn plain((local, remote): Tuple) -> Tuple {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
    (plain(local), plain(remote))
}

impl<H: Clone> Stack<H> {
    /// Begins a connection from `local`, one of our addresses, to `remote`.
    ///
    /// # Errors
    /// When there can be none.
    pub fn connect(
        &mut self,
        ends: (SocketAddr, SocketAddr),
        settings: &TcpSettings,
        owner: H,
        now: Duration,
    ) -> Result<ConnId, ConnectError> {
        let (local, remote) = plain(ends);
        let (at, _) = self.way(local.ip(), remote.ip()).ok_or(ConnectError::NoRoute)?;
        if !self.policy.allows(remote, now) {
            self.denied += 1;
            return Err(ConnectError::Denied);
        }
        if self.connections.find((local, remote)).is_some() {
            return Err(ConnectError::InUse);
        }
        if !self.connections.has_room() {
            return Err(ConnectError::TooMany);
        }
        let mut socket = fresh(settings);
        let mtu = self.paths.mtu(remote.ip(), now);
        let lane = self.ports.get_mut(at).and_then(|port| port.lane(mtu)).ok_or(ConnectError::NoRoute)?;
        let begun = socket.connect(lane.interface.context(), endpoint(remote), endpoint(local));
        begun.map_err(|_| ConnectError::NoRoute)?;
        let (id, _) = self.connections.add((at, (local, remote)), socket, owner, None);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.until = Some(now + settings.connecting);
            connection.round_trip.began(now);
        }
        self.go_on(id, State::SynSent, Cause::Owner, now);
        Ok(id)
    }

    /// Answers a SYN: there will be a connection, of which [`Event::Established`](super::super::Event) tells.
    /// `None` when there are too many.
    pub fn accept(&mut self, syn: &Syn, settings: &TcpSettings, owner: H, now: Duration) -> Option<ConnId> {
        let tuple = (syn.to, syn.from);
        if let Some(id) = self.connections.find(tuple) {
            // It has been sent twice.
            self.feed(id, &syn.packet, now);
            return None;
        }
        let (at, _) = self.way(syn.to.ip(), syn.from.ip())?;
        if !self.connections.has_room() {
            return None;
        }
        let mut socket = fresh(settings);
        socket.listen(endpoint(syn.to)).ok()?;
        let (id, oldest) = self.connections.add((at, tuple), socket, owner, Some(now));
        if let Some(oldest) = oldest {
            self.abandon(oldest);
        }
        self.feed(id, &syn.packet, now);
        self.connections.get(id).map(|_| id)
    }

    /// Answers a SYN with a RST.
    pub fn refuse(&mut self, syn: &Syn, now: Duration) {
        if let Some((at, _)) = packet::view(&syn.packet).and_then(|view| self.way(view.to, view.from)) {
            self.offer_to_nobody(at, &syn.packet, now);
        }
    }

    /// Gives a connection another owner.
    pub fn adopt(&mut self, id: ConnId, owner: H) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.owner = owner;
        }
    }

    /// Changes what of its settings can be changed.
    pub fn configure(&mut self, id: ConnId, settings: &TcpSettings, now: Duration) {
        if let Some(connection) = self.connections.get_mut(id) {
            apply(connection.socket_mut(), settings);
            let before = connection.socket().state();
            self.go_on(id, before, Cause::Owner, now);
        }
    }

    /// How a connection stands; `None` when there is none of this name.
    pub fn status(&self, id: ConnId) -> Option<Status> {
        let connection = self.connections.get(id)?;
        let socket = connection.socket();
        let phase = TcpPhase::from(socket.state());
        let open = matches!(
            phase,
            TcpPhase::SynSent
                | TcpPhase::SynReceived
                | TcpPhase::Established
                | TcpPhase::FinWait1
                | TcpPhase::FinWait2
        );
        let capacity = socket.send_capacity();
        Some(Status {
            phase,
            unread: socket.recv_queue(),
            ended: !open,
            unacknowledged: socket.send_queue(),
            room: if socket.may_send() { capacity - socket.send_queue() } else { 0 },
            capacity,
            segment: self.ports.get(connection.at).map_or(0, |port| {
                let heads = if connection.tuple.0.is_ipv4() { 40 } else { 60 };
                (port.nic.mtu as usize).saturating_sub(heads)
            }),
            round_trip: connection.round_trip.known(),
            failure: connection.failure,
        })
    }

    /// Our end of a connection, and the other.
    pub fn ends(&self, id: ConnId) -> Option<(SocketAddr, SocketAddr)> {
        self.connections.get(id).map(|connection| connection.tuple)
    }

    /// Takes why a connection is over.
    pub fn take_failure(&mut self, id: ConnId) -> Option<Failure> {
        self.connections.get_mut(id)?.failure.take()
    }

    /// Queues as much of `data` as there is room for; says how much. `None` when nothing can be sent any more.
    pub fn send(&mut self, id: ConnId, data: &[u8], now: Duration) -> Option<usize> {
        let connection = self.connections.get_mut(id)?;
        let before = connection.socket().state();
        let waiting = connection.socket().send_queue();
        let sent = connection.socket_mut().send_slice(data).ok()?;
        connection.round_trip.queues(sent, waiting, now);
        self.go_on(id, before, Cause::Owner, now);
        Some(sent)
    }

    /// Takes up to `most` bytes that have come.
    pub fn receive_from(&mut self, id: ConnId, most: usize, now: Duration) -> Vec<u8> {
        let Some(connection) = self.connections.get_mut(id) else { return Vec::new() };
        let before = connection.socket().state();
        let mut data = vec![0; most.min(connection.socket().recv_queue())];
        let got = connection.socket_mut().recv_slice(&mut data).unwrap_or(0);
        data.truncate(got);
        if got > 0 {
            self.go_on(id, before, Cause::Owner, now);
        }
        data
    }

    /// Looks at up to `most` of them.
    pub fn peek(&mut self, id: ConnId, most: usize) -> Vec<u8> {
        let Some(connection) = self.connections.get_mut(id) else { return Vec::new() };
        let mut data = vec![0; most.min(connection.socket().recv_queue())];
        let got = connection.socket_mut().peek_slice(&mut data).unwrap_or(0);
        data.truncate(got);
        data
    }

    /// Nothing more will be sent: a FIN follows what is queued.
    pub fn finish(&mut self, id: ConnId, now: Duration) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let before = connection.socket().state();
        connection.socket_mut().close();
        self.go_on(id, before, Cause::Owner, now);
    }

    /// Its owner is done with a connection. What is queued is still sent, unless `abort`, or something is
    /// unread, or there are too many such: then it ends with a RST.
    pub fn release(&mut self, id: ConnId, abort: bool, now: Duration) {
        let room = self.connections.may_orphan();
        let Some(connection) = self.connections.get_mut(id) else { return };
        let before = connection.socket().state();
        if connection.phase == Phase::Over {
            self.connections.remove(id);
            return;
        }
        let unread = connection.socket().recv_queue() > 0;
        if abort || unread || before == State::SynSent || !room {
            return self.break_off(id, now);
        }
        connection.socket_mut().close();
        self.connections.orphan(id);
        self.go_on(id, before, Cause::Owner, now);
    }

    /// Connections there are, with those that nobody knows any more.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }
}
