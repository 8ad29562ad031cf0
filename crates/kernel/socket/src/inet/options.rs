//! Options of the levels `SOL_IP` and `SOL_IPV6` (`ip(7)`, `ipv6(7)`).
//!
//! Those that shape packets on a wire are kept and given back; on the loopback nobody could see the
//! difference. Those that ask for control data with each datagram have effect (see `control`). What is not
//! here is `ENOPROTOOPT`: source filters of multicast, firewalls, IPsec, header options.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::Errno;
use bitflags::bitflags;
use vfs::Result;

use super::Network;
use super::network::broadcast;
use crate::netlink::Links;

/// `IPPROTO_IP` as a level.
pub(crate) const SOL_IP: i32 = 0;
/// `IPPROTO_IPV6` as a level.
pub(crate) const SOL_IPV6: i32 = 41;

/// Most groups of a socket (`net.ipv4.igmp_max_memberships`).
const MAX_GROUPS: usize = 20;
/// The largest packet the loopback takes.
const LOOPBACK_MTU: i32 = 65_536;

bitflags! {
    /// What a socket wants to be told of with each datagram, or has switched on.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct IpFlags: u32 {
        const PKTINFO = 1;
        const RECVTTL = 1 << 1;
        const RECVTOS = 1 << 2;
        const RECVERR = 1 << 3;
        const ORIGDST = 1 << 4;
        const PKTINFO6 = 1 << 5;
        const HOPLIMIT6 = 1 << 6;
        const TCLASS6 = 1 << 7;
        const RECVERR6 = 1 << 8;
        const ORIGDST6 = 1 << 9;
        const FREEBIND = 1 << 10;
        const TRANSPARENT = 1 << 11;
        const BIND_NO_PORT = 1 << 12;
        const NODEFRAG = 1 << 13;
        const MULTICAST_ALL = 1 << 14;
        const MULTICAST_LOOP = 1 << 15;
        const MULTICAST_LOOP6 = 1 << 16;
        const DONTFRAG6 = 1 << 17;
        const MULTICAST_ALL6 = 1 << 18;
        const RECVFRAGSIZE = 1 << 19;
        const RECVOPTS = 1 << 20;
        const AUTOFLOWLABEL = 1 << 21;
        const SNDFLOW = 1 << 22;
        const RECVPATHMTU = 1 << 23;
        const RETOPTS = 1 << 24;
        const RECVRTHDR = 1 << 25;
        const RECVHOPOPTS = 1 << 26;
        const RECVDSTOPTS = 1 << 27;
        const PASSSEC = 1 << 28;
        const CHECKSUM = 1 << 29;
    }
}

/// Options of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IpOptions {
    pub(super) flags: IpFlags,
    pub(super) v6only: bool,
    pub(super) tos: u8,
    /// `IP_TTL`; `None`: the usual 64.
    pub(super) ttl: Option<u8>,
    pub(super) tclass: u8,
    pub(super) hops: Option<u8>,
    min_ttl: u8,
    pub(super) multicast_ttl: u8,
    pub(super) multicast_hops: u8,
    /// Interfaces of multicast packets, by index.
    multicast_if: u32,
    multicast_if6: u32,
    multicast_address: Ipv4Addr,
    mtu_discover: i32,
    mtu_discover6: i32,
    preferences: i32,
    unicast_if: u32,
    unicast_if6: u32,
    port_range: u32,
    /// Groups it has joined, each on an interface.
    groups: BTreeSet<(IpAddr, u32)>,
}

