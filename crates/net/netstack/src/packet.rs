//! IP packets as bytes: reading what is needed to pass them on, making those of UDP, checksums, fragments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use crate::vnet::{self, VnetHeader};

/// Bytes of an Ethernet head.
pub(crate) const ETHERNET: usize = 14;
/// Room before an IP packet on its way out.
pub(crate) const HEADROOM: usize = vnet::LEN + ETHERNET;
/// Bytes of the heads of IPv4, IPv6, its fragments and UDP.
const HEAD4: usize = 20;
const HEAD6: usize = 40;
const FRAGMENT6: usize = 8;
const UDP_HEAD: usize = 8;
/// Most extension headers of IPv6 that are looked at.
const MAX_EXTENSIONS: usize = 4;

/// A packet on its way out: room for the link's heads, then the packet.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// [`HEADROOM`] bytes of room, and the packet.
    pub(crate) bytes: Vec<u8>,
    /// What the device is to do.
    pub(crate) vnet: VnetHeader,
}

impl Outgoing {
    /// The packet.
    pub(crate) fn packet(&self) -> &[u8] {
        self.bytes.get(HEADROOM..).unwrap_or_default()
    }
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The number all fragments of a packet have.
    pub(crate) ident: u32,
    /// Bytes before it.
    pub(crate) offset: usize,
    /// There are more behind it.
    pub(crate) more: bool,
}

/// What is to be known of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: IpProtocol,
    pub(crate) hops: u8,
    pub(crate) class: u8,
    /// It is only a part.
    pub(crate) piece: Option<Piece>,
    /// The packet, without what the link has padded it with.
    pub(crate) whole: &'a [u8],
    /// What it carries.
    pub(crate) payload: &'a [u8],
}

/// Reads a packet; `None` for one that is no sensible one.
pub(crate) fn view(bytes: &[u8]) -> Option<View<'_>> {
    match bytes.first()? >> 4 {
        4 => view4(bytes),
        6 => view6(bytes),
        _ => None,
    }
}

fn view4(bytes: &[u8]) -> Option<View<'_>> {
    let packet = Ipv4Packet::new_checked(bytes).ok()?;
    if usize::from(packet.header_len()) < HEAD4 || !packet.verify_checksum() {
        return None;
    }
    let (more, offset) = (packet.more_frags(), usize::from(packet.frag_offset()));
    let ident = u32::from(packet.ident());
    Some(View {
        from: packet.src_addr().into(),
        to: packet.dst_addr().into(),
        protocol: packet.next_header(),
        hops: packet.hop_limit(),
        class: packet.dscp() << 2 | packet.ecn(),
        piece: (more || offset != 0).then_some(Piece { ident, offset, more }),
        whole: bytes.get(..usize::from(packet.total_len()))?,
        payload: packet.payload(),
    })
}

fn view6(bytes: &[u8]) -> Option<View<'_>> {
    let packet = Ipv6Packet::new_checked(bytes).ok()?;
    let (mut protocol, mut payload, mut piece) = (packet.next_header(), packet.payload(), None);
    for _ in 0..MAX_EXTENSIONS {
        match protocol {
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {
                let [next, len] = *payload.first_chunk()?;
                protocol = IpProtocol::from(next);
                payload = payload.get((usize::from(len) + 1) * 8..)?;
            }
            IpProtocol::Ipv6Frag => {
                let ([next, _, a, b, c, d, e, f], rest) = payload.split_first_chunk::<FRAGMENT6>()?;
                protocol = IpProtocol::from(*next);
                payload = rest;
                let (place, ident) = (u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f]));
                let (offset, more) = (usize::from(place & !7), place & 1 != 0);
                // One that is all of the packet is none (RFC 6946).
                piece = (more || offset != 0).then_some(Piece { ident, offset, more });
                if piece.is_some() {
                    break;
                }
            }
            _ => break,
        }
    }
    Some(View {
        from: packet.src_addr().into(),
        to: packet.dst_addr().into(),
        protocol,
        hops: packet.hop_limit(),
        class: packet.traffic_class(),
        piece,
        whole: bytes.get(..packet.total_len())?,
        payload,
    })
}

