//! Packets in and out: whose they are, and which way they take.

use std::net::IpAddr;
use std::time::Duration;

use smoltcp::wire::IpProtocol;

use super::icmp::Nobody;
use super::{Event, Packet, Stack};
use crate::neighbor::Mac;
use crate::packet::{self, HEADROOM, Outgoing, Shape, View};

impl<H: Clone> Stack<H> {
    /// Takes a packet; `None` when it makes no sense. It came from `link`, who may have seen to its checksum.
    pub(super) fn take_packet(
        &mut self,
        at: usize,
        bytes: &[u8],
        link: (Mac, bool),
        now: Duration,
    ) -> Option<()> {
        let view = packet::view(bytes)?;
        if self.is_odd(view.from) || view.to.is_unspecified() || view.to.is_loopback() {
            return None;
        }
        if let Some(piece) = view.piece {
            if !self.is_ours(at, view.to) {
                return Some(());
            }
            let payload = self.reassembly.add(&view, piece, now)?;
            let shape = Shape { hops: view.hops, class: view.class, ident: 0 };
            let mut out = packet::packet(view.from, view.to, view.protocol, payload.len(), shape)?;
            let start = out.bytes.len() - payload.len();
            out.bytes.get_mut(start..)?.copy_from_slice(&payload);
            // Checksums of what came in pieces are in the first of them, whole.
            let whole = out.bytes.get(HEADROOM..)?;
            return self.take_whole(at, packet::view(whole)?, (link.0, false), now);
        }
        self.take_whole(at, view, link, now)
    }

    /// Takes a packet that is whole.
    fn take_whole(&mut self, at: usize, view: View<'_>, link: (Mac, bool), now: Duration) -> Option<()> {
        let discovers = view.protocol == IpProtocol::Icmpv6;
        if discovers && self.take_discovery(at, &view, link.0, now) {
            return Some(());
        }
        if !self.is_ours(at, view.to) {
            return Some(());
        }
        let checked = matches!(view.protocol, IpProtocol::Tcp | IpProtocol::Udp);
        if checked && !link.1 && !packet::is_intact(&view) {
            return None;
        }
        if let Some(port) = self.ports.get_mut(at) {
            port.neighbors.confirm(view.from, link.0, now);
        }
        if self.hears && !view.from.is_unspecified() {
            let nic = self.ports.get(at).map_or(0, |port| port.nic.index);
            self.events.extend(Packet::of(view.whole.to_vec(), nic).map(Event::Packet));
        }
        match view.protocol {
            IpProtocol::Tcp if self.config.is_own(view.to) => self.take_segment(at, &view, now),
            IpProtocol::Udp => self.take_datagram(at, &view, now),
            IpProtocol::Icmp | IpProtocol::Icmpv6 => self.take_icmp(&view, now),
            _ if self.config.is_own(view.to) && !view.from.is_unspecified() && !self.hears => {
                self.send_unreachable(view.whole, Nobody::SpeaksProtocol, now);
                Some(())
            }
            _ => Some(()),
        }
    }

    /// No packet comes from there.
    fn is_odd(&self, from: IpAddr) -> bool {
        let all = matches!(from, IpAddr::V4(ip) if ip.is_broadcast());
        from.is_loopback() || from.is_multicast() || all || self.config.is_own(from)
    }

    /// Is a packet to `to` for us, alone or with others?
    fn is_ours(&self, at: usize, to: IpAddr) -> bool {
        let of_net = |ip| {
            let mut addresses = self.ports.get(at).into_iter().flat_map(|port| &port.nic.addresses);
            addresses.any(|address| address.broadcast() == Some(ip))
        };
        let everybody = matches!(to, IpAddr::V4(ip) if ip.is_broadcast() || of_net(ip));
        everybody || to.is_multicast() || self.config.is_own(to)
    }

    /// Another number for a packet.
    pub(super) fn next_ident(&mut self) -> u32 {
        self.ident = self.ident.wrapping_add(1);
        self.ident
    }

    /// Interface and next hop for `to`; multicast goes out of the interface that has `from`.
    pub(super) fn way(&self, from: IpAddr, to: IpAddr) -> Option<(usize, IpAddr)> {
        let everybody = matches!(to, IpAddr::V4(ip) if ip.is_broadcast());
        if to.is_multicast() || everybody {
            let has = |own: IpAddr| {
                self.ports.iter().position(|port| port.nic.addresses.iter().any(|address| address.ip == own))
            };
            return Some((has(from).or((!self.ports.is_empty()).then_some(0))?, to));
        }
        let route = self.config.route(to)?;
        let at = self.ports.iter().position(|port| port.nic.index == route.nic)?;
        Some((at, route.gateway.unwrap_or(to)))
    }

    /// Bytes of the largest packet out of an interface to `to`. Those of IPv4 routers may cut themselves.
    pub(super) fn mtu(&self, at: usize, to: IpAddr, now: Duration) -> usize {
        let link = self.ports.get(at).map_or(0, |port| port.nic.mtu as usize);
        if to.is_ipv4() { link } else { link.min(self.paths.mtu(to, now)) }
    }

    /// Sends a packet, in pieces if it must be. `false` when no way leads there.
    pub(super) fn send_packet(&mut self, out: Outgoing, now: Duration) -> bool {
        let Some((from, to)) = packet::view(out.packet()).map(|view| (view.from, view.to)) else {
            return false;
        };
        let Some((at, next)) = self.way(from, to) else { return false };
        let mtu = self.mtu(at, to, now);
        if out.packet().len() <= mtu || out.vnet.is_vouched_for() {
            // What is longer is the device's to cut.
            self.send_to(at, next, out, now);
            return true;
        }
        let ident = self.next_ident();
        for piece in packet::fragments(out, mtu, ident) {
            self.send_to(at, next, piece, now);
        }
        true
    }
}
