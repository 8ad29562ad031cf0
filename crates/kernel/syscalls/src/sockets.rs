//! Sockets: `socket(2)`, `bind(2)`, `accept(2)` and their kin.
//!
//! - `address`: `sockaddr`s in and out, and socket inodes by path.
//! - `control`: control data of messages. - `message`: the send and receive calls.
//! - `options`: `getsockopt(2)`, `setsockopt(2)`.
//!
//! Families there are: `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK` and `AF_PACKET`; every other is `EAFNOSUPPORT`.

mod address;
mod control;
mod message;
mod options;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use abi::fs::{FileType, OpenFlags};
use abi::poll::PollEvents;
use abi::socket::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SocketKind,
};
use abi::{Errno, SysError, SysResult};
use anonfs::AnonAttr;
use guestmem::{MemExt, UserAddr, UserPtr};
use kernel::{BlockError, Task};
use socket::netlink::NetlinkSocket;
use socket::unix::UnixSocket;
use socket::{Shutdown, Socket, SocketFile, Stall, Try};
use vfs::{Inode, OpenFile};

use crate::args::Fd;
use crate::blocking::{Patience, until_ready};
use crate::cx::Cx;

use address::{Me, load_address, store_address};
pub(crate) use message::{recvfrom, recvmmsg, recvmsg, sendmmsg, sendmsg, sendto};
pub(crate) use options::{getsockopt, setsockopt};

/// Address families there are numbers for (`NPROTO`).
const MAX_FAMILY: i32 = 46;
/// Socket types there are numbers for (`SOCK_MAX`).
const MAX_TYPE: u32 = 11;
/// The bits of a type argument that are the type.
const TYPE_MASK: u32 = 0xf;
/// `PF_UNIX` as a protocol.
const PROTOCOL_UNIX: i32 = 1;

/// The socket behind a descriptor.
struct Handle {
    open: Arc<OpenFile>,
    socket: Arc<dyn Socket>,
    receive_timeout: Option<Duration>,
    send_timeout: Option<Duration>,
}

impl Handle {
    /// `EBADF`, `ENOTSOCK`.
    fn find(cx: &Cx<'_>, fd: Fd) -> SysResult<Self> {
        let open = cx.io_file(fd)?;
        let file = SocketFile::of(&open).ok_or(Errno::ENOTSOCK)?;
        let (receive_timeout, send_timeout) = (file.receive_timeout(), file.send_timeout());
        let socket = Arc::clone(file.socket());
        Ok(Self { open, socket, receive_timeout, send_timeout })
    }

    /// The options' side of it.
    fn file(&self) -> SysResult<&SocketFile> {
        Ok(SocketFile::of(&self.open).ok_or(Errno::ENOTSOCK)?)
    }

    fn is_nonblocking(&self) -> bool {
        self.open.flags().contains(OpenFlags::NONBLOCK)
    }

    fn to_receive(&self) -> Patience {
        Patience::of(&self.open).at_most(self.receive_timeout)
    }

    fn to_send(&self) -> Patience {
        Patience::of(&self.open).at_most(self.send_timeout)
    }
}

/// Tries until it need not wait for room somewhere.
fn until_room<T>(task: &Task, patience: Patience, mut attempt: impl FnMut() -> Try<T>) -> SysResult<T> {
    let deadline = match patience {
        Patience::Never => return Ok(attempt().map_err(Errno::from)?),
        Patience::Forever => None,
        Patience::Until(at) => Some(at),
    };
    let mut outcome = attempt();
    loop {
        let queue = match outcome {
            Ok(value) => return Ok(value),
            Err(Stall::Errno(errno)) => return Err(errno.into()),
            Err(Stall::Wait(queue) | Stall::Underway { queue, .. }) => queue,
        };
        let begun = std::cell::Cell::new(false);
        let again = || match attempt() {
            Err(Stall::Wait(next)) if next.is_same(&queue) => None,
            Err(Stall::Underway { queue: next, .. }) if next.is_same(&queue) => {
                begun.set(true);
                None
            }
            other => Some(other),
        };
        match task.wait_for(&queue, PollEvents::OUT, deadline, again) {
            Ok(next) => outcome = next,
            // As on Linux: a connection that takes longer goes on.
            Err(BlockError::TimedOut) if begun.get() => return Err(Errno::EINPROGRESS.into()),
            Err(BlockError::TimedOut) => return Err(Errno::EAGAIN.into()),
            Err(BlockError::Interrupted) if deadline.is_some() => return Err(Errno::EINTR.into()),
            Err(error @ BlockError::Interrupted) => return Err(SysError::from(error)),
        }
    }
}

/// A description of `socket`.
fn describe(cx: &Cx<'_>, socket: Arc<dyn Socket>, flags: u32) -> Arc<OpenFile> {
    let (cred, now) = (cx.task.cred(), cx.services.clock.realtime().into());
    let attr = AnonAttr { kind: FileType::Socket, uid: cred.fsuid, gid: cred.fsgid, now };
    let inode = cx.services.sockfs.inode(None, attr);
    socket.attached(inode.attr().map_or(0, |attr| attr.ino), cred.fsuid);
    let name = inode.name();
    let mut status = OpenFlags::RDWR;
    status.set(OpenFlags::NONBLOCK, flags & SOCK_NONBLOCK != 0);
    OpenFile::anonymous(inode, &name, SocketFile::new(socket), status)
}

