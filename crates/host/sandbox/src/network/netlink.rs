//! The host's interfaces, addresses, routes and neighbours, asked for by `rtnetlink(7)`.

use std::io::{Error, ErrorKind, Result};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use control::{AddressConfig, LinkConfig, NeighborConfig, NetworkConfig, RouteConfig};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOR: u16 = 28;
const GET_NEIGHBOR: u16 = 30;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// `NLM_F_REQUEST`, with `NLM_F_ACK` and `NLM_F_DUMP`.
const REQUEST_ACK: u16 = 5;
const REQUEST_DUMP: u16 = 0x301;
/// Bytes of a head.
const HEAD: usize = 16;
/// Longest answer in bytes.
const ANSWER: usize = 256 << 10;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
const UP: u32 = 1;
/// `IFF_RUNNING`, `IFF_LOWER_UP`: what is up is shown as connected, though its other end may be late.
const CONNECTED: u32 = 0x1_0040;
/// The table and the type of ordinary routes.
const MAIN: u8 = 254;
const UNICAST: u8 = 1;
/// `NUD_PERMANENT`.
const PERMANENT: u16 = 0x80;
const INET: u8 = 2;
const INET6: u8 = 10;

/// A socket.
pub(super) struct Netlink(OwnedFd);

/// An attribute: its type, and its data.
type Attribute<'a> = (u16, &'a [u8]);

fn attributes(mut bytes: &[u8]) -> Vec<Attribute<'_>> {
    let mut all = Vec::new();
    while let Some([a, b, c, d]) = bytes.first_chunk() {
        let (len, kind) = (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d]) & 0x3fff);
        let Some(data) = bytes.get(4..len) else { break };
        all.push((kind, data));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

fn find<'a>(all: &[Attribute<'a>], kind: u16) -> Option<&'a [u8]> {
    all.iter().find(|(known, _)| *known == kind).map(|(_, data)| *data)
}

fn number(data: &[u8]) -> Option<u32> {
    data.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn address(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => data.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        16 => data.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
        _ => None,
    }
}

fn mac(data: &[u8]) -> Option<[u8; 6]> {
    data.try_into().ok()
}

/// An Ethernet interface that is up, from behind a head.
fn link(body: &[u8]) -> Option<LinkConfig> {
    let hardware = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?);
    let (index, flags) = (number(body.get(4..)?)?, number(body.get(8..)?)?);
    if hardware != ETHERNET || flags & UP == 0 {
        return None;
    }
    let all = attributes(body.get(16..)?);
    let name = find(&all, 3)?.split(|byte| *byte == 0).next()?;
    let name = String::from_utf8_lossy(name).into_owned();
    Some(LinkConfig {
        index,
        name,
        mac: mac(find(&all, 1)?)?,
        mtu: number(find(&all, 4)?)?,
        flags: flags | CONNECTED,
        addresses: Vec::new(),
    })
}

/// An address, and its interface.
fn link_address(body: &[u8]) -> Option<(u32, AddressConfig)> {
    let [_, prefix, _, scope] = *body.first_chunk()?;
    let all = attributes(body.get(8..)?);
    // Of two the first is the other end's, on links that have one.
    let ip = find(&all, 2).or(find(&all, 1)).and_then(address)?;
    Some((number(body.get(4..)?)?, AddressConfig { ip, prefix, scope }))
}

