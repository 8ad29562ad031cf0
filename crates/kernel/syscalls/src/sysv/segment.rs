//! Shared memory: `shmget(2)`, `shmat(2)`, `shmdt(2)`, `shmctl(2)`.

use std::sync::Arc;

use abi::mm::{MapFlags, Prot};
use abi::{Errno, PAGE_SIZE, SysResult, page_up};
use cred::CapSet;
use guestmem::{MemExt, UserAddr, UserPtr};
use ipc::shm::Segment;
use memmap::Mappable;
use mm::{MapArgs, MapFile, Source, Vma};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{INFO, Perm, READ, REMOVE, SET, STAT, by_index, highest_index, now, store, wanted};
use crate::cx::Cx;

/// `SHM_RDONLY`.
const READ_ONLY: u32 = 0o10000;
/// `SHM_RND`.
const ROUND: u32 = 0o20000;
/// `SHM_REMAP`.
const REMAP: u32 = 0o40000;
/// `SHM_EXEC`.
const EXECUTE: u32 = 0o100000;
/// `SHM_HUGETLB`.
const HUGE: u32 = 0o4000;
/// `SHM_DEST` in a mode.
const REMOVED: u32 = 0o1000;
const LOCK: i32 = 11;
const UNLOCK: i32 = 12;
const STAT_INDEX: i32 = 13;
const SHM_INFO: i32 = 14;
const STAT_ANY: i32 = 15;

/// `struct shmid64_ds` of x86-64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ShmDs {
    perm: Perm,
    bytes: u64,
    attach_time: i64,
    detach_time: i64,
    change_time: i64,
    creator: i32,
    last_pid: i32,
    attached: u64,
    unused: [u64; 2],
}

/// `shmget(2)`.
pub(crate) fn shmget(cx: &mut Cx<'_>, key: i32, bytes: u64, flags: u32) -> SysResult<i32> {
    let (cred, pid) = (cx.task.cred(), cx.task.tgid());
    let segments = &cx.task.kernel().ipc().segments;
    let check = |segment: &Segment| {
        segment.check_size(bytes)?;
        segment.status().permissions.check(&cred, wanted(flags))
    };
    let id = segments.get(key, flags, &cred, check, |permissions| {
        let len = page_up(bytes).filter(|len| *len > 0).ok_or(Errno::EINVAL)?;
        if bytes > cx.task.kernel().ipc().limits.segment() {
            return Err(Errno::EINVAL);
        }
        if flags & HUGE != 0 {
            // As with an empty pool of huge pages.
            return Err(Errno::ENOMEM);
        }
        let object = cx.services.shared_memory.create(len)?;
        Segment::new(permissions, bytes, object, pid, now(cx))
    })?;
    if let Ok(segment) = segments.find(id) {
        segment.settle(segments, id);
    }
    Ok(id)
}

/// `shmat(2)`.
pub(crate) fn shmat(cx: &mut Cx<'_>, id: i32, addr: UserAddr, flags: u32) -> SysResult<UserAddr> {
    let addr = place(addr, flags)?;
    let (mut prot, mut want) = (Prot::READ, READ);
    if flags & READ_ONLY == 0 {
        (prot, want) = (prot | Prot::WRITE, want | 2);
    }
    // What mprotect(2) may add: execution, but not writing.
    let access = prot | Prot::EXEC;
    if flags & EXECUTE != 0 {
        (prot, want) = (prot | Prot::EXEC, want | 1);
    }
    let segment = cx.task.kernel().ipc().segments.find(id)?;
    segment.status().permissions.check(&cx.task.cred(), want)?;
    segment.note_attach(cx.task.tgid(), now(cx))?;
    let mut map = MapFlags::SHARED;
    if !addr.is_null() {
        map |= if flags & REMAP != 0 { MapFlags::FIXED } else { MapFlags::FIXED_NOREPLACE };
    }
    let len = segment.mapped_bytes();
    let file = MapFile { file: Some(segment), access };
    let args = MapArgs { addr: addr.0, len, prot, flags: map, offset: 0, file: Some(file) };
    Ok(cx.mm().mmap(&args).map_err(|errno| if errno == Errno::EEXIST { Errno::EINVAL } else { errno })?)
}

/// Where an attachment goes; null lets the kernel choose.
fn place(addr: UserAddr, flags: u32) -> SysResult<UserAddr> {
    if addr.is_null() {
        return if flags & REMAP != 0 { Err(Errno::EINVAL.into()) } else { Ok(addr) };
    }
    if addr.is_page_aligned() {
        return Ok(addr);
    }
    let down = addr.page_down();
    if flags & ROUND == 0 || (down.is_null() && flags & REMAP != 0) {
        return Err(Errno::EINVAL.into());
    }
    Ok(down)
}

