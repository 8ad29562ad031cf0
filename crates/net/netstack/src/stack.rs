//! The stack: what comes in finds its way up, what goes out its way down.
//!
//! - `ip`: packets in and out. - `link`: Ethernet, ARP, neighbour discovery. - `tcp`: connections.
//! - `udp`: datagrams. - `icmp`: echoes, and errors about packets. - `raw`: packets and frames as the owner has made
//!   them. - `events`: what the owner hears of.

mod events;
mod icmp;
mod ip;
mod link;
mod raw;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::collections::VecDeque;
use std::time::Duration;

use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketSet};
use smoltcp::phy::DeviceCapabilities;
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use crate::config::{Config, Nic};
use crate::device::{self, Port};
use crate::egress::{Egress, Policy};
use crate::neighbor::Neighbors;
use crate::paths::{Paths, STEPS};
use crate::reassembly::Reassembly;

pub use events::{Counters, Datagram, Event, Failure, Frame, Packet, Report, Syn};
use tcp::Connections;
pub use tcp::{ConnId, ConnectError, RoundTrip, Status, TcpPhase};
pub use udp::SendError;

/// Most frames that wait to be taken; more are lost, as in the queue of a device.
const MAX_FRAMES: usize = 16_384;

/// An interface at work.
struct Attached {
    nic: Nic,
    /// Never empty; the first is as wide as the link, each other narrower than the one before.
    lanes: Vec<Lane>,
    neighbors: Neighbors,
}

/// smoltcp's side of an interface, for packets of one size: it knows no other per connection.
struct Lane {
    interface: Interface,
    capabilities: DeviceCapabilities,
}

impl Lane {
    fn new(nic: &Nic, seed: u64, now: Duration) -> Self {
        let capabilities = device::capabilities(nic);
        let mut config = InterfaceConfig::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut out = Vec::new();
        let mut port = Port { packet: None, out: &mut out, capabilities: &capabilities };
        let mut interface = Interface::new(config, &mut port, instant(now));
        // What is not for us does not get that far.
        interface.set_any_ip(true);
        Self { interface, capabilities }
    }

    fn mtu(&self) -> usize {
        self.capabilities.max_transmission_unit
    }
}

impl Attached {
    fn new(nic: &Nic, seed: u64, neighbors: Neighbors, now: Duration) -> Self {
        let narrower = STEPS.iter().filter(|step| **step < nic.mtu as usize);
        let sizes = std::iter::once(nic.mtu).chain(narrower.map(|step| *step as u32));
        let lanes = sizes.map(|mtu| Lane::new(&Nic { mtu, ..nic.clone() }, seed, now)).collect();
        Self { nic: nic.clone(), lanes, neighbors }
    }

    /// The widest lane for packets of no more than `mtu` bytes; else the narrowest.
    fn lane(&mut self, mtu: usize) -> Option<&mut Lane> {
        let narrowest = self.lanes.len().saturating_sub(1);
        let at = self.lanes.iter().position(|lane| lane.mtu() <= mtu);
        self.lanes.get_mut(at.unwrap_or(narrowest))
    }
}

/// A TCP/IP stack. `H` is the owner's name for a connection of theirs.
pub struct Stack<H> {
    config: Config,
    ports: Vec<Attached>,
    reassembly: Reassembly,
    connections: Connections<H>,
    nothing: SocketSet<'static>,
    policy: Policy,
    paths: Paths,
    denied: u64,
    /// Packets are told of whole as well.
    hears: bool,
    ident: u32,
    /// Errors that may still be sent, and when their number was last topped up.
    errors: (u32, Duration),
    events: Vec<Event<H>>,
    frames: VecDeque<Frame>,
    counters: Vec<Counters>,
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

impl<H: Clone> Stack<H> {
    /// With these interfaces. `now` is the time on a clock of the caller's, which all other calls tell as well.
    pub fn new(config: Config, now: Duration) -> Self {
        let mut ports = Vec::new();
        for (n, nic) in config.nics.iter().enumerate() {
            let near = config
                .neighbors
                .iter()
                .filter(|neighbor| nic.addresses.iter().any(|address| address.contains(neighbor.ip)));
            let neighbors = Neighbors::new(near.copied());
            ports.push(Attached::new(nic, config.seed.rotate_left(n as u32), neighbors, now));
        }
        let counters = vec![Counters::default(); ports.len()];
        Self {
            ident: config.seed as u32,
            policy: Policy::new(config.egress.clone()),
            paths: Paths::default(),
            config,
            ports,
            reassembly: Reassembly::default(),
            connections: Connections::default(),
            nothing: SocketSet::new(Vec::new()),
            denied: 0,
            hears: false,
            errors: (icmp::ERRORS_AT_ONCE, now),
            events: Vec::new(),
            frames: VecDeque::new(),
            counters,
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Other rules about who may be reached. Connections that there are go on.
    pub fn set_egress(&mut self, egress: Egress) {
        self.policy.replace(egress);
    }

    /// Connections and datagrams that [`Config::egress`] has not let go.
    pub fn denied(&self) -> u64 {
        self.denied
    }

    /// Frames that interface `nic` has seen.
    pub fn counters(&self, nic: u32) -> Counters {
        let at = self.ports.iter().position(|port| port.nic.index == nic);
        at.and_then(|at| self.counters.get(at)).copied().unwrap_or_default()
    }

    /// Those on the link of `nic` whose address is known, with whether it was told from the start.
    pub fn neighbors(&self, nic: u32) -> Vec<(std::net::IpAddr, [u8; 6], bool)> {
        let port = self.ports.iter().find(|port| port.nic.index == nic);
        port.into_iter().flat_map(|port| port.neighbors.known()).collect()
    }

    /// What has happened since this was last asked. To be asked after every call that takes the time.
    pub fn events(&mut self) -> Vec<Event<H>> {
        std::mem::take(&mut self.events)
    }

    /// Is there something to be told?
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Is there nothing to be told or sent?
    pub fn is_quiet(&self) -> bool {
        self.events.is_empty() && self.frames.is_empty()
    }

    /// The next frame to be sent.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// When [`poll`](Self::poll) has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        let neighbors = self.ports.iter().filter_map(|port| port.neighbors.due());
        neighbors.chain(self.connections.deadline()).min()
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Duration) {
        self.poll_neighbors(now);
        self.poll_connections(now);
    }
}
