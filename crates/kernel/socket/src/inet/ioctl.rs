//! `ioctl(2)` requests about interfaces (`netdevice(7)`): what there is. Nothing can be changed here.

use std::net::IpAddr;

use abi::Errno;
use abi::socket::AF_INET;
use guestmem::{MemExt, UserAddr, UserPtr};
use vfs::{IoctlRequest, Result};

use super::Network;
use super::network::broadcast;
use crate::netlink::{Link, Links};

/// Bytes of a `struct ifreq`, and of the name at its front.
const REQUEST: usize = 40;
const NAME: usize = 16;

const SIOCGSTAMP: u32 = 0x8906;
const SIOCGSTAMPNS: u32 = 0x8907;
const SIOCADDRT: u32 = 0x890b;
const SIOCDELRT: u32 = 0x890c;
const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFCONF: u32 = 0x8912;
const SIOCGIFFLAGS: u32 = 0x8913;
const SIOCGIFADDR: u32 = 0x8915;
const SIOCGIFDSTADDR: u32 = 0x8917;
const SIOCGIFBRDADDR: u32 = 0x8919;
const SIOCGIFNETMASK: u32 = 0x891b;
const SIOCGIFMETRIC: u32 = 0x891d;
const SIOCGIFMTU: u32 = 0x8921;
const SIOCGIFHWADDR: u32 = 0x8927;
const SIOCGIFINDEX: u32 = 0x8933;
const SIOCGIFTXQLEN: u32 = 0x8942;
const SIOCETHTOOL: u32 = 0x8946;
const SIOCGIFMAP: u32 = 0x8970;
/// Requests that change an interface: those who may are told that nothing can be.
const CHANGES: [u32; 14] = [
    0x8914, 0x8916, 0x8918, 0x891a, 0x891c, 0x891e, 0x8922, 0x8923, 0x8924, 0x8931, 0x8932, 0x8943, 0x8955,
    0x8971,
];

/// A `sockaddr_in` in the 24 bytes behind the name.
fn sockaddr(ip: [u8; 4]) -> Vec<u8> {
    let mut bytes = AF_INET.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&ip);
    bytes
}

/// First IPv4 address of an interface.
fn address(link: &Link) -> Option<(&crate::netlink::Address, [u8; 4])> {
    link.addresses.iter().find_map(|address| match address.ip {
        IpAddr::V4(ip) => Some((address, ip.octets())),
        IpAddr::V6(_) => None,
    })
}

/// Answers; `ENOTTY` for what is no request of an interface's.
pub(super) fn answer(network: &Network, request: &IoctlRequest<'_>) -> Result<u64> {
    match request.cmd {
        SIOCGIFCONF => return list(network, request),
        SIOCGSTAMP | SIOCGSTAMPNS => return Err(Errno::ENOENT),
        SIOCADDRT | SIOCDELRT => return Err(Errno::EPERM),
        cmd if CHANGES.contains(&cmd) => return Err(Errno::EPERM),
        _ => {}
    }
    let mut bytes = [0; REQUEST];
    request.mem.read(request.addr(), &mut bytes)?;
    let links = network.links();
    if request.cmd == SIOCGIFNAME {
        let index =
            bytes.get(NAME..).and_then(<[u8]>::first_chunk).map_or(0, |index| u32::from_ne_bytes(*index));
        let link = links.iter().find(|link| link.index == index).ok_or(Errno::ENODEV)?;
        request.mem.write(request.addr(), &name(link))?;
        return Ok(0);
    }
    let asked = bytes.get(..NAME).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    // `eth0:1` is an alias of `eth0`.
    let asked = asked.split(|byte| *byte == b':').next().unwrap_or_default();
    let found = links.iter().find(|link| link.name.as_bytes() == asked);
    let value = value(request.cmd, found)?;
    let at = request.addr().checked_add(NAME as u64).ok_or(Errno::EFAULT)?;
    request.mem.write(at, &value)?;
    Ok(0)
}

/// What an interface answers, for the union behind its name.
fn value(cmd: u32, link: Option<&Link>) -> Result<Vec<u8>> {
    let found = link.ok_or(Errno::ENODEV);
    Ok(match cmd {
        SIOCGIFFLAGS => {
            // The low 16 bits are all there is room for.
            (found?.flags as u16).to_ne_bytes().to_vec()
        }
        SIOCGIFADDR | SIOCGIFDSTADDR => sockaddr(address(found?).ok_or(Errno::EADDRNOTAVAIL)?.1),
        SIOCGIFBRDADDR => {
            let (address, _) = address(found?).ok_or(Errno::EADDRNOTAVAIL)?;
            sockaddr(broadcast(address).filter(|ip| !ip.is_loopback()).map_or([0; 4], |ip| ip.octets()))
        }
        SIOCGIFNETMASK => {
            let (address, _) = address(found?).ok_or(Errno::EADDRNOTAVAIL)?;
            let mask = u32::MAX.checked_shl(32 - u32::from(address.prefix.min(32))).unwrap_or(0);
            sockaddr(mask.to_be_bytes())
        }
        SIOCGIFMETRIC => found.map(|_| 0i32.to_ne_bytes().to_vec())?,
        SIOCGIFMTU => found?.mtu.to_ne_bytes().to_vec(),
        SIOCGIFHWADDR => {
            let link = found?;
            let mut bytes = link.hardware.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&link.mac);
            bytes
        }
        SIOCGIFINDEX => found?.index.to_ne_bytes().to_vec(),
        SIOCGIFTXQLEN => found.map(|_| 1000i32.to_ne_bytes().to_vec())?,
        SIOCGIFMAP => found.map(|_| vec![0; 24])?,
        SIOCETHTOOL => return Err(found.err().unwrap_or(Errno::EOPNOTSUPP)),
        _ => return Err(Errno::ENOTTY),
    })
}

fn name(link: &Link) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    for (to, from) in bytes.iter_mut().take(NAME - 1).zip(link.name.bytes()) {
        *to = from;
    }
    bytes
}

/// `SIOCGIFCONF`: every interface with an IPv4 address, as many as fit.
fn list(network: &Network, request: &IoctlRequest<'_>) -> Result<u64> {
    let at = |offset: u64| request.addr().checked_add(offset).ok_or(Errno::EFAULT);
    let room = request.mem.load(UserPtr::<i32>::new(at(0)?))?;
    let buffer = request.mem.load(UserPtr::<u64>::new(at(8)?))?;
    let mut bytes = Vec::new();
    for link in network.links() {
        if let Some((_, ip)) = address(&link) {
            bytes.extend_from_slice(&name(&link));
            bytes.extend_from_slice(&sockaddr(ip));
            bytes.resize(bytes.len().next_multiple_of(REQUEST), 0);
        }
    }
    if buffer != 0 {
        let fits = usize::try_from(room).map_err(|_| Errno::EINVAL)? / REQUEST * REQUEST;
        bytes.truncate(fits);
        if !bytes.is_empty() {
            request.mem.write(UserAddr(buffer), &bytes)?;
        }
    }
    request.mem.store(UserPtr::new(at(0)?), &(bytes.len() as i32))?;
    Ok(0)
}
