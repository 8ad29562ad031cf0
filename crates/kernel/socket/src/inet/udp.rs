//! UDP (`udp(7)`, RFC 768).
//!
//! - `state`: what others reach of a socket, and how datagrams are delivered. - `transfer`: sending and
//!   receiving. - [`control`](super::control): control data.
//!
//! Deliberately absent: encapsulation (`UDP_ENCAP`), checksums that could be switched off, and receive
//! offload (`UDP_GRO` is accepted, and nothing is ever put together).

mod state;
#[cfg(test)]
mod tests;
mod transfer;

use std::net::SocketAddr;
use std::sync::Arc;

use abi::Errno;
use abi::ioctl::{FIONREAD, TIOCOUTQ};
use abi::poll::PollEvents;
use abi::socket::{AF_INET, AF_INET6, MsgFlags, SocketKind};
use guestmem::{IoSink, IoSource};
use sync::wait::WaitQueue;
use vfs::{IoctlRequest, Result};

use super::network::Network;
use super::options::Setting;
use super::{address, check_port, ioctl};
use crate::{Asker, Outgoing, Received, Shutdown, Socket, Try};

use state::State;
pub(super) use state::{Core, Datagram, Failure, deliver, lost};

/// `IPPROTO_UDP`, also as a level.
const PROTOCOL: i32 = 17;
/// Default and account of received datagrams (`net.core.rmem_default`).
const RECEIVE_BYTES: usize = 212_992;

const SO_REUSEADDR: i32 = 2;
const SO_BROADCAST: i32 = 6;
const SO_REUSEPORT: i32 = 15;
const SO_TIMESTAMP: i32 = 29;
const SO_TIMESTAMPNS: i32 = 35;
const SO_RXQ_OVFL: i32 = 40;

/// `UDP_CORK`, `UDP_NO_CHECK6_TX`, `UDP_NO_CHECK6_RX`, `UDP_SEGMENT`, `UDP_GRO`.
const UDP_CORK: i32 = 1;
const UDP_NO_CHECK6_TX: i32 = 101;
const UDP_NO_CHECK6_RX: i32 = 102;
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;

/// A UDP socket. Dropping it closes it.
pub struct UdpSocket {
    core: Arc<Core>,
}

impl UdpSocket {
    /// A fresh socket of `AF_INET6` (`v6`) or `AF_INET`.
    pub fn new(v6: bool, network: &Arc<Network>) -> Arc<Self> {
        Arc::new(Self { core: Core::new(v6, network) })
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

    /// Takes a port, unless it has one.
    fn bind_any(&self, state: &mut State) -> Result<SocketAddr> {
        if let Some(local) = state.local {
            return Ok(local);
        }
        let any = address::nothing(self.core.v6);
        let claim = self.core.claim(any, state);
        let id = self.core.id;
        let port = self.core.network.datagrams(|ports| ports.claim_any(id, claim, |_| true));
        let local = SocketAddr::new(any.ip(), port.map_err(|_| Errno::EAGAIN)?);
        Ok(*state.local.insert(local))
    }

    /// Has the claim follow the address.
    fn renew(&self, state: &State) {
        let Some(local) = state.local else { return };
        let (reuse, share) = (state.reuse, state.share);
        self.core.network.datagrams(|ports| {
            ports.change(local.port(), self.core.id, |claim| {
                (claim.ip, claim.reuse, claim.share) = (local.ip(), reuse, share);
            });
        });
    }

    /// `connect(2)` to nowhere.
    fn disconnect(&self) {
        let mut state = self.core.state.lock();
        state.remote = None;
        let Some(local) = state.local else { return };
        if state.bound.is_none() {
            state.local = None;
            self.core.network.datagrams(|ports| ports.release(local.port(), self.core.id));
        } else {
            let ip = state.bound.unwrap_or(local.ip());
            state.local = Some(SocketAddr::new(ip, local.port()));
            self.renew(&state);
        }
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        let (local, queue) = self.with(|state| (state.local.take(), std::mem::take(&mut state.queue)));
        if let Some(local) = local {
            self.core.network.datagrams(|ports| ports.release(local.port(), self.core.id));
        }
        drop(queue);
        self.core.wait.notify(PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::ALWAYS);
    }
}

impl Socket for UdpSocket {
    fn family(&self) -> u16 {
        if self.core.v6 { AF_INET6 } else { AF_INET }
    }

    fn kind(&self) -> SocketKind {
        SocketKind::Datagram
    }

    fn protocol(&self) -> i32 {
        PROTOCOL
    }

