//! Scheduling policies and processors (`sched(7)`).
//!
//! The Sentry has no say in how the host schedules: policies, priorities and masks are checked as Linux
//! checks them, kept, inherited and told.

use std::sync::Arc;

use abi::limits::Resource;
use abi::time::Timespec;
use abi::{Errno, SysResult};
use cred::CapSet;
use guestmem::{MemExt, UserAddr, UserMem, UserPtr};
use kernel::Task;
use kernel::settings::{CpuMask, MAX_CPUS, Scheduling};

use crate::cx::Cx;
use crate::priority::may_nice;

pub(crate) mod attr;

/// Policies (`SCHED_*`).
pub(crate) const NORMAL: u32 = 0;
pub(crate) const FIFO: u32 = 1;
pub(crate) const RR: u32 = 2;
pub(crate) const BATCH: u32 = 3;
pub(crate) const IDLE: u32 = 5;
pub(crate) const DEADLINE: u32 = 6;
/// `SCHED_RESET_ON_FORK`, beside a policy.
const RESET_ON_FORK: u32 = 0x4000_0000;
/// Highest real-time priority.
const MAX_PRIORITY: u32 = 99;

/// The caller for 0, else the task with this id: `EINVAL` for a negative one, `ESRCH`.
pub(crate) fn target(cx: &Cx<'_>, pid: i32) -> SysResult<Arc<Task>> {
    match pid {
        0 => Ok(Arc::clone(cx.task)),
        pid if pid < 0 => Err(Errno::EINVAL.into()),
        pid => Ok(cx.task_of(pid)?),
    }
}

/// May the caller schedule `target`?
pub(crate) fn may_schedule(cx: &Cx<'_>, target: &Task) -> bool {
    let (own, their) = (cx.task.cred(), target.cred());
    own.euid == their.euid || own.euid == their.uid || own.capable(CapSet::SYS_NICE)
}

pub(crate) fn is_real_time(policy: u32) -> bool {
    matches!(policy, FIFO | RR)
}

/// `sched_yield(2)`.
pub(crate) fn sched_yield(_: &mut Cx<'_>) -> SysResult<()> {
    std::thread::yield_now();
    Ok(())
}

/// `sched_get_priority_max(2)`.
pub(crate) fn sched_get_priority_max(_: &mut Cx<'_>, policy: u32) -> SysResult<u32> {
    priorities(policy).map(|(_, max)| max)
}

/// `sched_get_priority_min(2)`.
pub(crate) fn sched_get_priority_min(_: &mut Cx<'_>, policy: u32) -> SysResult<u32> {
    priorities(policy).map(|(min, _)| min)
}

