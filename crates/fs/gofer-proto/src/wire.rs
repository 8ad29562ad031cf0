//! Framing: the header, and checked reading and writing of fields.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{MAX_MESSAGE, Name, ProtoError};

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Bytes of the whole message.
    pub size: u32,
    /// Which message (a request's or a response's number).
    pub kind: u16,
    /// Zero.
    pub reserved: u16,
    /// Chosen by the client, repeated in the reply.
    pub id: u64,
}

/// Reads the fields of one message, in order.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks the header of `message`; the fields are read from what is returned.
    pub(crate) fn message(message: &'a [u8]) -> Result<(Header, Self), ProtoError> {
        if message.len() > MAX_MESSAGE {
            return Err(ProtoError::TooLong("message"));
        }
        let mut reader = Self { rest: message };
        let header: Header = reader.value()?;
        if header.size as usize != message.len() {
            return Err(ProtoError::BadSize { stated: header.size, actual: message.len() });
        }
        if header.reserved != 0 {
            return Err(ProtoError::BadValue("reserved"));
        }
        Ok((header, reader))
    }

    /// The next field of a fixed size.
    pub(crate) fn value<T: FromBytes>(&mut self) -> Result<T, ProtoError> {
        let (value, rest) = T::read_from_prefix(self.rest).map_err(|_| ProtoError::Truncated)?;
        self.rest = rest;
        Ok(value)
    }

    /// A count, at most `max`.
    pub(crate) fn count(&mut self, max: usize, what: &'static str) -> Result<usize, ProtoError> {
        let count = self.value::<u32>()? as usize;
        if count > max { Err(ProtoError::TooLong(what)) } else { Ok(count) }
    }

    /// A string of at most `max` bytes.
    pub(crate) fn bytes(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], ProtoError> {
        let len = self.count(max, what)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(ProtoError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The name of a directory entry.
    pub(crate) fn name(&mut self) -> Result<Name<'a>, ProtoError> {
        Name::new(self.bytes(abi::fs::NAME_MAX, "name")?)
    }

    /// Bytes not yet read.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The end: nothing may be left.
    pub(crate) fn finish(self) -> Result<(), ProtoError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ProtoError::TrailingBytes) }
    }
}

/// Writes one message into a buffer.
pub(crate) struct Writer<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> Writer<'b> {
    /// Empties `out` and leaves room for the header.
    pub(crate) fn new(out: &'b mut Vec<u8>) -> Self {
        out.clear();
        out.resize(size_of::<Header>(), 0);
        Self { out }
    }

    /// A field of a fixed size.
    pub(crate) fn value<T: IntoBytes + Immutable>(&mut self, value: &T) {
        self.out.extend_from_slice(value.as_bytes());
    }

    /// A string of at most `max` bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8], max: usize, what: &'static str) -> Result<(), ProtoError> {
        self.count(bytes.len(), max, what)?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// A count, at most `max`.
    pub(crate) fn count(&mut self, count: usize, max: usize, what: &'static str) -> Result<(), ProtoError> {
        if count > max {
            return Err(ProtoError::TooLong(what));
        }
        let count = u32::try_from(count).map_err(|_| ProtoError::TooLong(what))?;
        self.value(&count);
        Ok(())
    }

    /// The name of a directory entry.
    pub(crate) fn name(&mut self, name: Name<'_>) -> Result<(), ProtoError> {
        self.bytes(name.as_bytes(), abi::fs::NAME_MAX, "name")
    }

    /// Fills in the header.
    pub(crate) fn finish(self, kind: u16, id: u64) -> Result<(), ProtoError> {
        if self.out.len() > MAX_MESSAGE {
            return Err(ProtoError::TooLong("message"));
        }
        let size = u32::try_from(self.out.len()).map_err(|_| ProtoError::TooLong("message"))?;
        let header = Header { size, kind, reserved: 0, id };
        if let Some(room) = self.out.get_mut(..size_of::<Header>()) {
            room.copy_from_slice(header.as_bytes());
        }
        Ok(())
    }
}
