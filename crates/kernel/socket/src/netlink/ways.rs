//! Routes and neighbours as `rtnetlink(7)` and `/proc/net` tell of them.

use std::net::IpAddr;

use abi::Errno;
use abi::socket::{AF_INET, AF_INET6};

use super::route::attribute;

/// `RT_TABLE_MAIN`.
const MAIN: u8 = 254;
/// `RTPROT_KERNEL`, `RTPROT_BOOT`.
const KERNEL: u8 = 2;
const BOOT: u8 = 3;
/// `RT_SCOPE_UNIVERSE`, `RT_SCOPE_LINK`.
const UNIVERSE: u8 = 0;
const LINK: u8 = 253;
/// `RTN_UNICAST`, `RTN_LOCAL`.
const UNICAST: u8 = 1;
const LOCAL: u8 = 2;
/// `RTM_F_CLONED`.
const CLONED: u32 = 0x200;
/// `NUD_REACHABLE`, `NUD_PERMANENT`.
const REACHABLE: u16 = 2;
const PERMANENT: u16 = 0x80;

const DESTINATION: u16 = 1;
const OUT: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
const SOURCE: u16 = 7;
const TABLE: u16 = 15;

/// A way to somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where it leads, and how many bits of that count.
    pub to: IpAddr,
    /// Bits of it.
    pub prefix: u8,
    /// Who is next; `None`: the destination itself.
    pub gateway: Option<IpAddr>,
    /// Number of the interface.
    pub link: u32,
    /// The address packets come from.
    pub source: Option<IpAddr>,
    /// Of two equal ones that with less is taken.
    pub metric: u32,
}

/// Somebody on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// Its address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Number of the interface.
    pub link: u32,
    /// It was told from the start, and stays.
    pub permanent: bool,
}

fn family(ip: IpAddr) -> u8 {
    (if ip.is_ipv4() { AF_INET } else { AF_INET6 }) as u8
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Does a request for `asked`, or for all, mean `ip`?
fn fits(asked: u8, ip: IpAddr) -> bool {
    asked == 0 || asked == family(ip)
}

fn head(way: &Way, prefix: u8, kind: u8, flags: u32) -> Vec<u8> {
    let protocol = if way.gateway.is_some() { BOOT } else { KERNEL };
    let scope = if way.gateway.is_some() || kind == LOCAL { UNIVERSE } else { LINK };
    // Of IPv6 every route is of the universe.
    let scope = if way.to.is_ipv6() { UNIVERSE } else { scope };
    let mut out = vec![family(way.to), prefix, 0, 0, MAIN, protocol, scope, kind];
    out.extend_from_slice(&flags.to_ne_bytes());
    attribute(&mut out, TABLE, &u32::from(MAIN).to_ne_bytes());
    out
}

fn rest(out: &mut Vec<u8>, way: &Way) {
    if way.metric != 0 {
        attribute(out, PRIORITY, &way.metric.to_ne_bytes());
    }
    if let Some(gateway) = way.gateway {
        attribute(out, GATEWAY, &octets(gateway));
    }
    if let Some(source) = way.source {
        attribute(out, SOURCE, &octets(source));
    }
    attribute(out, OUT, &way.link.to_ne_bytes());
}

/// Payloads of `RTM_NEWROUTE` for a dump.
pub(super) fn routes(ways: &[Way], asked: u8) -> impl Iterator<Item = Vec<u8>> {
    ways.iter().filter(move |way| fits(asked, way.to)).map(|way| {
        let mut out = head(way, way.prefix, UNICAST, 0);
        if way.prefix > 0 {
            attribute(&mut out, DESTINATION, &octets(way.to));
        }
        rest(&mut out, way);
        out
    })
}

/// The destination a `RTM_GETROUTE` asks about. `EINVAL` without one.
pub(super) fn asked_for(payload: &[u8]) -> Result<IpAddr, Errno> {
    let family = u16::from(*payload.first().ok_or(Errno::EINVAL)?);
    let mut left = payload.get(12..).ok_or(Errno::EINVAL)?;
    while let Some([a, b, c, d]) = left.first_chunk() {
        let (len, kind) = (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d]));
        let data = left.get(4..len).ok_or(Errno::EINVAL)?;
        if kind == DESTINATION {
            return match family {
                AF_INET => data.first_chunk::<4>().map(|ip| IpAddr::from(*ip)).ok_or(Errno::EINVAL),
                AF_INET6 => data.first_chunk::<16>().map(|ip| IpAddr::from(*ip)).ok_or(Errno::EINVAL),
                _ => Err(Errno::EOPNOTSUPP),
            };
        }
        left = left.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(Errno::EINVAL)
}

/// The payload that tells which `way` leads to `to`; a way with `local` ends in the sandbox.
pub(super) fn route_to(to: IpAddr, way: &Way, local: bool) -> Vec<u8> {
    let bits = if to.is_ipv4() { 32 } else { 128 };
    let mut out = head(&Way { to, ..*way }, bits, if local { LOCAL } else { UNICAST }, CLONED);
    attribute(&mut out, DESTINATION, &octets(to));
    rest(&mut out, way);
    out
}

/// Payloads of `RTM_NEWNEIGH` for a dump.
pub(super) fn neighbors(all: &[Near], asked: u8) -> impl Iterator<Item = Vec<u8>> {
    all.iter().filter(move |near| fits(asked, near.ip)).map(|near| {
        let mut out = vec![family(near.ip), 0, 0, 0];
        out.extend_from_slice(&near.link.to_ne_bytes());
        let state = if near.permanent { PERMANENT } else { REACHABLE };
        out.extend_from_slice(&state.to_ne_bytes());
        out.extend_from_slice(&[0, UNICAST]);
        attribute(&mut out, 1, &octets(near.ip));
        attribute(&mut out, 2, &near.mac);
        out
    })
}
