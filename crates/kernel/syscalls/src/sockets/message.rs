//! Messages: `sendmsg(2)`, `recvmsg(2)` and their kin.

use std::time::Instant;

use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::socket::{MsgFlags, MsgHdr, SOCKADDR_MAX, SocketKind};
use abi::time::Timespec;
use abi::{Errno, SysError, SysResult};
use guestmem::{IoSource, MemExt, UserAddr, UserPtr};
use socket::{Ancillary, Outgoing, Received};

use super::address::{Me, load_address, store_address};
use super::control::{self, ControlOut};
use super::{Handle, until_room};
use crate::args::Fd;
use crate::blocking::until_ready;
use crate::cx::Cx;
use crate::io::Segments;

/// Most segments of a message, and messages of a call (`UIO_MAXIOV`).
const MAX_PARTS: u64 = 1024;
/// Offset of `msg_namelen` in `struct msghdr`.
const NAME_LEN_AT: u64 = 8;
/// Offset of `msg_controllen`.
const CONTROL_LEN_AT: u64 = 40;
/// Offset of `msg_flags`.
const FLAGS_AT: u64 = 48;
/// Offset of `msg_len` in `struct mmsghdr`.
const LEN_AT: u64 = 56;
/// Bytes of `struct mmsghdr`.
const STRIDE: u64 = 64;

/// The field of a structure of a guest's.
fn field<T>(at: UserAddr, offset: u64) -> SysResult<UserPtr<T>> {
    Ok(at.checked_add(offset).map(UserPtr::new).ok_or(Errno::EFAULT)?)
}

/// A message on its way out.
struct Sending {
    flags: MsgFlags,
    to: Option<Vec<u8>>,
    ancillary: Ancillary,
    segments: Segments,
}

/// Sends all of a message, waiting for room.
fn send(cx: &Cx<'_>, handle: &Handle, sending: &Sending) -> SysResult<usize> {
    let (me, mm) = (Me::new(cx)?, cx.mm());
    let patience = handle.to_send().unless(sending.flags.contains(MsgFlags::DONTWAIT));
    let total = sending.segments.total();
    let none = Ancillary::default();
    let mut done = 0;
    loop {
        let mut faulted = false;
        let ancillary = if done == 0 { &sending.ancillary } else { &none };
        let message = Outgoing { flags: sending.flags, to: sending.to.as_deref(), ancillary };
        let step = until_room(cx.task, patience, || {
            let mut source = sending.segments.io(mm.as_ref(), done);
            let wanted = source.remaining();
            let n = handle.socket.send(&me.asker(), &mut source, &message)?;
            faulted = n < wanted && source.remaining() == 0;
            Ok(n)
        });
        match step {
            Ok(0) => return Ok(done),
            Ok(n) => done += n,
            Err(_) if done > 0 => return Ok(done),
            Err(error) => {
                let broken = error == SysError::Errno(Errno::EPIPE) && handle.socket.raises_sigpipe();
                if broken && !sending.flags.contains(MsgFlags::NOSIGNAL) {
                    cx.task.signal_self(Signal::SIGPIPE);
                }
                return Err(error);
            }
        }
        if done >= total || faulted || handle.socket.kind() != SocketKind::Stream {
            return Ok(done);
        }
    }
}

/// `sendto(2)`, `send(2)`.
pub(crate) fn sendto(
    cx: &mut Cx<'_>,
    fd: Fd,
    buf: UserAddr,
    len: usize,
    flags: u32,
    address: UserAddr,
    address_len: i32,
) -> SysResult<usize> {
    let handle = Handle::find(cx, fd)?;
    let to = if address.is_null() { None } else { Some(load_address(cx, address, address_len)?) };
    let sending = Sending {
        flags: MsgFlags::from_bits_truncate(flags),
        to: to.filter(|to| !to.is_empty()),
        ancillary: Ancillary::default(),
        segments: Segments::one(buf, len),
    };
    send(cx, &handle, &sending)
}

