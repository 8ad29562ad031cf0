//! Sockets: families, types, message flags and structures (`socket(2)`, `unix(7)`, `recvmsg(2)`).

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `AF_UNSPEC`: no family; an address of it dissolves a connection (`connect(2)`).
pub const AF_UNSPEC: u16 = 0;
/// `AF_UNIX`.
pub const AF_UNIX: u16 = 1;
/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;
/// `AF_NETLINK`.
pub const AF_NETLINK: u16 = 16;
/// `AF_PACKET`.
pub const AF_PACKET: u16 = 17;

/// Type of a socket (`SOCK_*` without its flags).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketKind {
    /// `SOCK_STREAM`.
    Stream,
    /// `SOCK_DGRAM`.
    Datagram,
    /// `SOCK_RAW`.
    Raw,
    /// `SOCK_SEQPACKET`.
    SeqPacket,
}

impl SocketKind {
    /// From the low four bits of the type argument.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Stream,
            2 => Self::Datagram,
            3 => Self::Raw,
            5 => Self::SeqPacket,
            _ => return None,
        })
    }

    /// The `SOCK_*` number.
    pub const fn raw(self) -> u32 {
        match self {
            Self::Stream => 1,
            Self::Datagram => 2,
            Self::Raw => 3,
            Self::SeqPacket => 5,
        }
    }
}

/// `SOCK_NONBLOCK` in the type argument.
pub const SOCK_NONBLOCK: u32 = 0o4000;
/// `SOCK_CLOEXEC` in the type argument.
pub const SOCK_CLOEXEC: u32 = 0o2000000;
/// Longest `sockaddr` (`struct sockaddr_storage`).
pub const SOCKADDR_MAX: usize = 128;
/// Bytes of `sun_path`.
pub const UNIX_PATH_MAX: usize = 108;
/// Descriptors one message may carry (`SCM_MAX_FD`).
pub const SCM_MAX_FD: usize = 253;
/// Largest backlog (`net.core.somaxconn`).
pub const SOMAXCONN: usize = 4096;

bitflags! {
    /// Message flags (`MSG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MsgFlags: u32 {
        /// Out-of-band data.
        const OOB = 0x1;
        /// Leave the data in the queue.
        const PEEK = 0x2;
        /// Do not route.
        const DONTROUTE = 0x4;
        /// Control data was cut.
        const CTRUNC = 0x8;
        /// Data was cut; on input: report the whole length.
        const TRUNC = 0x20;
        /// Do not block.
        const DONTWAIT = 0x40;
        /// End of record.
        const EOR = 0x80;
        /// Wait for all of it.
        const WAITALL = 0x100;
        /// Confirm the path.
        const CONFIRM = 0x800;
        /// From the error queue.
        const ERRQUEUE = 0x2000;
        /// No `SIGPIPE`.
        const NOSIGNAL = 0x4000;
        /// More will follow.
        const MORE = 0x8000;
        /// `recvmmsg`: block for the first only.
        const WAITFORONE = 0x10000;
        /// Received descriptors close on exec.
        const CMSG_CLOEXEC = 0x4000_0000;
    }
}

/// `struct msghdr` of x86-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MsgHdr {
    /// Address.
    pub name: u64,
    /// Its length.
    pub name_len: u32,
    /// Padding.
    pub pad0: u32,
    /// `struct iovec` array.
    pub iov: u64,
    /// Its elements.
    pub iov_len: u64,
    /// Control data.
    pub control: u64,
    /// Its length.
    pub control_len: u64,
    /// Flags on output.
    pub flags: u32,
    /// Padding.
    pub pad1: u32,
}

/// Head of a control message; data follows at a multiple of 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CmsgHdr {
    /// Bytes with this head, without padding.
    pub len: u64,
    /// Level.
    pub level: i32,
    /// Type at that level.
    pub kind: i32,
}

/// `struct ucred` (`unix(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ucred {
    /// Process.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<MsgHdr>(), 56);
        assert_eq!(size_of::<CmsgHdr>(), 16);
        assert_eq!(size_of::<Ucred>(), 12);
    }
}
