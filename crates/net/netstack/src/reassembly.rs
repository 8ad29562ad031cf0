//! Packets in pieces, put together again (RFC 791, RFC 8200).
//!
//! As RFC 8200 wants it, and RFC 5722 says why, pieces that overlap make an end of the whole packet.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use smoltcp::wire::IpProtocol;

use crate::packet::{Piece, View};

/// How long pieces wait for the others (`net.ipv4.ipfrag_time`).
const PATIENCE: Duration = Duration::from_secs(30);
/// Most packets that wait, bytes of all of them, and pieces of one.
const MAX_PACKETS: usize = 64;
const MAX_BYTES: usize = 1 << 20;
const MAX_PIECES: usize = 128;
/// No payload is longer.
const MAX_PAYLOAD: usize = 65_535;

type Key = (IpAddr, IpAddr, u8, u32);

#[derive(Default)]
struct Waiting {
    pieces: Vec<(usize, Vec<u8>)>,
    /// Bytes of the whole, once the last piece has come.
    total: Option<usize>,
    bytes: usize,
    until: Duration,
}

impl Waiting {
    /// Puts a piece to the others; `false` when it does not go with them.
    fn add(&mut self, piece: Piece, data: &[u8]) -> bool {
        let end = piece.offset + data.len();
        let beyond = self.total.is_some_and(|total| end > total || (!piece.more && end != total));
        let cut = piece.more && !data.len().is_multiple_of(8);
        if end > MAX_PAYLOAD || beyond || cut || data.is_empty() || self.pieces.len() == MAX_PIECES {
            return false;
        }
        if self.pieces.iter().any(|(offset, other)| *offset == piece.offset && other == data) {
            return true;
        }
        if self.pieces.iter().any(|(offset, other)| *offset < end && piece.offset < offset + other.len()) {
            return false;
        }
        if !piece.more {
            if self.pieces.iter().any(|(offset, other)| offset + other.len() > end) {
                return false;
            }
            self.total = Some(end);
        }
        self.bytes += data.len();
        self.pieces.push((piece.offset, data.to_vec()));
        true
    }

    fn is_whole(&self) -> bool {
        self.total == Some(self.bytes)
    }

    fn whole(mut self) -> Vec<u8> {
        self.pieces.sort_unstable_by_key(|(offset, _)| *offset);
        self.pieces.into_iter().flat_map(|(_, data)| data).collect()
    }
}

/// Packets of which some pieces have come.
#[derive(Default)]
pub(crate) struct Reassembly {
    waiting: HashMap<Key, Waiting>,
    /// Oldest first; may name some that are gone.
    order: VecDeque<(Key, Duration)>,
    bytes: usize,
}

impl Reassembly {
    /// Takes a piece. Returns the payload once it is whole.
    pub(crate) fn add(&mut self, view: &View<'_>, piece: Piece, now: Duration) -> Option<Vec<u8>> {
        self.expire(now);
        // Of IPv6 the protocol of the first piece counts; those of one number belong together whatever they say.
        let protocol =
            if view.from.is_ipv4() { u8::from(view.protocol) } else { u8::from(IpProtocol::Ipv6Frag) };
        let key = (view.from, view.to, protocol, piece.ident);
        if !self.waiting.contains_key(&key) {
            while self.waiting.len() >= MAX_PACKETS || self.bytes > MAX_BYTES {
                let (oldest, until) = self.order.pop_front()?;
                self.drop_if(oldest, until);
            }
            let until = now + PATIENCE;
            self.order.push_back((key, until));
            self.waiting.insert(key, Waiting { until, ..Waiting::default() });
        }
        let waiting = self.waiting.get_mut(&key)?;
        let before = waiting.bytes;
        let fits = waiting.add(piece, view.payload);
        self.bytes += waiting.bytes - before;
        let whole = waiting.is_whole();
        if fits && !whole {
            return None;
        }
        let gone = self.waiting.remove(&key)?;
        self.bytes -= gone.bytes;
        whole.then(|| gone.whole())
    }

    fn drop_if(&mut self, key: Key, until: Duration) {
        if self.waiting.get(&key).is_some_and(|waiting| waiting.until == until)
            && let Some(gone) = self.waiting.remove(&key)
        {
            self.bytes -= gone.bytes;
        }
    }

    fn expire(&mut self, now: Duration) {
        while let Some((key, until)) = self.order.front().copied() {
            let gone = self.waiting.get(&key).is_none_or(|waiting| waiting.until != until);
            if until > now && !gone {
                break;
            }
            self.order.pop_front();
            self.drop_if(key, until);
        }
        // What is gone in the middle is let go once there is much of it.
        if self.order.len() > 4 * MAX_PACKETS {
            let waiting = &self.waiting;
            self.order.retain(|(key, until)| waiting.get(key).is_some_and(|one| one.until == *until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, MAX_PACKETS, PATIENCE, Reassembly};
    use crate::packet::{Piece, View};
    use smoltcp::wire::IpProtocol;
    use std::time::Duration;

    fn add(all: &mut Reassembly, ident: u32, part: (usize, bool, &[u8]), now: Duration) -> Option<Vec<u8>> {
        let (from, to) = ("10.0.0.1".parse().expect("one"), "10.0.0.2".parse().expect("one"));
        let piece = Piece { ident, offset: part.0, more: part.1 };
        let protocol = IpProtocol::Udp;
        let view =
            View { from, to, protocol, hops: 1, class: 0, piece: Some(piece), whole: &[], payload: part.2 };
        all.add(&view, piece, now)
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn pieces_come_in_any_order_and_twice() {
        let mut all = Reassembly::default();
        assert_eq!(add(&mut all, 1, (16, false, b"end"), NOW), None);
        assert_eq!(add(&mut all, 1, (0, true, b"01234567"), NOW), None);
        assert_eq!(add(&mut all, 1, (0, true, b"01234567"), NOW), None);
        assert_eq!(add(&mut all, 2, (8, true, b"of other"), NOW), None);
        assert_eq!(add(&mut all, 1, (8, true, b"89abcdef"), NOW), Some(b"0123456789abcdefend".to_vec()));
        assert_eq!(all.waiting.len(), 1);
    }

    #[test]
    fn pieces_that_do_not_fit_are_the_end_of_it() {
        let mut all = Reassembly::default();
        assert_eq!(add(&mut all, 1, (8, true, b"abcdefgh"), NOW), None);
        assert_eq!(add(&mut all, 1, (4, true, b"????????"), NOW), None);
        assert!(all.waiting.is_empty() && all.bytes == 0);
        let mut all = Reassembly::default();
        assert_eq!(add(&mut all, 1, (65_528, true, b"abcdefgh"), NOW), None);
        assert_eq!(add(&mut all, 2, (0, true, b"odd"), NOW), None);
        assert!(all.waiting.is_empty());
    }

    #[test]
    fn what_never_comes_is_not_waited_for() {
        let mut all = Reassembly::default();
        for ident in 0..100_000 {
            assert_eq!(add(&mut all, ident, (0, true, &[0; 1024]), NOW), None);
        }
        assert!(all.waiting.len() <= MAX_PACKETS && all.bytes <= MAX_BYTES + 65_535);
        assert!(all.order.len() <= 5 * MAX_PACKETS);
        let _ = add(&mut all, 1, (0, true, b"01234567"), PATIENCE * 2);
        assert_eq!(all.waiting.len(), 1);
    }
}
