//! Sockets: the trait every family implements, and Unix-domain sockets.
//!
//! - [`Socket`]: what the socket calls need of a family; non-blocking, like every file.
//! - [`unix`]: `AF_UNIX` stream, datagram and sequenced-packet sockets.
//!
//! Descriptors in flight are opaque here ([`FileRef`]): this crate moves them and never looks inside.
//! Paths are not walked here either: a caller resolves a `sun_path` to an [`unix::Name`] first.
#![forbid(unsafe_code)]

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use abi::socket::{MsgFlags, SocketKind, Ucred};
use guestmem::{IoSink, IoSource};
use vfs::{File, Result};

pub mod unix;

/// An open file description on its way to another process.
pub type FileRef = Arc<dyn Any + Send + Sync>;

/// Control data of a message (`unix(7)`, `SCM_*`).
#[derive(Clone, Default)]
pub struct Ancillary {
    /// `SCM_RIGHTS`.
    pub files: Vec<FileRef>,
    /// `SCM_CREDENTIALS`; checked by the caller against the sender's privileges.
    pub credentials: Option<Ucred>,
}

impl Ancillary {
    /// Nothing in it?
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.credentials.is_none()
    }
}

/// One message received.
#[derive(Default)]
pub struct Received {
    /// Bytes put into the sink.
    pub bytes: usize,
    /// Bytes of the whole message, which is more when it was cut (`MSG_TRUNC`).
    pub full_len: usize,
    /// Control data.
    pub ancillary: Ancillary,
    /// Sender's address as `sun_path` shows it; `None` for connected streams and unnamed senders.
    pub from: Option<Vec<u8>>,
    /// `MSG_EOR`, `MSG_TRUNC`, `MSG_OOB` for the guest.
    pub flags: MsgFlags,
}

/// Which directions `shutdown(2)` closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// No more reads.
    Read,
    /// No more writes.
    Write,
    /// Neither.
    Both,
}

impl Shutdown {
    /// From `how`; `EINVAL` for anything else.
    pub fn from_raw(how: i32) -> Result<Self> {
        Ok(match how {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Both,
            _ => return Err(Errno::EINVAL),
        })
    }

    fn reads(self) -> bool {
        self != Self::Write
    }

    fn writes(self) -> bool {
        self != Self::Read
    }
}

/// What the socket calls need of an open socket. Addresses are of type `A`, one type a family.
pub trait Socket: File {
    /// Address family.
    fn family(&self) -> u16;
    /// Type.
    fn kind(&self) -> SocketKind;
    /// `listen(2)`.
    fn listen(&self, backlog: i32, cred: Ucred) -> Result<()>;
    /// `accept(2)`: the next connection; `EAGAIN` when there is none.
    fn accept(&self) -> Result<Arc<dyn Socket>>;
    /// `sendmsg(2)` to the connected peer; `EPIPE` when it is gone (the caller raises `SIGPIPE`).
    fn send(&self, source: &mut dyn IoSource, flags: MsgFlags, ancillary: Ancillary) -> Result<usize>;
    /// `recvmsg(2)`.
    fn receive(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received>;
    /// `shutdown(2)`.
    fn shutdown(&self, how: Shutdown) -> Result<()>;
}
