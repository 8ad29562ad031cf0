//! The part of a raw socket that others reach, and which packets it hears.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use abi::Errno;
use abi::poll::PollEvents;
use bpf::{Facts, PacketFilter};
use netstack::{Packet, Report};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::Result;

use crate::inet::icmp::meaning;
use crate::inet::network::Network;
use crate::inet::options::{IpFlags, IpOptions};
use crate::inet::udp::{Datagram, Failure};
use crate::inet::{IPPROTO_ICMP, IPPROTO_ICMPV6};

/// Default and account of received packets (`net.core.rmem_default`).
const RECEIVE_BYTES: usize = 212_992;
/// Errors that are kept for `MSG_ERRQUEUE`.
const MAX_ERRORS: usize = 64;
/// Types of the answers to an echo, and of an echo.
const REPLY4: u8 = 0;
const REPLY6: u8 = 129;
pub(super) const ECHO4: u8 = 8;
pub(super) const ECHO6: u8 = 128;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// All packets of a protocol.
    Raw,
    /// Echoes of its own.
    Ping,
}

pub(super) struct State {
    /// The address `bind` gave.
    pub(super) local: Option<IpAddr>,
    /// The address `connect` found.
    pub(super) source: Option<IpAddr>,
    pub(super) remote: Option<IpAddr>,
    /// The identifier of a ping socket's echoes.
    pub(super) ident: Option<u16>,
    pub(super) queue: VecDeque<Datagram>,
    /// Account of the queue, and its limit (`SO_RCVBUF`).
    pub(super) used: usize,
    pub(super) limit: usize,
    pub(super) error: Option<Errno>,
    pub(super) errors: VecDeque<Failure>,
    /// `SHUT_RD`, `SHUT_WR`.
    pub(super) deaf: bool,
    pub(super) mute: bool,
    pub(super) ip: IpOptions,
    pub(super) broadcast: bool,
    /// `SO_TIMESTAMP`, and with nanoseconds.
    pub(super) stamp: bool,
    pub(super) stamp_nanos: bool,
    /// `IP_HDRINCL`.
    pub(super) with_head: bool,
    /// Types of ICMP, and of ICMPv6, that are not heard: a bit each.
    pub(super) types4: u32,
    pub(super) types6: [u32; 8],
    /// Where a checksum is to be made (`IPV6_CHECKSUM`).
    pub(super) checksum_at: Option<u16>,
    pub(super) filter: Option<Arc<PacketFilter>>,
}

/// A socket without its handle.
pub(in crate::inet) struct Core {
    pub(super) id: u64,
    pub(super) v6: bool,
    pub(super) kind: Kind,
    pub(super) protocol: u8,
    pub(super) network: Arc<Network>,
    pub(super) wait: WaitQueue,
    pub(super) state: Mutex<order::FileState, State>,
}

impl Core {
    pub(super) fn new(v6: bool, kind: Kind, protocol: u8, network: &Arc<Network>) -> Arc<Self> {
        let state = State {
            local: None,
            source: None,
            remote: None,
            ident: None,
            queue: VecDeque::new(),
            used: 0,
            limit: RECEIVE_BYTES,
            error: None,
            errors: VecDeque::new(),
            deaf: false,
            mute: false,
            ip: IpOptions::default(),
            broadcast: false,
            stamp: false,
            stamp_nanos: false,
            with_head: protocol == super::IPPROTO_RAW && !v6,
            types4: 0,
            types6: [0; 8],
            checksum_at: (v6 && i32::from(protocol) == IPPROTO_ICMPV6).then_some(2),
            filter: None,
        };
        let core = Arc::new(Self {
            id: network.id(),
            v6,
            kind,
            protocol,
            network: Arc::clone(network),
            wait: WaitQueue::new(),
            state: Mutex::new(state),
        });
        network.raws(|raws| raws.add(core.id, Arc::downgrade(&core)));
        network.hear_packets();
        core
    }

    /// Takes an identifier of echoes: `wanted`, or any.
    pub(super) fn take_ident(&self, wanted: u16) -> Result<u16> {
        self.network.raws(|raws| raws.claim(self.v6, wanted, self.id))
    }

    /// The port that `getsockname(2)` shows.
    pub(super) fn shown_port(&self, state: &State) -> u16 {
        match self.kind {
            Kind::Raw => self.protocol.into(),
            Kind::Ping => state.ident.unwrap_or(0),
        }
    }

    /// The address a packet to `to` comes from: `wanted`, the one it is bound to, or what the way there says.
    pub(super) fn source(&self, state: &State, to: IpAddr, wanted: Option<IpAddr>) -> Result<IpAddr> {
        let fits = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast() && ip.is_ipv4() == to.is_ipv4();
        if let Some(ip) = wanted.filter(fits).or(state.local.filter(fits)) {
            return Ok(ip);
        }
        if to.is_multicast() || self.network.is_broadcast(to) {
            return state.ip.multicast_source(&self.network, to.is_ipv6()).ok_or(Errno::ENETUNREACH);
        }
        self.network.source(to)
    }

