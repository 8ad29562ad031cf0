//! Datagrams (RFC 768).

use std::net::SocketAddr;
use std::time::Duration;

use super::icmp::{Nobody, ports};
use super::{Datagram, Event, Stack};
use crate::packet::{self, Shape, View};

/// Why a datagram was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No way leads there.
    #[error("no way leads there")]
    NoRoute,
    /// It may not be reached.
    #[error("it may not be reached")]
    Denied,
    /// It is longer than what the link takes.
    #[error("it is longer than what the link takes")]
    TooLong,
    /// It is no packet.
    #[error("it is no packet")]
    Malformed,
}

impl<H: Clone> Stack<H> {
    pub(super) fn take_datagram(&mut self, at: usize, view: &View<'_>, now: Duration) -> Option<()> {
        let (from, to) = ports(view.payload)?;
        let [a, b] = *view.payload.get(4..)?.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([a, b]));
        let start = view.whole.len() - view.payload.len();
        if len < 8 || len > view.payload.len() || from == 0 && view.from.is_unspecified() {
            return None;
        }
        let ends = (SocketAddr::new(view.to, to), SocketAddr::new(view.from, from));
        if self.config.is_own(view.to) {
            self.policy.hears(ends, view.payload.get(8..len).unwrap_or_default(), now);
        }
        self.events.push(Event::Datagram(Datagram {
            from: ends.1,
            to: ends.0,
            hops: view.hops,
            class: view.class,
            nic: self.ports.get(at)?.nic.index,
            packet: view.whole.to_vec(),
            payload: start + 8..start + len,
        }));
        Some(())
    }

    /// Nobody wants `datagram`: tells its sender.
    pub fn reject(&mut self, datagram: &Datagram, now: Duration) {
        if self.config.is_own(datagram.to.ip()) && !datagram.from.ip().is_unspecified() {
            self.send_unreachable(&datagram.packet, Nobody::HasPort, now);
        }
    }

    /// Sends a datagram with `hops` and traffic class `class`.
    ///
    /// # Errors
    /// When no way leads there, or it may not go.
    pub fn send_datagram(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        data: &[u8],
        (hops, class): (u8, u8),
        now: Duration,
    ) -> Result<(), SendError> {
        let (at, _) = self.way(from.ip(), to.ip()).ok_or(SendError::NoRoute)?;
        if !self.policy.sends((from, to), data, now) {
            self.denied += 1;
            return Err(SendError::Denied);
        }
        let mtu = self.mtu(at, to.ip(), now);
        let shape = Shape { hops, class, ident: self.next_ident() };
        let out = packet::datagram(from, to, data, shape, mtu).ok_or(SendError::NoRoute)?;
        if self.send_packet(out, now) { Ok(()) } else { Err(SendError::NoRoute) }
    }
}