/// Reads a `msghdr`: what is checked in both directions.
fn load_header(cx: &Cx<'_>, at: UserAddr) -> SysResult<MsgHdr> {
    let mut header = cx.mm().load(UserPtr::<MsgHdr>::new(at))?;
    if header.name == 0 {
        header.name_len = 0;
    }
    if (header.name_len as i32) < 0 {
        return Err(Errno::EINVAL.into());
    }
    header.name_len = header.name_len.min(SOCKADDR_MAX as u32);
    Ok(header)
}

fn load_segments(cx: &Cx<'_>, header: &MsgHdr) -> SysResult<Segments> {
    if header.iov_len > MAX_PARTS {
        return Err(Errno::EMSGSIZE.into());
    }
    Segments::load(cx.mm().as_ref(), UserPtr::new(UserAddr(header.iov)), header.iov_len as usize)
}

/// `sendmsg(2)`.
pub(crate) fn sendmsg(cx: &mut Cx<'_>, fd: Fd, message: UserAddr, flags: u32) -> SysResult<usize> {
    let handle = Handle::find(cx, fd)?;
    send_one(cx, &handle, message, flags)
}

fn send_one(cx: &Cx<'_>, handle: &Handle, at: UserAddr, flags: u32) -> SysResult<usize> {
    let header = load_header(cx, at)?;
    let to = load_address(cx, UserAddr(header.name), header.name_len as i32)?;
    let segments = load_segments(cx, &header)?;
    let control_len = if header.control == 0 { 0 } else { header.control_len };
    let ancillary = control::load(cx, handle.socket.as_ref(), UserAddr(header.control), control_len)?;
    let to = Some(to).filter(|to| !to.is_empty());
    send(cx, handle, &Sending { flags: MsgFlags::from_bits_truncate(flags), to, ancillary, segments })
}