/// The sum of RFC 1071 over `bytes`, not yet folded.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total + u64::from(u32::from_be_bytes(last))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded above.
    sum as u16
}

/// The sum over the pseudo header of a transport's `len` bytes.
fn pseudo(from: IpAddr, to: IpAddr, protocol: IpProtocol, len: usize) -> u64 {
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => sum(&from.octets()) + sum(&to.octets()),
        (IpAddr::V6(from), IpAddr::V6(to)) => sum(&from.octets()) + sum(&to.octets()),
        _ => 0,
    };
    addresses + u64::from(u8::from(protocol)) + len as u64
}

/// Is the checksum of a transport right? A datagram of UDP over IPv4 may have none.
pub(crate) fn is_intact(view: &View<'_>) -> bool {
    let none = view.payload.get(6..8) == Some(&[0, 0]);
    if view.protocol == IpProtocol::Udp && none {
        return view.from.is_ipv4();
    }
    fold(pseudo(view.from, view.to, view.protocol, view.payload.len()) + sum(view.payload)) == 0xffff
}

/// Where the checksum of a transport stands in it.
fn checksum_at(protocol: IpProtocol) -> usize {
    if protocol == IpProtocol::Tcp { 16 } else { 6 }
}

/// Leaves the checksum of a packet that has none yet to the device.
pub(crate) fn leave_checksum(out: &mut Outgoing) {
    let Some(view) = view_unchecked(out.packet()) else { return };
    let partial = fold(pseudo(view.from, view.to, view.protocol, view.len));
    let at = checksum_at(view.protocol);
    let place = HEADROOM + view.head + at;
    if let Some(bytes) = out.bytes.get_mut(place..).and_then(<[u8]>::first_chunk_mut) {
        *bytes = partial.to_be_bytes();
        out.vnet = VnetHeader::checksum((ETHERNET + view.head) as u16, at as u16);
    }
}

/// Makes the checksum of a packet that has none yet.
fn make_checksum(out: &mut Outgoing) {
    let Some(view) = view_unchecked(out.packet()) else { return };
    let data = out.packet().get(view.head..).unwrap_or_default();
    let whole = !fold(pseudo(view.from, view.to, view.protocol, view.len) + sum(data));
    let place = HEADROOM + view.head + checksum_at(view.protocol);
    if let Some(bytes) = out.bytes.get_mut(place..).and_then(<[u8]>::first_chunk_mut) {
        // Of UDP none is said by zero, and zero by its complement.
        *bytes = if whole == 0 { [0xff; 2] } else { whole.to_be_bytes() };
    }
}

/// What has to be known of a packet of our own, whose head is plain.
struct Plain {
    from: IpAddr,
    to: IpAddr,
    protocol: IpProtocol,
    head: usize,
    len: usize,
}

fn view_unchecked(packet: &[u8]) -> Option<Plain> {
    let v4 = packet.first()? >> 4 == 4;
    if v4 {
        let view = Ipv4Packet::new_checked(packet).ok()?;
        let (from, to) = (view.src_addr().into(), view.dst_addr().into());
        Some(Plain { from, to, protocol: view.next_header(), head: HEAD4, len: packet.len() - HEAD4 })
    } else {
        let view = Ipv6Packet::new_checked(packet).ok()?;
        let (from, to) = (view.src_addr().into(), view.dst_addr().into());
        Some(Plain { from, to, protocol: view.next_header(), head: HEAD6, len: packet.len() - HEAD6 })
    }
}

/// How an IP packet is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) hops: u8,
    pub(crate) class: u8,
    pub(crate) ident: u32,
}

/// An IP packet with `len` bytes of payload, which are zero; `None` when the addresses do not go together or it
/// would be too long.
pub(crate) fn packet(
    from: IpAddr,
    to: IpAddr,
    protocol: IpProtocol,
    len: usize,
    shape: Shape,
) -> Option<Outgoing> {
    let bytes = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(HEAD4 + len).ok()?;
            let mut bytes = vec![0; HEADROOM + usize::from(total)];
            let head = bytes.get_mut(HEADROOM..)?;
            head4(head, (from, to), protocol, total, shape);
            bytes
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut bytes = vec![0; HEADROOM + HEAD6 + len];
            head6(bytes.get_mut(HEADROOM..)?, (from, to), protocol, u16::try_from(len).ok()?, shape);
            bytes
        }
        _ => return None,
    };
    Some(Outgoing { bytes, vnet: VnetHeader::default() })
}

