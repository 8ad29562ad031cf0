//! Mappings: `mmap(2)` and its family.

use abi::mm::{MapFlags, Prot};
use abi::{Errno, SysResult};
use guestmem::{UserAddr, UserMem};
use mm::{MapArgs, MapFile};
use vfs::MountFlags;

use crate::args::Fd;
use crate::cx::Cx;

/// `mmap(2)`.
pub(crate) fn mmap(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    len: u64,
    prot: u32,
    flags: u32,
    fd: Fd,
    offset: u64,
) -> SysResult<UserAddr> {
    let flags = MapFlags::from_bits_truncate(flags);
    let file = if flags.contains(MapFlags::ANONYMOUS) { None } else { Some(map_file(cx, fd)?) };
    // Linux ignores protection bits it does not know in mmap, unlike in mprotect.
    let prot = Prot::from_bits_truncate(prot);
    let args = MapArgs { addr: addr.0, len, prot, flags, offset, file };
    Ok(cx.task.mm().mmap(&args)?)
}

/// A file to map, and what its open mode and its mount allow.
fn map_file(cx: &Cx<'_>, fd: Fd) -> SysResult<MapFile> {
    let file = cx.io_file(fd)?;
    let mut access = Prot::empty();
    access.set(Prot::READ, file.flags().readable());
    access.set(Prot::WRITE, file.flags().writable());
    access.set(Prot::EXEC, !file.path().mount.flags().contains(MountFlags::NOEXEC));
    Ok(MapFile { file: file.file().mappable(), access })
}

/// `munmap(2)`.
pub(crate) fn munmap(cx: &mut Cx<'_>, addr: UserAddr, len: u64) -> SysResult<()> {
    Ok(cx.task.mm().munmap(addr, len)?)
}

/// `mprotect(2)`.
pub(crate) fn mprotect(cx: &mut Cx<'_>, addr: UserAddr, len: u64, prot: u32) -> SysResult<()> {
    Ok(cx.task.mm().mprotect(addr, len, prot)?)
}

/// `pkey_mprotect(2)`: there are no keys, but -1 names none.
pub(crate) fn pkey_mprotect(cx: &mut Cx<'_>, addr: UserAddr, len: u64, prot: u32, key: i32) -> SysResult<()> {
    if key == -1 { mprotect(cx, addr, len, prot) } else { Err(Errno::EINVAL.into()) }
}

/// `mremap(2)`.
pub(crate) fn mremap(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    old_len: u64,
    new_len: u64,
    flags: u32,
    new_addr: UserAddr,
) -> SysResult<UserAddr> {
    Ok(cx.task.mm().mremap(addr, old_len, new_len, flags, new_addr)?)
}

/// `brk(2)`: the end of the heap after it, moved or not.
pub(crate) fn brk(cx: &mut Cx<'_>, to: UserAddr) -> SysResult<UserAddr> {
    Ok(cx.task.mm().brk(to))
}

/// `madvise(2)`.
pub(crate) fn madvise(cx: &mut Cx<'_>, addr: UserAddr, len: u64, advice: u32) -> SysResult<()> {
    Ok(cx.task.mm().madvise(addr, len, advice)?)
}

/// `msync(2)`.
pub(crate) fn msync(cx: &mut Cx<'_>, addr: UserAddr, len: u64, flags: u32) -> SysResult<()> {
    Ok(cx.task.mm().msync(addr, len, flags)?)
}

/// `mincore(2)`.
pub(crate) fn mincore(cx: &mut Cx<'_>, addr: UserAddr, len: u64, out: UserAddr) -> SysResult<()> {
    let mm = cx.task.mm();
    let mut at = out;
    mm.mincore(addr, len, |residency| {
        mm.write(at, residency)?;
        at = at.checked_add(residency.len() as u64).ok_or(Errno::EFAULT)?;
        Ok(())
    })?;
    Ok(())
}

/// `mlock(2)`.
pub(crate) fn mlock(cx: &mut Cx<'_>, addr: UserAddr, len: u64) -> SysResult<()> {
    Ok(cx.task.mm().mlock(addr, len, 0)?)
}

/// `mlock2(2)`.
pub(crate) fn mlock2(cx: &mut Cx<'_>, addr: UserAddr, len: u64, flags: u32) -> SysResult<()> {
    Ok(cx.task.mm().mlock(addr, len, flags)?)
}

/// `munlock(2)`.
pub(crate) fn munlock(cx: &mut Cx<'_>, addr: UserAddr, len: u64) -> SysResult<()> {
    Ok(cx.task.mm().munlock(addr, len)?)
}

/// `mlockall(2)`.
pub(crate) fn mlockall(cx: &mut Cx<'_>, flags: u32) -> SysResult<()> {
    Ok(cx.task.mm().mlockall(flags)?)
}

/// `munlockall(2)`.
pub(crate) fn munlockall(cx: &mut Cx<'_>) -> SysResult<()> {
    cx.task.mm().munlockall();
    Ok(())
}