/// The segment of a mapping, and where its first byte would be.
fn attachment(vma: &Vma) -> Option<(&Arc<dyn Mappable>, u64)> {
    let Source::File { file, offset } = &vma.source else { return None };
    file.as_any()?.downcast_ref::<Segment>()?;
    Some((file, vma.start.checked_sub(*offset)?))
}

/// `shmdt(2)`: everything of the segment that was attached there and is left.
pub(crate) fn shmdt(cx: &mut Cx<'_>, addr: UserAddr) -> SysResult<()> {
    if !addr.is_page_aligned() {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let vmas = mm.vmas();
    let attached = |vma: &&Vma| attachment(vma).is_some_and(|(_, base)| base == addr.0);
    let first = vmas.iter().find(attached).ok_or(Errno::EINVAL)?;
    let (file, _) = attachment(first).ok_or(Errno::EINVAL)?;
    for vma in vmas.iter().filter(attached) {
        if attachment(vma).is_some_and(|(other, _)| Arc::ptr_eq(other, file)) {
            mm.munmap(UserAddr(vma.start), vma.len())?;
        }
    }
    if let Some(segment) = file.as_any().and_then(|file| file.downcast_ref::<Segment>()) {
        segment.note_detach(cx.task.tgid(), now(cx));
    }
    Ok(())
}

/// `shmctl(2)`.
pub(crate) fn shmctl(cx: &mut Cx<'_>, id: i32, command: i32, at: UserAddr) -> SysResult<i32> {
    let (segments, cred) = (&cx.task.kernel().ipc().segments, cx.task.cred());
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL.into());
    }
    match command {
        INFO => {
            let pages = (1i64 << 52) as u64;
            let limits = [
                cx.task.kernel().ipc().limits.segment(),
                1,
                ipc::namespace::MAX_SEGMENTS as u64,
                4096,
                pages,
                0,
                0,
                0,
                0,
            ];
            store(cx, at, &limits)?;
            return Ok(highest_index(segments));
        }
        SHM_INFO => {
            let all = segments.list();
            let pages: u64 = all.iter().map(|(_, segment)| segment.mapped_bytes() / PAGE_SIZE).sum();
            store(cx, at, &[all.len() as u64, pages, pages, 0, 0, 0])?;
            return Ok(highest_index(segments));
        }
        STAT => {
            let segment = segments.find(id)?;
            segment.status().permissions.check(&cred, READ)?;
            stat(cx, id, &segment, at)?;
        }
        STAT_INDEX | STAT_ANY => {
            let (id, segment) = by_index(segments, id)?;
            if command == STAT_INDEX {
                segment.status().permissions.check(&cred, READ)?;
            }
            return stat(cx, id, &segment, at).map(|()| id);
        }
        SET => {
            let new = cx.mm().load(UserPtr::<ShmDs>::new(at))?;
            let segment = segments.find(id)?;
            segment.status().permissions.check_owner(&cred)?;
            let (uid, gid) = new.perm.owner()?;
            segment.set_permissions(uid, gid, new.perm.mode, now(cx));
        }
        REMOVE => {
            let segment = segments.find(id)?;
            segment.status().permissions.check_owner(&cred)?;
            if segment.mark_removed(now(cx)) {
                segments.remove(id)?;
            } else {
                segments.forget_key(id);
            }
        }
        // Nothing of a guest's memory is ever swapped by the Sentry.
        LOCK | UNLOCK => {
            let segment = segments.find(id)?;
            if !cred.capable(CapSet::IPC_LOCK) {
                segment.status().permissions.check_owner(&cred)?;
            }
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn stat(cx: &Cx<'_>, id: i32, segment: &Segment, at: UserAddr) -> SysResult<()> {
    let status = segment.status();
    let mut perm = Perm::new(id, &status.permissions);
    if status.removed {
        (perm.mode, perm.key) = (perm.mode | REMOVED, 0);
    }
    let shown = ShmDs {
        perm,
        bytes: status.bytes,
        attach_time: status.attach_time,
        detach_time: status.detach_time,
        change_time: status.change_time,
        creator: cx.number(status.creator),
        last_pid: cx.number(status.last_pid),
        attached: status.attached,
        unused: [0; 2],
    };
    store(cx, at, &shown)
}

#[cfg(test)]
const _: () = assert!(size_of::<ShmDs>() == 112);
