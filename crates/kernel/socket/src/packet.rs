//! `AF_PACKET` sockets (`packet(7)`): the frames of the links to the outside, in and out.
//!
//! - `state`: what others reach of a socket, and which frames it hears. - `ring`: frames in memory that the guest has
//!   mapped. - [`Taps`]: all such sockets.
//!
//! They need `CAP_NET_RAW`, and that the sandbox was given them (`--net-raw`). Between the sockets of one sandbox there are
//! no frames, so the loopback is silent. What is left to the device is seen as it is handed over: large segments whole,
//! and checksums that are yet to be made.
//!
//! Deliberately absent: rings to send from, those of version 1 and 3, fanout, and `PACKET_VNET_HDR`.

mod ring;
mod state;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use abi::Errno;
use abi::ioctl::{FIONREAD, TIOCOUTQ};
use abi::poll::PollEvents;
use abi::socket::{AF_PACKET, MsgFlags, SocketKind};
use bpf::PacketFilter;
use cred::Credentials;
use guestmem::{IoSink, IoSource};
use memmap::Mappable;
use sync::wait::WaitQueue;
use vfs::{IoctlRequest, Result};

use crate::inet::Network;
use crate::netlink::Links;
use crate::{Ancillary, Asker, Control, Outgoing, Received, Shutdown, Socket, Try};

pub use ring::Memory;
use ring::Ring;
use state::{Core, State, address};
pub(crate) use state::{Direction, Taps};

/// The level of their options.
const SOL_PACKET: i32 = 263;
const ADD_MEMBERSHIP: i32 = 1;
const DROP_MEMBERSHIP: i32 = 2;
const RX_RING: i32 = 5;
const STATISTICS: i32 = 6;
const COPY_THRESH: i32 = 7;
const AUXDATA: i32 = 8;
const ORIGDEV: i32 = 9;
const VERSION: i32 = 10;
const HDRLEN: i32 = 11;
const RESERVE: i32 = 12;
const LOSS: i32 = 14;
const TIMESTAMP: i32 = 17;
const IGNORE_OUTGOING: i32 = 23;
const SO_DETACH_FILTER: i32 = 27;
/// `TPACKET_V2`, the only version there is, and bytes of its head.
const V2: i32 = 1;
const V2_HEAD: i32 = 32;
/// Bytes of a `sockaddr_ll`, and of the least that names an interface.
const ADDRESS: usize = 20;
const SHORT_ADDRESS: usize = 12;
/// Bytes of the head of a frame, and of an address in it.
const HEAD: usize = 14;
const MAC: usize = 6;

/// A packet socket. Dropping it closes it.
pub struct PacketSocket {
    core: Arc<Core>,
}

/// A fresh socket (`packet(7)`).
///
/// # Errors
/// `EPERM` without `CAP_NET_RAW`, or in a sandbox that has no such sockets; `ESOCKTNOSUPPORT` for types that hear no
/// frames.
pub fn socket(
    kind: Option<SocketKind>,
    protocol: i32,
    network: &Arc<Network>,
    cred: &Credentials,
) -> Result<Arc<dyn Socket>> {
    if !network.may_be_raw(cred) {
        return Err(Errno::EPERM);
    }
    let with_head = match kind {
        Some(SocketKind::Raw) => true,
        Some(SocketKind::Datagram) => false,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    // In the order of the network, like everything that names a protocol here.
    let protocol = u16::from_be(protocol as u16);
    Ok(Arc::new(PacketSocket { core: Core::new(with_head, protocol, network) }))
}

fn int(value: &[u8]) -> Result<i32> {
    value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)).ok_or(Errno::EINVAL)
}

/// Protocol and interface of a `sockaddr_ll`.
fn parse(bytes: &[u8], least: usize) -> Result<(u16, u32)> {
    if bytes.len() < least || crate::family(bytes) != Some(AF_PACKET) {
        return Err(Errno::EINVAL);
    }
    let protocol = bytes.get(2..).and_then(|rest| rest.first_chunk()).ok_or(Errno::EINVAL)?;
    let index = int(bytes.get(4..).unwrap_or_default())?;
    Ok((u16::from_be_bytes(*protocol), u32::try_from(index).map_err(|_| Errno::ENODEV)?))
}

