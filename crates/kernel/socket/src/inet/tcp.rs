//! TCP (`tcp(7)`, RFC 9293).
//!
//! - `end`: an end of a connection. - `splice`: one within the sandbox, two queues of bytes without segments;
//!   `inbox`: one of the queues. - `wire`: one to the outside.
//! - `connect`: how sockets get their addresses and meet. - `state`: what they are.
//! - `settings`: their options. - `info`: `TCP_INFO`.
//!
//! Deliberately absent: `SIGURG` (urgent data itself is there), `TCP_REPAIR`, fast open (accepted as an
//! option, without effect), keepalive probes and user timeouts, which never fail within one sandbox.

mod connect;
mod dial;
mod end;
mod inbox;
mod info;
mod settings;
pub(super) mod splice;
mod state;
#[cfg(test)]
mod tests;
pub(super) mod wire;

use std::sync::Arc;

use abi::Errno;
use abi::ioctl::{FIONREAD, TIOCOUTQ};
use abi::poll::PollEvents;
use abi::socket::{AF_INET, AF_INET6, MsgFlags, SocketKind};
use guestmem::{IoSink, IoSource};
use sync::wait::WaitQueue;
use vfs::{IoctlRequest, Result};

use super::address;
use super::ioctl;
use super::network::Network;
use super::options::Setting;
use crate::{Asker, Outgoing, Received, Shutdown, Socket, Stall, Try};

use end::End;
use settings::SOL_TCP;
pub(super) use state::{Core, TcpState};
use state::{Role, State};

/// `IPPROTO_TCP`.
const PROTOCOL: i32 = 6;
/// `TCP_INFO`.
const TCP_INFO: i32 = 11;
/// `SIOCATMARK`, `SIOCOUTQNSD`.
const SIOCATMARK: u32 = 0x8905;
const SIOCOUTQNSD: u32 = 0x894b;

const SO_REUSEADDR: i32 = 2;
const SO_KEEPALIVE: i32 = 9;
const SO_OOBINLINE: i32 = 10;
const SO_REUSEPORT: i32 = 15;
const SO_RCVLOWAT: i32 = 18;

/// A TCP socket. Dropping it closes it.
pub struct TcpSocket {
    core: Arc<Core>,
}

impl TcpSocket {
    /// A fresh socket of `AF_INET6` (`v6`) or `AF_INET`.
    pub fn new(v6: bool, network: &Arc<Network>) -> Arc<Self> {
        Arc::new(Self { core: Core::new(v6, network, State::default()) })
    }

    /// Runs `with` over the state.
    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.core.state.lock())
    }

    /// The connection; `None` when there is none.
    fn end(&self) -> Option<End> {
        self.with(|state| state.end().cloned())
    }

    /// Options that shape packets reach those of a connection to the outside.
    fn reshape(&self) {
        let (end, settings) = self.with(|state| (state.end().cloned(), state.settings.clone()));
        if let Some(End::Wire(wire)) = end {
            wire.configure(&settings);
        }
    }

    fn setting<'a>(&'a self, state: &State) -> Setting<'a> {
        Setting {
            network: &self.core.network,
            v6: self.core.v6,
            stream: true,
            bound: state.local.is_some(),
            connected: state.end().is_some(),
        }
    }

    /// Sizes of an open connection follow the options.
    fn resize(&self) {
        let (end, sizes) = self.with(|state| (state.end().cloned(), state.settings.sizes()));
        if let Some(end) = end {
            end.resize(sizes);
        }
    }
}

impl Drop for TcpSocket {
    fn drop(&mut self) {
        self.release();
    }
}

impl Socket for TcpSocket {
    fn family(&self) -> u16 {
        if self.core.v6 { AF_INET6 } else { AF_INET }
    }

    fn kind(&self) -> SocketKind {
        SocketKind::Stream
    }

    fn protocol(&self) -> i32 {
        PROTOCOL
    }

    fn bind(&self, asker: &Asker<'_>, address: &[u8]) -> Result<()> {
        self.bind_to(asker, address)
    }

    fn connect(&self, asker: &Asker<'_>, address: &[u8]) -> Try<()> {
        self.connect_to(asker, address)
    }

