//! `/proc/net/route`, `/proc/net/ipv6_route`, `/proc/net/arp`.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::inet::Network;
use crate::netlink::Links;

/// `RTF_UP`, `RTF_GATEWAY`.
const UP: u32 = 1;
const GATEWAY: u32 = 2;
/// `ATF_COM`, `ATF_PERM`.
const COMPLETE: u32 = 2;
const PERMANENT: u32 = 4;

fn name(network: &Network, index: u32) -> String {
    network.links().into_iter().find(|link| link.index == index).map_or_else(String::new, |link| link.name)
}

fn word(ip: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(ip.octets())
}

fn mask(prefix: u8) -> Ipv4Addr {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0).into()
}

/// `/proc/net/route`.
pub(super) fn route(network: &Network) -> String {
    let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
    let mut out = format!("{head:<127}\n");
    for way in network.ways() {
        let IpAddr::V4(to) = way.to else { continue };
        let gateway = match way.gateway {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        };
        let flags = UP | if gateway.is_some() { GATEWAY } else { 0 };
        let text = format!(
            "{}\t{:08X}\t{:08X}\t{flags:04X}\t0\t0\t{}\t{:08X}\t0\t0\t0",
            name(network, way.link),
            word(to),
            word(gateway.unwrap_or(Ipv4Addr::UNSPECIFIED)),
            way.metric,
            word(mask(way.prefix)),
        );
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(out, "{text:<127}");
    }
    out
}

/// `/proc/net/ipv6_route`.
pub(super) fn ipv6_route(network: &Network) -> String {
    let mut out = String::new();
    for way in network.ways() {
        let IpAddr::V6(to) = way.to else { continue };
        let gateway = match way.gateway {
            Some(IpAddr::V6(ip)) => Some(ip),
            _ => None,
        };
        let flags = UP | if gateway.is_some() { GATEWAY } else { 0 };
        let _ = writeln!(
            out,
            "{:032x} {:02x} {:032x} 00 {:032x} {:08x} 00000001 00000000 {flags:08x} {:>8}",
            u128::from(to),
            way.prefix,
            0,
            u128::from(gateway.unwrap_or(Ipv6Addr::UNSPECIFIED)),
            way.metric,
            name(network, way.link),
        );
    }
    out
}

/// `/proc/net/arp`.
pub(super) fn arp(network: &Network) -> String {
    let mut out =
        String::from("IP address       HW type     Flags       HW address            Mask     Device\n");
    for near in network.near() {
        let IpAddr::V4(ip) = near.ip else { continue };
        let flags = COMPLETE | if near.permanent { PERMANENT } else { 0 };
        let mac = near.mac.map(|byte| format!("{byte:02x}")).join(":");
        let (ip, device) = (ip.to_string(), name(network, near.link));
        let _ = writeln!(out, "{ip:<16} 0x1         0x{flags:x}         {mac}     *        {device}");
    }
    out
}
