//! Packets and frames that the owner has made, and those it wants to see whole.
//!
//! They go where the rules for everybody let them: a packet of TCP or UDP by its port, and of anything else only where
//! every port may be reached. Rules say nothing of routes that a packet names itself: where there are rules, such packets
//! do not go.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::icmp::{Nobody, ports};
use super::{Frame, MAX_FRAMES, Packet, SendError, Stack};
use crate::packet::{self, ETHERNET, HEADROOM, Outgoing, Shape, View};
use crate::vnet::{self, VnetHeader};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// Bytes of a plain head of IPv4.
const HEAD4: usize = 20;

impl<H: Clone> Stack<H> {
    /// Is [`Event::Packet`](super::Event::Packet) told of?
    pub fn hear_packets(&mut self, on: bool) {
        self.hears = on;
    }

    /// Nobody speaks the protocol of `packet`: tells its sender.
    pub fn reject_packet(&mut self, packet: &Packet, now: Duration) {
        if self.config.is_own(packet.to) {
            self.send_unreachable(packet.whole(), Nobody::SpeaksProtocol, now);
        }
    }

    /// Sends `payload` as the packet of a protocol, with `hops` and traffic class `class`.
    ///
    /// # Errors
    /// When no way leads there, it may not go, or it is longer than a packet can be.
    pub fn send_raw(
        &mut self,
        (from, to): (IpAddr, IpAddr),
        protocol: u8,
        payload: &[u8],
        (hops, class): (u8, u8),
        now: Duration,
    ) -> Result<(), SendError> {
        let shape = Shape { hops, class, ident: self.next_ident() };
        let made = packet::packet(from, to, protocol.into(), payload.len(), shape);
        let mut out = made.ok_or(SendError::TooLong)?;
        let start = out.bytes.len() - payload.len();
        out.bytes.truncate(start);
        out.bytes.extend_from_slice(payload);
        self.send_made(out, now)
    }

    /// Sends a packet of IPv4 whose head is there. Its length and checksum are made, and source and number if they
    /// are zero.
    ///
    /// # Errors
    /// As above; and when it is no packet.
    pub fn send_whole(&mut self, bytes: &[u8], now: Duration) -> Result<(), SendError> {
        let total = u16::try_from(bytes.len()).map_err(|_| SendError::TooLong)?;
        let mut made = vec![0; HEADROOM];
        made.extend_from_slice(bytes);
        let ident = self.next_ident();
        let packet = made.get_mut(HEADROOM..).filter(|packet| packet.len() >= HEAD4);
        let mut packet = Ipv4Packet::new_unchecked(packet.ok_or(SendError::Malformed)?);
        let head = usize::from(packet.header_len());
        if !(HEAD4..=bytes.len()).contains(&head) || packet.version() != 4 {
            return Err(SendError::Malformed);
        }
        packet.set_total_len(total);
        if packet.ident() == 0 {
            packet.set_ident(ident as u16);
        }
        if packet.src_addr().is_unspecified() {
            let to = IpAddr::V4(packet.dst_addr());
            let Some(IpAddr::V4(from)) = self.config.source(to) else { return Err(SendError::NoRoute) };
            packet.set_src_addr(from);
        }
        packet.fill_checksum();
        let to = IpAddr::V4(packet.dst_addr());
        let (at, _) = self.way(to, to).ok_or(SendError::NoRoute)?;
        if bytes.len() > self.ports.get(at).map_or(0, |port| port.nic.mtu as usize) {
            return Err(SendError::TooLong);
        }
        self.send_made(Outgoing { bytes: made, vnet: VnetHeader::default() }, now)
    }

    fn send_made(&mut self, out: Outgoing, now: Duration) -> Result<(), SendError> {
        if !self.may_go(out.packet(), now) {
            self.denied += 1;
            return Err(SendError::Denied);
        }
        if self.send_packet(out, now) { Ok(()) } else { Err(SendError::NoRoute) }
    }

