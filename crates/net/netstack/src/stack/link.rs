//! Ethernet, ARP (RFC 826) and neighbour discovery (RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::IpProtocol;

use super::{Frame, MAX_FRAMES, Stack};
use crate::config::solicited_node;
use crate::neighbor::{Mac, Question, Way};
use crate::packet::{self, ETHERNET, HEADROOM, Outgoing, Shape, View};
use crate::vnet::{self, VnetHeader};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const EVERYBODY: Mac = [0xff; 6];

/// ARP for IPv4 over Ethernet, and its two operations.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_LEN: usize = 28;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

/// Neighbour solicitation and advertisement, with the options that hold an Ethernet address.
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;
/// Head, target, and one such option.
const DISCOVERY_LEN: usize = 32;
/// Only who is on the link can send with so many hops left.
const DISCOVERY_HOPS: u8 = 255;
/// An advertisement that was asked for, and that is to be believed.
const SOLICITED_OVERRIDE: u8 = 0x60;

impl<H: Clone> Stack<H> {
    /// Takes a frame that has come by interface `nic`, with its [`VnetHeader`].
    pub fn receive(&mut self, nic: u32, bytes: &[u8], now: Duration) {
        let Some(at) = self.ports.iter().position(|port| port.nic.index == nic) else { return };
        if let Some(counters) = self.counters.get_mut(at) {
            counters.received.0 += 1;
            counters.received.1 += bytes.len().saturating_sub(vnet::LEN) as u64;
        }
        if self.take_frame(at, bytes, now).is_none()
            && let Some(counters) = self.counters.get_mut(at)
        {
            counters.bad += 1;
        }
    }

    /// `None` when it makes no sense.
    fn take_frame(&mut self, at: usize, bytes: &[u8], now: Duration) -> Option<()> {
        let (vnet, frame) = VnetHeader::split(bytes)?;
        let (head, payload) = frame.split_first_chunk::<ETHERNET>()?;
        let (to, rest) = head.split_first_chunk::<6>()?;
        let (from, kind) = rest.split_first_chunk::<6>()?;
        let kind = u16::from_be_bytes(*kind.first_chunk()?);
        let own = self.ports.get(at)?.nic.mac;
        let many = to[0] & 1 != 0;
        // What is for others, or comes from nobody.
        if (*to != own && !many) || from[0] & 1 != 0 || *from == own {
            return Some(());
        }
        match kind {
            ARP => self.take_arp(at, payload, now),
            IPV4 | IPV6 => self.take_packet(at, payload, (*from, vnet.is_vouched_for()), now),
            _ => Some(()),
        }
    }

    fn take_arp(&mut self, at: usize, payload: &[u8], now: Duration) -> Option<()> {
        let bytes = payload.first_chunk::<ARP_LEN>()?;
        let rest = bytes.strip_prefix(&ARP_HEAD)?;
        let operation = u16::from_be_bytes(*rest.first_chunk()?);
        let mac: Mac = *rest.get(2..)?.first_chunk()?;
        let from = Ipv4Addr::from(*rest.get(8..)?.first_chunk::<4>()?);
        let to = Ipv4Addr::from(*rest.get(18..)?.first_chunk::<4>()?);
        let nic = &self.ports.get(at)?.nic;
        let ours = nic.addresses.iter().any(|address| address.ip == to);
        let odd = from.is_multicast() || from.is_broadcast() || from.is_loopback() || mac[0] & 1 != 0;
        if odd || self.config.is_own(from.into()) {
            return Some(());
        }
        let asked = ours && operation == ARP_REQUEST;
        if !from.is_unspecified() {
            self.heard(at, from.into(), mac, asked, now);
        }
        if asked {
            self.send_arp(at, ARP_REPLY, (to, from), mac);
        }
        Some(())
    }

