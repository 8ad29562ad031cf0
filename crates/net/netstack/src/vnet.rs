//! `struct virtio_net_hdr`: what stands before each frame of an `AF_PACKET` socket with `PACKET_VNET_HDR`, and
//! says which checksums are still to be made and how a large segment is to be cut (`linux/virtio_net.h`).

/// Bytes of it.
pub const LEN: usize = 10;

/// A checksum is still to be made.
const NEEDS_CHECKSUM: u8 = 1;
/// The checksum has been looked at.
const DATA_VALID: u8 = 2;
/// To be cut into TCP segments of IPv4.
const TCP4: u8 = 1;

/// One, in the byte order of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    flags: u8,
    kind: u8,
    head: u16,
    segment: u16,
    start: u16,
    offset: u16,
}

impl VnetHeader {
    /// Splits one from what follows it; `None` when there is not enough.
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_first_chunk::<LEN>()?;
        let [flags, kind, a, b, c, d, e, f, g, h] = *head;
        let word = |low, high| u16::from_ne_bytes([low, high]);
        let header = Self {
            flags,
            kind,
            head: word(a, b),
            segment: word(c, d),
            start: word(e, f),
            offset: word(g, h),
        };
        Some((header, rest))
    }

    /// As bytes.
    pub fn to_bytes(self) -> [u8; LEN] {
        let ([a, b], [c, d]) = (self.head.to_ne_bytes(), self.segment.to_ne_bytes());
        let ([e, f], [g, h]) = (self.start.to_ne_bytes(), self.offset.to_ne_bytes());
        [self.flags, self.kind, a, b, c, d, e, f, g, h]
    }

    /// Has somebody else seen to the checksum: the device, or a sender on this machine who left it out?
    pub fn is_vouched_for(self) -> bool {
        self.flags & (NEEDS_CHECKSUM | DATA_VALID) != 0
    }

    /// Is its checksum yet to be made?
    pub fn is_unfinished(self) -> bool {
        self.flags & NEEDS_CHECKSUM != 0
    }

    /// The checksum of what starts at byte `start` of the frame is to be put `offset` bytes behind that.
    pub(crate) fn checksum(start: u16, offset: u16) -> Self {
        Self { flags: NEEDS_CHECKSUM, start, offset, ..Self::default() }
    }

    /// And the frame, whose headers have `head` bytes, is to be cut into segments of `segment` bytes of TCP over
    /// IPv4.
    pub(crate) fn cut(self, head: u16, segment: u16) -> Self {
        Self { kind: TCP4, head, segment, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::{LEN, VnetHeader};

    #[test]
    fn what_is_written_is_read() {
        let header = VnetHeader::checksum(34, 16).cut(54, 1460);
        let bytes = [&header.to_bytes()[..], b"frame"].concat();
        assert_eq!(VnetHeader::split(&bytes), Some((header, &b"frame"[..])));
        assert!(header.is_vouched_for() && !VnetHeader::default().is_vouched_for());
        assert_eq!(VnetHeader::split(&bytes[..LEN - 1]), None);
    }
}
