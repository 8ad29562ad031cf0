//! Control data of datagrams (`ip(7)`, `ipv6(7)`): what a sender says with one, and a receiver is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::UNIX_EPOCH;

use abi::Errno;
use abi::socket::MsgFlags;
use guestmem::IoSink;
use vfs::Result;

use super::options::{IpFlags, IpOptions, SOL_IP, SOL_IPV6};
use super::udp::{Datagram, Failure};
use super::{Network, address};
use crate::options::SOL_SOCKET;
use crate::{Ancillary, Control, Received};

const IP_TOS: i32 = 1;
const IP_TTL: i32 = 2;
const IP_PKTINFO: i32 = 8;
const IP_RECVERR: i32 = 11;
const IP_ORIGDSTADDR: i32 = 20;
const IPV6_RECVERR: i32 = 25;
const IPV6_PKTINFO: i32 = 50;
const IPV6_HOPLIMIT: i32 = 52;
const IPV6_TCLASS: i32 = 67;
const IPV6_ORIGDSTADDR: i32 = 74;
const SCM_TIMESTAMP: i32 = 29;
const SCM_TIMESTAMPNS: i32 = 35;
const SO_RXQ_OVFL: i32 = 40;
/// `SO_EE_ORIGIN_ICMP`, `SO_EE_ORIGIN_ICMP6`.
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;

/// How one datagram goes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    /// The address it comes from, when the message says so.
    pub(super) source: Option<IpAddr>,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    /// Bytes of each datagram that is made of the message; 0: one.
    pub(super) segment: u16,
    /// A multicast packet comes back.
    pub(super) loops: bool,
}

fn int(data: &[u8]) -> Result<i32> {
    data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno::EINVAL)
}

/// From options and control data.
pub(super) fn outgoing(
    network: &Network,
    options: &IpOptions,
    to: SocketAddr,
    segment: u16,
    ancillary: &Ancillary,
) -> Result<Sending> {
    let multicast = to.ip().is_multicast();
    let (ttl, tos, loops) = match to.ip() {
        IpAddr::V4(_) if multicast => (options.multicast_ttl, options.tos, IpFlags::MULTICAST_LOOP),
        IpAddr::V4(_) => (options.ttl.unwrap_or(64), options.tos, IpFlags::MULTICAST_LOOP),
        IpAddr::V6(_) if multicast => (options.multicast_hops, options.tclass, IpFlags::MULTICAST_LOOP6),
        IpAddr::V6(_) => (options.hops.unwrap_or(64), options.tclass, IpFlags::MULTICAST_LOOP6),
    };
    let mut sending = Sending { source: None, ttl, tos, segment, loops: options.flags.contains(loops) };
    for Control { level, kind, data } in &ancillary.other {
        match (*level, *kind) {
            (SOL_IP, IP_TTL) => {
                sending.ttl = u8::try_from(int(data)?).ok().filter(|ttl| *ttl > 0).ok_or(Errno::EINVAL)?;
            }
            (SOL_IP, IP_TOS) => {
                let tos =
                    int(data).or_else(|_| data.first().map(|tos| i32::from(*tos)).ok_or(Errno::EINVAL))?;
                sending.tos = u8::try_from(tos).map_err(|_| Errno::EINVAL)?;
            }
            (SOL_IP, IP_PKTINFO) => {
                let index = int(data)?;
                let source: [u8; 4] = chunk(data, 4)?;
                sending.source = wanted(network, index, Ipv4Addr::from(source).into())?;
            }
            (SOL_IPV6, IPV6_PKTINFO) => {
                let source: [u8; 16] = chunk(data, 0)?;
                let index = int(data.get(16..).unwrap_or_default())?;
                sending.source = wanted(network, index, address::unmapped(Ipv6Addr::from(source).into()))?;
            }
            (SOL_IPV6, IPV6_HOPLIMIT) => match int(data)? {
                -1 => {}
                hops => sending.ttl = u8::try_from(hops).map_err(|_| Errno::EINVAL)?,
            },
            (SOL_IPV6, IPV6_TCLASS) => match int(data)? {
                -1 => {}
                class => sending.tos = u8::try_from(class).map_err(|_| Errno::EINVAL)?,
            },
            (SOL_UDP, UDP_SEGMENT) => {
                let size = data.first_chunk().filter(|_| data.len() == 2).ok_or(Errno::EINVAL)?;
                sending.segment = u16::from_ne_bytes(*size);
            }
            (SOL_IP | SOL_IPV6 | SOL_UDP, _) => return Err(Errno::EINVAL),
            _ => {}
        }
    }
    Ok(sending)
}

fn chunk<const N: usize>(data: &[u8], at: usize) -> Result<[u8; N]> {
    data.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Errno::EINVAL)
}

