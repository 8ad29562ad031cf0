//! TCP connections, each a smoltcp socket in a set of its own (RFC 9293).
//!
//! - `table`: those there are, by name, by addresses and by time. - `timing`: round trips. - [`Stack`]'s calls about one are in `calls`.

mod calls;
mod table;
mod timing;

use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::iface::PollResult;
use smoltcp::socket::tcp::{self, State};
use smoltcp::wire::TcpPacket;

use super::{Event, Failure, Stack, Syn, instant};
use crate::device::Port;
use crate::packet::{HEADROOM, View};

pub(super) use table::Connections;
use table::{Connection, Phase, Shown, Tuple};
pub use timing::RoundTrip;

/// How long the other end of a connection that nobody here knows any more may keep it half open
/// (`net.ipv4.tcp_fin_timeout`).
const ORPHAN_TIME: Duration = Duration::from_secs(60);
/// Packets one connection may send before others have their turn.
const MAX_BURST: usize = 1024;

/// The name of a connection; none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// There is one between these two.
    #[error("there is a connection between these addresses")]
    InUse,
    /// It may not be reached.
    #[error("it may not be reached")]
    Denied,
    /// No way leads there.
    #[error("no way leads there")]
    NoRoute,
    /// There are too many.
    #[error("too many connections")]
    TooMany,
}

/// Where a connection is in its life (RFC 9293, 3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpPhase {
    /// `SYN-SENT`.
    SynSent,
    /// `SYN-RECEIVED`.
    SynReceived,
    /// `ESTABLISHED`.
    Established,
    /// `FIN-WAIT-1`.
    FinWait1,
    /// `FIN-WAIT-2`.
    FinWait2,
    /// `CLOSE-WAIT`.
    CloseWait,
    /// `CLOSING`.
    Closing,
    /// `LAST-ACK`.
    LastAck,
    /// `TIME-WAIT`.
    TimeWait,
    /// `CLOSED`.
    Closed,
}

impl From<State> for TcpPhase {
    fn from(state: State) -> Self {
        match state {
            State::SynSent => Self::SynSent,
            State::SynReceived => Self::SynReceived,
            State::Established => Self::Established,
            State::FinWait1 => Self::FinWait1,
            State::FinWait2 => Self::FinWait2,
            State::CloseWait => Self::CloseWait,
            State::Closing => Self::Closing,
            State::LastAck => Self::LastAck,
            State::TimeWait => Self::TimeWait,
            State::Closed | State::Listen => Self::Closed,
        }
    }
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where in its life.
    pub phase: TcpPhase,
    /// Bytes that can be read.
    pub unread: usize,
    /// No more will come.
    pub ended: bool,
    /// Bytes that are sent or to be sent, and not acknowledged.
    pub unacknowledged: usize,
    /// Bytes there is room for, and room in all.
    pub room: usize,
    /// Room in all.
    pub capacity: usize,
    /// Bytes of data of a full segment.
    pub segment: usize,
    /// How far away the other end is, once that is known.
    pub round_trip: Option<RoundTrip>,
    /// Why it is over, when that was not in order.
    pub failure: Option<Failure>,
}

/// What made a connection move.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Segment,
    Time,
    Owner,
}

impl<H: Clone> Stack<H> {
    /// Takes a segment for one of our addresses.
    pub(super) fn take_segment(&mut self, at: usize, view: &View<'_>, now: Duration) -> Option<()> {
        let segment = TcpPacket::new_checked(view.payload).ok()?;
        if view.from.is_unspecified() || segment.src_port() == 0 || segment.dst_port() == 0 {
            return None;
        }
        let local = SocketAddr::new(view.to, segment.dst_port());
        let remote = SocketAddr::new(view.from, segment.src_port());
        if let Some(id) = self.connections.find((local, remote)) {
            self.feed(id, view.whole, now);
            return Some(());
        }
        if segment.syn() && !segment.ack() && !segment.rst() && !segment.fin() {
            let packet = view.whole.to_vec();
            self.events.push(Event::Syn(Syn { from: remote, to: local, packet }));
            return Some(());
        }
        if segment.rst() {
            return Some(());
        }
        // What comes late to a connection that was closed here is told again that it is.
        match self.connections.past((local, remote), now) {
            Some(answer) if segment.fin() => {
                self.send_packet(answer, now);
            }
            Some(_) => {}
            None => self.offer_to_nobody(at, view.whole, now),
        }
        Some(())
    }

