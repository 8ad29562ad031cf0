//! `/proc/net`: what there is, as text (`proc(5)`).

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;
use std::time::Instant;

mod ways;

use super::tcp::TcpState;
use super::{IPPROTO_TCP, IPPROTO_UDP, Network};
use crate::netlink::Links;

/// Names of the files, each made by [`text`].
pub const FILES: &[&str] = &[
    "arp",
    "dev",
    "dev_mcast",
    "fib_triestat",
    "icmp",
    "icmp6",
    "if_inet6",
    "igmp",
    "igmp6",
    "ipv6_route",
    "netlink",
    "netstat",
    "packet",
    "protocols",
    "ptype",
    "raw",
    "raw6",
    "route",
    "snmp",
    "snmp6",
    "sockstat",
    "sockstat6",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "udplite",
    "udplite6",
    "wireless",
];

const TCP_HEAD: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const TCP6_HEAD: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const UDP_HEAD: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
const UDP6_HEAD: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";

/// A socket as it is shown, here and by `SOCK_DIAG`.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) v6: bool,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// A [`TcpState`]; of UDP, established or closed.
    pub(crate) state: u8,
    /// Bytes unread; of a listener, connections.
    pub(crate) unread: usize,
    /// Bytes that wait for room; of a listener, its backlog.
    pub(crate) unsent: usize,
    /// Datagrams there was no room for.
    pub(crate) drops: u32,
    pub(crate) uid: u32,
    pub(crate) ino: u64,
    /// `IPV6_V6ONLY`.
    pub(crate) only: bool,
    /// `struct tcp_info`, when it was asked for.
    pub(crate) info: Vec<u8>,
}

/// The sockets of a protocol, by its number in IP; with `struct tcp_info` if `with_info`.
pub(crate) fn sockets(network: &Network, protocol: i32, with_info: bool) -> Vec<Shown> {
    match protocol {
        IPPROTO_TCP => {
            let all = network.streams(|streams| streams.ports.sockets());
            all.iter().filter_map(Weak::upgrade).map(|core| core.shown(with_info)).collect()
        }
        IPPROTO_UDP => {
            let all = network.datagrams(|ports| ports.sockets());
            all.iter().filter_map(Weak::upgrade).map(|core| core.shown()).collect()
        }
        _ => Vec::new(),
    }
}

/// Those of IPv6, or of IPv4.
fn of_family(network: &Network, protocol: i32, v6: bool) -> impl Iterator<Item = Shown> {
    sockets(network, protocol, false).into_iter().filter(move |socket| socket.v6 == v6)
}

/// An address as these files show it: words of the machine's order, in hex.
fn hex(v6: bool, address: SocketAddr) -> String {
    let mut out = String::new();
    let mut words = |octets: &[u8]| {
        for word in octets.chunks_exact(4).filter_map(|chunk| chunk.first_chunk::<4>()) {
            // Writing to a string cannot fail, here and below.
            let _ = write!(out, "{:08X}", u32::from_ne_bytes(*word));
        }
    };
    match (address.ip(), v6) {
        (IpAddr::V4(ip), false) => words(&ip.octets()),
        (IpAddr::V4(ip), true) => words(&ip.to_ipv6_mapped().octets()),
        (IpAddr::V6(ip), _) => words(&ip.octets()),
    }
    let _ = write!(out, ":{:04X}", address.port());
    out
}

fn tcp(network: &Network, v6: bool) -> String {
    let mut out = format!("{:<149}\n", if v6 { TCP6_HEAD } else { TCP_HEAD });
    let mut number = 0;
    let mut line = |out: &mut String, text: String| {
        let _ = writeln!(out, "{:<149}", format!("{number:4}: {text}"));
        number += 1;
    };
    for row in of_family(network, IPPROTO_TCP, v6) {
        let unsent = if row.state == TcpState::Listen as u8 { 0 } else { row.unsent };
        let text = format!(
            "{} {} {:02X} {unsent:08X}:{:08X} 00:00000000 00000000 {:5} {:8} {} 1 0000000000000000 100 0 0 10 0",
            hex(v6, row.local),
            hex(v6, row.remote),
            row.state,
            row.unread,
            row.uid,
            0,
            row.ino,
        );
        line(&mut out, text);
    }
    let now = Instant::now();
    let remembered = network.streams(|streams| streams.connections.remembered(now));
    for ((local, remote), left) in remembered.into_iter().filter(|((local, _), _)| local.is_ipv6() == v6) {
        let text = format!(
            "{} {} 06 00000000:00000000 03:{:08X} 00000000     0        0 0 3 0000000000000000",
            hex(v6, local),
            hex(v6, remote),
            left.as_millis() / 10,
        );
        line(&mut out, text);
    }
    out
}

fn udp(network: &Network, v6: bool) -> String {
    let mut out = format!("{:<127}\n", if v6 { UDP6_HEAD } else { UDP_HEAD });
    for row in of_family(network, IPPROTO_UDP, v6) {
        let text = format!(
            "{:5}: {} {} {:02X} 00000000:{:08X} 00:00000000 00000000 {:5} {:8} {} 2 0000000000000000 {}",
            row.local.port(),
            hex(v6, row.local),
            hex(v6, row.remote),
            row.state,
            row.unread,
            row.uid,
            0,
            row.ino,
            row.drops,
        );
        let _ = writeln!(out, "{text:<127}");
    }
    out
}