/// The source that a packet info asks for: its address, or one of its interface.
fn wanted(network: &Network, index: i32, ip: IpAddr) -> Result<Option<IpAddr>> {
    if !ip.is_unspecified() {
        return if network.is_local(ip) { Ok(Some(ip)) } else { Err(Errno::EINVAL) };
    }
    let index = u32::try_from(index).map_err(|_| Errno::EINVAL)?;
    if index == 0 {
        return Ok(None);
    }
    // An interface without an address leaves the choice as it is.
    Ok(network.address_of(index, ip.is_ipv6()))
}

/// What a receiver wants beside the options of IP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    /// It is a socket of `AF_INET6`.
    pub(super) v6: bool,
    /// The time of arrival, and in nanoseconds.
    pub(super) stamp: bool,
    pub(super) nanos: bool,
    /// How many were lost.
    pub(super) drops: Option<u32>,
}

/// What is told with a datagram, in Linux's order.
pub(super) fn incoming(options: &IpOptions, datagram: &Datagram, wishes: Wishes) -> Vec<Control> {
    let mut out = Vec::new();
    let mut tell = |level, kind, data: &[u8]| out.push(Control { level, kind, data: data.to_vec() });
    if wishes.stamp {
        let at = datagram.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let part = if wishes.nanos { u64::from(at.subsec_nanos()) } else { u64::from(at.subsec_micros()) };
        let kind = if wishes.nanos { SCM_TIMESTAMPNS } else { SCM_TIMESTAMP };
        tell(SOL_SOCKET, kind, &[at.as_secs().to_ne_bytes(), part.to_ne_bytes()].concat());
    }
    if let Some(drops) = wishes.drops {
        tell(SOL_SOCKET, SO_RXQ_OVFL, &drops.to_ne_bytes());
    }
    let has = |flag| options.flags.contains(flag);
    let to = datagram.to;
    if wishes.v6 {
        let number = |byte: u8| i32::from(byte).to_ne_bytes();
        if has(IpFlags::PKTINFO6) {
            let ip = match to.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let mut info = ip.octets().to_vec();
            info.extend_from_slice(&datagram.interface.to_ne_bytes());
            tell(SOL_IPV6, IPV6_PKTINFO, &info);
        }
        if to.is_ipv6() {
            if has(IpFlags::HOPLIMIT6) {
                tell(SOL_IPV6, IPV6_HOPLIMIT, &number(datagram.ttl));
            }
            if has(IpFlags::TCLASS6) {
                tell(SOL_IPV6, IPV6_TCLASS, &number(datagram.tos));
            }
        }
        if has(IpFlags::ORIGDST6) {
            tell(SOL_IPV6, IPV6_ORIGDSTADDR, &address::shown(true, to));
        }
    }
    if let IpAddr::V4(ip) = to.ip() {
        if has(IpFlags::PKTINFO) {
            let mut info = datagram.interface.to_ne_bytes().to_vec();
            // The address it was delivered at, and the one in its head: the same but for multicast.
            info.extend_from_slice(&if ip.is_multicast() { [127, 0, 0, 1] } else { ip.octets() });
            info.extend_from_slice(&ip.octets());
            tell(SOL_IP, IP_PKTINFO, &info);
        }
        if has(IpFlags::RECVTTL) {
            tell(SOL_IP, IP_TTL, &i32::from(datagram.ttl).to_ne_bytes());
        }
        if has(IpFlags::RECVTOS) {
            tell(SOL_IP, IP_TOS, &[datagram.tos]);
        }
        if has(IpFlags::ORIGDST) {
            tell(SOL_IP, IP_ORIGDSTADDR, &address::shown(false, to));
        }
    }
    out
}

/// Hands an error over, with what it is about (`MSG_ERRQUEUE`).
pub(super) fn receive_failure(v6: bool, failure: &Failure, sink: &mut dyn IoSink) -> Result<Received> {
    let other = vec![self::failure(v6, failure)];
    let bytes = sink.put_all(&failure.data)?;
    let mut flags = MsgFlags::ERRQUEUE;
    flags.set(MsgFlags::TRUNC, bytes < failure.data.len());
    let ancillary = Ancillary { other, ..Ancillary::default() };
    let from = Some(address::shown(v6, failure.to));
    Ok(Received { bytes, full_len: failure.data.len(), ancillary, from, flags, end: false })
}

/// `struct sock_extended_err` of what was said about a packet, and the address of who said so.
fn failure(v6: bool, failure: &Failure) -> Control {
    let report = &failure.report;
    let origin = if report.from.is_ipv4() { ORIGIN_ICMP } else { ORIGIN_ICMP6 };
    let mut data = u32::from(failure.errno.raw()).to_ne_bytes().to_vec();
    data.extend_from_slice(&[origin, report.kind, report.code, 0]);
    data.extend_from_slice(&report.info.to_ne_bytes());
    data.extend_from_slice(&[0; 4]);
    let offender = SocketAddr::new(report.from, 0);
    data.extend_from_slice(&address::shown(v6 && report.from.is_ipv6(), offender));
    let (level, kind) = if v6 { (SOL_IPV6, IPV6_RECVERR) } else { (SOL_IP, IP_RECVERR) };
    Control { level, kind, data }
}
