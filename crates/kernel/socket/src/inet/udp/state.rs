//! The part of a UDP socket that others reach, and how a datagram finds its sockets.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use abi::Errno;
use abi::poll::PollEvents;
use netstack::Report;
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::Result;

use super::RECEIVE_BYTES;
use crate::inet::Network;
use crate::inet::address;
use crate::inet::icmp::meaning;
use crate::inet::options::{IpFlags, IpOptions};
use crate::inet::ports::Claim;
use crate::inet::show::Shown;
use crate::inet::tcp::TcpState;

/// Errors that are kept for `MSG_ERRQUEUE`.
const MAX_ERRORS: usize = 64;

/// A datagram.
#[derive(Clone, Debug)]
pub(in crate::inet) struct Datagram {
    pub(in crate::inet) data: Arc<[u8]>,
    pub(in crate::inet) from: SocketAddr,
    pub(in crate::inet) to: SocketAddr,
    pub(in crate::inet) ttl: u8,
    pub(in crate::inet) tos: u8,
    /// Interface it came in by.
    pub(in crate::inet) interface: u32,
    /// When it came.
    pub(in crate::inet) at: SystemTime,
}

impl Datagram {
    /// What it counts against a receive buffer, as on Linux: its head, and data in a power of two.
    pub(in crate::inet) fn cost(&self) -> usize {
        256 + (self.data.len() + 348).next_power_of_two()
    }
}

/// An error about a datagram this socket has sent.
#[derive(Clone, Debug)]
pub(in crate::inet) struct Failure {
    pub(in crate::inet) errno: Errno,
    pub(in crate::inet) data: Arc<[u8]>,
    pub(in crate::inet) to: SocketAddr,
    /// What was said about it.
    pub(in crate::inet) report: Report,
}

pub(super) struct State {
    pub(super) local: Option<SocketAddr>,
    /// The address `bind` gave.
    pub(super) bound: Option<IpAddr>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) queue: VecDeque<Datagram>,
    /// Account of the queue, and its limit (`SO_RCVBUF`).
    pub(super) used: usize,
    pub(super) limit: usize,
    /// Datagrams that found no room.
    pub(super) drops: u32,
    pub(super) error: Option<Errno>,
    pub(super) errors: VecDeque<Failure>,
    /// `SHUT_RD`, `SHUT_WR`.
    pub(super) deaf: bool,
    pub(super) mute: bool,
    pub(super) ip: IpOptions,
    pub(super) reuse: bool,
    pub(super) share: bool,
    pub(super) broadcast: bool,
    /// `SO_TIMESTAMP`, and with nanoseconds.
    pub(super) stamp: bool,
    pub(super) stamp_nanos: bool,
    /// `SO_RXQ_OVFL`.
    pub(super) tells_drops: bool,
    pub(super) corked: bool,
    /// What is corked.
    pub(super) cork: Vec<u8>,
    /// `UDP_SEGMENT`; 0: none.
    pub(super) segment: u16,
}

/// A socket without its handle.
pub(in crate::inet) struct Core {
    pub(super) id: u64,
    pub(super) v6: bool,
    pub(super) network: Arc<Network>,
    pub(super) wait: WaitQueue,
    pub(super) state: Mutex<order::FileState, State>,
    ino: AtomicU64,
    uid: AtomicU32,
}

impl State {
    fn new() -> Self {
        Self {
            local: None,
            bound: None,
            remote: None,
            queue: VecDeque::new(),
            used: 0,
            limit: RECEIVE_BYTES,
            drops: 0,
            error: None,
            errors: VecDeque::new(),
            deaf: false,
            mute: false,
            ip: IpOptions::default(),
            reuse: false,
            share: false,
            broadcast: false,
            stamp: false,
            stamp_nanos: false,
            tells_drops: false,
            corked: false,
            cork: Vec::new(),
            segment: 0,
        }
    }

    /// Can a socket with this address and these options send to `to`?
    pub(super) fn check_family(&self, to: SocketAddr) -> Result<()> {
        let local = self.bound.filter(|ip| !ip.is_unspecified());
        match (to.is_ipv4(), local) {
            (true, _) if self.ip.v6only => Err(Errno::ENETUNREACH),
            (true, Some(IpAddr::V6(_))) | (false, Some(IpAddr::V4(_))) => Err(Errno::ENETUNREACH),
            _ => Ok(()),
        }
    }

    /// Takes the next datagram.
    pub(super) fn pop(&mut self) -> Option<Datagram> {
        let datagram = self.queue.pop_front()?;
        self.used -= datagram.cost().min(self.used);
        Some(datagram)
    }

    /// Does a packet from `from` to `to` concern it?
    fn hears(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let known = self.remote.is_none_or(|remote| remote == from);
        let group = !to.ip().is_multicast() || self.ip.is_member(to.ip()) || {
            let all = if to.is_ipv4() { IpFlags::MULTICAST_ALL } else { IpFlags::MULTICAST_ALL6 };
            self.ip.flags.contains(all)
        };
        known && group
    }
}

impl Core {
    pub(super) fn new(v6: bool, network: &Arc<Network>) -> Arc<Self> {
        Arc::new(Self {
            id: network.id(),
            v6,
            network: Arc::clone(network),
            wait: WaitQueue::new(),
            state: Mutex::new(State::new()),
            ino: AtomicU64::new(0),
            uid: AtomicU32::new(0),
        })
    }

    pub(super) fn attached(&self, ino: u64, uid: u32) {
        self.ino.store(ino, Ordering::Relaxed);
        self.uid.store(uid, Ordering::Relaxed);
    }