impl Default for IpOptions {
    fn default() -> Self {
        let flags = IpFlags::MULTICAST_ALL
            | IpFlags::MULTICAST_LOOP
            | IpFlags::MULTICAST_LOOP6
            | IpFlags::MULTICAST_ALL6
            | IpFlags::AUTOFLOWLABEL;
        Self {
            flags,
            v6only: false,
            tos: 0,
            ttl: None,
            tclass: 0,
            hops: None,
            min_ttl: 0,
            multicast_ttl: 1,
            multicast_hops: 1,
            multicast_if: 0,
            multicast_if6: 0,
            multicast_address: Ipv4Addr::UNSPECIFIED,
            mtu_discover: 1,
            mtu_discover6: 1,
            preferences: 2,
            unicast_if: 0,
            unicast_if6: 0,
            port_range: 0,
            groups: BTreeSet::new(),
        }
    }
}

/// Who sets or asks.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    /// The socket's network.
    pub(super) network: &'a Network,
    /// Of `AF_INET6`.
    pub(super) v6: bool,
    /// A stream.
    pub(super) stream: bool,
    /// It has an address already.
    pub(super) bound: bool,
    /// It has a peer.
    pub(super) connected: bool,
}

/// The flag behind an option of `SOL_IP` that is on or off.
fn flag4(name: i32) -> Option<IpFlags> {
    Some(match name {
        6 => IpFlags::RECVOPTS,
        7 => IpFlags::RETOPTS,
        8 => IpFlags::PKTINFO,
        11 => IpFlags::RECVERR,
        12 => IpFlags::RECVTTL,
        13 => IpFlags::RECVTOS,
        15 => IpFlags::FREEBIND,
        18 => IpFlags::PASSSEC,
        19 => IpFlags::TRANSPARENT,
        20 => IpFlags::ORIGDST,
        22 => IpFlags::NODEFRAG,
        23 => IpFlags::CHECKSUM,
        24 => IpFlags::BIND_NO_PORT,
        25 => IpFlags::RECVFRAGSIZE,
        34 => IpFlags::MULTICAST_LOOP,
        49 => IpFlags::MULTICAST_ALL,
        _ => return None,
    })
}

/// Likewise of `SOL_IPV6`.
fn flag6(name: i32) -> Option<IpFlags> {
    Some(match name {
        19 => IpFlags::MULTICAST_LOOP6,
        25 => IpFlags::RECVERR6,
        29 => IpFlags::MULTICAST_ALL6,
        33 => IpFlags::SNDFLOW,
        49 => IpFlags::PKTINFO6,
        51 => IpFlags::HOPLIMIT6,
        53 => IpFlags::RECVHOPOPTS,
        56 => IpFlags::RECVRTHDR,
        58 => IpFlags::RECVDSTOPTS,
        60 => IpFlags::RECVPATHMTU,
        62 => IpFlags::DONTFRAG6,
        66 => IpFlags::TCLASS6,
        70 => IpFlags::AUTOFLOWLABEL,
        74 => IpFlags::ORIGDST6,
        75 => IpFlags::TRANSPARENT,
        78 => IpFlags::FREEBIND,
        _ => return None,
    })
}

fn int(value: &[u8]) -> Result<i32> {
    value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno::EINVAL)
}

/// `SOL_IP` also takes a single byte, and nothing for zero.
fn int_or_byte(value: &[u8]) -> i32 {
    int(value).unwrap_or_else(|_| value.first().copied().map_or(0, i32::from))
}

fn byte(value: i32, least: u8) -> Result<u8> {
    u8::try_from(value).ok().filter(|value| *value >= least).ok_or(Errno::EINVAL)
}

fn octets<const N: usize>(value: &[u8], at: usize) -> Result<[u8; N]> {
    value.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Errno::EINVAL)
}

impl IpOptions {
    /// Has it joined `group`?
    pub(super) fn is_member(&self, group: IpAddr) -> bool {
        self.groups.iter().any(|(joined, _)| *joined == group)
    }

    /// Hops a packet of this socket may take (`IP_TTL`).
    pub(super) fn hops(&self) -> u8 {
        self.ttl.unwrap_or(64)
    }

