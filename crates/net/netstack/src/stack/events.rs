//! What a stack tells its owner.

use std::net::SocketAddr;
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

/// What is known of a packet of ours that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody has the port.
    Port,
    /// The protocol is not spoken there.
    Protocol,
    /// There is nobody there.
    Host,
    /// No way leads there.
    Network,
    /// It may not go there.
    Prohibited,
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
    /// A datagram of ours did not arrive.
    Lost {
        /// From where it was sent.
        local: SocketAddr,
        /// To where.
        remote: SocketAddr,
        /// Why.
        why: Unreachable,
        /// What it said, as far as is known.
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
