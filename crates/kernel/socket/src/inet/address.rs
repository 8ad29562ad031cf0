//! `sockaddr_in` and `sockaddr_in6`, read and written.
//!
//! Inside, an address mapped from IPv4 (`::ffff:a.b.c.d`) is the IPv4 address, whatever the socket's family;
//! only here it is told apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use abi::Errno;
use abi::socket::{AF_INET, AF_INET6, AF_UNSPEC};
use vfs::Result;

use crate::family;

/// Bytes of a `sockaddr_in`.
const LEN4: usize = 16;
/// Bytes of a `sockaddr_in6`, and without its scope (RFC 2133), which is enough.
const LEN6: usize = 28;
const LEN6_SHORT: usize = 24;

/// Is it `AF_UNSPEC`, by which `connect(2)` dissolves a connection? `EINVAL` without bytes for a family.
pub(super) fn is_unspecified(address: &[u8]) -> Result<bool> {
    family(address).map(|family| family == AF_UNSPEC).ok_or(Errno::EINVAL)
}

/// Parses for a socket of IPv4 what has no family but is long enough for one of IPv4, as Linux takes it; `None`
/// for anything else.
pub(super) fn parse_unspecified(v6: bool, address: &[u8]) -> Option<Result<SocketAddr>> {
    if v6 || address.len() < LEN4 || family(address) != Some(AF_UNSPEC) {
        return None;
    }
    let mut address = address.to_vec();
    address.splice(..2, AF_INET.to_ne_bytes());
    Some(parse(false, &address))
}

fn chunk<const N: usize>(address: &[u8], at: usize) -> Result<[u8; N]> {
    address.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Errno::EINVAL)
}

/// The IPv4 address behind a mapped one.
pub(super) fn unmapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// Parses for a socket of IPv6 (`v6`) or IPv4. `EINVAL` for one that is too short, `EAFNOSUPPORT` for one of
/// another family.
pub(super) fn parse(v6: bool, address: &[u8]) -> Result<SocketAddr> {
    let (least, wanted) = if v6 { (LEN6_SHORT, AF_INET6) } else { (LEN4, AF_INET) };
    if address.len() < least {
        return Err(Errno::EINVAL);
    }
    if family(address) != Some(wanted) {
        return Err(Errno::EAFNOSUPPORT);
    }
    let port = u16::from_be_bytes(chunk(address, 2)?);
    if !v6 {
        return Ok(SocketAddr::new(Ipv4Addr::from(chunk::<4>(address, 4)?).into(), port));
    }
    let ip = Ipv6Addr::from(chunk::<16>(address, 8)?);
    let scope = chunk(address, 24).map(u32::from_ne_bytes).unwrap_or(0);
    Ok(match unmapped(IpAddr::V6(ip)) {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), port),
        // A scope says something of link-local addresses only.
        IpAddr::V6(_) => {
            let scope = if is_link_local(ip) { scope } else { 0 };
            SocketAddrV6::new(ip, port, 0, scope).into()
        }
    })
}

/// As a datagram socket takes it: one of IPv6 also in the form of IPv4.
pub(super) fn parse_datagram(v6: bool, address: &[u8]) -> Result<SocketAddr> {
    if v6 && family(address) == Some(AF_INET) { parse(false, address) } else { parse(v6, address) }
}

/// `fe80::/10`.
pub(super) fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// As a socket of IPv6 (`v6`) or IPv4 shows it.
pub(super) fn shown(v6: bool, address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LEN6);
    bytes.extend_from_slice(&(if v6 { AF_INET6 } else { AF_INET }).to_ne_bytes());
    bytes.extend_from_slice(&address.port().to_be_bytes());
    if v6 {
        let (ip, scope) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&ip.octets());
        bytes.extend_from_slice(&scope.to_ne_bytes());
    } else {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        bytes.extend_from_slice(&ip.octets());
        bytes.resize(LEN4, 0);
    }
    bytes
}

/// What a socket that has no address shows.
pub(super) fn nothing(v6: bool) -> SocketAddr {
    SocketAddr::new(any(v6), 0)
}

/// The unspecified address.
pub(super) fn any(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_datagram, shown};
    use abi::Errno;

    #[test]
    fn what_is_read_is_shown_again() {
        let four = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let parsed = parse(false, &four).expect("an address");
        assert_eq!((parsed.to_string().as_str(), shown(false, parsed)), ("127.0.0.1:8080", four.to_vec()));
        let mapped = shown(true, parsed);
        assert_eq!(mapped.len(), 28);
        assert_eq!((parse(true, &mapped), parse_datagram(true, &four)), (Ok(parsed), Ok(parsed)));
        assert_eq!(parse(true, &four), Err(Errno::EINVAL));
        assert_eq!(parse(false, &mapped), Err(Errno::EAFNOSUPPORT));
        assert_eq!(parse(false, &four[..15]), Err(Errno::EINVAL));
        assert!(parse(true, &mapped[..24]).is_ok());
    }
}