impl PacketSocket {
    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.core.state.lock())
    }

    fn check_interface(&self, index: u32) -> Result<()> {
        let known = index == 0 || self.core.network.links().iter().any(|link| link.index == index);
        if known { Ok(()) } else { Err(Errno::ENODEV) }
    }

    /// The frame of a message, and the interface it goes out by.
    fn frame(&self, source: &mut dyn IoSource, to: Option<&[u8]>) -> Result<(u32, Vec<u8>)> {
        let (bound, protocol) = self.with(|state| (state.interface, state.protocol));
        let (protocol, index) = match to {
            Some(bytes) => parse(bytes, SHORT_ADDRESS)?,
            None => (protocol, bound),
        };
        let links = self.core.network.links();
        let link = links.iter().find(|link| link.index == index).ok_or(Errno::ENXIO)?;
        if source.remaining() > link.mtu as usize + HEAD {
            return Err(Errno::EMSGSIZE);
        }
        let data = source.take_exact(source.remaining())?;
        if self.core.with_head {
            return if data.len() < HEAD { Err(Errno::EINVAL) } else { Ok((index, data)) };
        }
        let target = to.and_then(|to| to.get(SHORT_ADDRESS..SHORT_ADDRESS + MAC)).ok_or(Errno::EINVAL)?;
        Ok((index, [target, &link.mac, &protocol.to_be_bytes(), &data].concat()))
    }

    /// `PACKET_RX_RING`: a `struct tpacket_req`. One without blocks takes the ring away.
    fn set_ring(&self, value: &[u8]) -> Result<()> {
        let words = value.first_chunk::<16>().ok_or(Errno::EINVAL)?.as_chunks::<4>().0;
        let [block_size, blocks, frame_size, frames] = words else { return Err(Errno::EINVAL) };
        let word = |bytes: &[u8; 4]| u32::from_ne_bytes(*bytes);
        let (version, reserve, has) = self.with(|state| (state.version, state.reserve, state.ring.is_some()));
        if word(blocks) == 0 {
            let old = self.with(|state| state.ring.take());
            drop(old);
            return if word(frames) == 0 { Ok(()) } else { Err(Errno::EINVAL) };
        }
        if has {
            return Err(Errno::EBUSY);
        }
        if version != V2 {
            return Err(Errno::EINVAL);
        }
        let shape = [block_size, blocks, frame_size, frames].map(word);
        let memory = self.core.network.memory().ok_or(Errno::ENOMEM)?;
        let ring = Ring::new(shape, reserve, self.core.with_head, memory.as_ref())?;
        self.with(|state| state.ring = Some(ring));
        Ok(())
    }

    fn set_number(&self, name: i32, number: i32) -> Result<()> {
        self.with(|state| {
            let busy = state.ring.is_some();
            match name {
                AUXDATA => state.auxiliary = number != 0,
                IGNORE_OUTGOING => state.ignores_outgoing = number != 0,
                VERSION | RESERVE if busy => return Err(Errno::EBUSY),
                VERSION if number == V2 || number == 0 => state.version = number,
                VERSION => return Err(Errno::EINVAL),
                RESERVE => state.reserve = u16::try_from(number).map_err(|_| Errno::EINVAL)?,
                // Frames are stamped with the time they came, and say themselves which device they came by.
                ORIGDEV | COPY_THRESH | LOSS | TIMESTAMP => {}
                _ => return Err(Errno::ENOPROTOOPT),
            }
            Ok(())
        })
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        self.core.network.taps().remove(self.core.id);
        self.core.wait.notify(PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::ALWAYS);
    }
}

impl Socket for PacketSocket {
    fn family(&self) -> u16 {
        AF_PACKET
    }

    fn kind(&self) -> SocketKind {
        if self.core.with_head { SocketKind::Raw } else { SocketKind::Datagram }
    }

    fn protocol(&self) -> i32 {
        self.with(|state| state.protocol.to_be().into())
    }

    fn bind(&self, _: &Asker<'_>, bytes: &[u8]) -> Result<()> {
        let (protocol, index) = parse(bytes, ADDRESS)?;
        self.check_interface(index)?;
        self.with(|state| {
            state.interface = index;
            if protocol != 0 {
                state.protocol = protocol;
            }
        });
        Ok(())
    }

    fn connect(&self, _: &Asker<'_>, _: &[u8]) -> Try<()> {
        Err(Errno::EOPNOTSUPP.into())
    }

    fn name(&self) -> Vec<u8> {
        let (index, protocol) = self.with(|state| (state.interface, state.protocol));
        let links = self.core.network.links();
        let link = links.iter().find(|link| link.index == index);
        let mut bytes = address(protocol, index, link.map_or(0, |link| link.hardware), (0, None));
        bytes.truncate(SHORT_ADDRESS);
        if let (Some(link), Some(len)) = (link, bytes.get_mut(11)) {
            *len = MAC as u8;
            bytes.extend_from_slice(&link.mac);
        }
        bytes
    }

