//! What raw and ping sockets send and receive.

use std::net::{IpAddr, SocketAddr};

use abi::Errno;
use abi::socket::MsgFlags;
use guestmem::{IoSink, IoSource};
use netstack::{Packet, SendError, checksum, ip_packet};
use vfs::Result;

use super::RawSocket;
use super::state::{ECHO4, ECHO6, Kind, State, hear};
use crate::inet::address;
use crate::inet::control::{self, Sending};
use crate::inet::{IPPROTO_ICMP, IPPROTO_ICMPV6};
use crate::{Ancillary, Outgoing, Received};

/// Longest packet.
const MAX_BYTES: usize = 0xffff;
/// Bytes of the head of an echo, and where its checksum and identifier stand.
const ECHO_HEAD: usize = 8;
const CHECKSUM_AT: usize = 2;
const IDENT_AT: usize = 4;

/// Puts a number into the bytes of a packet; nothing when they are too few.
fn put(bytes: &mut [u8], at: usize, number: u16) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = number.to_be_bytes();
    }
}

impl RawSocket {
    /// The destination of a message. `EDESTADDRREQ` without one.
    fn target(&self, state: &State, to: Option<&[u8]>) -> Result<IpAddr> {
        let Some(bytes) = to else { return state.remote.ok_or(Errno::EDESTADDRREQ) };
        let unspecified = address::parse_unspecified(self.core.v6, bytes);
        let to = unspecified.unwrap_or_else(|| address::parse(self.core.v6, bytes))?;
        let to = crate::inet::destination(to).ip();
        if self.core.v6 && to.is_ipv4() { Err(Errno::ENETUNREACH) } else { Ok(to) }
    }

    /// `sendmsg(2)`.
    pub(super) fn send_packet(&self, source: &mut dyn IoSource, message: &Outgoing<'_>) -> Result<usize> {
        let core = &self.core;
        let len = source.remaining();
        if len > MAX_BYTES {
            return Err(Errno::EMSGSIZE);
        }
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if core.kind == Kind::Ping && len < ECHO_HEAD {
            return Err(Errno::EINVAL);
        }
        let (to, from, sending, with_head, ident, checksum_at) = {
            let mut state = core.state.lock();
            let to = self.target(&state, message.to)?;
            let sending =
                control::outgoing(&core.network, &state.ip, SocketAddr::new(to, 0), 0, message.ancillary)?;
            if core.network.is_broadcast(to) && !state.broadcast {
                return Err(Errno::EACCES);
            }
            if let Some(errno) = state.error.take() {
                return Err(errno);
            }
            if state.mute {
                return Err(Errno::EPIPE);
            }
            let from = core.source(&state, to, sending.source)?;
            if core.kind == Kind::Ping && state.ident.is_none() {
                state.ident = Some(core.take_ident(0)?);
            }
            (to, from, sending, state.with_head, state.ident, state.checksum_at)
        };
        let mut data = source.take_exact(len)?;
        if core.kind == Kind::Ping {
            self.make_echo(&mut data, ident.unwrap_or(0))?;
        }
        if core.v6
            && let Some(at) = checksum_at
        {
            if data.len() < usize::from(at) + 2 {
                return Err(Errno::EINVAL);
            }
            put(&mut data, at.into(), 0);
            let whole = checksum(Some((from, to, core.protocol)), &data);
            put(&mut data, at.into(), whole);
        }
        self.dispatch(&data, (from, to), &sending, with_head)?;
        Ok(len)
    }

    /// Only echoes are sent by a ping socket, with its own identifier.
    fn make_echo(&self, data: &mut [u8], ident: u16) -> Result<()> {
        let echo = if self.core.v6 { ECHO6 } else { ECHO4 };
        if data.first_chunk() != Some(&[echo, 0]) {
            return Err(Errno::EINVAL);
        }
        put(data, IDENT_AT, ident);
        put(data, CHECKSUM_AT, 0);
        if !self.core.v6 {
            let whole = checksum(None, data);
            put(data, CHECKSUM_AT, whole);
        }
        Ok(())
    }

    fn dispatch(
        &self,
        data: &[u8],
        (from, to): (IpAddr, IpAddr),
        sending: &Sending,
        with_head: bool,
    ) -> Result<()> {
        let core = &self.core;
        let several = to.is_multicast() || core.network.is_broadcast(to);
        let stays = if several { from.is_loopback() } else { core.network.is_local(to) };
        let shape = (sending.ttl, sending.tos);
        if stays {
            let whole = if with_head {
                Some(data.to_vec())
            } else {
                ip_packet((from, to), core.protocol, data, shape)
            };
            let lo = core.network.interface_of(to);
            let packet = Packet::of(whole.ok_or(Errno::EMSGSIZE)?, lo).ok_or(Errno::EINVAL)?;
            hear_here(&core.network, &packet);
            return Ok(());
        }
        let outside = core.network.outside().ok_or(Errno::ENETUNREACH)?;
        let sent = outside.with(|stack, now| match with_head {
            true => stack.send_whole(data, now),
            false => stack.send_raw((from, to), core.protocol, data, shape, now),
        });
        sent.map_err(|error| match error {
            SendError::Denied => outside.denied("packet", SocketAddr::new(to, 0)),
            SendError::NoRoute => Errno::ENETUNREACH,
            SendError::TooLong => Errno::EMSGSIZE,
            SendError::Malformed => Errno::EINVAL,
        })
    }

    /// `recvmsg(2)`: the next packet; what does not fit is lost.
    pub(super) fn receive_packet(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
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
                let end = state.deaf && !flags.contains(MsgFlags::DONTWAIT);
                return if end { Ok(Received { end, ..Received::default() }) } else { Err(Errno::EAGAIN) };
            };
            let wishes = control::Wishes {
                v6: self.core.v6,
                stamp: state.stamp,
                nanos: state.stamp_nanos,
                drops: None,
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

    /// `MSG_ERRQUEUE`: an error, with the packet it is about.
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

/// A packet stays in the sandbox: who hears it does, and an echo is answered.
fn hear_here(network: &crate::inet::Network, packet: &Packet) {
    hear(network, packet);
    let v4 = packet.to.is_ipv4();
    let (protocol, echo) = if v4 { (IPPROTO_ICMP, ECHO4) } else { (IPPROTO_ICMPV6, ECHO6) };
    let data = packet.payload();
    if i32::from(packet.protocol) != protocol || data.first() != Some(&echo) || packet.to.is_multicast() {
        return;
    }
    let mut reply = data.to_vec();
    let kind = if v4 { [0, 0] } else { [129, 0] };
    reply.iter_mut().zip(kind).for_each(|(place, byte)| *place = byte);
    put(&mut reply, CHECKSUM_AT, 0);
    let ends = (!v4).then_some((packet.to, packet.from, packet.protocol));
    let whole = checksum(ends, &reply);
    put(&mut reply, CHECKSUM_AT, whole);
    let made = ip_packet((packet.to, packet.from), packet.protocol, &reply, (64, packet.class));
    if let Some(answer) = made.and_then(|bytes| Packet::of(bytes, packet.nic)) {
        hear(network, &answer);
    }
}