    fn bind(&self, asker: &Asker<'_>, address: &[u8]) -> Result<()> {
        let core = &self.core;
        let wanted = super::bind_address(core.v6, address)?;
        let mut state = core.state.lock();
        if !wanted.ip().is_multicast() && !core.network.is_broadcast(wanted.ip()) {
            super::check_bind(&core.network, &state.ip, wanted)?;
        }
        check_port(asker, &core.network, wanted.port())?;
        if state.local.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut claim = core.claim(wanted, &state);
        claim.uid = asker.cred.euid;
        let port = core.network.datagrams(|ports| match wanted.port() {
            0 => ports.claim_any(core.id, claim, |_| true),
            port => ports.claim(port, core.id, claim).map(|()| port),
        })?;
        state.local = Some(SocketAddr::new(wanted.ip(), port));
        state.bound = Some(wanted.ip());
        Ok(())
    }

    fn connect(&self, _: &Asker<'_>, bytes: &[u8]) -> Try<()> {
        let core = &self.core;
        if address::is_unspecified(bytes)? {
            self.disconnect();
            return Ok(());
        }
        let to = super::destination(address::parse_datagram(core.v6, bytes)?);
        let mut state = core.state.lock();
        state.check_family(to)?;
        if core.network.is_broadcast(to.ip()) && !state.broadcast {
            return Err(Errno::EACCES.into());
        }
        let source = core.source(&state, to, None)?;
        let local = self.bind_any(&mut state)?;
        state.local = Some(SocketAddr::new(source, local.port()));
        state.remote = Some(to);
        self.renew(&state);
        drop(state);
        core.wait.notify(PollEvents::WRITABLE);
        Ok(())
    }

    fn name(&self) -> Vec<u8> {
        let local = self.with(|state| state.local);
        address::shown(self.core.v6, local.unwrap_or(address::nothing(self.core.v6)))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let remote = self.with(|state| state.remote).ok_or(Errno::ENOTCONN)?;
        Ok(address::shown(self.core.v6, remote))
    }

    fn send(&self, _: &Asker<'_>, source: &mut dyn IoSource, message: &Outgoing<'_>) -> Try<usize> {
        Ok(self.send_datagram(source, message)?)
    }

    fn receive(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            self.receive_error(sink)
        } else {
            self.receive_datagram(sink, flags)
        }
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        let connected = self.with(|state| {
            state.deaf |= how.reads();
            state.mute |= how.writes();
            state.remote.is_some()
        });
        self.core
            .wait
            .notify(PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::HUP | PollEvents::RDHUP);
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
            // What is sent is delivered at once.
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

    fn attached(&self, ino: u64, uid: u32) {
        self.core.attached(ino, uid);
    }

    fn switched(&self, name: i32, value: i32) {
        let on = value != 0;
        self.with(|state| {
            match name {
                SO_REUSEADDR => state.reuse = on,
                SO_REUSEPORT => state.share = on,
                SO_BROADCAST => state.broadcast = on,
                SO_TIMESTAMP => (state.stamp, state.stamp_nanos) = (on, false),
                SO_TIMESTAMPNS => (state.stamp, state.stamp_nanos) = (on, on),
                SO_RXQ_OVFL => state.tells_drops = on,
                _ => return,
            }
            self.renew(state);
        });
    }

    fn option(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        self.with(|state| match (level, name) {
            (PROTOCOL, UDP_CORK) => Ok(i32::from(state.corked).to_ne_bytes().to_vec()),
            (PROTOCOL, UDP_NO_CHECK6_TX | UDP_NO_CHECK6_RX | UDP_GRO) => Ok(0i32.to_ne_bytes().to_vec()),
            (PROTOCOL, UDP_SEGMENT) => Ok(i32::from(state.segment).to_ne_bytes().to_vec()),
            (PROTOCOL, _) => Err(Errno::ENOPROTOOPT),
            (crate::options::SOL_SOCKET, _) => super::socket_option(name),
            _ => state.ip.option(self.setting(state), level, name),
        })
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.with(|state| match level {
            PROTOCOL => {
                let number = value.first_chunk().map(|b| i32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
                match name {
                    UDP_CORK => state.corked = number != 0,
                    UDP_NO_CHECK6_TX | UDP_NO_CHECK6_RX | UDP_GRO => {}
                    UDP_SEGMENT => state.segment = u16::try_from(number).map_err(|_| Errno::EINVAL)?,
                    _ => return Err(Errno::ENOPROTOOPT),
                }
                Ok(())
            }
            crate::options::SOL_SOCKET => super::set_socket_option(&self.core.network, name, value),
            _ => {
                let setting = self.setting(state);
                state.ip.set(setting, level, name, value)
            }
        })
    }
}
