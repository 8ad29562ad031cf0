//! What can be wrong with a message.

use abi::Errno;
use thiserror::Error;

/// Why a message is refused. The connection it came on is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtoError {
    /// The message ends before its fields do.
    #[error("the message is shorter than its fields")]
    Truncated,
    /// Bytes follow the last field.
    #[error("the message is longer than its fields")]
    TrailingBytes,
    /// The header's size is not the datagram's.
    #[error("the header says {stated} bytes, the datagram has {actual}")]
    BadSize {
        /// Size in the header.
        stated: u32,
        /// Size of the datagram.
        actual: usize,
    },
    /// A list, string or message is over its bound.
    #[error("{0} is over its bound")]
    TooLong(&'static str),
    /// No message has this kind.
    #[error("unknown kind of message {0}")]
    UnknownKind(u16),
    /// A name that is empty, too long, `.` or `..`, or has a slash or a NUL.
    #[error("not a name of a directory entry")]
    BadName,
    /// A field has a value it may not have.
    #[error("bad value of {0}")]
    BadValue(&'static str),
}

impl From<ProtoError> for Errno {
    fn from(_: ProtoError) -> Self {
        Self::EIO
    }
}
