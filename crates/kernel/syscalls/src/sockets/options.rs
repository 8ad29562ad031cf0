//! `getsockopt(2)`, `setsockopt(2)`.

use abi::{Errno, SysResult};
use bpf::{Insn, MAX_INSNS, PacketFilter};
use guestmem::{MemExt, UserAddr, UserMem, UserPtr};
use socket::options::SOL_SOCKET;

use super::Handle;
use crate::args::Fd;
use crate::cx::Cx;

/// `SO_PEERCRED`: begins with a pid.
const SO_PEERCRED: i32 = 17;
/// `SO_PEERNAME`: is not cut.
const SO_PEERNAME: i32 = 28;
/// `SO_PEERGROUPS`: neither.
const SO_PEERGROUPS: i32 = 59;
/// Level of packet sockets, one of whose options looks at what stands where its value is to be put.
const SOL_PACKET: i32 = 263;
/// `SO_ATTACH_FILTER`: names a program in the guest.
const SO_ATTACH_FILTER: i32 = 26;
/// Bytes of the longest option of `SOL_SOCKET` that can be set (`struct timeval`).
const MAX_SOCKET_VALUE: usize = 16;
/// Bytes of the longest option of another level.
const MAX_VALUE: usize = 4096;

/// `getsockopt(2)`.
pub(crate) fn getsockopt(
    cx: &mut Cx<'_>,
    fd: Fd,
    level: i32,
    name: i32,
    value: UserAddr,
    len: UserPtr<i32>,
) -> SysResult<()> {
    let handle = Handle::find(cx, fd)?;
    let mm = cx.mm();
    let asked = mm.load(len)?;
    let room = usize::try_from(asked).map_err(|_| Errno::EINVAL)?;
    let mut standing = [0; 4];
    let standing = if level == SOL_PACKET && room >= standing.len() {
        mm.read(value, &mut standing)?;
        &standing[..]
    } else {
        &[]
    };
    let mut found = handle.file()?.option(level, name, standing)?;
    if level == SOL_SOCKET
        && name == SO_PEERCRED
        && let Some(pid) = found.first_chunk_mut::<4>()
    {
        *pid = cx.number(i32::from_ne_bytes(*pid)).to_ne_bytes();
    }
    if level == SOL_SOCKET && name == SO_PEERNAME && found.len() < room {
        return Err(Errno::EINVAL.into());
    }
    if level == SOL_SOCKET && name == SO_PEERGROUPS && found.len() > room {
        mm.store(len, &(found.len() as i32))?;
        return Err(Errno::ERANGE.into());
    }
    let cut = found.get(..room).unwrap_or(&found);
    if !cut.is_empty() {
        mm.write(value, cut)?;
    }
    Ok(mm.store(len, &(cut.len() as i32))?)
}

/// `setsockopt(2)`.
pub(crate) fn setsockopt(
    cx: &mut Cx<'_>,
    fd: Fd,
    level: i32,
    name: i32,
    value: UserAddr,
    len: i32,
) -> SysResult<()> {
    let handle = Handle::find(cx, fd)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if level == SOL_SOCKET && len < size_of::<i32>() {
        return Err(Errno::EINVAL.into());
    }
    if level == SOL_SOCKET && name == SO_ATTACH_FILTER {
        return Ok(handle.socket.attach_filter(packet_filter(cx, value, len)?)?);
    }
    let mut bytes = vec![0; len.min(if level == SOL_SOCKET { MAX_SOCKET_VALUE } else { MAX_VALUE })];
    if !bytes.is_empty() {
        cx.mm().read(value, &mut bytes)?;
    }
    Ok(handle.file()?.set_option(&cx.task.cred(), level, name, &bytes)?)
}

/// Reads a `struct sock_fprog` and the instructions it names.
fn packet_filter(cx: &Cx<'_>, from: UserAddr, len: usize) -> SysResult<PacketFilter> {
    let mm = cx.mm();
    if len != size_of::<[u64; 2]>() {
        return Err(Errno::EINVAL.into());
    }
    let [head, list] = mm.load(UserPtr::<[u64; 2]>::new(from))?;
    let count = usize::from(head as u16);
    if count == 0 || count > MAX_INSNS || list == 0 {
        return Err(Errno::EINVAL.into());
    }
    let raw: Vec<[u8; Insn::SIZE]> = mm.load_array(UserPtr::new(UserAddr(list)), count)?;
    let insns: Vec<Insn> = raw.into_iter().map(Insn::from_bytes).collect();
    Ok(PacketFilter::new(insns).map_err(|_| Errno::EINVAL)?)
}