fn dev(network: &Network) -> String {
    let mut out = String::from(
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    for link in network.links() {
        // Nothing is counted on the loopback, where there are no packets.
        let counted = network.outside().map(|outside| outside.counters(link.index)).unwrap_or_default();
        let ((packets_in, bytes_in), (packets_out, bytes_out)) = (counted.received, counted.sent);
        let _ = writeln!(
            out,
            "{:>6}: {bytes_in:7} {packets_in:7} {:4} {:4} {:4} {:5} {:10} {:9} {bytes_out:8} {packets_out:7} {:4} {:4} {:4} {:5} {:7} {:10}",
            link.name, counted.bad, 0, 0, 0, 0, 0, 0, counted.dropped, 0, 0, 0, 0
        );
    }
    out
}

fn if_inet6(network: &Network) -> String {
    let mut out = String::new();
    for link in network.links() {
        for address in &link.addresses {
            if let IpAddr::V6(ip) = address.ip {
                let scope = match ip.segments()[0] {
                    _ if ip.is_loopback() => 0x10,
                    first if first & 0xffc0 == 0xfe80 => 0x20,
                    _ => 0,
                };
                let _ = writeln!(
                    out,
                    "{:032x} {:02x} {:02x} {scope:02x} 80 {:>8}",
                    u128::from(ip),
                    link.index,
                    address.prefix,
                    link.name
                );
            }
        }
    }
    out
}

fn sockstat(network: &Network, v6: bool) -> String {
    let waiting = network.streams(|streams| streams.connections.remembered(Instant::now()).len());
    let tcp = of_family(network, IPPROTO_TCP, v6).count();
    let udp = of_family(network, IPPROTO_UDP, v6).count();
    if v6 {
        return format!(
            "TCP6: inuse {tcp}\nUDP6: inuse {udp}\nUDPLITE6: inuse 0\nRAW6: inuse 0\nFRAG6: inuse 0 memory 0\n"
        );
    }
    format!(
        "sockets: used {}\nTCP: inuse {tcp} orphan 0 tw {waiting} alloc {tcp} mem 0\nUDP: inuse {udp} mem 0\n\
         UDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n",
        tcp + udp
    )
}

fn protocols() -> String {
    let mut out = String::from(
        "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em\n",
    );
    for name in ["TCPv6", "UDPv6", "UDP", "TCP", "NETLINK", "UNIX"] {
        let _ = writeln!(
            out,
            "{name:<9} 1024      0       0   NI       0   no   kernel      n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n"
        );
    }
    out
}

/// Counters of protocols; none are kept.
fn snmp() -> String {
    let zeroes = |names: &str| names.split(' ').map(|_| " 0").collect::<String>();
    let mut out = String::new();
    for (protocol, names) in [
        (
            "Ip",
            "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates OutTransmits",
        ),
        (
            "Icmp",
            "InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps",
        ),
        (
            "Tcp",
            "RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors",
        ),
        (
            "Udp",
            "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors",
        ),
        (
            "UdpLite",
            "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors",
        ),
    ] {
        let _ = writeln!(out, "{protocol}: {names}\n{protocol}:{}", zeroes(names));
    }
    out
}

/// The text of `/proc/net/NAME`; `None` for a name that is not in [`FILES`].
pub fn text(network: &Network, name: &str) -> Option<Vec<u8>> {
    let text = match name {
        "tcp" => tcp(network, false),
        "tcp6" => tcp(network, true),
        "udp" => udp(network, false),
        "udp6" => udp(network, true),
        "udplite" | "raw" => format!("{UDP_HEAD:<127}\n"),
        "udplite6" | "raw6" => format!("{UDP6_HEAD:<127}\n"),
        "icmp" => format!("{UDP_HEAD:<127}\n"),
        "icmp6" => format!("{UDP6_HEAD:<127}\n"),
        "dev" => dev(network),
        "route" => ways::route(network),
        "ipv6_route" => ways::ipv6_route(network),
        "arp" => ways::arp(network),
        "if_inet6" => if_inet6(network),
        "sockstat" => sockstat(network, false),
        "sockstat6" => sockstat(network, true),
        "protocols" => protocols(),
        "snmp" => snmp(),
        "netlink" => "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n".to_owned(),
        "packet" => "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n".to_owned(),
        "ptype" => "Type Device      Function\n0800          ip_rcv\n86dd          ipv6_rcv\n".to_owned(),
        "igmp" => "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n".to_owned(),
        "wireless" => "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n".to_owned(),
        "netstat" => "TcpExt: SyncookiesSent\nTcpExt: 0\nIpExt: InNoRoutes\nIpExt: 0\n".to_owned(),
        "dev_mcast" | "fib_triestat" | "igmp6" | "snmp6" => String::new(),
        _ => return None,
    };
    Some(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::{FILES, hex, text};
    use crate::inet::Network;

    #[test]
    fn every_file_has_a_text() {
        let network = Network::loopback();
        assert!(FILES.iter().all(|name| text(&network, name).is_some()));
        assert_eq!(text(&network, "nothing"), None);
        let dev = text(&network, "dev").unwrap_or_default();
        assert!(String::from_utf8_lossy(&dev).contains("    lo:       0"));
    }

    #[test]
    fn addresses_are_words_in_hex() {
        assert_eq!(hex(false, "127.0.0.1:80".parse().expect("an address")), "0100007F:0050");
        let loopback = "00000000000000000000000001000000:0050";
        assert_eq!(hex(true, "[::1]:80".parse().expect("an address")), loopback);
    }
}
