//! What UDP sockets send and receive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use abi::Errno;
use abi::socket::MsgFlags;
use guestmem::{IoSink, IoSource};
use netstack::{Report, SendError};
use vfs::Result;

use super::UdpSocket;
use super::state::{Datagram, State, deliver};
use crate::inet::address;
use crate::inet::control::{self, Sending};
use crate::{Ancillary, Outgoing, Received};

/// Largest payload: what a length of 16 bits leaves behind the heads of UDP, and of IPv4.
const MAX4: usize = 65_535 - 28;
const MAX6: usize = 65_535 - 8;
/// Most datagrams `UDP_SEGMENT` makes of one.
const MAX_SEGMENTS: usize = 128;

/// Fetches all of a datagram.
fn fetch(source: &mut dyn IoSource, limit: usize) -> Result<Vec<u8>> {
    let want = source.remaining();
    if want > limit {
        return Err(Errno::EMSGSIZE);
    }
    source.take_exact(want)
}

impl UdpSocket {
    /// The destination of a message. `EDESTADDRREQ` without one.
    fn target(&self, state: &State, to: Option<&[u8]>) -> Result<SocketAddr> {
        let Some(bytes) = to else { return state.remote.ok_or(Errno::EDESTADDRREQ) };
        let unspecified = address::parse_unspecified(self.core.v6, bytes);
        let to = unspecified.unwrap_or_else(|| address::parse_datagram(self.core.v6, bytes))?;
        if to.port() == 0 { Err(Errno::EINVAL) } else { Ok(crate::inet::destination(to)) }
    }

    /// `sendmsg(2)`.
    pub(super) fn send_datagram(&self, source: &mut dyn IoSource, message: &Outgoing<'_>) -> Result<usize> {
        let len = source.remaining();
        if len > 0xffff {
            return Err(Errno::EMSGSIZE);
        }
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (to, from, sending, corked) = {
            let mut state = self.core.state.lock();
            let to = self.target(&state, message.to)?;
            state.check_family(to)?;
            let sending =
                control::outgoing(&self.core.network, &state.ip, to, state.segment, message.ancillary)?;
            if self.core.network.is_broadcast(to.ip()) && !state.broadcast {
                return Err(Errno::EACCES);
            }
            let ip = self.core.source(&state, to, sending.source)?;
            let local = self.bind_any(&mut state)?;
            if let Some(errno) = state.error.take() {
                return Err(errno);
            }
            if state.mute {
                return Err(Errno::EPIPE);
            }
            let corked = state.corked || message.flags.contains(MsgFlags::MORE);
            (to, SocketAddr::new(ip, local.port()), sending, corked)
        };
        let data = fetch(source, if to.is_ipv4() { MAX4 } else { MAX6 })?;
        let data = {
            let mut state = self.core.state.lock();
            if !corked && state.cork.is_empty() {
                data
            } else {
                if state.cork.len() + data.len() > MAX4 {
                    state.cork.clear();
                    return Err(Errno::EMSGSIZE);
                }
                state.cork.extend_from_slice(&data);
                if corked {
                    return Ok(len);
                }
                std::mem::take(&mut state.cork)
            }
        };
        self.dispatch(data, from, to, &sending)?;
        Ok(len)
    }

    /// Sends a payload, in as many datagrams as `UDP_SEGMENT` says.
    fn dispatch(&self, data: Vec<u8>, from: SocketAddr, to: SocketAddr, sending: &Sending) -> Result<()> {
        let size = usize::from(sending.segment);
        if size == 0 || data.len() <= size {
            return self.dispatch_one(data.into(), from, to, sending);
        }
        if data.len() > size * MAX_SEGMENTS {
            return Err(Errno::EINVAL);
        }
        for part in data.chunks(size) {
            self.dispatch_one(part.into(), from, to, sending)?;
        }
        Ok(())
    }

    fn dispatch_one(
        &self,
        data: Arc<[u8]>,
        from: SocketAddr,
        to: SocketAddr,
        sending: &Sending,
    ) -> Result<()> {
        let network = &self.core.network;
        let several = to.ip().is_multicast() || network.is_broadcast(to.ip());
        let stays = if several { from.ip().is_loopback() } else { network.is_local(to.ip()) };
        if let Some(outside) = network.outside().filter(|_| !stays) {
            let shape = (sending.ttl, sending.tos);
            let sent = outside.with(|stack, now| stack.send_datagram((from, to), &data, shape, now));
            sent.map_err(|error| match error {
                SendError::Denied => outside.denied("datagram", to),
                SendError::NoRoute | SendError::Malformed => Errno::ENETUNREACH,
                SendError::TooLong => Errno::EMSGSIZE,
            })?;
            if !several {
                return Ok(());
            }
        }
        if to.ip().is_multicast() && !sending.loops {
            return Ok(());
        }
        let interface = network.interface_of(if to.ip().is_multicast() { from.ip() } else { to.ip() });
        let datagram =
            Datagram { data, from, to, ttl: sending.ttl, tos: sending.tos, interface, at: SystemTime::now() };
        if !deliver(network, &datagram) {
            self.core.refused(&datagram.data, to, &Report::no_port(to.ip()));
        }
        Ok(())
    }

    /// `recvmsg(2)`: the next datagram; what does not fit is lost.
    pub(super) fn receive_datagram(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (datagram, ancillary) = {
            let mut state = self.core.state.lock();
            if let Some(errno) = state.error.take() {
                return Err(errno);
            }
            let next =
                if flags.contains(MsgFlags::PEEK) { state.queue.front().cloned() } else { state.pop() };
            let Some(datagram) = next else {
                // Who does not wait cannot tell the end from a pause.
                let end = state.deaf && !flags.contains(MsgFlags::DONTWAIT);
                return if end { Ok(Received { end, ..Received::default() }) } else { Err(Errno::EAGAIN) };
            };
            let wishes = control::Wishes {
                v6: self.core.v6,
                stamp: state.stamp,
                nanos: state.stamp_nanos,
                drops: state.tells_drops.then_some(state.drops).filter(|drops| *drops > 0),
            };
            let other = control::incoming(&state.ip, &datagram, wishes);
            (datagram, Ancillary { other, ..Ancillary::default() })
        };
        let bytes = sink.put_all(&datagram.data)?;
        let mut out = MsgFlags::empty();
        out.set(MsgFlags::TRUNC, bytes < datagram.data.len());
        let from = Some(address::shown(self.core.v6, datagram.from));
        Ok(Received { bytes, full_len: datagram.data.len(), ancillary, from, flags: out, end: false })
    }

    /// `MSG_ERRQUEUE`: an error, with the datagram it is about.
    pub(super) fn receive_error(&self, sink: &mut dyn IoSink) -> Result<Received> {
        let failure = {
            let mut state = self.core.state.lock();
            let failure = state.errors.pop_front().ok_or(Errno::EAGAIN)?;
            state.error = state.errors.front().map(|next| next.errno);
            failure
        };
        control::receive_failure(self.core.v6, &failure, sink)
    }
}