    fn peer_name(&self) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }

    fn send(&self, _: &Asker<'_>, source: &mut dyn IoSource, message: &Outgoing<'_>) -> Try<usize> {
        let len = source.remaining();
        let (index, frame) = self.frame(source, message.to)?;
        self.core.network.send_frame(index, &frame)?;
        Ok(len)
    }

    fn receive(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        let (frame, auxiliary) = self.with(|state| {
            let next =
                if flags.contains(MsgFlags::PEEK) { state.queue.front().cloned() } else { state.pop() };
            (next, state.auxiliary)
        });
        let frame = frame.ok_or(Errno::EAGAIN)?;
        let bytes = sink.put_all(&frame.data)?;
        let mut out = MsgFlags::empty();
        out.set(MsgFlags::TRUNC, bytes < frame.data.len());
        let mut ancillary = Ancillary::default();
        if auxiliary {
            ancillary.other.push(Control { level: SOL_PACKET, kind: AUXDATA, data: frame.auxiliary() });
        }
        let from = Some(frame.address.clone());
        Ok(Received { bytes, full_len: frame.data.len(), ancillary, from, flags: out, end: false })
    }

    fn shutdown(&self, _: Shutdown) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn poll(&self) -> PollEvents {
        let mut events = PollEvents::WRITABLE | PollEvents::WRBAND;
        let readable = self.with(|state| {
            !state.queue.is_empty() || state.ring.as_ref().is_some_and(|ring| ring.has_frames())
        });
        events.set(PollEvents::READABLE, readable);
        events
    }

    fn wait_queue(&self) -> &WaitQueue {
        &self.core.wait
    }

    fn ioctl(&self, request: &IoctlRequest<'_>) -> Result<u64> {
        let number = match request.cmd {
            FIONREAD => self.with(|state| state.queue.front().map_or(0, |first| first.data.len())),
            TIOCOUTQ => 0,
            _ => return crate::inet::interface_ioctl(&self.core.network, request),
        };
        request.mem.write(request.addr(), &(number as i32).to_ne_bytes())?;
        Ok(0)
    }

    fn set_receive_buffer(&self, bytes: usize) {
        self.with(|state| state.limit = bytes);
    }

    fn attach_filter(&self, filter: PacketFilter) -> Result<()> {
        self.with(|state| state.filter = Some(Arc::new(filter)));
        Ok(())
    }

    fn mappable(&self) -> Option<Arc<dyn Mappable>> {
        self.with(|state| state.ring.as_ref().map(Ring::mapping))
    }

    fn option_for(&self, level: i32, name: i32, asked: &[u8]) -> Result<Vec<u8>> {
        if (level, name) != (SOL_PACKET, HDRLEN) {
            return self.option(level, name);
        }
        if int(asked)? == V2 { Ok(V2_HEAD.to_ne_bytes().to_vec()) } else { Err(Errno::EINVAL) }
    }

    fn option(&self, level: i32, name: i32) -> Result<Vec<u8>> {
        if level != SOL_PACKET {
            return Err(Errno::ENOPROTOOPT);
        }
        self.with(|state| {
            let number = match name {
                STATISTICS => {
                    let (heard, lost) = (std::mem::take(&mut state.heard), std::mem::take(&mut state.lost));
                    return Ok([heard.wrapping_add(lost).to_ne_bytes(), lost.to_ne_bytes()].concat());
                }
                AUXDATA => i32::from(state.auxiliary),
                IGNORE_OUTGOING => i32::from(state.ignores_outgoing),
                VERSION => state.version,
                RESERVE => i32::from(state.reserve),
                ORIGDEV | LOSS | TIMESTAMP => 0,
                _ => return Err(Errno::ENOPROTOOPT),
            };
            Ok(number.to_ne_bytes().to_vec())
        })
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        match (level, name) {
            (crate::options::SOL_SOCKET, SO_DETACH_FILTER) => {
                self.with(|state| state.filter.take()).map(drop).ok_or(Errno::ENOENT)
            }
            // Every frame of a link is heard anyway.
            (SOL_PACKET, ADD_MEMBERSHIP | DROP_MEMBERSHIP) => {
                if value.len() < 16 {
                    return Err(Errno::EINVAL);
                }
                self.check_interface(u32::try_from(int(value)?).map_err(|_| Errno::ENODEV)?)
            }
            (SOL_PACKET, RX_RING) => self.set_ring(value),
            (SOL_PACKET, _) => self.set_number(name, int(value)?),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}
