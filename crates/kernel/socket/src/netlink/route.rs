//! Requests of `rtnetlink(7)`, and their answers.

use std::net::{IpAddr, Ipv6Addr};

use super::ways::{self, Near, Way};
use abi::Errno;
use abi::socket::{AF_INET, AF_INET6};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Messages with answers: `RTM_NEWLINK` and `RTM_GETLINK`, ...
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOR: u16 = 28;
const GET_NEIGHBOR: u16 = 30;
/// Up to here messages are the protocol's own.
const MIN_KIND: u16 = 16;
const MAX_KIND: u16 = 127;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const REQUEST: u16 = 1;
const MULTI: u16 = 2;
const ACK: u16 = 4;
/// `NLM_F_DUMP`; either bit of it means one.
pub(super) const DUMP: u16 = 0x300;

const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFF_RUNNING: u32 = 0x40;
const IFF_LOWER_UP: u32 = 0x1_0000;
/// `IFA_F_PERMANENT`.
const PERMANENT: u8 = 0x80;
const SCOPE_HOST: u8 = 254;
/// Bytes of a dump after which another datagram begins: readers have room for 32 KiB.
const DUMP_BYTES: usize = 16_384;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Head {
    len: u32,
    pub(super) kind: u16,
    pub(super) flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct ifinfomsg`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct LinkHead {
    family: u8,
    pad: u8,
    hardware: u16,
    index: u32,
    flags: u32,
    change: u32,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
    /// Where it is valid (`RT_SCOPE_*`).
    pub scope: u8,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number, from 1.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `ARPHRD_*`.
    pub hardware: u16,
    /// `IFF_*`.
    pub flags: u32,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Its addresses.
    pub addresses: Vec<Address>,
}

impl Link {
    /// Whether it leads nowhere but here.
    pub(crate) fn is_loopback(&self) -> bool {
        self.flags & IFF_LOOPBACK != 0
    }
}

/// The interfaces of a network namespace.
pub trait Links: Send + Sync {
    /// All of them, by index.
    fn links(&self) -> Vec<Link>;

    /// Ways out of them.
    fn ways(&self) -> Vec<Way> {
        Vec::new()
    }

    /// Who is known to be on them.
    fn near(&self) -> Vec<Near> {
        Vec::new()
    }

    /// The way to `to`, and whether that is one of their own addresses.
    ///
    /// # Errors
    /// `ENETUNREACH` when there is none.
    fn way_to(&self, _to: IpAddr) -> Result<(Way, bool), Errno> {
        Err(Errno::ENETUNREACH)
    }
}

/// Only `lo`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loopback;

impl Links for Loopback {
    fn links(&self) -> Vec<Link> {
        let four = Address { ip: IpAddr::from([127, 0, 0, 1]), prefix: 8, scope: SCOPE_HOST };
        let six = Address { ip: Ipv6Addr::LOCALHOST.into(), prefix: 128, scope: SCOPE_HOST };
        vec![Link {
            index: 1,
            name: "lo".to_owned(),
            hardware: 772,
            flags: IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP,
            mtu: 65_536,
            mac: [0; 6],
            addresses: vec![four, six],
        }]
    }
}

/// Appends an attribute: length, type, data, padding.
pub(super) fn attribute(out: &mut Vec<u8>, kind: u16, data: &[u8]) {
    out.extend_from_slice(&((data.len() + 4) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn text(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// One message: `payload` behind a head that answers `to`.
pub(super) fn message(to: &Head, port: u32, kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let len = size_of::<Head>() + payload.len();
    let head = Head { len: len as u32, kind, flags, sequence: to.sequence, port };
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

/// The end of a dump.
pub(super) fn done(to: &Head, port: u32) -> Vec<u8> {
    message(to, port, DONE, MULTI, &0i32.to_ne_bytes())
}

fn link_payload(link: &Link) -> Vec<u8> {
    let Link { index, hardware, flags, .. } = *link;
    let head = LinkHead { hardware, index, flags, ..LinkHead::default() };
    let mut out = head.as_bytes().to_vec();
    attribute(&mut out, 3, &text(&link.name));
    attribute(&mut out, 13, &1000u32.to_ne_bytes());
    // IFLA_OPERSTATE: loopback does not know, the others are up.
    attribute(&mut out, 16, &[if flags & IFF_LOOPBACK != 0 { 0 } else { 6 }]);
    attribute(&mut out, 17, &[0]);
    attribute(&mut out, 4, &link.mtu.to_ne_bytes());
    attribute(&mut out, 6, &text("noqueue"));
    attribute(&mut out, 1, &link.mac);
    let broadcast = if flags & IFF_LOOPBACK != 0 { [0; 6] } else { [0xff; 6] };
    attribute(&mut out, 2, &broadcast);
    // IFLA_GROUP.
    attribute(&mut out, 27, &0u32.to_ne_bytes());
    out
}

fn address_payload(link: &Link, address: &Address) -> Vec<u8> {
    let (family, ip) = match address.ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let mut out = vec![family as u8, address.prefix, PERMANENT, address.scope];
    out.extend_from_slice(&link.index.to_ne_bytes());
    attribute(&mut out, 1, &ip);
    if family == AF_INET {
        attribute(&mut out, 2, &ip);
        if let Some(all) = crate::inet::broadcast(address).filter(|_| link.flags & IFF_LOOPBACK == 0) {
            attribute(&mut out, 4, &all.octets());
        }
        attribute(&mut out, 3, &text(&link.name));
    }
    attribute(&mut out, 8, &u32::from(PERMANENT).to_ne_bytes());
    // IFA_CACHEINFO: valid and preferred for ever, as of the start.
    let lifetimes = [u32::MAX, u32::MAX, 0, 0].map(u32::to_ne_bytes).concat();
    attribute(&mut out, 6, &lifetimes);
    out
}

/// Datagrams that answer all messages in `request`.
pub(super) fn answer(request: &[u8], port: u32, privileged: bool, links: &dyn Links) -> Vec<Vec<u8>> {
    answer_each(request, port, |head, payload, out| one(head, payload, port, privileged, links, out))
}

/// Datagrams that answer all messages in `request`, each by `one`.
pub(super) fn answer_each(
    mut request: &[u8],
    port: u32,
    mut one: impl FnMut(&Head, &[u8], &mut Vec<Vec<u8>>) -> Result<(), Errno>,
) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Ok((head, _)) = Head::read_from_prefix(request) {
        let len = head.len as usize;
        let Some(payload) = request.get(size_of::<Head>()..len) else { break };
        let result = if head.flags & REQUEST != 0 && head.kind >= MIN_KIND {
            one(&head, payload, &mut out)
        } else {
            Ok(())
        };
        let dumped = head.flags & DUMP != 0 && result.is_ok();
        if result.is_err() || (head.flags & ACK != 0 && !dumped) {
            let whole = request.get(..len).unwrap_or_default();
            out.push(report(&head, whole, port, result));
        }
        let Some(next) = request.get(len.next_multiple_of(4)..) else { break };
        request = next;
    }
    out
}

/// `NLMSG_ERROR`: an error with the whole request, or an acknowledgement with its head.
fn report(head: &Head, request: &[u8], port: u32, result: Result<(), Errno>) -> Vec<u8> {
    let (code, quoted) = match result {
        Ok(()) => (0, request.get(..size_of::<Head>()).unwrap_or_default()),
        Err(errno) => (-i32::from(errno.raw()), request),
    };
    let mut payload = code.to_ne_bytes().to_vec();
    payload.extend_from_slice(quoted);
    message(head, port, ERROR, 0, &payload)
}

/// Answers one request of the protocol.
fn one(
    head: &Head,
    payload: &[u8],
    port: u32,
    privileged: bool,
    network: &dyn Links,
    out: &mut Vec<Vec<u8>>,
) -> Result<(), Errno> {
    // Every third kind, from the third on, asks; the others change something.
    let asks = head.kind & 3 == 2;
    if head.kind > MAX_KIND {
        return Err(Errno::EOPNOTSUPP);
    }
    if !asks {
        return Err(if privileged { Errno::EOPNOTSUPP } else { Errno::EPERM });
    }
    let family = payload.first().copied().unwrap_or(0);
    let links = network.links();
    if head.flags & DUMP != 0 {
        let parts: Vec<(u16, Vec<u8>)> = match head.kind {
            GET_ROUTE => ways::routes(&network.ways(), family).map(|payload| (NEW_ROUTE, payload)).collect(),
            GET_NEIGHBOR => {
                ways::neighbors(&network.near(), family).map(|payload| (NEW_NEIGHBOR, payload)).collect()
            }
            GET_LINK => links.iter().map(|link| (NEW_LINK, link_payload(link))).collect(),
            GET_ADDRESS => addresses(&links, family).map(|payload| (NEW_ADDRESS, payload)).collect(),
            // Rules and others: none that anybody could see.
            _ => Vec::new(),
        };
        let mut dump = Vec::new();
        for (kind, payload) in parts {
            if dump.len() >= DUMP_BYTES {
                out.push(std::mem::take(&mut dump));
            }
            dump.extend(message(head, port, kind, MULTI, &payload));
        }
        if !dump.is_empty() {
            out.push(dump);
        }
        out.push(done(head, port));
        return Ok(());
    }
    if head.kind == GET_ROUTE {
        let to = ways::asked_for(payload)?;
        let (way, local) = network.way_to(to)?;
        out.push(message(head, port, NEW_ROUTE, 0, &ways::route_to(to, &way, local)));
        return Ok(());
    }
    if head.kind != GET_LINK {
        return Err(Errno::EOPNOTSUPP);
    }
    let link = asked_for(payload, &links)?;
    out.push(message(head, port, NEW_LINK, 0, &link_payload(link)));
    Ok(())
}

fn addresses(links: &[Link], family: u8) -> impl Iterator<Item = Vec<u8>> {
    let fits = move |address: &&Address| match address.ip {
        IpAddr::V4(_) => family == 0 || family == AF_INET as u8,
        IpAddr::V6(_) => family == 0 || family == AF_INET6 as u8,
    };
    links.iter().flat_map(move |link| {
        link.addresses.iter().filter(fits).map(move |address| address_payload(link, address))
    })
}

/// The interface a `RTM_GETLINK` names by index, or by name in an attribute.
fn asked_for<'a>(payload: &[u8], links: &'a [Link]) -> Result<&'a Link, Errno> {
    let (head, mut rest) = LinkHead::read_from_prefix(payload).map_err(|_| Errno::EINVAL)?;
    if head.index != 0 {
        return links.iter().find(|link| link.index == head.index).ok_or(Errno::ENODEV);
    }
    while let Some([a, b, c, d]) = rest.first_chunk() {
        let (len, kind) = (u16::from_ne_bytes([*a, *b]), u16::from_ne_bytes([*c, *d]));
        let Some(data) = rest.get(4..usize::from(len)) else { break };
        // IFLA_IFNAME and IFLA_ALT_IFNAME.
        if kind == 3 || kind == 53 {
            let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
            return links.iter().find(|link| link.name.as_bytes() == name).ok_or(Errno::ENODEV);
        }
        rest = rest.get(usize::from(len).next_multiple_of(4)..).unwrap_or_default();
    }
    Err(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::{DONE, DUMP, ERROR, GET_ADDRESS, GET_LINK, Head, Loopback, NEW_ADDRESS, NEW_LINK, REQUEST};
    use zerocopy::{FromBytes, IntoBytes};

    fn ask(kind: u16, flags: u16, payload: &[u8]) -> Vec<(u16, Vec<u8>)> {
        let len = (size_of::<Head>() + payload.len()) as u32;
        let head = Head { len, kind, flags: flags | REQUEST, sequence: 7, port: 0 };
        let request = [head.as_bytes(), payload].concat();
        let answers = super::answer(&request, 42, false, &Loopback);
        let kinds = answers.into_iter().map(|bytes| {
            let (head, rest) = Head::read_from_prefix(&bytes).expect("a head");
            assert_eq!((head.sequence, head.port), (7, 42));
            (head.kind, rest.to_vec())
        });
        kinds.collect()
    }

    #[test]
    fn dumps_end_with_done() {
        let kinds = |kind, payload: &[u8]| ask(kind, DUMP, payload).into_iter().map(|(kind, _)| kind);
        assert!(kinds(GET_LINK, &[0; 16]).eq([NEW_LINK, DONE]));
        assert!(kinds(GET_ADDRESS, &[2]).eq([NEW_ADDRESS, DONE]));
        assert!(kinds(GET_ADDRESS, &[10]).eq([NEW_ADDRESS, DONE]));
        assert!(kinds(26, &[0; 12]).eq([DONE]));
    }

    #[test]
    fn one_is_found_by_index_or_not_at_all() {
        let mut payload = [0; 16];
        payload[4] = 1;
        let found = ask(GET_LINK, 0, &payload);
        assert!(found[0].0 == NEW_LINK && found[0].1.windows(3).any(|bytes| bytes == b"lo\0"));
        payload[4] = 9;
        let (kind, error) = ask(GET_LINK, 0, &payload).remove(0);
        assert_eq!((kind, &error[..4]), (ERROR, &(-19i32).to_ne_bytes()[..]));
        let (kind, error) = ask(NEW_LINK, 0, &payload).remove(0);
        assert_eq!((kind, &error[..4]), (ERROR, &(-1i32).to_ne_bytes()[..]));
    }

    #[test]
    fn what_is_cut_short_is_let_go() {
        assert!(super::answer(&[0; 15], 1, false, &Loopback).is_empty());
        assert!(super::answer(&[0; 16], 1, false, &Loopback).is_empty());
        assert!(super::answer(&[255; 64], 1, false, &Loopback).is_empty());
    }
}
