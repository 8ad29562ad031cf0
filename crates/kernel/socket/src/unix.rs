//! `AF_UNIX` sockets (`unix(7)`).
//!
//! A connected socket has two [`channel`]s, one a direction, each with its own lock; a datagram socket
//! has one, of its own, that every sender writes. Lock order: a socket's state before a channel, and
//! never two of either at once, so two peers cannot wait for each other.
//!
//! Deliberately absent: in-flight descriptor garbage collection. A socket sent over itself is freed
//! only when its queue is (a sandbox's descriptors are bounded by its descriptor tables and by
//! [`channel::MAX_FILES`] a channel).

pub mod channel;
mod names;
mod socket;

pub use names::{Name, Names};
pub use socket::UnixSocket;

#[cfg(test)]
mod tests;
