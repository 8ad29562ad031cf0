//! The bytes in a pipe: segments, of which some are packets.

use std::collections::VecDeque;

use abi::Errno;
use vfs::Result;

/// Largest packet, and what one costs whatever its size: a page, as on Linux, so that tiny packets are
/// bounded in number.
const PACKET: usize = super::PIPE_BUF;

#[derive(Debug)]
pub(super) struct Buffer {
    segments: VecDeque<Segment>,
    /// Bytes that can be read.
    len: usize,
    /// Room in use: bytes, or a page a packet.
    used: usize,
    /// Room promised to writers that are fetching their bytes.
    reserved: usize,
    capacity: usize,
}

#[derive(Debug)]
enum Segment {
    Stream(VecDeque<u8>),
    Packet(Vec<u8>),
}

/// What a read took out.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) bytes: Vec<u8>,
    /// A packet: the read ends with it, and what does not fit is lost.
    pub(super) packet: bool,
}

impl Buffer {
    pub(super) fn new(capacity: usize) -> Self {
        Self { segments: VecDeque::new(), len: 0, used: 0, reserved: 0, capacity }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) -> Result<()> {
        if self.used + self.reserved > capacity {
            return Err(Errno::EBUSY);
        }
        self.capacity = capacity;
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.used + self.reserved)
    }

    pub(super) fn clear(&mut self) {
        self.segments.clear();
        (self.len, self.used) = (0, 0);
    }

    /// Sets room aside for a piece of a write of `len` bytes; `None` when it has to wait.
    pub(super) fn reserve(&mut self, len: usize, packet: bool, atomic: bool) -> Option<usize> {
        let room = self.room();
        let piece = if packet { len.min(PACKET) } else { len.min(room) };
        let cost = if packet { PACKET } else { piece };
        if room < cost || piece == 0 || (atomic && piece < len) {
            return None;
        }
        self.reserved += cost;
        Some(piece)
    }

    /// Appends the bytes fetched for a reservation of `piece`, and gives the rest of it back.
    pub(super) fn commit(&mut self, piece: usize, bytes: Vec<u8>, packet: bool) {
        self.reserved -= if packet { PACKET } else { piece };
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        self.used += if packet { PACKET } else { bytes.len() };
        match (self.segments.back_mut(), packet) {
            (_, true) => self.segments.push_back(Segment::Packet(bytes)),
            (Some(Segment::Stream(last)), false) => last.extend(bytes),
            (_, false) => self.segments.push_back(Segment::Stream(bytes.into())),
        }
    }

    /// Takes up to `max` bytes of the first segment; a packet comes out whole, cut to `max`.
    pub(super) fn take(&mut self, max: usize) -> Taken {
        match self.segments.front_mut() {
            None => Taken { bytes: Vec::new(), packet: false },
            Some(Segment::Stream(stream)) => {
                let bytes: Vec<u8> = stream.drain(..max.min(stream.len())).collect();
                if stream.is_empty() {
                    self.segments.pop_front();
                }
                self.len -= bytes.len();
                self.used -= bytes.len();
                Taken { bytes, packet: false }
            }
            Some(Segment::Packet(packet)) => {
                let mut bytes = std::mem::take(packet);
                self.segments.pop_front();
                self.len -= bytes.len();
                self.used -= PACKET;
                bytes.truncate(max);
                Taken { bytes, packet: true }
            }
        }
    }

    /// Puts back what could not be delivered: `bytes` but for the first `delivered`. May exceed the
    /// capacity for a moment when a writer was faster; `room` then says zero.
    pub(super) fn give_back(&mut self, mut bytes: Vec<u8>, delivered: usize) {
        let rest = bytes.split_off(delivered.min(bytes.len()));
        self.len += rest.len();
        self.used += rest.len();
        match self.segments.front_mut() {
            Some(Segment::Stream(front)) => rest.into_iter().rev().for_each(|byte| front.push_front(byte)),
            _ if rest.is_empty() => {}
            _ => self.segments.push_front(Segment::Stream(rest.into())),
        }
    }

    pub(super) fn peek(&self, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for segment in &self.segments {
            let left = max - out.len();
            match segment {
                Segment::Stream(stream) => out.extend(stream.iter().take(left)),
                Segment::Packet(packet) => out.extend(packet.iter().take(left)),
            }
        }
        out
    }
}
