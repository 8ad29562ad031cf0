//! Datagrams (RFC 768), and the messages about what did not arrive (RFC 792, RFC 4443).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, IpProtocol};

use super::{Datagram, Event, Failure, Stack, Unreachable, instant};
use crate::device::Port;
use crate::packet::{self, HEADROOM, Outgoing, Shape, View};

/// Errors that are sent in a second, and at once (`net.ipv4.icmp_msgs_per_sec`).
const ERRORS_PER_SECOND: u32 = 1000;
pub(super) const ERRORS_AT_ONCE: u32 = 50;
/// Bytes of a packet that an error about it quotes (RFC 1812, RFC 4443).
const QUOTED4: usize = 548;
const QUOTED6: usize = 1232;
/// Bytes of the head of an error.
const ERROR_HEAD: usize = 8;
const ECHO4: u8 = 8;
const ECHO6: u8 = 128;
const REPLY4: u8 = 0;
const REPLY6: u8 = 129;
const UNREACHABLE4: u8 = 3;
const UNREACHABLE6: u8 = 1;

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No way leads there.
    #[error("no way leads there")]
    NoRoute,
    /// It may not be reached.
    #[error("it may not be reached")]
    Denied,
}

/// The two ports at the front of a transport.
fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *payload.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

impl<H: Clone> Stack<H> {
    pub(super) fn take_datagram(&mut self, at: usize, view: &View<'_>, now: Duration) -> Option<()> {
        let (from, to) = ports(view.payload)?;
        let [a, b] = *view.payload.get(4..)?.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([a, b]));
        let start = view.whole.len() - view.payload.len();
        if len < 8 || len > view.payload.len() || from == 0 && view.from.is_unspecified() {
            return None;
        }
        let ends = (SocketAddr::new(view.to, to), SocketAddr::new(view.from, from));
        if self.config.egress.is_strict() && self.config.is_own(view.to) {
            self.answerable.heard(ends, now);
        }
        self.events.push(Event::Datagram(Datagram {
            from: ends.1,
            to: ends.0,
            hops: view.hops,
            class: view.class,
            nic: self.ports.get(at)?.nic.index,
            packet: view.whole.to_vec(),
            payload: start + 8..start + len,
        }));
        Some(())
    }

    /// Nobody wants `datagram`: tells its sender.
    pub fn reject(&mut self, datagram: &Datagram, now: Duration) {
        if self.config.is_own(datagram.to.ip()) && !datagram.from.ip().is_unspecified() {
            self.send_unreachable(&datagram.packet, Unreachable::Port, now);
        }
    }

    /// Sends a datagram with `hops` and traffic class `class`.
    ///
    /// # Errors
    /// When no way leads there, or it may not go.
    pub fn send_datagram(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        data: &[u8],
        (hops, class): (u8, u8),
        now: Duration,
    ) -> Result<(), SendError> {
        let (at, _) = self.way(from.ip(), to.ip()).ok_or(SendError::NoRoute)?;
        if !self.config.egress.allows(to) && !self.answerable.has((from, to), now) {
            self.denied += 1;
            return Err(SendError::Denied);
        }
        let mtu = self.ports.get(at).map_or(0, |port| port.nic.mtu as usize);
        let shape = Shape { hops, class, ident: self.next_ident() };
        let out = packet::datagram(from, to, data, shape, mtu).ok_or(SendError::NoRoute)?;
        if self.send_packet(out, now) { Ok(()) } else { Err(SendError::NoRoute) }
    }

    pub(super) fn take_icmp(&mut self, view: &View<'_>, now: Duration) -> Option<()> {
        let v4 = view.from.is_ipv4();
        if v4 != (view.protocol == IpProtocol::Icmp) {
            return None;
        }
        let intact = match (view.from, view.to) {
            (IpAddr::V4(_), _) => Icmpv4Packet::new_checked(view.payload).ok()?.verify_checksum(),
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                Icmpv6Packet::new_checked(view.payload).ok()?.verify_checksum(&from, &to)
            }
            _ => false,
        };
        if !intact {
            return None;
        }
        let [kind, code] = *view.payload.first_chunk()?;
        let own = self.config.is_own(view.to) && !view.from.is_unspecified();
        match (kind, v4) {
            (ECHO4, true) | (ECHO6, false) if own => {
                self.send_echo(view, now);
                Some(())
            }
            (UNREACHABLE4, true) => self.take_unreachable(view, reason4(code)?),
            (UNREACHABLE6, false) => self.take_unreachable(view, reason6(code)?),
            _ => Some(()),
        }
    }

    /// Sends back what was asked to be, in pieces if that is how it came.
    fn send_echo(&mut self, view: &View<'_>, now: Duration) {
        let v4 = view.from.is_ipv4();
        let shape = Shape { hops: 64, class: view.class, ident: self.next_ident() };
        let made = packet::packet(view.to, view.from, view.protocol, view.payload.len(), shape);
        let Some(mut out) = made else { return };
        out.bytes.truncate(out.bytes.len() - view.payload.len());
        let head = [if v4 { REPLY4 } else { REPLY6 }, 0, 0, 0];
        out.bytes.extend(head.iter().chain(view.payload.get(4..).unwrap_or_default()));
        fill_icmp(&mut out, view.to, view.from);
        self.send_packet(out, now);
    }

    /// An error about a packet of ours.
    fn take_unreachable(&mut self, view: &View<'_>, why: Unreachable) -> Option<()> {
        let quoted = Quoted::of(view.payload.get(ERROR_HEAD..)?)?;
        if !self.config.is_own(quoted.local.ip()) {
            return None;
        }
        self.tell_lost(quoted, why);
        Some(())
    }

    /// A packet of ours could not be sent on.
    pub(super) fn lost(&mut self, out: &Outgoing) {
        if let Some(quoted) = Quoted::of(out.packet()) {
            self.tell_lost(quoted, Unreachable::Host);
        }
    }

    fn tell_lost(&mut self, quoted: Quoted, why: Unreachable) {
        let Quoted { protocol, local, remote, data } = quoted;
        match protocol {
            IpProtocol::Udp => self.events.push(Event::Lost { local, remote, why, data }),
            // An established connection outlives such errors; one that is not yet does not (RFC 5461).
            IpProtocol::Tcp => {
                let failure = if why == Unreachable::Port { Failure::Refused } else { Failure::Unreachable };
                self.connect_failed((local, remote), failure);
            }
            _ => {}
        }
    }

    /// Has smoltcp answer a packet that is for no socket.
    pub(super) fn offer_to_nobody(&mut self, at: usize, bytes: &[u8], now: Duration) {
        let Some(port) = self.ports.get_mut(at) else { return };
        let mut out = Vec::new();
        let mut device = Port { packet: Some(bytes), out: &mut out, capabilities: &port.capabilities };
        port.interface.poll_ingress_single(instant(now), &mut device, &mut self.nothing);
        for packet in out {
            self.send_packet(packet, now);
        }
    }

    /// May one more error be sent?
    fn may_complain(&mut self, now: Duration) -> bool {
        let (left, last) = &mut self.errors;
        let passed = now.saturating_sub(*last).as_millis().min(1000) as u32;
        let more = passed * ERRORS_PER_SECOND / 1000;
        if more > 0 {
            (*left, *last) = ((*left + more).min(ERRORS_AT_ONCE), now);
        }
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }

    /// Tells the sender of `bytes` that it went nowhere.
    pub(super) fn send_unreachable(&mut self, bytes: &[u8], why: Unreachable, now: Duration) {
        if !self.may_complain(now) {
            return;
        }
        let Some(view) = packet::view(bytes) else { return };
        let v4 = view.from.is_ipv4();
        let code = match (why, v4) {
            (Unreachable::Port, true) => 3,
            (Unreachable::Protocol, true) => 2,
            (_, true) => 1,
            (Unreachable::Port, false) => 4,
            (_, false) => 3,
        };
        let quoted = bytes.get(..if v4 { QUOTED4 } else { QUOTED6 }).unwrap_or(bytes);
        let (protocol, kind) =
            if v4 { (IpProtocol::Icmp, UNREACHABLE4) } else { (IpProtocol::Icmpv6, UNREACHABLE6) };
        let shape = Shape { hops: 64, class: 0, ident: self.next_ident() };
        let made = packet::packet(view.to, view.from, protocol, ERROR_HEAD + quoted.len(), shape);
        let Some(mut out) = made else { return };
        out.bytes.truncate(out.bytes.len() - ERROR_HEAD - quoted.len());
        out.bytes.extend([kind, code, 0, 0, 0, 0, 0, 0].iter().chain(quoted));
        fill_icmp(&mut out, view.to, view.from);
        self.send_packet(out, now);
    }
}

