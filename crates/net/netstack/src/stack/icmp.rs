//! Echoes, and the messages about what did not arrive (RFC 792, RFC 4443).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, IpProtocol};

use super::{Event, Failure, Report, Stack, instant};
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
/// Codes of an unreachable destination: a packet that is too large, a protocol or port that nobody has.
const TOO_LARGE4: u8 = 4;
const NO_PROTOCOL4: u8 = 2;
const NO_PORT4: u8 = 3;
const NO_PORT6: u8 = 4;
/// `TIME EXCEEDED` and `PARAMETER PROBLEM`, and of IPv6 `PACKET TOO BIG`.
const EXCEEDED4: u8 = 11;
const PROBLEM4: u8 = 12;
const TOO_LARGE6: u8 = 2;
const PROBLEM6: u8 = 4;
/// The code for a next header that nobody knows, and where a head names it.
const UNKNOWN_NEXT6: u8 = 1;
const NEXT_HEADER_AT: u8 = 6;

/// Why a packet that has come is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nobody {
    /// Nobody has the port.
    HasPort,
    /// Nobody speaks the protocol.
    SpeaksProtocol,
}

/// The two ports at the front of a transport.
pub(super) fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *payload.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

impl<H: Clone> Stack<H> {
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
            (UNREACHABLE4 | EXCEEDED4 | PROBLEM4, true) | (UNREACHABLE6..=PROBLEM6, false) => {
                self.take_error(view, (kind, code), now)
            }
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
    fn take_error(&mut self, view: &View<'_>, (kind, code): (u8, u8), now: Duration) -> Option<()> {
        let quoted = Quoted::of(view.payload.get(ERROR_HEAD..)?)?;
        if !self.config.is_own(quoted.local.ip()) || quoted.local.is_ipv4() != view.from.is_ipv4() {
            return None;
        }
        let word = u32::from_be_bytes(*view.payload.get(4..)?.first_chunk()?);
        let info = match (kind, code, view.from) {
            (UNREACHABLE4, TOO_LARGE4, IpAddr::V4(_)) => word & 0xffff,
            (PROBLEM4, _, IpAddr::V4(_)) => word >> 24,
            (TOO_LARGE6 | PROBLEM6, _, IpAddr::V6(_)) => word,
            _ => 0,
        };
        let narrow = match view.from {
            IpAddr::V4(_) => (kind, code) == (UNREACHABLE4, TOO_LARGE4),
            IpAddr::V6(_) => kind == TOO_LARGE6,
        };
        if narrow {
            self.take_size(&quoted, info, now);
        }
        self.tell_lost(quoted, Report { from: view.from, kind, code, info });
        Some(())
    }

    /// A packet was too large for its way. Of TCP that is believed only of connections there are.
    fn take_size(&mut self, quoted: &Quoted, told: u32, now: Duration) {
        let (local, remote) = (quoted.local, quoted.remote);
        let known = quoted.protocol != IpProtocol::Tcp || self.connections.find((local, remote)).is_some();
        let at = self.way(local.ip(), remote.ip()).map(|(at, _)| at);
        if let Some(port) = at.and_then(|at| self.ports.get(at)).filter(|_| known) {
            self.paths.told(remote.ip(), told, port.nic.mtu as usize, now);
        }
    }

    /// A packet of ours could not be sent on.
    pub(super) fn lost(&mut self, out: &Outgoing) {
        if let Some(quoted) = Quoted::of(out.packet()) {
            let why = Report::no_host(quoted.local.ip());
            self.tell_lost(quoted, why);
        }
    }

    fn tell_lost(&mut self, quoted: Quoted, why: Report) {
        let Quoted { protocol, local, remote, data } = quoted;
        if protocol == IpProtocol::Tcp {
            // An established connection outlives such errors; one that is not yet does not (RFC 5461).
            let failure = match (why.kind, why.code, local) {
                (UNREACHABLE4, NO_PORT4, SocketAddr::V4(_)) | (UNREACHABLE6, NO_PORT6, SocketAddr::V6(_)) => {
                    Some(Failure::Refused)
                }
                (UNREACHABLE4, TOO_LARGE4, SocketAddr::V4(_)) | (TOO_LARGE6, _, SocketAddr::V6(_)) => None,
                _ => Some(Failure::Unreachable),
            };
            if let Some(failure) = failure {
                self.connect_failed((local, remote), failure);
            }
            if !self.hears {
                return;
            }
        }
        self.events.push(Event::Lost { protocol: protocol.into(), local, remote, why, data });
    }

    /// Has smoltcp answer a packet that is for no socket.
    pub(super) fn offer_to_nobody(&mut self, at: usize, bytes: &[u8], now: Duration) {
        let Some(lane) = self.ports.get_mut(at).and_then(|port| port.lane(usize::MAX)) else { return };
        let mut out = Vec::new();
        let mut device = Port { packet: Some(bytes), out: &mut out, capabilities: &lane.capabilities };
        lane.interface.poll_ingress_single(instant(now), &mut device, &mut self.nothing);
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
    pub(super) fn send_unreachable(&mut self, bytes: &[u8], why: Nobody, now: Duration) {
        if !self.may_complain(now) {
            return;
        }
        let Some(view) = packet::view(bytes) else { return };
        let v4 = view.from.is_ipv4();
        // Of IPv6, what is wrong with a protocol is the byte of the head that names it.
        let (kind, code, pointer) = match (why, v4) {
            (Nobody::HasPort, true) => (UNREACHABLE4, NO_PORT4, 0),
            (Nobody::SpeaksProtocol, true) => (UNREACHABLE4, NO_PROTOCOL4, 0),
            (Nobody::HasPort, false) => (UNREACHABLE6, NO_PORT6, 0),
            (Nobody::SpeaksProtocol, false) => (PROBLEM6, UNKNOWN_NEXT6, NEXT_HEADER_AT),
        };
        let quoted = bytes.get(..if v4 { QUOTED4 } else { QUOTED6 }).unwrap_or(bytes);
        let protocol = if v4 { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
        let shape = Shape { hops: 64, class: 0, ident: self.next_ident() };
        let made = packet::packet(view.to, view.from, protocol, ERROR_HEAD + quoted.len(), shape);
        let Some(mut out) = made else { return };
        out.bytes.truncate(out.bytes.len() - ERROR_HEAD - quoted.len());
        out.bytes.extend([kind, code, 0, 0, 0, 0, 0, pointer].iter().chain(quoted));
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
        let protocol = IpProtocol::from(protocol);
        let (local, remote) = match protocol {
            IpProtocol::Tcp | IpProtocol::Udp => ports(transport)?,
            // The identifier of an echo.
            IpProtocol::Icmp | IpProtocol::Icmpv6 => (ports(transport.get(4..)?)?.0, 0),
            _ => (0, 0),
        };
        let said = if protocol == IpProtocol::Udp { 8 } else { 0 };
        Some(Self {
            protocol,
            local: SocketAddr::new(from, local),
            remote: SocketAddr::new(to, remote),
            data: transport.get(said..).unwrap_or_default().to_vec(),
        })
    }
}
