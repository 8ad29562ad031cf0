//! The protocol between Sentry (client) and Gofer (server): messages, checks, and their framing.
//!
//! One message is one datagram of a `SOCK_SEQPACKET` Unix socket (`unix(7)`); a donated descriptor
//! travels beside it (`SCM_RIGHTS`). A connection carries one request at a time, each answered by one
//! reply with the same [`id`](Header::id).
//!
//! This crate does no I/O. [`Request::encode`] and [`Response::encode`] write a datagram into a buffer;
//! [`Request::decode`] and [`Response::decode`] are the only ways back, and they check everything:
//! a decoded message has bounded lengths, valid [`Name`]s, known flags, and no byte left over. Both
//! sides check, because neither trusts the other: the Sentry holds the guest, the Gofer holds the host.
//!
//! Integers are in the byte order of the machine: both ends always run on the same one.
//!
//! Deliberately absent: reads and writes of data (the Sentry has the descriptor), paths of more than
//! one component (the Gofer never parses a path), and any way to name a file but by a node the Gofer
//! handed out.
#![forbid(unsafe_code)]

mod error;
mod name;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod types;
mod wire;

pub use error::ProtoError;
pub use name::Name;
pub use request::{Request, RequestKind};
pub use response::{DirEntry, Response};
pub use types::{
    Attributes, NodeAttr, NodeId, Ownership, RemoveKind, RenameFlags, SetAttr, SetTime, XattrFlags,
};
pub use wire::Header;

/// Longest message, header and all, in bytes. Fits the largest extended attribute, and the default
/// send buffer of a Unix socket with room to spare.
pub const MAX_MESSAGE: usize = 68 * 1024;
/// Most names in one walk.
pub const MAX_WALK: usize = 64;
/// Most names looked up in one directory by one message.
pub const MAX_LOOKUPS: usize = 64;
/// Most nodes closed by one message.
pub const MAX_CLOSE: usize = 1024;
/// Longest target of a symbolic link, without a NUL (`PATH_MAX` - 1).
pub const MAX_TARGET: usize = abi::fs::PATH_MAX - 1;
/// Longest name of an extended attribute (`XATTR_NAME_MAX`).
pub const MAX_XATTR_NAME: usize = 255;
/// Largest value, and largest list of names, of extended attributes (`XATTR_SIZE_MAX`).
pub const MAX_XATTR_VALUE: usize = 65536;
/// Most bytes of directory entries in one reply.
pub const MAX_ENTRIES: usize = 64 * 1024;