/// An IP packet, for who wants to see one that has not been sent; `None` when the addresses do not go together or it
/// would be too long.
pub fn ip_packet(
    (from, to): (IpAddr, IpAddr),
    protocol: u8,
    payload: &[u8],
    (hops, class): (u8, u8),
) -> Option<Vec<u8>> {
    let out = packet(from, to, protocol.into(), payload.len(), Shape { hops, class, ident: 0 })?;
    let head = out.packet().len() - payload.len();
    Some([out.packet().get(..head)?, payload].concat())
}

/// The checksum of RFC 1071 over `bytes`, and over the pseudo header of a protocol between two addresses if there are
/// some.
pub fn checksum(ends: Option<(IpAddr, IpAddr, u8)>, bytes: &[u8]) -> u16 {
    let before = ends.map_or(0, |(from, to, protocol)| pseudo(from, to, protocol.into(), bytes.len()));
    !fold(before + sum(bytes))
}

fn head4(bytes: &mut [u8], ends: (Ipv4Addr, Ipv4Addr), protocol: IpProtocol, total: u16, shape: Shape) {
    let mut packet = Ipv4Packet::new_unchecked(bytes);
    packet.set_version(4);
    packet.set_header_len(HEAD4 as u8);
    packet.set_dscp(shape.class >> 2);
    packet.set_ecn(shape.class & 3);
    packet.set_total_len(total);
    packet.set_ident(shape.ident as u16);
    packet.set_hop_limit(shape.hops);
    packet.set_next_header(protocol);
    packet.set_src_addr(ends.0);
    packet.set_dst_addr(ends.1);
    packet.fill_checksum();
}

fn head6(bytes: &mut [u8], ends: (Ipv6Addr, Ipv6Addr), protocol: IpProtocol, len: u16, shape: Shape) {
    let mut packet = Ipv6Packet::new_unchecked(bytes);
    packet.set_version(6);
    packet.set_traffic_class(shape.class);
    packet.set_payload_len(len);
    packet.set_next_header(protocol);
    packet.set_hop_limit(shape.hops);
    packet.set_src_addr(ends.0);
    packet.set_dst_addr(ends.1);
}

/// A datagram of UDP, its checksum left to the device when it fits into `mtu` bytes.
pub(crate) fn datagram(
    from: SocketAddr,
    to: SocketAddr,
    data: &[u8],
    shape: Shape,
    mtu: usize,
) -> Option<Outgoing> {
    let len = UDP_HEAD + data.len();
    let mut out = packet(from.ip(), to.ip(), IpProtocol::Udp, len, shape)?;
    let start = out.bytes.len() - len;
    let (head, rest) = out.bytes.get_mut(start..)?.split_first_chunk_mut::<UDP_HEAD>()?;
    let ([a, b], [c, d]) = (from.port().to_be_bytes(), to.port().to_be_bytes());
    let [e, f] = u16::try_from(len).ok()?.to_be_bytes();
    *head = [a, b, c, d, e, f, 0, 0];
    rest.copy_from_slice(data);
    if out.packet().len() <= mtu {
        leave_checksum(&mut out)
    } else {
        make_checksum(&mut out)
    }
    Some(out)
}