    /// Sends a frame out of interface `nic`.
    ///
    /// # Errors
    /// When it may not go, is too long, or is none.
    pub fn send_frame_as_is(&mut self, nic: u32, frame: &[u8], now: Duration) -> Result<(), SendError> {
        let at = self.ports.iter().position(|port| port.nic.index == nic).ok_or(SendError::NoRoute)?;
        let (Some(port), Some(counters)) = (self.ports.get(at), self.counters.get_mut(at)) else {
            return Err(SendError::NoRoute);
        };
        let (head, rest) = frame.split_first_chunk::<ETHERNET>().ok_or(SendError::Malformed)?;
        if rest.len() > port.nic.mtu as usize {
            return Err(SendError::TooLong);
        }
        if self.frames.len() >= MAX_FRAMES {
            counters.dropped += 1;
            return Ok(());
        }
        counters.sent.0 += 1;
        counters.sent.1 += frame.len() as u64;
        let may = match u16::from_be_bytes([head[12], head[13]]) {
            IPV4 | IPV6 => self.may_go(rest, now),
            ARP => true,
            _ => !self.policy.is_strict(),
        };
        if !may {
            self.denied += 1;
            return Err(SendError::Denied);
        }
        let bytes = [&[0; vnet::LEN][..], frame].concat();
        self.frames.push_back(Frame { nic, bytes });
        Ok(())
    }

    /// Do the rules let this packet go?
    fn may_go(&self, bytes: &[u8], now: Duration) -> bool {
        if !self.policy.is_strict() {
            return true;
        }
        let Some(view) = packet::view(bytes).filter(is_plain) else { return false };
        let port = match view.protocol {
            IpProtocol::Tcp | IpProtocol::Udp if view.piece.is_none() => {
                ports(view.payload).map(|ports| ports.1)
            }
            _ => None,
        };
        let Some(port) = port else { return self.policy.allows_all(view.to, now) };
        self.policy.allows(SocketAddr::new(view.to, port), now)
    }
}

/// Has a packet nothing between its head and what it carries?
fn is_plain(view: &View<'_>) -> bool {
    let head = if view.to.is_ipv4() { HEAD4 } else { 40 };
    view.whole.len() - view.payload.len() == head
}

#[cfg(test)]
mod tests {
    use crate::config::Prefix;
    use crate::simulate::{address, config};
    use crate::{Egress, EgressRule, EgressTarget, SendError, Stack, ip_packet};
    use std::time::Duration;

    /// One that lets out to port 80 of its peer alone.
    fn strict() -> Stack<u32> {
        let to = EgressTarget::Network(Prefix { ip: address(1, false), bits: 32 });
        let rules = vec![EgressRule { allow: true, to, ports: 80..=80 }];
        let config = crate::Config {
            egress: Egress { denies: true, rules, resolvers: Vec::new() },
            ..config(0, 1500, false)
        };
        Stack::new(config, Duration::ZERO)
    }

    #[test]
    fn rules_hold_for_what_is_made_by_hand() {
        let mut stack = strict();
        let ends = (address(0, false), address(1, false));
        let mut send =
            |protocol, payload: &[u8]| stack.send_raw(ends, protocol, payload, (64, 0), Duration::ZERO);
        let datagram = |port: u8| [0, 1, 0, port, 0, 8, 0, 0];
        assert_eq!(send(17, &datagram(80)), Ok(()));
        assert_eq!(send(17, &datagram(81)), Err(SendError::Denied));
        assert_eq!(send(17, &[0, 1]), Err(SendError::Denied));
        assert_eq!(send(1, &[8; 8]), Err(SendError::Denied));
        let mut whole = ip_packet(ends, 17, &datagram(80), (64, 0)).expect("a packet");
        assert_eq!(stack.send_whole(&whole, Duration::ZERO), Ok(()));
        // A second piece, whose ports nobody knows, and a route of its own.
        whole[7] = 1;
        assert_eq!(stack.send_whole(&whole, Duration::ZERO), Err(SendError::Denied));
        let mut routed = whole.clone();
        (routed[0], routed[7]) = (0x46, 0);
        routed.splice(20..20, [131, 3, 4, 0]);
        assert_eq!(stack.send_whole(&routed, Duration::ZERO), Err(SendError::Denied));
        let frame = |kind: u16, packet: &[u8]| [&[2; 12][..], &kind.to_be_bytes(), packet].concat();
        let good = ip_packet(ends, 6, &datagram(80), (64, 0)).expect("a packet");
        assert_eq!(stack.send_frame_as_is(2, &frame(0x800, &good), Duration::ZERO), Ok(()));
        assert_eq!(stack.send_frame_as_is(2, &frame(0x800, &routed), Duration::ZERO), Err(SendError::Denied));
        assert_eq!(
            stack.send_frame_as_is(2, &frame(0x88b5, &[0; 50]), Duration::ZERO),
            Err(SendError::Denied)
        );
        assert_eq!(
            stack.send_frame_as_is(2, &frame(0x800, &[0; 1501]), Duration::ZERO),
            Err(SendError::TooLong)
        );
        assert_eq!(stack.send_frame_as_is(9, &frame(0x800, &good), Duration::ZERO), Err(SendError::NoRoute));
        assert_eq!(stack.denied(), 7);
    }
}
