//! What a stack is made with: its interfaces, and the ways out of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::egress::Egress;

/// A network: its address, and how many bits of it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Any address of it.
    pub ip: IpAddr,
    /// Bits that all its addresses have in common.
    pub bits: u8,
}

impl Prefix {
    /// Is `ip` in it?
    pub fn contains(&self, ip: IpAddr) -> bool {
        let shift = |width: u8| u32::from(width.saturating_sub(self.bits));
        match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u32::from(a) ^ u32::from(b)).checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (u128::from(a) ^ u128::from(b)).checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// The last address, to which everybody in it listens; of IPv4 networks of more than two.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.ip {
            IpAddr::V4(ip) if self.bits < 31 => Some(Ipv4Addr::from(
                u32::from(ip) | (u32::MAX.checked_shr(u32::from(self.bits)).unwrap_or(0)),
            )),
            _ => None,
        }
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its number, by which frames and routes name it.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Its addresses, each with its network.
    pub addresses: Vec<Prefix>,
    /// Whether large TCP segments may be left to the device to cut.
    pub segments: bool,
}

/// A way to somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: Prefix,
    /// Who is next; `None`: the destination itself.
    pub gateway: Option<IpAddr>,
    /// Out of which interface.
    pub nic: u32,
    /// The address packets on it come from, unless it is the interface's first.
    pub source: Option<IpAddr>,
    /// Of two equal ones that with less is taken.
    pub metric: u32,
}

/// A neighbour that is known from the start, and for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Interfaces.
    pub nics: Vec<Nic>,
    /// Ways out.
    pub routes: Vec<Route>,
    /// Neighbours.
    pub neighbors: Vec<Neighbor>,
    /// Who may be reached.
    pub egress: Egress,
    /// What nobody outside can guess: sequence numbers follow from it.
    pub seed: u64,
}

impl Config {
    /// The best way to `to`.
    pub fn route(&self, to: IpAddr) -> Option<&Route> {
        let fits = self.routes.iter().filter(|route| route.to.contains(to));
        fits.max_by_key(|route| (route.to.bits, std::cmp::Reverse(route.metric)))
    }

    /// The address a packet to `to` comes from.
    pub fn source(&self, to: IpAddr) -> Option<IpAddr> {
        let route = self.route(to)?;
        if let Some(source) = route.source {
            return Some(source);
        }
        let nic = self.nics.iter().find(|nic| nic.index == route.nic)?;
        let next = route.gateway.unwrap_or(to);
        let family = nic.addresses.iter().filter(|address| address.ip.is_ipv4() == to.is_ipv4());
        let near = family
            .clone()
            .find(|address| address.contains(next) && is_link_local(address.ip) == is_link_local(to));
        let any = family.clone().find(|address| is_link_local(address.ip) == is_link_local(to));
        near.or(any).or(family.clone().next()).map(|address| address.ip)
    }

    /// Is `ip` an address of one of the interfaces?
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.nics.iter().flat_map(|nic| &nic.addresses).any(|address| address.ip == ip)
    }
}

/// `fe80::/10`.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
}

/// How a TCP connection is to behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSettings {
    /// Bytes that may wait to be read.
    pub receive: usize,
    /// Bytes that may wait to be sent and acknowledged.
    pub send: usize,
    /// Small segments wait for others (RFC 896).
    pub nagle: bool,
    /// Pause after which is asked whether the other end is still there.
    pub keepalive: Option<Duration>,
    /// How long the other end may be silent while it owes an answer.
    pub timeout: Duration,
    /// How long a connection may take to come about.
    pub connecting: Duration,
    /// Hops a packet may take.
    pub hops: u8,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            receive: 256 << 10,
            send: 256 << 10,
            nagle: true,
            keepalive: None,
            timeout: Duration::from_secs(924),
            connecting: Duration::from_secs(127),
            hops: 64,
        }
    }
}

/// The solicited-node address of `ip` (RFC 4291, 2.7.1).
pub(crate) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let low = u128::from(ip) & 0xff_ffff;
    Ipv6Addr::from(0xff02_0000_0000_0000_0000_0001_ff00_0000_u128 | low)
}

#[cfg(test)]
mod tests {
    use super::{Config, Nic, Prefix, Route, solicited_node};
    use std::net::IpAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn prefix(text: &str, bits: u8) -> Prefix {
        Prefix { ip: ip(text), bits }
    }

    #[test]
    fn the_longest_way_is_the_best() {
        let route = |to, gateway, metric| Route { to, gateway, nic: 2, source: None, metric };
        let config = Config {
            nics: vec![Nic {
                index: 2,
                mac: [2; 6],
                mtu: 1500,
                addresses: vec![prefix("10.1.0.2", 16), prefix("fe80::2", 64), prefix("fd00::2", 64)],
                segments: false,
            }],
            routes: vec![
                route(prefix("0.0.0.0", 0), Some(ip("10.1.0.1")), 5),
                route(prefix("0.0.0.0", 0), Some(ip("10.1.0.9")), 1),
                route(prefix("10.1.0.0", 16), None, 0),
                route(prefix("fe80::", 64), None, 0),
                route(prefix("::", 0), Some(ip("fe80::1")), 0),
            ],
            ..Config::default()
        };
        let gateway = |to| config.route(ip(to)).map(|route| route.gateway);
        assert_eq!(gateway("10.1.2.3"), Some(None));
        assert_eq!(gateway("8.8.8.8"), Some(Some(ip("10.1.0.9"))));
        assert_eq!(config.source(ip("2001:db8::1")), Some(ip("fd00::2")));
        assert_eq!(config.source(ip("fe80::7")), Some(ip("fe80::2")));
        assert_eq!(config.source(ip("8.8.8.8")), Some(ip("10.1.0.2")));
        assert!(config.is_own(ip("fd00::2")) && !config.is_own(ip("fd00::3")));
        assert_eq!(Config::default().source(ip("8.8.8.8")), None);
    }

    #[test]
    fn networks_have_ends() {
        assert!(
            prefix("10.0.0.0", 0).contains(ip("255.1.1.1"))
                && !prefix("10.0.0.1", 32).contains(ip("10.0.0.2"))
        );
        assert!(prefix("::", 0).contains(ip("ff::")) && !prefix("fd00::1", 128).contains(ip("fd00::")));
        assert_eq!(prefix("10.0.0.1", 24).broadcast().map(IpAddr::V4), Some(ip("10.0.0.255")));
        assert_eq!(prefix("10.0.0.1", 31).broadcast(), None);
        let node = solicited_node("fd00::12:3456".parse().expect("an address"));
        assert_eq!(IpAddr::V6(node), ip("ff02::1:ff12:3456"));
    }
}
