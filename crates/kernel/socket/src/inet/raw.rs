//! Raw sockets (`raw(7)`) and ping sockets (`icmp(7)`): packets of IP by their protocol, and echoes by their
//! identifier.
//!
//! - `state`: what others reach of a socket, and which packets it hears. - `transfer`: sending and receiving.
//!
//! Raw sockets need `CAP_NET_RAW`, and that the sandbox was given them (`--net-raw`); ping sockets nothing. What is sent
//! to one of the sandbox's own addresses is heard by raw and ping sockets, and an echo is answered; a segment or datagram
//! that was made by hand does not reach the sockets of TCP and UDP on the loopback.
//!
//! Deliberately absent: `IP_OPTIONS`, and neighbour discovery on raw sockets of ICMPv6.

mod state;
mod transfer;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use abi::Errno;
use abi::ioctl::{FIONREAD, TIOCOUTQ};
use abi::poll::PollEvents;
use abi::socket::{AF_INET, AF_INET6, MsgFlags, SocketKind};
use bpf::PacketFilter;
use guestmem::{IoSink, IoSource};
use sync::wait::WaitQueue;
use vfs::{IoctlRequest, Result};

use super::network::Network;
use super::options::{SOL_IP, SOL_IPV6, Setting};
use super::{IPPROTO_ICMP, IPPROTO_ICMPV6, address, ioctl};
use crate::{Asker, Outgoing, Received, Shutdown, Socket, Try};

pub(super) use state::{Core, Raws, hear, lost};
use state::{Kind, State};

/// `IPPROTO_RAW`: packets are sent only, with a head.
const IPPROTO_RAW: u8 = 255;
/// Level of raw sockets, and of ICMPv6.
const SOL_RAW: i32 = 255;
const SOL_ICMPV6: i32 = 58;
/// `ICMP_FILTER`, `ICMPV6_FILTER`.
const FILTER: i32 = 1;
const IP_HDRINCL: i32 = 3;
const IPV6_CHECKSUM: i32 = 7;
const SO_BROADCAST: i32 = 6;
const SO_TIMESTAMP: i32 = 29;
const SO_TIMESTAMPNS: i32 = 35;
const SO_DETACH_FILTER: i32 = 27;

/// A raw or ping socket. Dropping it closes it.
pub struct RawSocket {
    core: Arc<Core>,
}

impl RawSocket {
    /// A raw socket for `protocol`.
    pub(super) fn raw(v6: bool, protocol: u8, network: &Arc<Network>) -> Arc<Self> {
        Arc::new(Self { core: Core::new(v6, Kind::Raw, protocol, network) })
    }

    /// A ping socket.
    pub(super) fn ping(v6: bool, network: &Arc<Network>) -> Arc<Self> {
        let protocol = if v6 { IPPROTO_ICMPV6 } else { IPPROTO_ICMP } as u8;
        Arc::new(Self { core: Core::new(v6, Kind::Ping, protocol, network) })
    }

    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.core.state.lock())
    }

    fn setting<'a>(&'a self, state: &State) -> Setting<'a> {
        Setting {
            network: &self.core.network,
            v6: self.core.v6,
            stream: false,
            bound: state.local.is_some(),
            connected: state.remote.is_some(),
        }
    }

    /// An option of raw sockets alone; `None` for any other.
    fn own_option(&self, state: &State, level: i32, name: i32) -> Option<Vec<u8>> {
        let core = &self.core;
        let raw = core.kind == Kind::Raw;
        match (level, name) {
            (SOL_IP, IP_HDRINCL) if raw && !core.v6 => {
                Some(i32::from(state.with_head).to_ne_bytes().to_vec())
            }
            (SOL_RAW, FILTER) if raw && !core.v6 && core.protocol == 1 => {
                Some(state.types4.to_ne_bytes().to_vec())
            }
            (SOL_ICMPV6, FILTER) if raw && core.v6 => {
                Some(state.types6.iter().flat_map(|word| word.to_ne_bytes()).collect())
            }
            (SOL_IPV6 | SOL_RAW, IPV6_CHECKSUM) if raw && core.v6 => {
                let at = state.checksum_at.map_or(-1, i32::from);
                Some(at.to_ne_bytes().to_vec())
            }
            _ => None,
        }
    }

    /// Sets one.
    fn set_own_option(&self, state: &mut State, level: i32, name: i32, value: &[u8]) -> Option<Result<()>> {
        self.own_option(state, level, name)?;
        let number = value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        Some(match (level, name) {
            (SOL_IP, _) => number.map(|on| state.with_head = on != 0).ok_or(Errno::EINVAL),
            (SOL_RAW, FILTER) => number.map(|types| state.types4 = types as u32).ok_or(Errno::EINVAL),
            (SOL_ICMPV6, _) => {
                let bytes = value.iter().copied().chain(std::iter::repeat(0)).take(32).collect::<Vec<_>>();
                let words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word));
                state.types6.iter_mut().zip(words).for_each(|(place, word)| *place = word);
                Ok(())
            }
            _ => self.set_checksum(state, number),
        })
    }

    /// `IPV6_CHECKSUM`: of ICMPv6 it is always made, and where is not to be chosen.
    fn set_checksum(&self, state: &mut State, at: Option<i32>) -> Result<()> {
        let at = at.ok_or(Errno::EINVAL)?;
        if i32::from(self.core.protocol) == IPPROTO_ICMPV6 || (at > 0 && at & 1 != 0) {
            return Err(Errno::EINVAL);
        }
        state.checksum_at = if at < 0 { None } else { Some(u16::try_from(at).map_err(|_| Errno::EINVAL)?) };
        Ok(())
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        self.core.network.raws(|raws| raws.remove(self.core.id));
        self.core.network.hear_packets();
        self.core.wait.notify(PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::ALWAYS);
    }
}