    /// The address of the interface multicast goes out by; `None` when there is none.
    pub(super) fn multicast_source(&self, network: &Network, v6: bool) -> Option<IpAddr> {
        let index = if v6 { self.multicast_if6 } else { self.multicast_if };
        network.address_of(if index == 0 { network.outward()? } else { index }, v6)
    }

    /// An option of level `SOL_IP` or `SOL_IPV6`; `ENOPROTOOPT`.
    pub(super) fn option(&self, at: Setting<'_>, level: i32, name: i32) -> Result<Vec<u8>> {
        let number = match level {
            SOL_IP => match flag4(name) {
                Some(flag) => i32::from(self.flags.contains(flag)),
                None => match name {
                    32 => return Ok(self.multicast_address.octets().to_vec()),
                    4 => return Ok(Vec::new()),
                    _ => self.number4(at, name)?,
                },
            },
            SOL_IPV6 if at.v6 => match flag6(name) {
                Some(flag) => i32::from(self.flags.contains(flag)),
                None => self.number6(at, name)?,
            },
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(number.to_ne_bytes().to_vec())
    }

    fn number4(&self, at: Setting<'_>, name: i32) -> Result<i32> {
        Ok(match name {
            1 => i32::from(self.tos),
            2 => i32::from(self.ttl.unwrap_or(64)),
            10 => self.mtu_discover,
            14 if at.connected => LOOPBACK_MTU,
            14 => return Err(Errno::ENOTCONN),
            21 => i32::from(self.min_ttl),
            33 => i32::from(self.multicast_ttl),
            50 => self.unicast_if.to_be() as i32,
            51 => self.port_range as i32,
            _ => return Err(Errno::ENOPROTOOPT),
        })
    }

    fn number6(&self, at: Setting<'_>, name: i32) -> Result<i32> {
        Ok(match name {
            16 => self.hops.map_or(64, i32::from),
            17 => self.multicast_if6 as i32,
            18 => i32::from(self.multicast_hops),
            23 => self.mtu_discover6,
            24 if at.connected => LOOPBACK_MTU,
            24 => return Err(Errno::ENOTCONN),
            26 => i32::from(self.v6only),
            67 => i32::from(self.tclass),
            72 => self.preferences,
            73 => i32::from(self.min_ttl),
            76 => self.unicast_if6.to_be() as i32,
            _ => return Err(Errno::ENOPROTOOPT),
        })
    }

    /// Sets one.
    pub(super) fn set(&mut self, at: Setting<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match level {
            SOL_IP => self.set4(at, name, value),
            SOL_IPV6 if at.v6 => self.set6(at, name, value),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set4(&mut self, at: Setting<'_>, name: i32, value: &[u8]) -> Result<()> {
        let number = int_or_byte(value);
        if at.stream && matches!(name, 32..=36 | 50) && name != 34 {
            // Multicast is for datagrams.
            return Err(if matches!(name, 35 | 36) { Errno::EPROTO } else { Errno::EINVAL });
        }
        match name {
            1 => self.tos = number as u8,
            2 if number == -1 => self.ttl = None,
            2 => self.ttl = Some(byte(number, 1)?),
            10 if (0..=5).contains(&number) => self.mtu_discover = number,
            10 => return Err(Errno::EINVAL),
            19 if number != 0 => return Err(Errno::EPERM),
            21 => self.min_ttl = byte(number, 0)?,
            22 => return Err(Errno::ENOPROTOOPT),
            32 => return self.set_multicast_if(at, value),
            33 if number == -1 => self.multicast_ttl = 1,
            33 => self.multicast_ttl = byte(number, 0)?,
            35 | 36 => {
                let (group, index) = membership4(at, value)?;
                return self.member(group, index, name == 35);
            }
            49 if !(0..=1).contains(&number) => return Err(Errno::EINVAL),
            50 => self.unicast_if = u32::from_be(number as u32),
            51 => self.port_range = port_range(number as u32)?,
            _ => {
                let flag = flag4(name).ok_or(Errno::ENOPROTOOPT)?;
                self.flags.set(flag, number != 0);
            }
        }
        Ok(())
    }

    fn set6(&mut self, at: Setting<'_>, name: i32, value: &[u8]) -> Result<()> {
        if matches!(name, 20 | 21) {
            let group = Ipv6Addr::from(octets::<16>(value, 0)?);
            let index = u32::from_ne_bytes(octets(value, 16)?);
            if at.stream || !group.is_multicast() {
                return Err(if at.stream { Errno::EPROTO } else { Errno::EINVAL });
            }
            let known = index == 0 || at.network.links().iter().any(|link| link.index == index);
            return if known { self.member(group.into(), index, name == 20) } else { Err(Errno::ENODEV) };
        }
        let number = int(value)?;
        let limit = |number: i32| match number {
            -1 => Ok(None),
            _ => byte(number, 0).map(Some),
        };
        match name {
            16 => self.hops = limit(number)?,
            17 | 18 if at.stream => return Err(Errno::ENOPROTOOPT),
            17 if number != 0 && !at.network.links().iter().any(|link| link.index == number as u32) => {
                return Err(Errno::ENODEV);
            }
            17 => self.multicast_if6 = number as u32,
            18 => self.multicast_hops = limit(number)?.unwrap_or(1),
            23 if (0..=5).contains(&number) => self.mtu_discover6 = number,
            23 => return Err(Errno::EINVAL),
            24 if number != 0 && number < 1280 => return Err(Errno::EINVAL),
            24 => {}
            26 if at.bound => return Err(Errno::EINVAL),
            26 => self.v6only = number != 0,
            67 => self.tclass = limit(number)?.unwrap_or(0),
            72 => self.preferences = number,
            73 => self.min_ttl = byte(number, 0)?,
            75 if number != 0 => return Err(Errno::EPERM),
            76 => self.unicast_if6 = u32::from_be(number as u32),
            _ => {
                let flag = flag6(name).ok_or(Errno::ENOPROTOOPT)?;
                self.flags.set(flag, number != 0);
            }
        }
        Ok(())
    }

    /// `IP_MULTICAST_IF`: an address, or a `struct ip_mreqn`.
    fn set_multicast_if(&mut self, at: Setting<'_>, value: &[u8]) -> Result<()> {
        let address: Ipv4Addr = match value.len() {
            0..4 => return Err(Errno::EINVAL),
            4..8 => octets::<4>(value, 0)?.into(),
            _ => octets::<4>(value, 4)?.into(),
        };
        let index = if value.len() >= 12 { u32::from_ne_bytes(octets(value, 8)?) } else { 0 };
        let links = at.network.links();
        let found = links.iter().find(|link| match index {
            0 => link.addresses.iter().any(|known| known.ip == IpAddr::V4(address)),
            index => link.index == index,
        });
        if index == 0 && address.is_unspecified() {
            (self.multicast_if, self.multicast_address) = (0, address);
            return Ok(());
        }
        let link = found.ok_or(if index == 0 { Errno::EADDRNOTAVAIL } else { Errno::ENODEV })?;
        (self.multicast_if, self.multicast_address) = (link.index, address);
        Ok(())
    }

    /// Joins or leaves a group.
    fn member(&mut self, group: IpAddr, index: u32, join: bool) -> Result<()> {
        if !join {
            let found =
                self.groups.iter().find(|(known, at)| *known == group && (index == 0 || *at == index));
            let found = found.copied().ok_or(Errno::EADDRNOTAVAIL)?;
            self.groups.remove(&found);
            return Ok(());
        }
        if self.groups.len() >= MAX_GROUPS {
            return Err(Errno::ENOBUFS);
        }
        if self.groups.insert((group, index)) { Ok(()) } else { Err(Errno::EADDRINUSE) }
    }
}

/// A `struct ip_mreq` or `ip_mreqn`: the group, and an interface.
fn membership4(at: Setting<'_>, value: &[u8]) -> Result<(IpAddr, u32)> {
    let group = Ipv4Addr::from(octets::<4>(value, 0)?);
    let address = Ipv4Addr::from(octets::<4>(value, 4)?);
    if !group.is_multicast() {
        return Err(Errno::EINVAL);
    }
    let index = octets(value, 8).map(u32::from_ne_bytes).unwrap_or(0);
    let links = at.network.links();
    if index != 0 {
        return links
            .iter()
            .any(|link| link.index == index)
            .then_some((group.into(), index))
            .ok_or(Errno::ENODEV);
    }
    if address.is_unspecified() {
        // Without a route for multicast there is no interface for it.
        let link = links
            .iter()
            .find(|link| link.addresses.iter().any(|a| broadcast(a).is_some() && !a.ip.is_loopback()));
        return link.map(|link| (group.into(), link.index)).ok_or(Errno::ENODEV);
    }
    let link = links.iter().find(|link| link.addresses.iter().any(|known| known.ip == IpAddr::V4(address)));
    link.map(|link| (group.into(), link.index)).ok_or(Errno::ENODEV)
}

/// `IP_LOCAL_PORT_RANGE`: two bounds in one word, either of which may be absent.
fn port_range(value: u32) -> Result<u32> {
    let (low, high) = (value & 0xffff, value >> 16);
    if low != 0 && high != 0 && low > high { Err(Errno::EINVAL) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::{IpOptions, SOL_IP, SOL_IPV6, Setting};
    use crate::inet::Network;
    use abi::Errno;

    #[test]
    fn values_are_bounded_and_kept() {
        let network = Network::loopback();
        let at = Setting { network: &network, v6: true, stream: false, bound: false, connected: false };
        let mut options = IpOptions::default();
        let mut set = |level, name, value: i32| options.set(at, level, name, &value.to_ne_bytes());
        assert_eq!(set(SOL_IP, 2, 0), Err(Errno::EINVAL));
        assert_eq!(set(SOL_IP, 2, 256), Err(Errno::EINVAL));
        assert_eq!(set(SOL_IP, 2, 77), Ok(()));
        assert_eq!(set(SOL_IP, 10, 9), Err(Errno::EINVAL));
        assert_eq!(set(SOL_IP, 999, 9), Err(Errno::ENOPROTOOPT));
        assert_eq!(set(SOL_IPV6, 16, 256), Err(Errno::EINVAL));
        assert_eq!(set(SOL_IPV6, 26, 1), Ok(()));
        assert_eq!(options.option(at, SOL_IP, 2), Ok(77i32.to_ne_bytes().to_vec()));
        assert_eq!(options.option(at, SOL_IPV6, 26), Ok(1i32.to_ne_bytes().to_vec()));
        assert_eq!(options.option(at, 99, 1), Err(Errno::ENOPROTOOPT));
        let four = Setting { v6: false, ..at };
        assert_eq!(options.option(four, SOL_IPV6, 26), Err(Errno::ENOPROTOOPT));
    }

    #[test]
    fn groups_are_joined_once() {
        let network = Network::loopback();
        let at = Setting { network: &network, v6: false, stream: false, bound: false, connected: false };
        let mut options = IpOptions::default();
        let request = [224, 1, 2, 3, 127, 0, 0, 1];
        assert_eq!(options.set(at, SOL_IP, 35, &request), Ok(()));
        assert_eq!(options.set(at, SOL_IP, 35, &request), Err(Errno::EADDRINUSE));
        assert!(options.is_member([224, 1, 2, 3].into()));
        assert_eq!(options.set(at, SOL_IP, 36, &request), Ok(()));
        assert_eq!(options.set(at, SOL_IP, 36, &request), Err(Errno::EADDRNOTAVAIL));
        assert_eq!(options.set(at, SOL_IP, 35, &[10, 1, 2, 3, 127, 0, 0, 1]), Err(Errno::EINVAL));
    }
}