fn priorities(policy: u32) -> SysResult<(u32, u32)> {
    match policy {
        FIFO | RR => Ok((1, MAX_PRIORITY)),
        NORMAL | BATCH | IDLE | DEADLINE => Ok((0, 0)),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `sched_rr_get_interval(2)`: the slices Linux has by default.
pub(crate) fn sched_rr_get_interval(cx: &mut Cx<'_>, pid: i32, out: UserPtr<Timespec>) -> SysResult<()> {
    let nanos = match target(cx, pid)?.settings().scheduling.policy {
        FIFO => 0,
        RR => 100_000_000,
        _ => 4_000_000,
    };
    Ok(cx.task.mm().store(out, &Timespec::from_nanos(nanos))?)
}

/// `sched_setscheduler(2)`.
pub(crate) fn sched_setscheduler(
    cx: &mut Cx<'_>,
    pid: i32,
    policy: i32,
    priority: UserPtr<u32>,
) -> SysResult<()> {
    let policy = u32::try_from(policy).map_err(|_| Errno::EINVAL)?;
    let (priority, target) = wanted(cx, pid, priority)?;
    let reset_on_fork = policy & RESET_ON_FORK != 0;
    let nice = target.settings().scheduling.nice;
    schedule(cx, &target, Scheduling { policy: policy & !RESET_ON_FORK, priority, reset_on_fork, nice })
}

/// `sched_setparam(2)`.
pub(crate) fn sched_setparam(cx: &mut Cx<'_>, pid: i32, priority: UserPtr<u32>) -> SysResult<()> {
    let (priority, target) = wanted(cx, pid, priority)?;
    let was = target.settings().scheduling;
    schedule(cx, &target, Scheduling { priority, ..was })
}

fn wanted(cx: &Cx<'_>, pid: i32, priority: UserPtr<u32>) -> SysResult<(u32, Arc<Task>)> {
    let priority = priority.non_null().filter(|_| pid >= 0).ok_or(Errno::EINVAL)?;
    Ok((cx.task.mm().load(priority)?, target(cx, pid)?))
}

/// Checks and sets. No bandwidth is given to `SCHED_DEADLINE` (`EBUSY`).
fn schedule(cx: &Cx<'_>, target: &Task, new: Scheduling) -> SysResult<()> {
    priorities(new.policy)?;
    if new.priority > MAX_PRIORITY || is_real_time(new.policy) != (new.priority != 0) {
        return Err(Errno::EINVAL.into());
    }
    let was = target.settings().scheduling;
    if !cx.task.cred().capable(CapSet::SYS_NICE) && !may_change(cx, target, was, new) {
        return Err(Errno::EPERM.into());
    }
    if new.policy == DEADLINE {
        return Err(Errno::EBUSY.into());
    }
    target.change_settings(|settings| settings.scheduling = new);
    Ok(())
}

/// What may be done without `CAP_SYS_NICE`.
fn may_change(cx: &Cx<'_>, target: &Task, was: Scheduling, new: Scheduling) -> bool {
    let limit = target.group().limit(Resource::RealTimePriority).cur;
    let real_time = !is_real_time(new.policy)
        || ((new.policy == was.policy || limit > 0)
            && (new.priority <= was.priority || u64::from(new.priority) <= limit));
    let fair = is_real_time(new.policy) || new.nice >= was.nice || may_nice(cx, target, new.nice);
    let wakes = was.policy == IDLE && new.policy != IDLE;
    real_time
        && fair
        && new.policy != DEADLINE
        && (!wakes || may_nice(cx, target, was.nice))
        && may_schedule(cx, target)
        && (new.reset_on_fork || !was.reset_on_fork)
}

/// `sched_getscheduler(2)`.
pub(crate) fn sched_getscheduler(cx: &mut Cx<'_>, pid: i32) -> SysResult<u32> {
    let found = target(cx, pid)?.settings().scheduling;
    Ok(if found.reset_on_fork { found.policy | RESET_ON_FORK } else { found.policy })
}

/// `sched_getparam(2)`.
pub(crate) fn sched_getparam(cx: &mut Cx<'_>, pid: i32, out: UserPtr<u32>) -> SysResult<()> {
    let out = out.non_null().ok_or(Errno::EINVAL)?;
    let found = target(cx, pid)?.settings().scheduling;
    Ok(cx.task.mm().store(out, &found.priority)?)
}

/// Bytes of a mask of this machine.
fn mask_len(cx: &Cx<'_>) -> usize {
    (cx.services.machine.cpus as usize).clamp(1, MAX_CPUS).div_ceil(64) * 8
}

/// All processors of this machine.
fn all_cpus(cx: &Cx<'_>) -> CpuMask {
    let cpus = (cx.services.machine.cpus as usize).clamp(1, MAX_CPUS);
    let mut mask = CpuMask::default();
    for (at, word) in mask.iter_mut().enumerate() {
        *word = match cpus.saturating_sub(at * 64) {
            0 => 0,
            left if left >= 64 => u64::MAX,
            left => (1 << left) - 1,
        };
    }
    mask
}

/// `sched_getaffinity(2)`: how many bytes were stored.
pub(crate) fn sched_getaffinity(cx: &mut Cx<'_>, pid: i32, len: u32, out: UserAddr) -> SysResult<usize> {
    let len = len as usize;
    if len.saturating_mul(8) < cx.services.machine.cpus as usize || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    let task = if pid < 0 { Err(Errno::ESRCH.into()) } else { target(cx, pid) }?;
    let mask = task.settings().affinity.map_or_else(|| all_cpus(cx), |mask| *mask);
    let bytes: Vec<u8> = mask.iter().flat_map(|word| word.to_le_bytes()).collect();
    let len = len.min(mask_len(cx));
    cx.task.mm().write(out, bytes.get(..len).unwrap_or_default())?;
    Ok(len)
}

/// `sched_setaffinity(2)`: kept; where threads run is the host's business.
pub(crate) fn sched_setaffinity(cx: &mut Cx<'_>, pid: i32, len: u32, mask: UserAddr) -> SysResult<()> {
    let mut bytes = [0; MAX_CPUS / 8];
    let len = (len as usize).min(mask_len(cx));
    cx.task.mm().read(mask, bytes.get_mut(..len).unwrap_or_default())?;
    let task = if pid < 0 { Err(Errno::ESRCH.into()) } else { target(cx, pid) }?;
    if !may_schedule(cx, &task) {
        return Err(Errno::EPERM.into());
    }
    let mut mask = all_cpus(cx);
    for (word, chunk) in mask.iter_mut().zip(bytes.chunks_exact(8)) {
        *word &= chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    if mask.iter().all(|word| *word == 0) {
        return Err(Errno::EINVAL.into());
    }
    task.change_settings(|settings| settings.affinity = Some(Box::new(mask)));
    Ok(())
}

#[cfg(test)]
mod tests;
