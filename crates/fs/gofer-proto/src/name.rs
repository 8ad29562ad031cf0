//! Names of directory entries.

use std::fmt;

use abi::fs::NAME_MAX;

use crate::ProtoError;

/// The name of a directory entry: 1 to 255 bytes, not `.` or `..`, without slash and NUL.
///
/// Holding one proves that looking it up in a directory cannot leave that directory, except through
/// a symbolic link, which is the concern of whoever opens it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ProtoError> {
        let bad = bytes.is_empty()
            || bytes.len() > NAME_MAX
            || bytes == b"."
            || bytes == b".."
            || bytes.iter().any(|&b| b == b'/' || b == 0);
        if bad { Err(ProtoError::BadName) } else { Ok(Self(bytes)) }
    }

    /// The bytes, without a NUL.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