    /// Gives a packet to a connection.
    fn feed(&mut self, id: ConnId, packet: &[u8], now: Duration) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let mtu = self.paths.mtu(connection.tuple.1.ip(), now);
        let Some(lane) = self.ports.get_mut(connection.at).and_then(|port| port.lane(mtu)) else { return };
        let before = connection.socket().state();
        let mut out = Vec::new();
        let mut device = Port { packet: Some(packet), out: &mut out, capabilities: &lane.capabilities };
        lane.interface.poll_ingress_single(instant(now), &mut device, &mut connection.set);
        self.send_all(id, out, now);
        self.go_on(id, before, Cause::Segment, now);
    }

    fn send_all(&mut self, id: ConnId, out: Vec<crate::packet::Outgoing>, now: Duration) {
        for packet in out {
            if let Some(connection) = self.connections.get_mut(id)
                && packet.bytes.len() <= HEADROOM + 120
            {
                connection.last = Some(packet.clone());
            }
            self.send_packet(packet, now);
        }
    }

    /// Has a connection send what it can, and sees what has become of it.
    fn go_on(&mut self, id: ConnId, before: State, cause: Cause, now: Duration) {
        let mut out = Vec::new();
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(port) = self.ports.get_mut(connection.at)
            && let Some(lane) = port.lane(self.paths.mtu(connection.tuple.1.ip(), now))
            && connection.phase != Phase::Over
        {
            let mut device = Port { packet: None, out: &mut out, capabilities: &lane.capabilities };
            for _ in 0..MAX_BURST {
                let sent = lane.interface.poll_egress(instant(now), &mut device, &mut connection.set);
                if sent == PollResult::None {
                    break;
                }
            }
        }
        self.send_all(id, out, now);
        self.settle(id, before, cause, now);
    }

    /// Draws the consequences of what a connection is now.
    fn settle(&mut self, id: ConnId, before: State, cause: Cause, now: Duration) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let state = connection.socket().state();
        let shown = connection.shown();
        match cause {
            Cause::Segment if state != State::SynSent => connection.round_trip.acknowledged(shown.2, now),
            Cause::Time => connection.round_trip.repeated(),
            Cause::Segment | Cause::Owner => {}
        }
        // What its owner does to it, its owner knows.
        let told = std::mem::replace(&mut connection.told, shown);
        let changed = if cause == Cause::Owner { told.0 != shown.0 } else { told != shown };
        match (state, connection.phase) {
            (_, Phase::Over) => {}
            (State::Closed | State::Listen, Phase::HalfOpen) => {
                return self.abandon(id);
            }
            (State::Closed | State::Listen, Phase::Orphan) => {
                self.connections.remove(id);
                return;
            }
            (State::Closed | State::Listen, Phase::Open) => {
                connection.failure = connection.failure.or(failure(before, cause));
                connection.phase = Phase::Over;
                self.connections.forget_tuple(id);
            }
            (State::Established, Phase::Open) => connection.until = None,
            (State::TimeWait, phase) => {
                self.connections.remember(id, now);
                if phase != Phase::Open {
                    return;
                }
            }
            (State::Established | State::CloseWait, Phase::HalfOpen) => {
                connection.phase = Phase::Open;
                let owner = connection.owner.clone();
                self.connections.half_open_done(id);
                self.events.push(Event::Established(id, owner));
            }
            (_, Phase::Orphan) => {
                if connection.socket().recv_queue() > 0 {
                    // Nobody will read it.
                    return self.break_off(id, now);
                }
                if state == State::FinWait2 && connection.until.is_none() {
                    connection.until = Some(now + ORPHAN_TIME);
                }
            }
            _ => {}
        }
        self.arm(id, now);
        if let Some(connection) = self.connections.get_mut(id)
            && changed
            && connection.phase != Phase::Orphan
            && connection.phase != Phase::HalfOpen
        {
            let owner = connection.owner.clone();
            self.events.push(Event::Changed(owner));
        }
    }

    /// Sets the time by which a connection is to be looked after.
    fn arm(&mut self, id: ConnId, now: Duration) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let mtu = self.paths.mtu(connection.tuple.1.ip(), now);
        let Some(lane) = self.ports.get_mut(connection.at).and_then(|port| port.lane(mtu)) else { return };
        let due = if connection.phase == Phase::Over {
            None
        } else {
            let due = lane.interface.poll_at(instant(now), &connection.set);
            let due = due.map(|at| Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or(0)));
            // What is due at once was not to be done, or would have been.
            let due = due.map(|at| at.max(now + Duration::from_millis(1)));
            [due, connection.until].into_iter().flatten().min()
        };
        self.connections.set_due(id, due);
    }

    /// A connection that has not come about is gone.
    fn abandon(&mut self, id: ConnId) {
        if let Some(gone) = self.connections.remove(id) {
            self.events.push(Event::Abandoned(gone.owner));
        }
    }

    /// Ends a connection with a RST, and forgets it.
    fn break_off(&mut self, id: ConnId, now: Duration) {
        let mut out = Vec::new();
        if let Some(connection) = self.connections.get_mut(id)
            && let Some(port) = self.ports.get_mut(connection.at)
            && let Some(lane) = port.lane(usize::MAX)
        {
            connection.socket_mut().abort();
            let mut device = Port { packet: None, out: &mut out, capabilities: &lane.capabilities };
            lane.interface.poll_egress(instant(now), &mut device, &mut connection.set);
        }
        self.send_all(id, out, now);
        if let Some(gone) = self.connections.remove(id)
            && gone.phase == Phase::HalfOpen
        {
            self.events.push(Event::Abandoned(gone.owner));
        }
    }

    /// A connection that was to be made cannot be.
    pub(super) fn connect_failed(&mut self, tuple: Tuple, failure: Failure) {
        let Some(id) = self.connections.find(tuple) else { return };
        let Some(connection) = self.connections.get_mut(id) else { return };
        match (connection.socket().state(), connection.phase) {
            (State::SynSent, Phase::Open) => {
                connection.failure = Some(failure);
                connection.phase = Phase::Over;
                connection.socket_mut().abort();
                let owner = connection.owner.clone();
                self.connections.forget_tuple(id);
                self.connections.set_due(id, None);
                self.events.push(Event::Changed(owner));
            }
            (State::SynReceived, Phase::HalfOpen) => self.abandon(id),
            _ => {}
        }
    }

    /// Looks after the connections whose time has come.
    pub(super) fn poll_connections(&mut self, now: Duration) {
        while let Some(id) = self.connections.next_due(now) {
            self.connections.set_due(id, None);
            let Some(connection) = self.connections.get_mut(id) else { continue };
            let before = connection.socket().state();
            if connection.until.is_some_and(|until| until <= now) {
                let tuple = connection.tuple;
                match connection.phase {
                    Phase::HalfOpen => self.abandon(id),
                    Phase::Open => self.connect_failed(tuple, Failure::TimedOut),
                    Phase::Over | Phase::Orphan => {
                        self.connections.remove(id);
                    }
                }
                continue;
            }
            self.go_on(id, before, Cause::Time, now);
        }
    }
}

