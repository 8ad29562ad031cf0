//! Bytes of a stream that have arrived and nobody has read, with the mark of urgent data among them.

use std::collections::VecDeque;

/// Pieces are put together up to this size, so that the cost of many small writes is bounded.
const MERGE: usize = 16_384;

/// Where the urgent byte is (RFC 6093: there is one at a time).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Urgent {
    /// Bytes before it.
    pub(super) at: usize,
    /// The byte; `None` once it was received, or when it stands in the stream.
    pub(super) byte: Option<u8>,
}

/// A queue of bytes.
#[derive(Default)]
pub(super) struct Inbox {
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that have been read.
    read: usize,
    len: usize,
    pub(super) urgent: Option<Urgent>,
}

impl Inbox {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        match self.pieces.back_mut() {
            Some(last) if last.len() + bytes.len() <= MERGE => last.extend_from_slice(&bytes),
            _ => self.pieces.push_back(bytes),
        }
    }

    /// Appends an urgent byte: beside the stream, or `inline`.
    pub(super) fn push_urgent(&mut self, byte: u8, inline: bool) {
        self.urgent = Some(Urgent { at: self.len, byte: (!inline).then_some(byte) });
        if inline {
            self.push(vec![byte]);
        }
    }

    /// Is the next byte to be read the one behind the mark?
    pub(super) fn is_at_mark(&self) -> bool {
        self.urgent.is_some_and(|urgent| urgent.at == 0)
    }

    /// Bytes a read may take: it stops at the mark, and only the next one goes past it.
    fn bound(&self, limit: usize) -> usize {
        let until =
            self.urgent.map_or(usize::MAX, |urgent| if urgent.at == 0 { usize::MAX } else { urgent.at });
        limit.min(self.len).min(until)
    }

    /// Takes up to `limit` bytes out, in pieces.
    pub(super) fn take(&mut self, limit: usize) -> Vec<Piece> {
        let mut want = self.bound(limit);
        self.len -= want;
        self.urgent = self.urgent.filter(|urgent| urgent.at > 0 || want == 0);
        if let Some(urgent) = &mut self.urgent {
            urgent.at -= want.min(urgent.at);
        }
        let mut out = Vec::new();
        while want > 0 {
            let Some(first) = self.pieces.front_mut() else { break };
            let unread = first.len() - self.read;
            if unread <= want {
                want -= unread;
                let skip = std::mem::take(&mut self.read);
                out.extend(self.pieces.pop_front().map(|bytes| Piece { bytes, skip }));
            } else {
                let part = first.get(self.read..self.read + want).unwrap_or_default().to_vec();
                self.read += want;
                want = 0;
                out.push(Piece { bytes: part, skip: 0 });
            }
        }
        out
    }

    /// Copies up to `limit` bytes.
    pub(super) fn peek(&self, limit: usize) -> Vec<Piece> {
        let mut want = self.bound(limit);
        let mut skip = self.read;
        let mut out = Vec::new();
        for piece in &self.pieces {
            let unread = piece.get(skip..).unwrap_or_default();
            skip = 0;
            let part = unread.get(..want).unwrap_or(unread);
            want -= part.len();
            out.push(Piece { bytes: part.to_vec(), skip: 0 });
            if want == 0 {
                break;
            }
        }
        out
    }

    /// Puts back what was taken and could not be delivered, the first of `pieces` first.
    pub(super) fn put_back(&mut self, pieces: Vec<Piece>) {
        if let Some(first) = self.pieces.front_mut() {
            first.drain(..self.read.min(first.len()));
        }
        self.read = 0;
        for piece in pieces.into_iter().rev() {
            let bytes = piece.unread().to_vec();
            self.len += bytes.len();
            if let Some(urgent) = &mut self.urgent {
                urgent.at += bytes.len();
            }
            if !bytes.is_empty() {
                self.pieces.push_front(bytes);
            }
        }
    }

    /// Throws everything away.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Bytes on their way to a reader.
pub(super) struct Piece {
    bytes: Vec<u8>,
    pub(super) skip: usize,
}

impl Piece {
    pub(super) fn unread(&self) -> &[u8] {
        self.bytes.get(self.skip..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Inbox, Piece};
    use proptest::prelude::{any, prop, proptest};

    fn bytes(pieces: &[Piece]) -> Vec<u8> {
        pieces.iter().flat_map(|piece| piece.unread().to_vec()).collect()
    }

    proptest! {
        /// Whatever is done to it, it is a queue of bytes.
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec((any::<u8>(), 0usize..9_000), 1..12)) {
            let (mut inbox, mut model) = (Inbox::default(), std::collections::VecDeque::new());
            for (n, (what, size)) in steps.into_iter().enumerate() {
                match what % 4 {
                    0 | 1 => {
                        let data: Vec<u8> = (0..size).map(|i| (i + n) as u8).collect();
                        model.extend(data.iter().copied());
                        inbox.push(data);
                    }
                    2 => {
                        let want: Vec<u8> = model.iter().copied().take(size).collect();
                        assert_eq!(bytes(&inbox.peek(size)), want);
                        let mut taken = inbox.take(size);
                        assert_eq!(bytes(&taken), want);
                        let back = taken.split_off(taken.len() / 2);
                        inbox.put_back(back);
                        model.drain(..bytes(&taken).len());
                    }
                    _ => {
                        let want: Vec<u8> = model.drain(..size.min(model.len())).collect();
                        assert_eq!(bytes(&inbox.take(size)), want);
                    }
                }
                assert_eq!(inbox.len(), model.len());
            }
        }
    }

    #[test]
    fn reads_stop_at_the_mark_once() {
        let mut inbox = Inbox::default();
        inbox.push(b"ab".to_vec());
        inbox.push_urgent(b'!', false);
        inbox.push(b"cd".to_vec());
        assert_eq!(bytes(&inbox.take(9)), b"ab");
        assert!(inbox.is_at_mark() && inbox.urgent.is_some_and(|urgent| urgent.byte == Some(b'!')));
        assert_eq!(bytes(&inbox.take(9)), b"cd");
        assert_eq!(inbox.urgent, None);
        inbox.push(b"x".to_vec());
        inbox.push_urgent(b'y', true);
        assert_eq!(bytes(&inbox.take(9)), b"x");
        assert_eq!(bytes(&inbox.take(9)), b"y");
    }
}
