//! TCP/IP over an Ethernet link, sans I/O: frames go in, frames come out, and a clock is told from outside.
//!
//! - [`Stack`]: the whole; [`Config`]: its interfaces and routes. - [`Event`]: what its owner is to hear of.
//! - [`VnetHeader`]: what stands before each frame. - [`simulate`]: links that lose and reorder, for tests.
//!
//! TCP is smoltcp's, with one socket set a connection: a segment finds its connection in a hash map, whatever
//! their number, and nothing is ever scanned. What smoltcp has not, or not as Linux does it, is here: Ethernet,
//! ARP and neighbour discovery, routes, fragments, datagrams, half-open connections and those remembered.
//! Listeners and ports are the owner's: a SYN that belongs to no connection is an event, which the owner answers
//! with [`Stack::accept`] or [`Stack::refuse`].
//!
//! Everything that a peer or a guest can grow has a bound beside its declaration.
//!
//! Deliberately absent: forwarding, IPsec, recovery
//! by the peer's selective acknowledgements, timestamps, urgent data (taken as ordinary), membership reports.
#![forbid(unsafe_code)]

mod config;
mod device;
mod egress;
mod neighbor;
mod packet;
mod paths;
mod reassembly;
pub mod simulate;
mod stack;
mod vnet;

pub use config::{Config, Neighbor, Nic, Prefix, Route, TcpSettings};
pub use egress::{Egress, Rule as EgressRule, Target as EgressTarget};
pub use packet::{checksum, ip_packet};
pub use stack::{
    ConnId, ConnectError, Counters, Datagram, Event, Failure, Frame, Packet, Report, RoundTrip, SendError,
    Stack, Status, Syn, TcpPhase,
};
pub use vnet::{LEN as VNET_LEN, VnetHeader};
