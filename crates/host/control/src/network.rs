//! The network that a sandbox is given: what was found in the container's network namespace on the host.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Links, and the ways out of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Ethernet interfaces, in the order of the descriptors beside them.
    pub links: Vec<LinkConfig>,
    /// Routes.
    pub routes: Vec<RouteConfig>,
    /// Neighbours that are known for good.
    pub neighbors: Vec<NeighborConfig>,
    /// Who may be reached.
    pub egress: EgressConfig,
    /// One more descriptor is of a file into which all frames are to be written.
    pub captures: bool,
}

/// Who may be reached: the first rule that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressConfig {
    /// Nothing may be reached but what a rule allows.
    pub denies: bool,
    /// In order.
    pub rules: Vec<EgressRule>,
    /// Who is believed about the addresses of names, and may be asked for those that a rule allows.
    pub resolvers: Vec<IpAddr>,
}

/// A rule about who may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// What is so may be reached, or may not.
    pub allow: bool,
    /// Where to.
    pub to: EgressTarget,
    /// The first port, and the last.
    pub ports: (u16, u16),
}

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EgressTarget {
    /// The addresses of a network.
    Network {
        /// Any of them.
        ip: IpAddr,
        /// Bits that they have in common.
        prefix: u8,
    },
    /// Those that a name has: in small letters, without a dot at the end.
    Name(String),
    /// Those of every name below one.
    Below(String),
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Largest packet in bytes.
    pub mtu: u32,
    /// `IFF_*` (`netdevice(7)`).
    pub flags: u32,
    /// Its addresses.
    pub addresses: Vec<AddressConfig>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressConfig {
    /// The address.
    pub ip: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
    /// Where it is valid (`RT_SCOPE_*`, `rtnetlink(7)`).
    pub scope: u8,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Where it leads.
    pub to: IpAddr,
    /// Bits of that which count.
    pub prefix: u8,
    /// Who is next; `None`: the destination itself.
    pub gateway: Option<IpAddr>,
    /// Out of which interface.
    pub link: u32,
    /// The address packets on it come from.
    pub source: Option<IpAddr>,
    /// Of two equal ones that with less is taken.
    pub metric: u32,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighborConfig {
    /// Its address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
}