/// Makes the checksum of a message behind a plain head.
fn fill_icmp(out: &mut Outgoing, from: IpAddr, to: IpAddr) {
    match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => fill_icmp6(out, from, to),
        _ => {
            if let Some(message) = out.bytes.get_mut(HEADROOM + 20..) {
                Icmpv4Packet::new_unchecked(message).fill_checksum();
            }
        }
    }
}

/// Makes the checksum of a message behind a plain head of IPv6.
pub(super) fn fill_icmp6(out: &mut Outgoing, from: Ipv6Addr, to: Ipv6Addr) {
    if let Some(message) = out.bytes.get_mut(HEADROOM + 40..) {
        Icmpv6Packet::new_unchecked(message).fill_checksum(&from, &to);
    }
}

fn reason4(code: u8) -> Option<Unreachable> {
    Some(match code {
        0 | 6 | 11 => Unreachable::Network,
        1 | 5 | 7 | 8 | 12 => Unreachable::Host,
        2 => Unreachable::Protocol,
        3 => Unreachable::Port,
        9 | 10 | 13..=15 => Unreachable::Prohibited,
        _ => return None,
    })
}

fn reason6(code: u8) -> Option<Unreachable> {
    Some(match code {
        0 => Unreachable::Network,
        2 | 3 => Unreachable::Host,
        4 => Unreachable::Port,
        1 | 5 | 6 => Unreachable::Prohibited,
        _ => return None,
    })
}

/// A packet of ours, or the front of one.
struct Quoted {
    protocol: IpProtocol,
    local: SocketAddr,
    remote: SocketAddr,
    data: Vec<u8>,
}

impl Quoted {
    fn of(bytes: &[u8]) -> Option<Self> {
        let v4 = bytes.first()? >> 4 == 4;
        let (protocol, head, from, to): (u8, usize, IpAddr, IpAddr) = if v4 {
            let head = usize::from(bytes.first()? & 15) * 4;
            let from = *bytes.get(12..)?.first_chunk::<4>()?;
            let to = *bytes.get(16..)?.first_chunk::<4>()?;
            (*bytes.get(9)?, head.max(20), from.into(), to.into())
        } else {
            let from = *bytes.get(8..)?.first_chunk::<16>()?;
            let to = *bytes.get(24..)?.first_chunk::<16>()?;
            (*bytes.get(6)?, 40, from.into(), to.into())
        };
        let transport = bytes.get(head..)?;
        let (local, remote) = ports(transport)?;
        Some(Self {
            protocol: protocol.into(),
            local: SocketAddr::new(from, local),
            remote: SocketAddr::new(to, remote),
            data: transport.get(8..).unwrap_or_default().to_vec(),
        })
    }
}