/// Cuts a packet that is longer than `mtu` into fragments (RFC 791, RFC 8200); none when it must not be cut.
pub(crate) fn fragments(out: Outgoing, mtu: usize, ident: u32) -> Vec<Outgoing> {
    if out.packet().len() <= mtu {
        return vec![out];
    }
    let v4 = out.packet().first().is_some_and(|first| first >> 4 == 4);
    let (head_len, extra) = if v4 { (HEAD4, 0) } else { (HEAD6, FRAGMENT6) };
    let size = mtu.saturating_sub(head_len + extra) / 8 * 8;
    let Some((head, data)) = out.packet().split_at_checked(head_len) else { return Vec::new() };
    if size == 0 || (v4 && Ipv4Packet::new_unchecked(head).dont_frag()) {
        return Vec::new();
    }
    let count = data.len().div_ceil(size);
    let piece = |(index, part): (usize, &[u8])| {
        let (offset, more) = (index * size, index + 1 < count);
        let mut bytes = vec![0; HEADROOM];
        bytes.extend_from_slice(head);
        if v4 {
            let mut packet = Ipv4Packet::new_unchecked(bytes.get_mut(HEADROOM..).unwrap_or_default());
            packet.set_total_len((HEAD4 + part.len()) as u16);
            packet.set_ident(ident as u16);
            packet.set_more_frags(more);
            packet.set_frag_offset(offset as u16);
            packet.fill_checksum();
        } else {
            let mut packet = Ipv6Packet::new_unchecked(bytes.get_mut(HEADROOM..).unwrap_or_default());
            let next = u8::from(packet.next_header());
            packet.set_next_header(IpProtocol::Ipv6Frag);
            packet.set_payload_len((FRAGMENT6 + part.len()) as u16);
            let [a, b] = (offset as u16 | u16::from(more)).to_be_bytes();
            let [c, d, e, f] = ident.to_be_bytes();
            bytes.extend_from_slice(&[next, 0, a, b, c, d, e, f]);
        }
        bytes.extend_from_slice(part);
        Outgoing { bytes, vnet: VnetHeader::default() }
    };
    data.chunks(size).enumerate().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::{HEADROOM, Shape, datagram, fragments, is_intact, view};
    use smoltcp::wire::IpProtocol;

    const SHAPE: Shape = Shape { hops: 64, class: 0x10, ident: 7 };

    #[test]
    fn datagrams_are_read_as_they_were_made() {
        for (from, to) in [("10.0.0.1:5", "10.0.0.2:6"), ("[fd00::1]:5", "[fd00::2]:6")] {
            let (from, to) = (from.parse().expect("one"), to.parse().expect("one"));
            let out = datagram(from, to, b"hello", SHAPE, 10).expect("fits");
            let view = view(out.packet()).expect("sensible");
            assert_eq!((view.from, view.to, view.hops, view.class), (from.ip(), to.ip(), 64, 0x10));
            assert!(view.protocol == IpProtocol::Udp && view.payload.ends_with(b"hello") && is_intact(&view));
            let mut broken = out.bytes.clone();
            *broken.last_mut().expect("a byte") ^= 1;
            assert!(!is_intact(&super::view(&broken[HEADROOM..]).expect("sensible")));
            let left = datagram(from, to, b"hello", SHAPE, 1500).expect("fits");
            assert!(left.vnet.is_vouched_for());
        }
    }

    #[test]
    fn fragments_hold_all_of_it() {
        for (from, to) in [("10.0.0.1:5", "10.0.0.2:6"), ("[fd00::1]:5", "[fd00::2]:6")] {
            let (from, to) = (from.parse().expect("one"), to.parse().expect("one"));
            let data: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
            let whole = datagram(from, to, &data, SHAPE, 1500).expect("fits");
            let payload = view(whole.packet()).expect("sensible").payload.to_vec();
            let pieces = fragments(whole, 1500, 99);
            let mut got = Vec::new();
            for piece in &pieces {
                assert!(piece.packet().len() <= 1500);
                let view = view(piece.packet()).expect("sensible");
                let place = view.piece.expect("a piece");
                assert_eq!((place.ident, place.offset), (99, got.len()));
                got.extend_from_slice(view.payload);
                assert_eq!(place.more, got.len() < payload.len());
            }
            assert!(pieces.len() == 4 && got == payload);
        }
    }

    #[test]
    fn what_makes_no_sense_is_none() {
        for bytes in [&[][..], &[0x45; 19], &[0x45; 40], &[0x60; 39], &[0x10; 60], &[0xff; 200]] {
            assert!(view(bytes).is_none());
        }
    }
}
