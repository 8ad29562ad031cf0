//! The network of a sandbox: its interfaces and addresses, and who has which port.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use abi::Errno;
use abi::socket::SOMAXCONN;
use cred::{CapSet, Credentials};
use netstack::{Counters, Egress, SendError};
use sync::{Mutex, order};
use vfs::Result;

use super::outside::Outside;
use super::ports::{Claim, Ports};
use super::raw::Raws;
use super::tcp::Core as TcpCore;
use super::udp::Core as UdpCore;
use crate::netlink::{Address, Link, Links, Near, Way};
use crate::packet::{Memory, Taps};

/// How long a connection is remembered after its end (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT: Duration = Duration::from_secs(60);
/// After so long a connection out may take the place of a remembered one (`net.ipv4.tcp_tw_reuse`).
const REUSE_AFTER: Duration = Duration::from_secs(1);
/// Most connections that are remembered; the oldest is forgotten.
const MAX_WAITING: usize = 16_384;

/// Both ends of a connection: here, and there.
pub(super) type Tuple = (SocketAddr, SocketAddr);

/// Streams: their ports, and the connections there are.
pub(super) struct Streams {
    pub(super) ports: Ports<TcpCore>,
    pub(super) connections: Connections,
}

/// Connections from here; of one within the sandbox both directions.
#[derive(Default)]
pub(super) struct Connections {
    open: HashMap<Tuple, u64>,
    /// Those remembered, oldest first.
    waiting: VecDeque<(Instant, Tuple, u64)>,
    /// Entries of `waiting` that are still meant.
    remembered: HashMap<Tuple, (Instant, u64)>,
}

impl Connections {
    /// May there be a connection between these? One that is remembered must have been for a while.
    pub(super) fn is_free(&self, tuple: Tuple, now: Instant) -> bool {
        let recent = |(until, _): &(Instant, u64)| *until > now + (TIME_WAIT - REUSE_AFTER);
        !self.open.contains_key(&tuple) && !self.remembered.get(&tuple).is_some_and(recent)
    }

    /// Those remembered, with the time that is left.
    pub(super) fn remembered(&self, now: Instant) -> Vec<(Tuple, Duration)> {
        let left = |until: &Instant| until.saturating_duration_since(now);
        self.remembered.iter().map(|(tuple, (until, _))| (*tuple, left(until))).collect()
    }
}

impl Streams {
    /// Forgets connections whose time is over.
    fn expire(&mut self, now: Instant) {
        while let Some((until, tuple, id)) = self.connections.waiting.front().copied() {
            if until > now && self.connections.waiting.len() <= MAX_WAITING {
                break;
            }
            self.connections.waiting.pop_front();
            self.forget(tuple, id);
        }
    }

    fn forget(&mut self, tuple: Tuple, id: u64) {
        if self.connections.remembered.get(&tuple).is_some_and(|(_, known)| *known == id) {
            self.connections.remembered.remove(&tuple);
            self.ports.release(tuple.0.port(), id);
        }
    }

    /// Enters a connection of socket `id`.
    pub(super) fn connect(&mut self, tuple: Tuple, id: u64) {
        if let Some((_, old)) = self.connections.remembered.get(&tuple).copied() {
            self.forget(tuple, old);
        }
        self.connections.open.insert(tuple, id);
    }

    /// A connection of socket `id` is none any more.
    pub(super) fn disconnect(&mut self, tuple: Tuple, id: u64) {
        if self.connections.open.get(&tuple) == Some(&id) {
            self.connections.open.remove(&tuple);
        }
    }

    /// Remembers a connection whose end came from here.
    pub(super) fn remember(&mut self, tuple: Tuple, id: u64, claim: Claim<TcpCore>) {
        let until = Instant::now() + TIME_WAIT;
        self.ports.add(tuple.0.port(), id, claim);
        self.connections.remembered.insert(tuple, (until, id));
        self.connections.waiting.push_back((until, tuple, id));
    }
}

/// What `/proc/sys/net` can change of a network.
#[derive(Debug)]
pub struct Settings {
    /// Largest backlog of a listener (`net.core.somaxconn`).
    pub backlog: AtomicU64,
    /// The first port that anybody may bind (`net.ipv4.ip_unprivileged_port_start`).
    pub unprivileged: AtomicU64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { backlog: AtomicU64::new(SOMAXCONN as u64), unprivileged: AtomicU64::new(1024) }
    }
}

impl Settings {
    /// The first port that anybody may bind.
    pub(super) fn unprivileged(&self) -> u64 {
        self.unprivileged.load(Ordering::Relaxed)
    }

    /// Largest backlog of a listener.
    pub(super) fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed) as usize
    }
}

