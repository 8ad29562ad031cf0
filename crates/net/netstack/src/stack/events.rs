//! What a stack tells its owner.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use super::ConnId;

/// A frame to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Out of which interface.
    pub nic: u32,
    /// A [`VnetHeader`](crate::VnetHeader), and the frame.
    pub bytes: Vec<u8>,
}

/// A SYN of no connection there is.
#[derive(Clone, Debug)]
pub struct Syn {
    /// Who wants to connect.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    pub(super) packet: Vec<u8>,
}

/// A datagram that has come.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver: one of our own addresses, or one of many.
    pub to: SocketAddr,
    /// Hops it might still have taken.
    pub hops: u8,
    /// Traffic class.
    pub class: u8,
    /// The interface it came by.
    pub nic: u32,
    pub(super) packet: Vec<u8>,
    pub(super) payload: Range<usize>,
}

impl Datagram {
    /// What it says.
    pub fn data(&self) -> &[u8] {
        self.packet.get(self.payload.clone()).unwrap_or_default()
    }
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens there.
    Refused,
    /// The other end has broken it off.
    Reset,
    /// The other end is silent.
    TimedOut,
    /// There is nobody there, or no way.
    Unreachable,
}

/// What a message of ICMP says of a packet of ours that did not arrive (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who says so; ourselves, when it has not left.
    pub from: IpAddr,
    /// Type and code, of ICMP or ICMPv6 as `from` is.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The MTU, or which byte is wrong.
    pub info: u32,
}

impl Report {
    /// Nobody has the port at `from`.
    pub fn no_port(from: IpAddr) -> Self {
        let (kind, code) = if from.is_ipv4() { (3, 3) } else { (1, 4) };
        Self { from, kind, code, info: 0 }
    }

    /// Nobody answers there, as `from` finds.
    pub(super) fn no_host(from: IpAddr) -> Self {
        let (kind, code) = if from.is_ipv4() { (3, 1) } else { (1, 3) };
        Self { from, kind, code, info: 0 }
    }
}

/// A packet as it has come, for those who want it whole.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Sender.
    pub from: IpAddr,
    /// Receiver.
    pub to: IpAddr,
    /// What it carries.
    pub protocol: u8,
    /// Hops it might still have taken.
    pub hops: u8,
    /// Traffic class.
    pub class: u8,
    /// The interface it came by.
    pub nic: u32,
    pub(super) bytes: Vec<u8>,
    pub(super) head: usize,
}

impl Packet {
    /// Reads one; `None` for what is none.
    pub fn of(bytes: Vec<u8>, nic: u32) -> Option<Self> {
        let view = crate::packet::view(&bytes)?;
        let (from, to, hops, class) = (view.from, view.to, view.hops, view.class);
        let (protocol, head) = (view.protocol.into(), view.whole.len() - view.payload.len());
        Some(Self { from, to, protocol, hops, class, nic, bytes, head })
    }

    /// All of it.
    pub fn whole(&self) -> &[u8] {
        &self.bytes
    }

    /// What stands behind the heads of IP.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event<H> {
    /// Somebody wants to connect: to be answered by [`Stack::accept`](super::Stack::accept) or
    /// [`Stack::refuse`](super::Stack::refuse), or not at all.
    Syn(Syn),
    /// A connection that was accepted is one.
    Established(ConnId, H),
    /// A connection that was accepted has come to nothing.
    Abandoned(H),
    /// Something of a connection is different.
    Changed(H),
    /// A datagram.
    Datagram(Datagram),
    /// A packet for us, of any protocol, when [`Stack::hear_packets`](super::Stack::hear_packets) is on. One of a
    /// protocol that nobody speaks is to be answered by [`Stack::reject_packet`](super::Stack::reject_packet).
    Packet(Packet),
    /// A packet of ours did not arrive. One of TCP is only told of when packets are heard.
    Lost {
        /// Its protocol.
        protocol: u8,
        /// From where it was sent; of an echo, the port is its identifier.
        local: SocketAddr,
        /// To where.
        remote: SocketAddr,
        /// Why.
        why: Report,
        /// What it said behind the head of UDP, or of IP for any other, as far as is known.
        data: Vec<u8>,
    },
}

/// What has gone through an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames and bytes received.
    pub received: (u64, u64),
    /// Frames and bytes sent.
    pub sent: (u64, u64),
    /// Frames received that made no sense.
    pub bad: u64,
    /// Frames that found no room.
    pub dropped: u64,
}