    fn send_arp(&mut self, at: usize, operation: u16, (from, to): (Ipv4Addr, Ipv4Addr), mac: Mac) {
        let Some(port) = self.ports.get(at) else { return };
        let own = port.nic.mac;
        let target = if operation == ARP_REQUEST { [0; 6] } else { mac };
        let mut bytes = vec![0; HEADROOM];
        bytes.extend_from_slice(&ARP_HEAD);
        bytes.extend_from_slice(&operation.to_be_bytes());
        bytes.extend_from_slice(&own);
        bytes.extend_from_slice(&from.octets());
        bytes.extend_from_slice(&target);
        bytes.extend_from_slice(&to.octets());
        self.send_frame(at, ARP, mac, Outgoing { bytes, vnet: VnetHeader::default() });
    }

    /// Takes what neighbours say of themselves; `false` when it is no such message.
    pub(super) fn take_discovery(&mut self, at: usize, view: &View<'_>, mac: Mac, now: Duration) -> bool {
        let IpAddr::V6(from) = view.from else { return false };
        let Some((head, options)) = view.payload.split_first_chunk::<24>() else { return false };
        let kind = head[0];
        if !matches!(kind, SOLICITATION | ADVERTISEMENT) {
            return false;
        }
        if view.hops != DISCOVERY_HOPS || head[1] != 0 || !packet::is_intact(view) {
            return true;
        }
        let Some(target) = head.get(8..).and_then(|rest| rest.first_chunk::<16>()) else { return true };
        let target = Ipv6Addr::from(*target);
        let wanted = if kind == SOLICITATION { SOURCE_OPTION } else { TARGET_OPTION };
        let said = option(options, wanted);
        if self.config.is_own(from.into()) {
            return true;
        }
        let Some(port) = self.ports.get(at) else { return true };
        let ours = port.nic.addresses.iter().any(|address| address.ip == target);
        if kind == ADVERTISEMENT {
            if !ours && !target.is_multicast() {
                self.heard(at, target.into(), said.unwrap_or(mac), false, now);
            }
        } else if ours {
            if !from.is_unspecified() && !from.is_multicast() {
                self.heard(at, from.into(), said.unwrap_or(mac), true, now);
            }
            self.advertise(at, target, from, said.unwrap_or(mac));
        }
        true
    }