/// A network.
pub struct Network {
    links: Mutex<order::Leaf, Vec<Link>>,
    streams: Mutex<order::Leaf, Streams>,
    datagrams: Mutex<order::Leaf, Ports<UdpCore>>,
    raws: Mutex<order::Leaf, Raws>,
    /// Packet sockets.
    taps: Arc<Taps>,
    /// Where packet sockets keep rings, once those with `CAP_NET_RAW` may have raw and packet sockets.
    raw: OnceLock<Memory>,
    next_id: AtomicU64,
    /// Ports that are given out on a listener shared by several, in turn.
    turn: AtomicU64,
    /// Nobody outside can tell how senders are spread.
    salt: RandomState,
    settings: Settings,
    /// The links to the outside, when there are any.
    outside: OnceLock<Arc<Outside>>,
}

impl Network {
    /// With these interfaces.
    pub fn new(links: Vec<Link>) -> Arc<Self> {
        let streams = Streams { ports: Ports::new(true), connections: Connections::default() };
        Arc::new(Self {
            links: Mutex::new(links),
            streams: Mutex::new(streams),
            datagrams: Mutex::new(Ports::new(false)),
            raws: Mutex::new(Raws::default()),
            taps: Arc::default(),
            raw: OnceLock::new(),
            next_id: AtomicU64::new(1),
            turn: AtomicU64::new(0),
            salt: RandomState::new(),
            settings: Settings::default(),
            outside: OnceLock::new(),
        })
    }

    /// More interfaces.
    pub fn add_links(&self, links: impl IntoIterator<Item = Link>) {
        self.links.lock().extend(links);
    }

    /// What `/proc/sys/net` can change.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Gives it a stack for its links to the outside, for good; its interfaces are to have the same addresses.
    /// `false` when it has some already.
    pub fn attach(&self, outside: Arc<Outside>) -> bool {
        outside.tap(&self.taps);
        let first = self.outside.set(outside).is_ok();
        self.hear_packets();
        first
    }

    /// Replaces the rules about who may be reached outside; `false` when there are no links. Connections that there are
    /// go on.
    pub fn set_egress(&self, egress: Egress) -> bool {
        let Some(outside) = self.outside() else { return false };
        outside.with(|stack, _| stack.set_egress(egress));
        true
    }

    /// Those with `CAP_NET_RAW` may have raw and packet sockets from now on (`--net-raw`), whose rings are in `memory`.
    pub fn allow_raw(&self, memory: Memory) {
        // Whose memory it is makes no difference.
        let _ = self.raw.set(memory);
    }

    /// Where packet sockets keep rings.
    pub(crate) fn memory(&self) -> Option<&Memory> {
        self.raw.get()
    }

    /// Packet sockets.
    pub(crate) fn taps(&self) -> &Arc<Taps> {
        &self.taps
    }

    /// Sends a frame out of interface `index`.
    pub(crate) fn send_frame(&self, index: u32, frame: &[u8]) -> Result<()> {
        let outside = self.outside().ok_or(Errno::EOPNOTSUPP)?;
        outside.with(|stack, now| stack.send_frame_as_is(index, frame, now)).map_err(|error| match error {
            SendError::Denied => Errno::EPERM,
            // The loopback, over which there are no frames.
            SendError::NoRoute => Errno::EOPNOTSUPP,
            SendError::TooLong => Errno::EMSGSIZE,
            SendError::Malformed => Errno::EINVAL,
        })
    }

    /// May somebody with `cred` have them?
    pub fn may_be_raw(&self, cred: &Credentials) -> bool {
        self.raw.get().is_some() && cred.capable(CapSet::NET_RAW)
    }

    /// Raw and ping sockets. Theirs must not be dropped under the lock.
    pub(super) fn raws<T>(&self, with: impl FnOnce(&mut Raws) -> T) -> T {
        with(&mut self.raws.lock())
    }

    /// Has the stack tell of packets as long as somebody wants to hear of them.
    pub(super) fn hear_packets(&self) {
        if let Some(outside) = self.outside() {
            // Looked at under the lock of the stack, so that the last change is the one that counts.
            outside.with(|stack, _| stack.hear_packets(self.raws(|raws| raws.any())));
        }
    }

    /// The links to the outside.
    pub(super) fn outside(&self) -> Option<&Arc<Outside>> {
        self.outside.get()
    }

    /// What has gone through each interface to the outside, by its name.
    pub fn traffic(&self) -> Vec<(String, Counters)> {
        let Some(outside) = self.outside() else { return Vec::new() };
        let links = self.links();
        let outer = links.iter().filter(|link| !link.is_loopback());
        outer.map(|link| (link.name.clone(), outside.counters(link.index))).collect()
    }

    /// How often something was not let out.
    pub fn denied(&self) -> u64 {
        self.outside().map_or(0, |outside| outside.look(|stack| stack.denied()))
    }

    /// Nothing but a loopback that is up.
    pub fn loopback() -> Arc<Self> {
        Self::new(crate::netlink::Loopback.links())
    }

    /// A number for a socket; later ones are larger.
    pub(crate) fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Which of `count` sockets that share a port a datagram is for: always the same for the same two ends.
    pub(super) fn share_of(&self, from: SocketAddr, to: SocketAddr, count: usize) -> usize {
        (self.salt.hash_one((from, to)) % count.max(1) as u64) as usize
    }