    fn listen(&self, asker: &Asker<'_>, backlog: i32) -> Result<()> {
        self.start_listening(asker, backlog)
    }

    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Ok(self.next_ready()?)
    }

    fn name(&self) -> Vec<u8> {
        let local = self.with(|state| state.local);
        address::shown(self.core.v6, local.unwrap_or(address::nothing(self.core.v6)))
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        let remote = self.with(|state| {
            let open = state.end().is_some_and(|end| end.state() != TcpState::Close);
            state.remote.filter(|_| open)
        });
        Ok(address::shown(self.core.v6, remote.ok_or(Errno::ENOTCONN)?))
    }

    fn send(&self, _: &Asker<'_>, source: &mut dyn IoSource, message: &Outgoing<'_>) -> Try<usize> {
        let end = self.with(|state| match &state.role {
            Role::Connected(end) => Ok(end.clone()),
            Role::Calling | Role::Dialing(_) => Err(Stall::Wait(self.core.wait.clone())),
            Role::Idle | Role::Listening(_) => Err(state.error.take().unwrap_or(Errno::EPIPE).into()),
        })?;
        end.write(source, message.flags.contains(MsgFlags::OOB))
    }

    fn receive(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        let end = self.with(|state| match &state.role {
            Role::Connected(end) => Ok(Some(end.clone())),
            Role::Calling | Role::Dialing(_) => Err(Errno::EAGAIN),
            Role::Listening(_) => Err(Errno::ENOTCONN),
            // What has failed has ended once its error was told.
            Role::Idle => match state.error.take() {
                Some(errno) => Err(errno),
                None if state.failed => Ok(None),
                None => Err(Errno::ENOTCONN),
            },
        })?;
        match end {
            Some(end) => end.read(sink, flags),
            None => Ok(Received { end: true, ..Received::default() }),
        }
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.shut(how)
    }

    fn poll(&self) -> PollEvents {
        self.with(|state| match &state.role {
            Role::Connected(end) => end.poll(),
            Role::Calling | Role::Dialing(_) => PollEvents::empty(),
            Role::Listening(backlog) => {
                if backlog.ready.is_empty() {
                    PollEvents::empty()
                } else {
                    PollEvents::READABLE
                }
            }
            Role::Idle => {
                let mut events = PollEvents::WRITABLE | PollEvents::HUP;
                if state.failed {
                    events |= PollEvents::READABLE | PollEvents::RDHUP;
                }
                events.set(PollEvents::ERR, state.error.is_some());
                events
            }
        })
    }

    fn wait_queue(&self) -> &WaitQueue {
        &self.core.wait
    }

    fn ioctl(&self, request: &IoctlRequest<'_>) -> Result<u64> {
        let number = match request.cmd {
            FIONREAD | TIOCOUTQ | SIOCATMARK | SIOCOUTQNSD => {
                let (end, listening) =
                    self.with(|state| (state.end().cloned(), matches!(state.role, Role::Listening(_))));
                if listening && request.cmd != SIOCATMARK {
                    return Err(Errno::EINVAL);
                }
                match (end, request.cmd) {
                    (None, _) => 0,
                    (Some(end), SIOCATMARK) => usize::from(end.is_at_mark()),
                    (Some(end), FIONREAD) => end.facts().unread,
                    // Whatever has been sent has arrived, or waits for room.
                    (Some(end), _) => end.facts().unsent,
                }
            }
            _ => return ioctl::answer(&self.core.network, request),
        };
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        request.mem.write(request.addr(), &number.to_ne_bytes())?;
        Ok(0)
    }

    fn take_error(&self) -> Option<Errno> {
        let (error, end) = self.with(|state| (state.error.take(), state.end().cloned()));
        error.or_else(|| end.and_then(|end| end.take_error()))
    }

    fn is_listening(&self) -> bool {
        self.with(|state| matches!(state.role, Role::Listening(_)))
    }

    fn set_send_buffer(&self, bytes: usize) {
        self.with(|state| state.settings.send = Some(bytes));
        self.resize();
    }

    fn set_receive_buffer(&self, bytes: usize) {
        self.with(|state| state.settings.receive = Some(bytes));
        self.resize();
    }

    fn set_passes_credentials(&self, _: bool) -> Result<()> {
        // As on Linux, kept by every family and heeded by none but Unix.
        Err(Errno::EOPNOTSUPP)
    }

    fn attached(&self, ino: u64, uid: u32) {
        self.core.attached(ino, uid);
    }

    fn switched(&self, name: i32, value: i32) {
        let on = value != 0;
        let port = self.with(|state| {
            let settings = &mut state.settings;
            match name {
                SO_REUSEADDR => settings.reuse = on,
                SO_REUSEPORT => settings.share = on,
                SO_KEEPALIVE => settings.keepalive = on,
                SO_OOBINLINE => settings.inline = on,
                SO_RCVLOWAT => settings.lowat = value.max(1) as usize,
                _ => {}
            }
            state.local.map(|local| (local.port(), settings.reuse, settings.share))
        });
        if let Some((port, reuse, share)) = port.filter(|_| matches!(name, SO_REUSEADDR | SO_REUSEPORT)) {
            let change = |claim: &mut super::ports::Claim<Core>| (claim.reuse, claim.share) = (reuse, share);
            self.core.network.streams(|streams| streams.ports.change(port, self.core.id, change));
        }
        match name {
            SO_OOBINLINE | SO_RCVLOWAT | SO_REUSEADDR => self.resize(),
            SO_KEEPALIVE => self.reshape(),
            _ => {}
        }
    }

    fn set_linger(&self, seconds: Option<u32>) {
        self.with(|state| state.settings.linger = seconds);
    }

    fn usual_buffers(&self) -> Option<(i32, i32)> {
        let connected = self.end().is_some();
        let send = if connected { settings::CONNECTED_SEND_BYTES } else { settings::SEND_BYTES };
        Some((send, settings::RECEIVE_BYTES))
    }

    fn option(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        if level == SOL_TCP && name == TCP_INFO {
            return Ok(self.info());
        }
        self.with(|state| match level {
            SOL_TCP => state.settings.option(name, state.end().is_some()),
            crate::options::SOL_SOCKET => super::socket_option(name),
            _ => state.settings.ip.option(self.setting(state), level, name),
        })
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        let outcome = self.with(|state| match level {
            SOL_TCP => state.settings.set_option(name, value, matches!(state.role, Role::Idle)),
            crate::options::SOL_SOCKET => super::set_socket_option(&self.core.network, name, value),
            _ => {
                let setting = self.setting(state);
                state.settings.ip.set(setting, level, name, value)
            }
        });
        if outcome.is_ok() {
            self.reshape();
        }
        outcome
    }
}