impl Socket for RawSocket {
    fn family(&self) -> u16 {
        if self.core.v6 { AF_INET6 } else { AF_INET }
    }

    fn kind(&self) -> SocketKind {
        match self.core.kind {
            Kind::Raw => SocketKind::Raw,
            Kind::Ping => SocketKind::Datagram,
        }
    }

    fn protocol(&self) -> i32 {
        self.core.protocol.into()
    }

    fn bind(&self, _: &Asker<'_>, address: &[u8]) -> Result<()> {
        let core = &self.core;
        let wanted = super::bind_address(core.v6, address)?;
        let mut state = core.state.lock();
        if !wanted.ip().is_multicast() && !core.network.is_broadcast(wanted.ip()) {
            super::check_bind(&core.network, &state.ip, wanted)?;
        }
        if core.kind == Kind::Ping && state.ident.is_some() {
            return Err(Errno::EINVAL);
        }
        state.local = Some(wanted.ip()).filter(|ip| !ip.is_unspecified());
        if core.kind == Kind::Ping {
            state.ident = Some(core.take_ident(wanted.port())?);
        }
        Ok(())
    }

    fn connect(&self, _: &Asker<'_>, bytes: &[u8]) -> Try<()> {
        let core = &self.core;
        if address::is_unspecified(bytes)? {
            let mut state = core.state.lock();
            (state.remote, state.source) = (None, None);
            return Ok(());
        }
        let to = super::destination(address::parse(core.v6, bytes)?).ip();
        if core.v6 && to.is_ipv4() {
            return Err(Errno::ENETUNREACH.into());
        }
        let mut state = core.state.lock();
        if core.network.is_broadcast(to) && !state.broadcast {
            return Err(Errno::EACCES.into());
        }
        let source = core.source(&state, to, None)?;
        if core.kind == Kind::Ping && state.ident.is_none() {
            state.ident = Some(core.take_ident(0)?);
        }
        (state.remote, state.source) = (Some(to), Some(source));
        Ok(())
    }

    fn name(&self) -> Vec<u8> {
        let (ip, port) = self.with(|state| (state.local.or(state.source), self.core.shown_port(state)));
        let ip = ip.unwrap_or(address::any(self.core.v6));
        address::shown(self.core.v6, SocketAddr::new(ip, port))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let remote: IpAddr = self.with(|state| state.remote).ok_or(Errno::ENOTCONN)?;
        Ok(address::shown(self.core.v6, SocketAddr::new(remote, 0)))
    }

    fn send(&self, _: &Asker<'_>, source: &mut dyn IoSource, message: &Outgoing<'_>) -> Try<usize> {
        Ok(self.send_packet(source, message)?)
    }

    fn receive(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            self.receive_error(sink)
        } else {
            self.receive_packet(sink, flags)
        }
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let connected = self.with(|state| {
            state.deaf |= how.reads();
            state.mute |= how.writes();
            state.remote.is_some()
        });
        self.core.wait.notify(PollEvents::READABLE | PollEvents::HUP | PollEvents::RDHUP);
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn poll(&self) -> PollEvents {
        self.with(|state| {
            let mut events = PollEvents::WRITABLE | PollEvents::WRBAND;
            events.set(PollEvents::READABLE, state.deaf || !state.queue.is_empty());
            events.set(PollEvents::RDHUP, state.deaf);
            events.set(PollEvents::HUP, state.deaf && state.mute);
            events.set(PollEvents::ERR, state.error.is_some() || !state.errors.is_empty());
            events
        })
    }

    fn wait_queue(&self) -> &WaitQueue {
        &self.core.wait
    }

    fn ioctl(&self, request: &IoctlRequest<'_>) -> Result<u64> {
        let number = match request.cmd {
            FIONREAD => self.with(|state| state.queue.front().map_or(0, |first| first.data.len())),
            // What is sent is gone at once.
            TIOCOUTQ => 0,
            _ => return ioctl::answer(&self.core.network, request),
        };
        request.mem.write(request.addr(), &(number as i32).to_ne_bytes())?;
        Ok(0)
    }

    fn take_error(&self) -> Option<Errno> {
        self.with(|state| state.error.take())
    }

    fn set_receive_buffer(&self, bytes: usize) {
        self.with(|state| state.limit = bytes);
    }

    fn switched(&self, name: i32, value: i32) {
        let on = value != 0;
        self.with(|state| match name {
            SO_BROADCAST => state.broadcast = on,
            SO_TIMESTAMP => (state.stamp, state.stamp_nanos) = (on, false),
            SO_TIMESTAMPNS => (state.stamp, state.stamp_nanos) = (on, on),
            _ => {}
        });
    }

    fn attach_filter(&self, filter: PacketFilter) -> Result<()> {
        self.with(|state| state.filter = Some(Arc::new(filter)));
        Ok(())
    }

    fn option(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        self.with(|state| match level {
            crate::options::SOL_SOCKET => super::socket_option(name),
            _ => match self.own_option(state, level, name) {
                Some(value) => Ok(value),
                None => state.ip.option(self.setting(state), level, name),
            },
        })
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.with(|state| match level {
            crate::options::SOL_SOCKET if name == SO_DETACH_FILTER => {
                state.filter.take().map(drop).ok_or(Errno::ENOENT)
            }
            crate::options::SOL_SOCKET => super::set_socket_option(&self.core.network, name, value),
            _ => match self.set_own_option(state, level, name, value) {
                Some(outcome) => outcome,
                None => {
                    let setting = self.setting(state);
                    state.ip.set(setting, level, name, value)
                }
            },
        })
    }
}