    /// Another number each time, to choose among equals.
    pub(super) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) as usize
    }

    /// Streams, with what is over forgotten. Their sockets must not be dropped under the lock.
    pub(super) fn streams<T>(&self, with: impl FnOnce(&mut Streams) -> T) -> T {
        let mut streams = self.streams.lock();
        streams.expire(Instant::now());
        with(&mut streams)
    }

    /// Datagram sockets, likewise.
    pub(super) fn datagrams<T>(&self, with: impl FnOnce(&mut Ports<UdpCore>) -> T) -> T {
        with(&mut self.datagrams.lock())
    }

    /// Does a packet to `ip` stay in the sandbox?
    pub(super) fn is_local(&self, ip: IpAddr) -> bool {
        if ip.is_loopback() || ip.is_unspecified() {
            return true;
        }
        self.links.lock().iter().flat_map(|link| &link.addresses).any(|address| address.ip == ip)
    }

    /// Is it the broadcast address of everybody, or of an interface's network?
    pub(super) fn is_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        let links = self.links.lock();
        let mut addresses = links.iter().flat_map(|link| &link.addresses);
        ip.is_broadcast() || addresses.any(|address| broadcast(address) == Some(ip))
    }

    /// The address a packet to `to` comes from. `ENETUNREACH` when no way leads there.
    pub(super) fn source(&self, to: IpAddr) -> Result<IpAddr> {
        match to {
            IpAddr::V4(ip) if ip.is_loopback() || ip.is_unspecified() => Ok(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => Ok(Ipv6Addr::LOCALHOST.into()),
            to if self.is_local(to) => Ok(to),
            to => {
                let way = self.outside().and_then(|outside| outside.look(|stack| stack.config().source(to)));
                way.ok_or(Errno::ENETUNREACH)
            }
        }
    }

    /// The interface with address `ip`; of multicast addresses the loopback.
    pub(super) fn interface_of(&self, ip: IpAddr) -> u32 {
        let links = self.links.lock();
        let found = links.iter().find(|link| link.addresses.iter().any(|address| address.ip == ip));
        found.or(links.first()).map_or(0, |link| link.index)
    }

    /// The interface that leads out of the sandbox; `None` when there is none.
    pub(super) fn outward(&self) -> Option<u32> {
        let links = self.links.lock();
        let leads = |link: &&Link| link.addresses.iter().any(|address| !address.ip.is_loopback());
        links.iter().find(leads).map(|link| link.index)
    }

    /// An address of interface `index`.
    pub(super) fn address_of(&self, index: u32, v6: bool) -> Option<IpAddr> {
        let links = self.links.lock();
        let link = links.iter().find(|link| link.index == index)?;
        link.addresses.iter().map(|address| address.ip).find(|ip| ip.is_ipv6() == v6)
    }
}

/// The broadcast address of an address's network; one of a single host has none.
pub(crate) fn broadcast(address: &Address) -> Option<Ipv4Addr> {
    match address.ip {
        IpAddr::V4(ip) if (1..31).contains(&address.prefix) && !ip.is_loopback() => {
            Some(Ipv4Addr::from(u32::from(ip) | u32::MAX >> address.prefix))
        }
        // The loopback's has no broadcast by its flags, and its last address is one all the same.
        IpAddr::V4(ip) if ip.is_loopback() && address.prefix == 8 => Some(Ipv4Addr::new(127, 255, 255, 255)),
        _ => None,
    }
}

impl Links for Network {
    fn links(&self) -> Vec<Link> {
        self.links.lock().clone()
    }

    fn ways(&self) -> Vec<Way> {
        let way = |route: &netstack::Route| Way {
            to: route.to.ip,
            prefix: route.to.bits,
            gateway: route.gateway,
            link: route.nic,
            source: route.source,
            metric: route.metric,
        };
        let read = |outside: &Arc<Outside>| {
            outside.look(|stack| stack.config().routes.iter().map(way).collect::<Vec<_>>())
        };
        self.outside().map(read).unwrap_or_default()
    }

    fn near(&self) -> Vec<Near> {
        let Some(outside) = self.outside() else { return Vec::new() };
        outside.look(|stack| {
            let nics = stack.config().nics.iter().map(|nic| nic.index);
            let known = |link| {
                let near = move |(ip, mac, permanent)| Near { ip, mac, link, permanent };
                stack.neighbors(link).into_iter().map(near)
            };
            nics.flat_map(known).collect()
        })
    }

    fn way_to(&self, to: IpAddr) -> Result<(Way, bool)> {
        let source = self.source(to)?;
        let prefix = if to.is_ipv4() { 32 } else { 128 };
        if self.is_local(to) {
            let lo = self.links().first().map_or(1, |link| link.index);
            return Ok((Way { to, prefix, gateway: None, link: lo, source: Some(source), metric: 0 }, true));
        }
        let outside = self.outside().ok_or(Errno::ENETUNREACH)?;
        let found = outside.look(|stack| stack.config().route(to).copied()).ok_or(Errno::ENETUNREACH)?;
        let (gateway, link) = (found.gateway, found.nic);
        Ok((Way { to, prefix, gateway, link, source: Some(source), metric: 0 }, false))
    }
}
