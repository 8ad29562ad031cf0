//! `AF_UNIX` sockets (`unix(7)`).
//!
//! - `address`: `sockaddr_un`. - [`names`]: what sockets are bound to.
//! - `state`: the part of a socket its peers reach, under one lock: its queue and its state.
//! - `buffer`: what a sender may have under way. - `flight`: descriptors under way.
//! - `socket`: the handle whose drop closes the socket. - `connect`, `transfer`: how sockets meet, and
//!   what they send.
//!
//! Every socket has one queue, of what others have sent it. Lock order: a socket's state, then the
//! names; never the states of two sockets at once, so two peers cannot wait for each other. What is
//! taken out of a queue is dropped with no lock held, because it may be sockets.
//!
//! Deliberately absent: in-flight descriptor garbage collection. A socket sent over itself is freed
//! only when its queue is; how many descriptors can be lost that way is bounded by
//! [`names::MAX_IN_FLIGHT`]. Out-of-band data, `SO_PEEK_OFF` and pidfds in messages are absent too.

mod address;
mod buffer;
mod connect;
mod flight;
pub mod names;
mod socket;
mod state;
mod transfer;

pub use names::{Name, Names};
pub use socket::UnixSocket;

#[cfg(test)]
mod tests;