    /// Does the packet concern it, and how many of its bytes?
    fn wants(&self, state: &State, packet: &Packet) -> Option<usize> {
        let fits = self.v6 != packet.to.is_ipv4() && self.protocol == packet.protocol;
        let from = state.remote.is_none_or(|remote| remote == packet.from);
        let to = state.local.or(state.source).is_none_or(|local| local == packet.to);
        let group = packet.to.is_multicast() && state.ip.is_member(packet.to);
        if !fits || !from || !(to || group) || state.deaf {
            return None;
        }
        let kind = packet.payload().first().copied().unwrap_or(0);
        if self.kind == Kind::Ping {
            let ident = packet.payload().get(4..).and_then(|rest| rest.first_chunk());
            let mine = state.ident.is_some() && state.ident == ident.map(|ident| u16::from_be_bytes(*ident));
            return (mine && kind == if self.v6 { REPLY6 } else { REPLY4 }).then_some(usize::MAX);
        }
        let refused = if self.v6 {
            let word = state.types6.get(usize::from(kind) / 32).copied().unwrap_or(0);
            i32::from(self.protocol) == IPPROTO_ICMPV6 && word >> (kind % 32) & 1 != 0
        } else {
            i32::from(self.protocol) == IPPROTO_ICMP && kind < 32 && state.types4 >> kind & 1 != 0
        };
        if refused {
            return None;
        }
        let Some(filter) = &state.filter else { return Some(usize::MAX) };
        let facts = Facts { interface: packet.nic, ..Facts::default() };
        // A filter of a raw socket of IPv4 sees the head, of IPv6 it does not.
        let seen = if self.v6 { packet.payload() } else { packet.whole() };
        Some(filter.run(seen, &facts) as usize).filter(|taken| *taken > 0)
    }

    /// Takes a packet, if it is for this socket; whether it was.
    fn take(&self, packet: &Packet) -> bool {
        {
            let mut state = self.state.lock();
            let Some(most) = self.wants(&state, packet) else { return false };
            let headed = self.kind == Kind::Raw && !self.v6;
            let data = if headed { packet.whole() } else { packet.payload() };
            let datagram = Datagram {
                data: data.get(..most).unwrap_or(data).into(),
                from: SocketAddr::new(packet.from, 0),
                to: SocketAddr::new(packet.to, 0),
                ttl: packet.hops,
                tos: packet.class,
                interface: packet.nic,
                at: SystemTime::now(),
            };
            if state.used > state.limit {
                return true;
            }
            state.used += datagram.cost();
            state.queue.push_back(datagram);
        }
        self.wait.notify(PollEvents::READABLE);
        true
    }

    /// A packet of this socket did not arrive.
    fn refused(&self, remote: IpAddr, report: &Report, data: &[u8]) {
        let Some((errno, lasts)) = meaning(report) else { return };
        {
            let mut state = self.state.lock();
            let flag = if self.v6 { IpFlags::RECVERR6 } else { IpFlags::RECVERR };
            let wants = state.ip.flags.contains(flag);
            if !wants && (state.remote.is_none() || !lasts) {
                return;
            }
            state.error = Some(errno);
            if wants && state.errors.len() < MAX_ERRORS {
                let to = SocketAddr::new(remote, 0);
                state.errors.push_back(Failure { errno, data: data.into(), to, report: *report });
            }
        }
        self.wait.notify(PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::ERR);
    }
}

impl State {
    /// Takes the next packet.
    pub(super) fn pop(&mut self) -> Option<Datagram> {
        let datagram = self.queue.pop_front()?;
        self.used -= datagram.cost().min(self.used);
        Some(datagram)
    }
}

/// The raw and ping sockets there are. As many as there are descriptors.
#[derive(Default)]
pub(in crate::inet) struct Raws {
    all: Vec<(u64, Weak<Core>)>,
    /// Identifiers of echoes: of IPv6 or not, and whose.
    idents: Vec<(bool, u16, u64)>,
    next: u16,
}

impl Raws {
    fn add(&mut self, id: u64, core: Weak<Core>) {
        self.all.push((id, core));
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.all.retain(|(other, _)| *other != id);
        self.idents.retain(|(.., other)| *other != id);
    }

    /// Is there any?
    pub(in crate::inet) fn any(&self) -> bool {
        !self.all.is_empty()
    }

    /// `EADDRINUSE` for an identifier somebody has, `EAGAIN` when there is none left.
    fn claim(&mut self, v6: bool, wanted: u16, id: u64) -> Result<u16> {
        let taken =
            |ident: u16| self.idents.iter().any(|(family, other, _)| *family == v6 && *other == ident);
        let ident = match wanted {
            0 => {
                let mut tries = (1..=u16::MAX).map(|n| self.next.wrapping_add(n)).filter(|ident| *ident != 0);
                tries.find(|ident| !taken(*ident)).ok_or(Errno::EAGAIN)?
            }
            wanted if taken(wanted) => return Err(Errno::EADDRINUSE),
            wanted => wanted,
        };
        if wanted == 0 {
            self.next = ident;
        }
        self.idents.push((v6, ident, id));
        Ok(ident)
    }

    fn all(&self) -> Vec<Arc<Core>> {
        self.all.iter().filter_map(|(_, core)| core.upgrade()).collect()
    }
}

/// Has every socket hear of a packet that it is for; whether there was one.
pub(in crate::inet) fn hear(network: &Network, packet: &Packet) -> bool {
    let all = network.raws(|raws| raws.all());
    let mut any = false;
    for core in all {
        any |= core.take(packet);
    }
    any
}

/// A packet of `protocol` from `local` to `remote` did not arrive; of an echo, the port is its identifier. `data` is
/// what stood behind its head.
pub(in crate::inet) fn lost(
    network: &Network,
    protocol: u8,
    (local, remote): (SocketAddr, SocketAddr),
    (report, data): (&Report, &[u8]),
) {
    for core in network.raws(|raws| raws.all()) {
        let mine = {
            let state = core.state.lock();
            let at = state.local.or(state.source).is_none_or(|ip| ip == local.ip());
            let with = state.remote.is_none_or(|ip| ip == remote.ip());
            let ident = core.kind == Kind::Raw || state.ident == Some(local.port());
            core.v6 != local.is_ipv4() && core.protocol == protocol && at && with && ident
        };
        if mine {
            core.refused(remote.ip(), report, data);
        }
    }
}