/// Why a connection that was in `before` is closed.
fn failure(before: State, cause: Cause) -> Option<Failure> {
    match (before, cause) {
        (State::LastAck | State::TimeWait | State::Closed, Cause::Segment) | (_, Cause::Owner) => None,
        (_, Cause::Time) => Some(Failure::TimedOut),
        (State::SynSent, Cause::Segment) => Some(Failure::Refused),
        (_, Cause::Segment) => Some(Failure::Reset),
    }
}

/// A socket with `settings`.
fn fresh(settings: &crate::TcpSettings) -> tcp::Socket<'static> {
    let buffer = |bytes: usize| tcp::SocketBuffer::new(vec![0; bytes]);
    let mut socket = tcp::Socket::new(buffer(settings.receive), buffer(settings.send));
    socket.set_congestion_control(tcp::CongestionControl::Cubic);
    apply(&mut socket, settings);
    socket
}

/// What of `settings` can be changed later.
fn apply(socket: &mut tcp::Socket<'static>, settings: &crate::TcpSettings) {
    let duration = |time: Duration| smoltcp::time::Duration::from_micros(time.as_micros() as u64);
    socket.set_nagle_enabled(settings.nagle);
    socket.set_keep_alive(settings.keepalive.map(duration));
    socket.set_timeout(Some(duration(settings.timeout)));
    socket.set_hop_limit(Some(settings.hops.max(1)));
}

impl<H> Connection<H> {
    /// What its owner is to be told.
    fn shown(&self) -> Shown {
        let socket = self.socket();
        (socket.state(), socket.recv_queue(), socket.send_queue())
    }
}