/// `sendmmsg(2)`: how many were sent; an error only when none was.
pub(crate) fn sendmmsg(
    cx: &mut Cx<'_>,
    fd: Fd,
    messages: UserAddr,
    count: u32,
    flags: u32,
) -> SysResult<usize> {
    let handle = Handle::find(cx, fd)?;
    let mut done = 0;
    while done < u64::from(count).min(MAX_PARTS) {
        let at = messages.checked_add(done * STRIDE).ok_or(Errno::EFAULT)?;
        let sent = send_one(cx, &handle, at, flags)
            .and_then(|n| Ok(cx.mm().store(field(at, LEN_AT)?, &(n as u32))?));
        match sent {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done as usize)
}

/// Receives one message, or of a stream what is there, all of it with `MSG_WAITALL`.
fn receive(cx: &Cx<'_>, handle: &Handle, segments: &Segments, mut flags: MsgFlags) -> SysResult<Received> {
    flags.set(MsgFlags::DONTWAIT, flags.contains(MsgFlags::DONTWAIT) || handle.is_nonblocking());
    let mm = cx.mm();
    let patience = handle.to_receive().unless(flags.contains(MsgFlags::DONTWAIT));
    let part = |skip: usize| {
        until_ready(cx.task, &handle.open, PollEvents::IN, patience, || {
            handle.socket.receive(&mut segments.io(mm.as_ref(), skip), flags)
        })
    };
    let mut received = part(0)?;
    let whole = flags.contains(MsgFlags::WAITALL) && !flags.contains(MsgFlags::PEEK);
    if !whole || handle.socket.kind() != SocketKind::Stream {
        return Ok(received);
    }
    let mut ended = received.end;
    while received.bytes < segments.total() && !ended && received.ancillary.files.is_empty() {
        let Ok(next) = part(received.bytes) else { break };
        // No byte of what was there: the memory behind has a fault.
        ended = next.end || next.bytes == 0;
        received.bytes += next.bytes;
        received.full_len = received.bytes;
        received.ancillary.files = next.ancillary.files;
    }
    Ok(received)
}

/// What a receive call returns: with `MSG_TRUNC` the length of the whole message.
fn reported(received: &Received, flags: MsgFlags) -> usize {
    if flags.contains(MsgFlags::TRUNC) { received.full_len } else { received.bytes }
}

/// `recvfrom(2)`, `recv(2)`. Descriptors that come with the message are closed.
pub(crate) fn recvfrom(
    cx: &mut Cx<'_>,
    fd: Fd,
    buf: UserAddr,
    len: usize,
    flags: u32,
    address: UserAddr,
    address_len: UserPtr<i32>,
) -> SysResult<usize> {
    let handle = Handle::find(cx, fd)?;
    let flags = MsgFlags::from_bits_truncate(flags);
    let received = receive(cx, &handle, &Segments::one(buf, len), flags)?;
    if !address.is_null() {
        store_address(cx.mm().as_ref(), received.from.as_deref().unwrap_or_default(), address, address_len)?;
    }
    Ok(reported(&received, flags))
}

/// `recvmsg(2)`.
pub(crate) fn recvmsg(cx: &mut Cx<'_>, fd: Fd, message: UserAddr, flags: u32) -> SysResult<usize> {
    let handle = Handle::find(cx, fd)?;
    receive_one(cx, &handle, message, MsgFlags::from_bits_truncate(flags)).map(|(n, _)| n)
}

/// Receives into the `msghdr` at `at`; also the flags it was given.
fn receive_one(cx: &Cx<'_>, handle: &Handle, at: UserAddr, flags: MsgFlags) -> SysResult<(usize, MsgFlags)> {
    let header = load_header(cx, at)?;
    let segments = load_segments(cx, &header)?;
    let mut received = receive(cx, handle, &segments, flags)?;
    let mm = cx.mm();
    let mut control = ControlOut::new(UserAddr(header.control), header.control_len);
    control.store(cx, std::mem::take(&mut received.ancillary), flags)?;
    let mut out = received.flags;
    out.set(MsgFlags::CTRUNC, control.cut);
    out.set(MsgFlags::CMSG_CLOEXEC, flags.contains(MsgFlags::CMSG_CLOEXEC));
    if header.name != 0 {
        let from = received.from.as_deref().unwrap_or_default();
        store_address(mm.as_ref(), from, UserAddr(header.name), field(at, NAME_LEN_AT)?)?;
    }
    mm.store(field(at, FLAGS_AT)?, &out.bits())?;
    mm.store(field(at, CONTROL_LEN_AT)?, &(control.used as u64))?;
    Ok((reported(&received, flags), out))
}

/// `recvmmsg(2)`: how many came; an error only when none did. The timeout is looked at after each
/// message, not while waiting for one, as on Linux.
pub(crate) fn recvmmsg(
    cx: &mut Cx<'_>,
    fd: Fd,
    messages: UserAddr,
    count: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
) -> SysResult<usize> {
    let deadline = match timeout.non_null() {
        None => None,
        Some(timeout) => {
            let after = cx.mm().load(timeout)?.to_duration().ok_or(Errno::EINVAL)?;
            Instant::now().checked_add(after)
        }
    };
    let handle = Handle::find(cx, fd)?;
    let mut flags = MsgFlags::from_bits_truncate(flags);
    let mut done = 0;
    while done < u64::from(count).min(MAX_PARTS) {
        let at = messages.checked_add(done * STRIDE).ok_or(Errno::EFAULT)?;
        let received = receive_one(cx, &handle, at, flags - MsgFlags::WAITFORONE).and_then(|(n, out)| {
            cx.mm().store(field(at, LEN_AT)?, &(n as u32))?;
            Ok(out)
        });
        match received {
            Ok(_) => done += 1,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
        flags.set(MsgFlags::DONTWAIT, flags.intersects(MsgFlags::DONTWAIT | MsgFlags::WAITFORONE));
        if deadline.is_some_and(|at| Instant::now() >= at) {
            break;
        }
    }
    if let (Some(timeout), Some(deadline)) = (timeout.non_null(), deadline) {
        let left = Timespec::from(deadline.saturating_duration_since(Instant::now()));
        cx.mm().store(timeout, &left)?;
    }
    Ok(done as usize)
}
