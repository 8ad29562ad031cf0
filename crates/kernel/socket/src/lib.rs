//! Sockets: the trait every family implements, Unix-domain sockets, TCP, UDP and raw sockets of a sandbox and its
//! links, and netlink as far as programs ask for interfaces.
//!
//! - [`Socket`]: what the socket calls need of a family; non-blocking, like every file.
//! - [`file`]: [`SocketFile`], a socket as the file behind a descriptor.
//! - [`options`]: the options of level `SOL_SOCKET`.
//! - [`inet`]: `AF_INET` and `AF_INET6`: TCP and UDP.
//! - [`packet`]: `AF_PACKET`: the frames of links.
//! - [`netlink`]: `AF_NETLINK` sockets that ask for interfaces and addresses.
//! - [`unix`]: `AF_UNIX` stream, datagram and sequenced-packet sockets.
//!
//! Descriptors in flight are opaque here ([`FileRef`]): this crate moves them and never looks inside.
//! Paths are not walked here either: a family asks for them through [`Paths`].
#![forbid(unsafe_code)]

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::{MsgFlags, SocketKind, Ucred};
use bpf::PacketFilter;
use cred::Credentials;
use guestmem::{IoSink, IoSource};
use memmap::Mappable;
use sync::wait::WaitQueue;
use vfs::{FileContext, IoctlRequest, Result};

pub mod file;
pub mod inet;
pub mod netlink;
pub mod options;
pub mod packet;
pub mod unix;

pub use file::SocketFile;

/// The family of a `sockaddr`, when there are bytes for it.
fn family(address: &[u8]) -> Option<u16> {
    address.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// An open file description on its way to another process.
pub type FileRef = Arc<dyn Any + Send + Sync>;

/// A socket inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Device.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// Socket inodes by path, as the calling task sees them.
pub trait Paths {
    /// The socket at `path`: the errors of a path walk, `EACCES` when the caller may not write it,
    /// `ECONNREFUSED` when it is no socket.
    fn find(&self, path: &[u8]) -> Result<Node>;

    /// Makes one; `EADDRINUSE` when something is there.
    fn make(&self, path: &[u8]) -> Result<Node>;
}

/// No paths at all: for operations that name nothing.
#[derive(Debug)]
pub struct NoPaths;

impl Paths for NoPaths {
    fn find(&self, _: &[u8]) -> Result<Node> {
        Err(Errno::ENOENT)
    }

    fn make(&self, _: &[u8]) -> Result<Node> {
        Err(Errno::EACCES)
    }
}

/// Who asks.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// Credentials of the caller.
    pub cred: &'a Credentials,
    /// Its process.
    pub pid: i32,
    /// Its view of the file system.
    pub paths: &'a dyn Paths,
}

impl<'a> Asker<'a> {
    /// One that names no path.
    pub fn plain(cx: &FileContext<'a>) -> Self {
        Self { cred: cx.cred, pid: cx.pid, paths: &NoPaths }
    }

    /// What `SO_PEERCRED` shows the other side.
    pub fn effective(&self) -> Ucred {
        Ucred { pid: self.pid, uid: self.cred.euid, gid: self.cred.egid }
    }

    /// What `SCM_CREDENTIALS` shows the other side by default.
    pub fn real(&self) -> Ucred {
        Ucred { pid: self.pid, uid: self.cred.uid, gid: self.cred.gid }
    }
}

/// Why an operation did not happen.
#[derive(Clone, Debug)]
pub enum Stall {
    /// It failed.
    Errno(Errno),
    /// It has to wait for `WRITABLE` (or an error) on this queue; `EAGAIN` for those who do not.
    Wait(WaitQueue),
    /// It has begun and goes on by itself: who waits does so as for [`Wait`](Self::Wait), who does not, or
    /// waits no longer, is told `otherwise` (`EINPROGRESS`, `EALREADY`).
    Underway {
        /// Where the end of it is told.
        queue: WaitQueue,
        /// For those who do not wait for it.
        otherwise: Errno,
    },
}

impl From<Errno> for Stall {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Stall> for Errno {
    fn from(stall: Stall) -> Self {
        match stall {
            Stall::Errno(errno) => errno,
            Stall::Wait(_) => Self::EAGAIN,
            Stall::Underway { otherwise, .. } => otherwise,
        }
    }
}

/// Result of what may have to wait elsewhere than on the socket.
pub type Try<T> = core::result::Result<T, Stall>;

/// Control data that belongs to one family (`ip(7)`, `ipv6(7)`, timestamps).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Level.
    pub level: i32,
    /// Type at that level.
    pub kind: i32,
    /// The data.
    pub data: Vec<u8>,
}

/// Control data of a message (`unix(7)`, `SCM_*`).
#[derive(Clone, Default)]
pub struct Ancillary {
    /// `SCM_RIGHTS`.
    pub files: Vec<FileRef>,
    /// `SCM_CREDENTIALS`. On the way out checked by the caller against the sender's privileges; on the
    /// way in present when the receiver asked (`SO_PASSCRED`).
    pub credentials: Option<Ucred>,
    /// What a family reads or makes itself; of `SOL_SOCKET` only on the way in.
    pub other: Vec<Control>,
}