    fn advertise(&mut self, at: usize, target: Ipv6Addr, asker: Ipv6Addr, mac: Mac) {
        let nobody = asker.is_unspecified();
        let to = if nobody { Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1) } else { asker };
        let flags = if nobody { 0x20 } else { SOLICITED_OVERRIDE };
        let mac = if nobody { multicast(to.into()) } else { mac };
        self.send_discovery(at, (ADVERTISEMENT, flags), target, (target, to), mac);
    }

    fn send_discovery(
        &mut self,
        at: usize,
        (kind, flags): (u8, u8),
        target: Ipv6Addr,
        (from, to): (Ipv6Addr, Ipv6Addr),
        mac: Mac,
    ) {
        let Some(own) = self.ports.get(at).map(|port| port.nic.mac) else { return };
        let shape = Shape { hops: DISCOVERY_HOPS, class: 0, ident: 0 };
        let made = packet::packet(from.into(), to.into(), IpProtocol::Icmpv6, DISCOVERY_LEN, shape);
        let Some(mut out) = made else { return };
        let start = out.bytes.len() - DISCOVERY_LEN;
        let option = if kind == SOLICITATION { SOURCE_OPTION } else { TARGET_OPTION };
        let message = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), &[option, 1], &own];
        out.bytes.truncate(start);
        out.bytes.extend(message.into_iter().flatten());
        super::icmp::fill_icmp6(&mut out, from, to);
        self.send_frame(at, IPV6, mac, out);
    }

    /// A neighbour has said where it is.
    fn heard(&mut self, at: usize, ip: IpAddr, mac: Mac, wanted: bool, now: Duration) {
        let Some(port) = self.ports.get_mut(at) else { return };
        let kind = if ip.is_ipv4() { IPV4 } else { IPV6 };
        for out in port.neighbors.heard(ip, mac, wanted, now) {
            self.send_frame(at, kind, mac, out);
        }
    }

    /// Sends a packet to who is next on its way.
    pub(super) fn send_to(&mut self, at: usize, next: IpAddr, out: Outgoing, now: Duration) {
        let kind = if next.is_ipv4() { IPV4 } else { IPV6 };
        let Some(port) = self.ports.get_mut(at) else { return };
        let everybody = match next {
            IpAddr::V4(ip) => {
                let of_net = port.nic.addresses.iter().any(|address| address.broadcast() == Some(ip));
                ip.is_broadcast() || of_net
            }
            IpAddr::V6(_) => false,
        };
        if everybody {
            return self.send_frame(at, kind, EVERYBODY, out);
        }
        if next.is_multicast() {
            return self.send_frame(at, kind, multicast(next), out);
        }
        match port.neighbors.way(next, out, now) {
            Way::To(mac, out) => self.send_frame(at, kind, mac, out),
            Way::Kept => self.poll_neighbors(now),
        }
    }

    /// Asks for neighbours, and gives up those who have not answered.
    pub(super) fn poll_neighbors(&mut self, now: Duration) {
        for at in 0..self.ports.len() {
            let Some(port) = self.ports.get_mut(at) else { return };
            let (questions, lost) = port.neighbors.poll(now);
            for question in questions {
                self.ask(at, question);
            }
            for out in lost {
                self.lost(&out);
            }
        }
    }

    fn ask(&mut self, at: usize, question: Question) {
        let Some(port) = self.ports.get(at) else { return };
        let own = port.nic.addresses.iter().filter(|own| own.ip.is_ipv4() == question.ip.is_ipv4());
        let near = own.clone().find(|own| own.contains(question.ip));
        match (near.or(own.clone().next()).map(|own| own.ip), question.ip) {
            (Some(IpAddr::V4(own)), IpAddr::V4(ip)) => {
                self.send_arp(at, ARP_REQUEST, (own, ip), question.last.unwrap_or(EVERYBODY));
            }
            (Some(IpAddr::V6(own)), IpAddr::V6(ip)) => {
                let group = solicited_node(ip);
                let (to, mac) = match question.last {
                    Some(mac) => (ip, mac),
                    None => (group, multicast(group.into())),
                };
                self.send_discovery(at, (SOLICITATION, 0), ip, (own, to), mac);
            }
            _ => {}
        }
    }

    /// Queues a frame.
    fn send_frame(&mut self, at: usize, kind: u16, to: Mac, mut out: Outgoing) {
        let (Some(port), Some(counters)) = (self.ports.get(at), self.counters.get_mut(at)) else { return };
        if self.frames.len() >= MAX_FRAMES {
            counters.dropped += 1;
            return;
        }
        let [a, b] = kind.to_be_bytes();
        let heads = out.vnet.to_bytes().into_iter().chain(to).chain(port.nic.mac).chain([a, b]);
        for (place, byte) in out.bytes.iter_mut().zip(heads) {
            *place = byte;
        }
        counters.sent.0 += 1;
        counters.sent.1 += out.bytes.len().saturating_sub(vnet::LEN) as u64;
        self.frames.push_back(Frame { nic: port.nic.index, bytes: out.bytes });
    }
}

/// The Ethernet address of a group.
fn multicast(ip: IpAddr) -> Mac {
    match ip {
        IpAddr::V4(ip) => {
            let [_, b, c, d] = ip.octets();
            [1, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// The Ethernet address in an option of kind `wanted`.
fn option(mut options: &[u8], wanted: u8) -> Option<Mac> {
    // Each is at least eight bytes, so this ends.
    while let Some([kind, len]) = options.first_chunk() {
        let len = usize::from(*len) * 8;
        if len == 0 {
            return None;
        }
        if *kind == wanted {
            return options.get(2..8)?.first_chunk().copied().filter(|mac: &Mac| mac[0] & 1 == 0);
        }
        options = options.get(len..)?;
    }
    None
}