    /// The claim of this socket on `local`.
    pub(super) fn claim(self: &Arc<Self>, local: SocketAddr, state: &State) -> Claim<Self> {
        Claim {
            ip: local.ip(),
            only: state.ip.v6only,
            reuse: state.reuse,
            share: state.share,
            uid: self.uid.load(Ordering::Relaxed),
            listening: false,
            waiting: false,
            connected: false,
            socket: Arc::downgrade(self),
        }
    }

    /// The address a datagram to `to` comes from: `wanted`, the one it is bound to, or what the way there says.
    pub(super) fn source(&self, state: &State, to: SocketAddr, wanted: Option<IpAddr>) -> Result<IpAddr> {
        let bound = state.local.map(|local| local.ip());
        let fits = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast() && ip.is_ipv4() == to.is_ipv4();
        if let Some(ip) = wanted.filter(fits).or(bound.filter(fits)) {
            return Ok(ip);
        }
        if to.ip().is_multicast() || self.network.is_broadcast(to.ip()) {
            return state.ip.multicast_source(&self.network, to.is_ipv6()).ok_or(Errno::ENETUNREACH);
        }
        self.network.source(to.ip())
    }

    /// As shown.
    pub(in crate::inet) fn shown(&self) -> Shown {
        let state = self.state.lock();
        let tcp_like = if state.remote.is_some() { TcpState::Established } else { TcpState::Close };
        Shown {
            v6: self.v6,
            local: state.local.unwrap_or(address::nothing(self.v6)),
            remote: state.remote.unwrap_or(address::nothing(self.v6)),
            state: tcp_like as u8,
            unread: state.used,
            unsent: 0,
            drops: state.drops,
            uid: self.uid.load(Ordering::Relaxed),
            ino: self.ino.load(Ordering::Relaxed),
            only: state.ip.v6only,
            info: Vec::new(),
        }
    }

    /// Puts a datagram into the queue, if there is room.
    fn push(&self, datagram: Datagram) {
        {
            let mut state = self.state.lock();
            if state.local.is_none() {
                return;
            }
            // As on Linux, who measures less than the limit has room for one more.
            if state.used > state.limit {
                state.drops = state.drops.wrapping_add(1);
                return;
            }
            state.used += datagram.cost();
            state.queue.push_back(datagram);
        }
        self.wait.notify(PollEvents::READABLE);
    }

    /// A datagram of this socket to `to` did not arrive. Errors that may pass are only for who has asked to hear all.
    pub(super) fn refused(&self, data: &Arc<[u8]>, to: SocketAddr, report: &Report) {
        let Some((errno, lasts)) = meaning(report) else { return };
        {
            let mut state = self.state.lock();
            let flag = if to.is_ipv4() { IpFlags::RECVERR } else { IpFlags::RECVERR6 };
            let wants = state.ip.flags.intersects(if self.v6 { flag | IpFlags::RECVERR6 } else { flag });
            if !wants && (state.remote.is_none() || !lasts) {
                return;
            }
            state.error = Some(errno);
            if wants && state.errors.len() < MAX_ERRORS {
                state.errors.push_back(Failure { errno, data: Arc::clone(data), to, report: *report });
            }
        }
        self.wait.notify(PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::ERR);
    }
}

/// Delivers within the sandbox. `false` when nobody wanted it.
pub(in crate::inet) fn deliver(network: &Network, datagram: &Datagram) -> bool {
    let (from, to) = (datagram.from, datagram.to);
    let found = network.datagrams(|ports| ports.all(to));
    let several = to.ip().is_multicast() || network.is_broadcast(to.ip());
    if several {
        let sockets: Vec<_> = found.into_iter().filter_map(|(_, _, socket)| socket.upgrade()).collect();
        let member = |core: &Arc<Core>| core.state.lock().ip.is_member(to.ip());
        if to.ip().is_multicast() && !sockets.iter().any(member) {
            return true;
        }
        for socket in sockets.iter().filter(|socket| socket.state.lock().hears(from, to)) {
            socket.push(datagram.clone());
        }
        return true;
    }
    match choose(network, found, from, to) {
        Some(socket) => {
            socket.push(datagram.clone());
            true
        }
        None => false,
    }
}

/// A datagram between these two, sent to the outside, did not arrive.
pub(in crate::inet) fn lost(
    network: &Network,
    (local, remote): (SocketAddr, SocketAddr),
    report: &Report,
    data: &Arc<[u8]>,
) {
    let found = network.datagrams(|ports| ports.all(local));
    if let Some(socket) = choose(network, found, remote, local) {
        socket.refused(data, remote, report);
    }
}

/// The socket that fits best: a connected one before others, then by address; of equals those that share the
/// port in turn by sender, else the youngest.
fn choose(
    network: &Network,
    found: Vec<(u8, u64, Weak<Core>)>,
    from: SocketAddr,
    to: SocketAddr,
) -> Option<Arc<Core>> {
    let mut best: Vec<Arc<Core>> = Vec::new();
    let (mut degree, mut shared) = ((false, 0), false);
    for (fit, _, socket) in found {
        let Some(socket) = socket.upgrade() else { continue };
        let (hears, this, share) = {
            let state = socket.state.lock();
            (state.hears(from, to), (state.remote.is_some(), fit), state.share)
        };
        if !hears || this < degree {
            continue;
        }
        if this > degree {
            best.clear();
            degree = this;
        }
        shared = share;
        best.push(socket);
    }
    if shared && best.len() > 1 {
        let at = network.share_of(from, to, best.len());
        return best.into_iter().nth(at);
    }
    best.pop()
}
