//! `sockaddr_un`, read and written.

use abi::Errno;
use abi::socket::{AF_UNIX, UNIX_PATH_MAX};
use vfs::Result;

use crate::family;

/// Bytes of the family.
const FAMILY: usize = 2;

/// A checked address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Address<'a> {
    /// A path, without its NUL; not empty.
    Path(&'a [u8]),
    /// A name of the abstract namespace, without its leading NUL; may hold more, and may be empty.
    Abstract(&'a [u8]),
}

/// Nothing but the family: `bind(2)` then picks a name.
pub(super) fn is_unnamed(address: &[u8]) -> bool {
    address.len() == FAMILY && family(address) == Some(AF_UNIX)
}

/// Parses; `EINVAL` for anything but a named Unix address.
pub(super) fn parse(address: &[u8]) -> Result<Address<'_>> {
    if address.len() > FAMILY + UNIX_PATH_MAX || family(address) != Some(AF_UNIX) {
        return Err(Errno::EINVAL);
    }
    match address.get(FAMILY..).and_then(<[u8]>::split_first) {
        None => Err(Errno::EINVAL),
        Some((0, name)) => Ok(Address::Abstract(name)),
        Some(_) => {
            let bytes = address.get(FAMILY..).unwrap_or_default();
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            Ok(Address::Path(bytes.get(..end).unwrap_or_default()))
        }
    }
}

impl Address<'_> {
    /// As `getsockname(2)` shows it.
    pub(super) fn shown(&self) -> Vec<u8> {
        let mut shown = unnamed();
        match self {
            Self::Path(path) => {
                shown.extend_from_slice(path);
                shown.push(0);
            }
            Self::Abstract(name) => {
                shown.push(0);
                shown.extend_from_slice(name);
            }
        }
        shown
    }
}

/// What an unbound socket shows.
pub(super) fn unnamed() -> Vec<u8> {
    AF_UNIX.to_ne_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::{Address, is_unnamed, parse};

    #[test]
    fn lengths_decide_what_an_address_is() {
        assert!(is_unnamed(&[1, 0]) && !is_unnamed(&[1]) && !is_unnamed(&[2, 0]));
        assert!(parse(&[1, 0]).is_err() && parse(&[2, 0, b'a']).is_err() && parse(&[1; 111]).is_err());
        assert_eq!(parse(b"\x01\0path\0more"), Ok(Address::Path(b"path")));
        assert_eq!(parse(b"\x01\0\0a\0"), Ok(Address::Abstract(b"a\0")));
        assert_eq!(Address::Path(b"path").shown(), b"\x01\0path\0");
        assert_eq!(Address::Abstract(b"a\0").shown(), b"\x01\0\0a\0");
    }
}