impl Ancillary {
    /// Nothing in it?
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.credentials.is_none() && self.other.is_empty()
    }
}

/// What is said about data on its way out.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// `MSG_*` as the guest gave them.
    pub flags: MsgFlags,
    /// Destination, as a `sockaddr`; `None`: the peer.
    pub to: Option<&'a [u8]>,
    /// Control data.
    pub ancillary: &'a Ancillary,
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
    /// Sender's address, a `sockaddr`; `None` when it has none.
    pub from: Option<Vec<u8>>,
    /// `MSG_EOR`, `MSG_TRUNC`, `MSG_OOB` for the guest.
    pub flags: MsgFlags,
    /// Nothing was there, and nothing will come.
    pub end: bool,
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

/// What the socket calls need of an open socket. Addresses are `sockaddr`s as bytes, no longer than
/// [`abi::socket::SOCKADDR_MAX`].
pub trait Socket: Send + Sync + Any {
    /// Address family.
    fn family(&self) -> u16;
    /// Type.
    fn kind(&self) -> SocketKind;
    /// Protocol (`SO_PROTOCOL`).
    fn protocol(&self) -> i32 {
        0
    }
    /// `bind(2)`.
    fn bind(&self, asker: &Asker<'_>, address: &[u8]) -> Result<()>;
    /// `connect(2)`.
    fn connect(&self, asker: &Asker<'_>, address: &[u8]) -> Try<()>;
    /// `listen(2)`; `EOPNOTSUPP` where there are no connections.
    fn listen(&self, _asker: &Asker<'_>, _backlog: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `accept(2)`: the next connection; `EAGAIN` when there is none.
    fn accept(&self) -> Result<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `getsockname(2)`.
    fn name(&self) -> Vec<u8>;
    /// `getpeername(2)`; `ENOTCONN`.
    fn peer_name(&self) -> Result<Vec<u8>>;
    /// `sendmsg(2)`: a packet whole, of a stream what fits. `EPIPE` when nobody will read; the caller
    /// raises `SIGPIPE` where [`raises_sigpipe`](Self::raises_sigpipe).
    fn send(&self, asker: &Asker<'_>, source: &mut dyn IoSource, message: &Outgoing<'_>) -> Try<usize>;
    /// `recvmsg(2)`; `EAGAIN` when nothing is there.
    fn receive(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received>;
    /// `shutdown(2)`.
    fn shutdown(&self, how: Shutdown) -> Result<()>;
    /// Is it a stream whose `EPIPE` comes with a signal?
    fn raises_sigpipe(&self) -> bool {
        self.kind() == SocketKind::Stream
    }
    /// Readiness.
    fn poll(&self) -> PollEvents;
    /// Where changes of it are told.
    fn wait_queue(&self) -> &WaitQueue;
    /// `ioctl(2)`.
    fn ioctl(&self, _request: &IoctlRequest<'_>) -> Result<u64> {
        Err(Errno::ENOTTY)
    }
    /// Takes the pending error (`SO_ERROR`).
    fn take_error(&self) -> Option<Errno> {
        None
    }
    /// `SO_ACCEPTCONN`.
    fn is_listening(&self) -> bool {
        false
    }
    /// `SO_SNDBUF`: the accounted size, in bytes; the caller has bounded it.
    fn set_send_buffer(&self, _bytes: usize) {}
    /// `SO_RCVBUF`, likewise.
    fn set_receive_buffer(&self, _bytes: usize) {}
    /// `SO_PASSCRED`; `EOPNOTSUPP` where there are no credentials.
    fn set_passes_credentials(&self, _on: bool) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `SO_PASSCRED`.
    fn passes_credentials(&self) -> bool {
        false
    }
    /// `SO_PEERCRED`, and the supplementary groups of `SO_PEERGROUPS`; `None` without a peer.
    fn peer_identity(&self) -> Option<(Ucred, Arc<[u32]>)> {
        None
    }
    /// It has got its inode, `ino`, which `uid` owns: what `/proc/net` shows.
    fn attached(&self, _ino: u64, _uid: u32) {}
    /// An integer option of `SOL_SOCKET` was set.
    fn switched(&self, _name: i32, _value: i32) {}
    /// `SO_LINGER`: seconds, when it is on.
    fn set_linger(&self, _seconds: Option<u32>) {}
    /// What `SO_SNDBUF` and `SO_RCVBUF` show before anybody has set them; `None`: the usual size.
    fn usual_buffers(&self) -> Option<(i32, i32)> {
        None
    }
    /// How it is mapped, when it can be.
    fn mappable(&self) -> Option<Arc<dyn Mappable>> {
        None
    }
    /// An option whose value depends on what stands where it is to be put.
    fn option_for(&self, level: i32, name: i32, _asked: &[u8]) -> Result<Vec<u8>> {
        self.option(level, name)
    }
    /// `SO_ATTACH_FILTER`: packets that it does not take are not received.
    fn attach_filter(&self, _filter: PacketFilter) -> Result<()> {
        Err(Errno::ENOPROTOOPT)
    }
    /// An option of a level other than `SOL_SOCKET`, or one of it that is not the same for all.
    fn option(&self, _level: i32, _name: i32) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Sets one.
    fn set_option(&self, _level: i32, _name: i32, _value: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
}