/// An ordinary route.
fn route(body: &[u8]) -> Option<RouteConfig> {
    let [family, prefix, _, _, table, _, _, kind] = *body.first_chunk()?;
    if table != MAIN || kind != UNICAST {
        return None;
    }
    let all = attributes(body.get(12..)?);
    let any = match family {
        INET => IpAddr::from([0; 4]),
        INET6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    Some(RouteConfig {
        to: find(&all, 1).and_then(address).unwrap_or(any),
        prefix,
        gateway: find(&all, 5).and_then(address),
        link: number(find(&all, 4)?)?,
        source: find(&all, 7).and_then(address),
        metric: find(&all, 6).and_then(number).unwrap_or(0),
    })
}

/// A neighbour that stays.
fn neighbor(body: &[u8]) -> Option<NeighborConfig> {
    let state = u16::from_ne_bytes(*body.get(8..)?.first_chunk()?);
    let all = attributes(body.get(12..)?);
    let ip = find(&all, 1).and_then(address).filter(|ip| state & PERMANENT != 0 && !ip.is_multicast())?;
    Some(NeighborConfig { ip, mac: mac(find(&all, 2)?)? })
}

impl Netlink {
    /// Of the calling thread's network namespace.
    pub(super) fn open() -> Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(fd))
    }

    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<(u16, Vec<u8>)>> {
        let len = (HEAD + body.len()) as u32;
        let mut request = len.to_ne_bytes().to_vec();
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&flags.to_ne_bytes());
        request.extend_from_slice(&[0; 8]);
        request.extend_from_slice(body);
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        let (mut all, mut buffer) = (Vec::new(), vec![0; ANSWER]);
        loop {
            let n = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = buffer.get(..n).unwrap_or_default();
            while let Some(head) = rest.first_chunk::<HEAD>() {
                let len = number(head).unwrap_or(0) as usize;
                let kind = u16::from_ne_bytes([head[4], head[5]]);
                let Some(body) = rest.get(HEAD..len) else { return Err(ErrorKind::InvalidData.into()) };
                match kind {
                    DONE => return Ok(all),
                    ERROR => match number(body).map_or(0, |code| code as i32) {
                        0 => return Ok(all),
                        code => return Err(Error::from_raw_os_error(-code)),
                    },
                    _ => all.push((kind, body.to_vec())),
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    /// All answers of kind `wanted`.
    fn dump<T>(&self, kind: u16, wanted: u16, read: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
        let answers = self.ask(kind, REQUEST_DUMP, &[0; 16])?;
        Ok(answers.iter().filter(|(kind, _)| *kind == wanted).filter_map(|(_, body)| read(body)).collect())
    }

    /// Everything that a sandbox can take over.
    pub(super) fn read(&self) -> Result<NetworkConfig> {
        let mut links = self.dump(GET_LINK, NEW_LINK, link)?;
        for (index, address) in self.dump(GET_ADDRESS, NEW_ADDRESS, link_address)? {
            if let Some(link) = links.iter_mut().find(|link| link.index == index) {
                link.addresses.push(address);
            }
        }
        links.retain(|link| !link.addresses.is_empty());
        let known = |index: u32| links.iter().any(|link| link.index == index);
        let mut routes = self.dump(GET_ROUTE, NEW_ROUTE, route)?;
        routes.retain(|route| known(route.link));
        let neighbors = self.dump(GET_NEIGHBOR, NEW_NEIGHBOR, neighbor)?;
        Ok(NetworkConfig { links, routes, neighbors, ..NetworkConfig::default() })
    }

    /// Removes an address from interface `index`.
    pub(super) fn remove(&self, index: u32, address: AddressConfig) -> Result<()> {
        let (family, octets) = match address.ip {
            IpAddr::V4(ip) => (INET, ip.octets().to_vec()),
            IpAddr::V6(ip) => (INET6, ip.octets().to_vec()),
        };
        let mut body = vec![family, address.prefix, 0, 0];
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&(octets.len() as u16 + 4).to_ne_bytes());
        // IFA_LOCAL.
        body.extend_from_slice(&2u16.to_ne_bytes());
        body.extend_from_slice(&octets);
        self.ask(DELETE_ADDRESS, REQUEST_ACK, &body).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::{Netlink, attributes, link, link_address, neighbor, route};

    #[test]
    fn the_machines_own_are_read() {
        // Whatever there is; without privileges, and changing nothing.
        let config = Netlink::open().and_then(|netlink| netlink.read()).expect("an answer");
        assert!(config.links.iter().all(|link| link.name != "lo" && !link.addresses.is_empty()));
    }

    #[test]
    fn what_is_cut_short_is_nothing() {
        for len in 0..40 {
            let bytes = vec![1; len];
            assert!(link(&bytes).is_none() && link_address(&bytes).is_none());
            assert!(route(&bytes).is_none() && neighbor(&bytes).is_none());
        }
        assert_eq!(
            attributes(&[8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9]),
            [(1, &[1, 2, 3, 4][..]), (2, &[9][..])]
        );
        assert!(attributes(&[3, 0, 1, 0]).is_empty());
    }
}
