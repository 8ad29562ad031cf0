//! Scheduling attributes (`sched_setattr(2)`, `sched_getattr(2)`).

use abi::{Errno, PAGE_SIZE, SysResult};
use guestmem::{MemExt, UserMem, UserPtr};
use kernel::Scheduling;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::{is_real_time, schedule, target};
use crate::cx::Cx;

/// `SCHED_FLAG_*`.
const FLAG_RESET_ON_FORK: u64 = 1;
const FLAG_KEEP_POLICY: u64 = 8;
const FLAG_KEEP_PARAMS: u64 = 0x10;
const FLAGS_UTIL_CLAMP: u64 = 0x60;
const FLAGS_ALL: u64 = 0x7f;
/// Bytes of the first version, and of the one with utilisation clamps.
const SIZE_0: u32 = 48;
const SIZE_1: u32 = 56;

/// `struct sched_attr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    deadline: [u64; 3],
    util: [u32; 2],
}

/// `sched_setattr(2)`.
pub(crate) fn sched_setattr(
    cx: &mut Cx<'_>,
    pid: i32,
    attr: UserPtr<SchedAttr>,
    flags: u32,
) -> SysResult<()> {
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let attr = load(cx, attr)?;
    if attr.policy > i32::MAX as u32 || attr.flags & !FLAGS_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = target(cx, pid)?;
    if attr.flags & FLAGS_UTIL_CLAMP != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let was = target.settings().scheduling;
    let keeps = attr.flags & FLAG_KEEP_PARAMS != 0;
    let policy = if attr.flags & FLAG_KEEP_POLICY != 0 { was.policy } else { attr.policy };
    let priority = if keeps { was.priority } else { attr.priority };
    let nice = if keeps || is_real_time(policy) { was.nice } else { attr.nice.clamp(-20, 19) };
    let reset_on_fork = attr.flags & FLAG_RESET_ON_FORK != 0;
    schedule(cx, &target, Scheduling { policy, priority, reset_on_fork, nice })
}

/// A structure that may have grown: what we do not know must be zero (`E2BIG`, and our size is stored).
fn load(cx: &Cx<'_>, from: UserPtr<SchedAttr>) -> SysResult<SchedAttr> {
    let mem = cx.task.mm();
    let size_at = UserPtr::<u32>::new(from.addr());
    let size = match mem.load(size_at)? {
        0 => SIZE_0,
        size => size,
    };
    let too_big = || -> SysResult<SchedAttr> {
        mem.store(size_at, &SIZE_1)?;
        Err(Errno::E2BIG.into())
    };
    if size < SIZE_0 || u64::from(size) > PAGE_SIZE {
        return too_big();
    }
    let mut bytes = vec![0; size as usize];
    mem.read(from.addr(), &mut bytes)?;
    let (known, rest) = bytes.split_at(bytes.len().min(SIZE_1 as usize));
    if rest.iter().any(|byte| *byte != 0) {
        return too_big();
    }
    let mut attr = SchedAttr::new_zeroed();
    for (to, byte) in attr.as_mut_bytes().iter_mut().zip(known) {
        *to = *byte;
    }
    if attr.flags & FLAGS_UTIL_CLAMP != 0 && size < SIZE_1 {
        return Err(Errno::EINVAL.into());
    }
    Ok(attr)
}

/// `sched_getattr(2)`.
pub(crate) fn sched_getattr(
    cx: &mut Cx<'_>,
    pid: i32,
    out: UserPtr<SchedAttr>,
    size: u32,
    flags: u32,
) -> SysResult<()> {
    if out.is_null() || pid < 0 || size < SIZE_0 || u64::from(size) > PAGE_SIZE || flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let found = target(cx, pid)?.settings().scheduling;
    let attr = SchedAttr {
        size: size.min(SIZE_1),
        policy: found.policy,
        flags: if found.reset_on_fork { FLAG_RESET_ON_FORK } else { 0 },
        nice: if is_real_time(found.policy) { 0 } else { found.nice },
        priority: found.priority,
        ..SchedAttr::default()
    };
    let bytes = attr.as_bytes().get(..attr.size as usize).unwrap_or_default();
    Ok(cx.task.mm().write(out.addr(), bytes)?)
}