/// Family, type and flags of a new socket, in the order Linux looks at them.
fn check_new(family: i32, kind: u32) -> SysResult<(u16, Option<SocketKind>, u32)> {
    let flags = kind & !TYPE_MASK;
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if !(0..MAX_FAMILY).contains(&family) {
        return Err(Errno::EAFNOSUPPORT.into());
    }
    if kind & TYPE_MASK >= MAX_TYPE {
        return Err(Errno::EINVAL.into());
    }
    let family = family as u16;
    match family {
        AF_UNIX | AF_INET | AF_INET6 | AF_NETLINK | AF_PACKET => {}
        _ => return Err(Errno::EAFNOSUPPORT.into()),
    }
    Ok((family, SocketKind::from_raw(kind & TYPE_MASK), flags))
}

/// Unix sockets' protocol and type, in that order.
fn check_unix(kind: Option<SocketKind>, protocol: i32) -> SysResult<SocketKind> {
    if protocol != 0 && protocol != PROTOCOL_UNIX {
        return Err(Errno::EPROTONOSUPPORT.into());
    }
    Ok(kind.ok_or(Errno::ESOCKTNOSUPPORT)?)
}

/// `socket(2)`.
pub(crate) fn socket(cx: &mut Cx<'_>, family: i32, kind: u32, protocol: i32) -> SysResult<Fd> {
    let (family, kind, flags) = check_new(family, kind)?;
    let network = &cx.services.network;
    let socket: Arc<dyn Socket> = match family {
        AF_NETLINK => {
            let kind = kind.ok_or(Errno::ESOCKTNOSUPPORT)?;
            NetlinkSocket::new(kind, protocol, &cx.services.netlink, network)?
        }
        AF_INET | AF_INET6 => {
            socket::inet::socket(family == AF_INET6, kind, protocol, network, &cx.task.cred())?
        }
        AF_PACKET => socket::packet::socket(kind, protocol, network, &cx.task.cred())?,
        _ => UnixSocket::new(check_unix(kind, protocol)?, &cx.services.unix),
    };
    let file = describe(cx, socket, flags);
    cx.install(file, flags & SOCK_CLOEXEC != 0)
}

/// `socketpair(2)`.
pub(crate) fn socketpair(
    cx: &mut Cx<'_>,
    family: i32,
    kind: u32,
    protocol: i32,
    out: UserPtr<[i32; 2]>,
) -> SysResult<()> {
    let (family, kind, flags) = check_new(family, kind)?;
    if family != AF_UNIX {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let kind = check_unix(kind, protocol)?;
    let me = Me::new(cx)?;
    let files = UnixSocket::pair(kind, &cx.services.unix, &me.asker()).map(|s| describe(cx, s, flags));
    let fds = cx.fds()?;
    let pair = fds.insert_pair(files, flags & SOCK_CLOEXEC != 0, cx.max_fds())?;
    if let Err(fault) = cx.mm().store(out, &pair) {
        for fd in pair {
            // Another thread may have closed them already.
            drop(fds.remove(fd));
        }
        return Err(fault.into());
    }
    Ok(())
}

/// `bind(2)`.
pub(crate) fn bind(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, len: i32) -> SysResult<()> {
    let handle = Handle::find(cx, fd)?;
    let address = load_address(cx, address, len)?;
    Ok(handle.socket.bind(&Me::new(cx)?.asker(), &address)?)
}

/// `connect(2)`.
pub(crate) fn connect(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, len: i32) -> SysResult<()> {
    let handle = Handle::find(cx, fd)?;
    let address = load_address(cx, address, len)?;
    let me = Me::new(cx)?;
    until_room(cx.task, handle.to_send(), || handle.socket.connect(&me.asker(), &address))
}

/// `listen(2)`.
pub(crate) fn listen(cx: &mut Cx<'_>, fd: Fd, backlog: i32) -> SysResult<()> {
    let handle = Handle::find(cx, fd)?;
    Ok(handle.socket.listen(&Me::new(cx)?.asker(), backlog)?)
}

/// `accept(2)`.
pub(crate) fn accept(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, len: UserPtr<i32>) -> SysResult<Fd> {
    accept4(cx, fd, address, len, 0)
}

/// `accept4(2)`.
pub(crate) fn accept4(
    cx: &mut Cx<'_>,
    fd: Fd,
    address: UserAddr,
    len: UserPtr<i32>,
    flags: u32,
) -> SysResult<Fd> {
    let open = cx.io_file(fd)?;
    if flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    cx.fds()?.check_room(cx.max_fds())?;
    drop(open);
    let handle = Handle::find(cx, fd)?;
    let socket =
        until_ready(cx.task, &handle.open, PollEvents::IN, handle.to_receive(), || handle.socket.accept())?;
    if !address.is_null() {
        let peer = socket.peer_name().map_err(|_| Errno::ECONNABORTED)?;
        store_address(cx.mm().as_ref(), &peer, address, len)?;
    }
    let file = describe(cx, socket, flags);
    if let Some(accepted) = SocketFile::of(&file) {
        accepted.inherit(handle.file()?);
    }
    cx.install(file, flags & SOCK_CLOEXEC != 0)
}

/// `shutdown(2)`.
pub(crate) fn shutdown(cx: &mut Cx<'_>, fd: Fd, how: i32) -> SysResult<()> {
    let handle = Handle::find(cx, fd)?;
    Ok(handle.socket.shutdown(Shutdown::from_raw(how)?)?)
}

/// `getsockname(2)`.
pub(crate) fn getsockname(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, len: UserPtr<i32>) -> SysResult<()> {
    let handle = Handle::find(cx, fd)?;
    store_address(cx.mm().as_ref(), &handle.socket.name(), address, len)
}

/// `getpeername(2)`.
pub(crate) fn getpeername(cx: &mut Cx<'_>, fd: Fd, address: UserAddr, len: UserPtr<i32>) -> SysResult<()> {
    let handle = Handle::find(cx, fd)?;
    let name = handle.socket.peer_name()?;
    store_address(cx.mm().as_ref(), &name, address, len)
}
