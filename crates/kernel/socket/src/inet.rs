//! `AF_INET` and `AF_INET6` sockets (`ip(7)`, `ipv6(7)`).
//!
//! - [`Network`]: the interfaces and ports of a sandbox. - [`TcpSocket`], [`UdpSocket`], [`RawSocket`]. -
//!   [`Outside`]: links. - `icmp`: what errors mean.
//! - `address`: `sockaddr`s. - `ports`: who has which. - `options`: the levels of IP. - `control`: control
//!   data. - `ioctl`: what interfaces answer. - [`show`]: `/proc/net`.
//!
//! Between the sandbox's own sockets there are no packets: a TCP connection is two queues of bytes, and a
//! datagram goes straight into the queue of its receiver. What is for others goes through [`Outside`], a stack
//! that makes packets of it; without links everything else is `ENETUNREACH`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use abi::Errno;
use abi::socket::SocketKind;
use cred::{CapSet, Credentials};
use vfs::{IoctlRequest, Result};

mod address;
mod control;
mod icmp;
mod ioctl;
mod network;
mod options;
mod outside;
mod ports;
mod raw;
pub mod show;
mod tcp;
mod udp;

pub(crate) use network::broadcast;
pub use network::{Network, Settings};
pub use outside::{Link, Outside};
pub use raw::RawSocket;
pub use tcp::TcpSocket;
pub use udp::UdpSocket;

use crate::netlink::Links;
use crate::{Asker, Socket};
use options::{IpFlags, IpOptions};

const IPPROTO_ICMP: i32 = 1;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_UDP: i32 = 17;
const IPPROTO_ICMPV6: i32 = 58;
/// Protocols there are numbers for (`IPPROTO_MAX`).
const MAX_PROTOCOL: i32 = 263;

/// Answers an `ioctl(2)` about interfaces; `ENOTTY` for any other.
///
/// # Errors
/// Those of `netdevice(7)`.
pub fn interface_ioctl(network: &Network, request: &IoctlRequest<'_>) -> Result<u64> {
    ioctl::answer(network, request)
}

/// A fresh socket of `AF_INET6` (`v6`) or `AF_INET` (`socket(2)`).
///
/// # Errors
/// `EINVAL` for an impossible protocol, `ESOCKTNOSUPPORT` and `EPROTONOSUPPORT` for types and protocols there
/// are not, `EPERM` for raw sockets without `CAP_NET_RAW`, or in a sandbox that has none.
pub fn socket(
    v6: bool,
    kind: Option<SocketKind>,
    protocol: i32,
    network: &Arc<Network>,
    cred: &Credentials,
) -> Result<Arc<dyn Socket>> {
    if !(0..MAX_PROTOCOL).contains(&protocol) {
        return Err(Errno::EINVAL);
    }
    let ping = if v6 { IPPROTO_ICMPV6 } else { IPPROTO_ICMP };
    match (kind, protocol) {
        (Some(SocketKind::Stream), 0 | IPPROTO_TCP) => Ok(TcpSocket::new(v6, network)),
        (Some(SocketKind::Datagram), 0 | IPPROTO_UDP) => Ok(UdpSocket::new(v6, network)),
        (Some(SocketKind::Datagram), protocol) if protocol == ping => Ok(RawSocket::ping(v6, network)),
        (Some(SocketKind::Raw), 0) => Err(Errno::EPROTONOSUPPORT),
        (Some(SocketKind::Raw), _) if !network.may_be_raw(cred) => Err(Errno::EPERM),
        (Some(SocketKind::Raw), protocol) => {
            let protocol = u8::try_from(protocol).map_err(|_| Errno::EPROTONOSUPPORT)?;
            Ok(RawSocket::raw(v6, protocol, network))
        }
        (Some(SocketKind::Stream | SocketKind::Datagram), _) => Err(Errno::EPROTONOSUPPORT),
        (Some(SocketKind::SeqPacket) | None, _) => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// Parses the address of a `bind`. An IPv4 socket also takes one without a family, when it is unspecified.
fn bind_address(v6: bool, bytes: &[u8]) -> Result<SocketAddr> {
    if let Some(parsed) = address::parse_unspecified(v6, bytes) {
        let parsed = parsed?;
        return if parsed.ip().is_unspecified() { Ok(parsed) } else { Err(Errno::EAFNOSUPPORT) };
    }
    address::parse(v6, bytes)
}

/// Can a socket with these options be bound to `wanted`?
fn check_bind(network: &Network, options: &IpOptions, wanted: SocketAddr) -> Result<()> {
    if options.v6only && wanted.is_ipv4() {
        return Err(Errno::EINVAL);
    }
    let free = options.flags.intersects(IpFlags::FREEBIND | IpFlags::TRANSPARENT);
    if let SocketAddr::V6(v6) = wanted
        && address::is_link_local(*v6.ip())
        && v6.scope_id() == 0
    {
        return Err(Errno::EINVAL);
    }
    if free || network.is_local(wanted.ip()) { Ok(()) } else { Err(Errno::EADDRNOTAVAIL) }
}

/// `EACCES` for a port that not everybody may bind.
fn check_port(asker: &Asker<'_>, network: &Network, port: u16) -> Result<()> {
    let free = port == 0 || u64::from(port) >= network.settings().unprivileged();
    if free || asker.cred.capable(CapSet::NET_BIND_SERVICE) { Ok(()) } else { Err(Errno::EACCES) }
}

/// Where a packet to `to` goes: to oneself when it says nowhere.
fn destination(to: SocketAddr) -> SocketAddr {
    let ip = match to.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => return to,
    };
    SocketAddr::new(ip, to.port())
}

const SO_BINDTODEVICE: i32 = 25;
const SO_DETACH_FILTER: i32 = 27;
const SO_INCOMING_CPU: i32 = 49;
const SO_INCOMING_NAPI_ID: i32 = 56;
const SO_BINDTOIFINDEX: i32 = 62;
/// Longest name of an interface, with its NUL.
const IFNAMSIZ: usize = 16;

/// Options of `SOL_SOCKET` that only inet sockets have.
fn socket_option(name: i32) -> Result<Vec<u8>> {
    Ok(match name {
        // There is one way only, and nobody is bound to it.
        SO_BINDTODEVICE => Vec::new(),
        SO_BINDTOIFINDEX | SO_INCOMING_NAPI_ID => 0i32.to_ne_bytes().to_vec(),
        SO_INCOMING_CPU => (-1i32).to_ne_bytes().to_vec(),
        _ => return Err(Errno::ENOPROTOOPT),
    })
}

/// Sets one. To be bound to a device is accepted where packets would go there anyway.
fn set_socket_option(network: &Network, name: i32, value: &[u8]) -> Result<()> {
    match name {
        SO_BINDTODEVICE => {
            let value = value.get(..IFNAMSIZ).unwrap_or(value);
            let device = value.split(|byte| *byte == 0).next().unwrap_or_default();
            let known =
                device.is_empty() || network.links().iter().any(|link| link.name.as_bytes() == device);
            if known { Ok(()) } else { Err(Errno::ENODEV) }
        }
        SO_INCOMING_CPU => Ok(()),
        SO_DETACH_FILTER => Err(Errno::ENOENT),
        _ => Err(Errno::ENOPROTOOPT),
    }
}
