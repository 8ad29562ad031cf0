//! Processes: ending, waiting, groups, sessions and limits (`exit(2)`, `wait4(2)`, `setpgid(2)`,
//! `prlimit(2)`).

use std::sync::Arc;

use abi::limits::{INFINITY, Resource, Rlimit};
use abi::process::{Rusage, WaitOptions};
use abi::signal::SigInfo;
use abi::{Errno, SysResult};
use cred::{CapSet, Credentials};
use guestmem::{MemExt, UserPtr};
use kernel::wait::WaitTarget;
use kernel::{Task, ThreadGroup};
use mm::MmLimits;
use zerocopy::FromZeros;

use crate::args::Fd;
use crate::cx::Cx;
use crate::pidfds;

/// `exit(2)`.
pub(crate) fn exit(cx: &mut Cx<'_>, code: i32) -> SysResult<()> {
    cx.task.exit_thread(code);
    Ok(())
}

/// `exit_group(2)`.
pub(crate) fn exit_group(cx: &mut Cx<'_>, code: i32) -> SysResult<()> {
    cx.task.exit_group(code);
    Ok(())
}

/// `wait4(2)`.
pub(crate) fn wait4(
    cx: &mut Cx<'_>,
    pid: i32,
    status: UserPtr<i32>,
    options: u32,
    usage: UserPtr<Rusage>,
) -> SysResult<i32> {
    let options = WaitOptions::from_bits(options)
        .filter(|options| !options.intersects(WaitOptions::EXITED | WaitOptions::NOWAIT))
        .ok_or(Errno::EINVAL)?;
    let kernel = cx.task.kernel();
    let target = match pid {
        // Has no positive counterpart (wait4 in the kernel: ESRCH).
        i32::MIN => return Err(Errno::ESRCH.into()),
        -1 => WaitTarget::Any,
        0 => WaitTarget::Group(kernel.pgrp_of(cx.task.tgid()).ok_or(Errno::ECHILD)?),
        // Whom the caller does not know is not its child.
        pid if pid < 0 => WaitTarget::Group(cx.id(-pid).unwrap_or(0)),
        pid => WaitTarget::Process(cx.id(pid).unwrap_or(0)),
    };
    let Some(waited) = cx.task.wait(target, options | WaitOptions::EXITED)? else { return Ok(0) };
    let mem = cx.task.mm();
    if let Some(status) = status.non_null() {
        mem.store(status, &waited.status.word())?;
    }
    if let Some(usage) = usage.non_null() {
        mem.store(usage, &waited.usage)?;
    }
    Ok(waited.pid)
}

/// `waitid(2)`.
pub(crate) fn waitid(
    cx: &mut Cx<'_>,
    kind: i32,
    id: i32,
    out: UserPtr<SigInfo>,
    options: u32,
    usage: UserPtr<Rusage>,
) -> SysResult<()> {
    const STATES: WaitOptions =
        WaitOptions::EXITED.union(WaitOptions::UNTRACED).union(WaitOptions::CONTINUED);
    let options = WaitOptions::from_bits(options).filter(|o| o.intersects(STATES)).ok_or(Errno::EINVAL)?;
    let kernel = cx.task.kernel();
    let target = match kind {
        0 => WaitTarget::Any,
        1 if id > 0 => WaitTarget::Process(cx.id(id).unwrap_or(0)),
        2 if id > 0 => WaitTarget::Group(cx.id(id).unwrap_or(0)),
        2 if id == 0 => WaitTarget::Group(kernel.pgrp_of(cx.task.tgid()).ok_or(Errno::ECHILD)?),
        3 => WaitTarget::Process(pidfds::process_of(cx, Fd(id))?),
        _ => return Err(Errno::EINVAL.into()),
    };
    let waited = cx.task.wait(target, options)?;
    let mm = cx.mm();
    if let (Some(usage), Some(waited)) = (usage.non_null(), &waited) {
        mm.store(usage, &waited.usage)?;
    }
    if let Some(out) = out.non_null() {
        // Nothing to report is a record of zeroes.
        let info = waited.map_or_else(SigInfo::new_zeroed, |waited| {
            let (code, status) = waited.status.child_code();
            SigInfo::child(code, waited.pid, waited.uid, status, 0, 0)
        });
        mm.store(out, &info)?;
    }
    Ok(())
}

/// `getppid(2)`.
pub(crate) fn getppid(cx: &mut Cx<'_>) -> SysResult<i32> {
    Ok(cx.number(cx.task.kernel().parent_of(cx.task.tgid())))
}

/// `getpgrp(2)`.
pub(crate) fn getpgrp(cx: &mut Cx<'_>) -> SysResult<i32> {
    getpgid(cx, 0)
}

/// `getpgid(2)`.
pub(crate) fn getpgid(cx: &mut Cx<'_>, pid: i32) -> SysResult<i32> {
    let pid = if pid == 0 { cx.task.tgid() } else { cx.id(pid)? };
    Ok(cx.number(cx.task.kernel().pgrp_of(pid).ok_or(Errno::ESRCH)?))
}

/// `getsid(2)`.
pub(crate) fn getsid(cx: &mut Cx<'_>, pid: i32) -> SysResult<i32> {
    let pid = if pid == 0 { cx.task.tgid() } else { cx.id(pid)? };
    Ok(cx.number(cx.task.kernel().session_of(pid).ok_or(Errno::ESRCH)?))
}

/// `setpgid(2)`.
pub(crate) fn setpgid(cx: &mut Cx<'_>, pid: i32, pgrp: i32) -> SysResult<()> {
    if pgrp < 0 {
        return Err(Errno::EINVAL.into());
    }
    let pid = if pid == 0 { cx.task.tgid() } else { cx.id(pid)? };
    let pgrp = if pgrp == 0 { pid } else { cx.id(pgrp).map_err(|_| Errno::EPERM)? };
    Ok(cx.task.setpgid(pid, pgrp)?)
}

/// `setsid(2)`.
pub(crate) fn setsid(cx: &mut Cx<'_>) -> SysResult<i32> {
    Ok(cx.number(cx.task.setsid()?))
}

/// `getrlimit(2)`.
pub(crate) fn getrlimit(cx: &mut Cx<'_>, resource: u32, out: UserPtr<[u64; 2]>) -> SysResult<()> {
    let resource = Resource::from_raw(resource).ok_or(Errno::EINVAL)?;
    let limit = cx.task.group().limit(resource);
    Ok(cx.task.mm().store(out, &[limit.cur, limit.max])?)
}

/// `setrlimit(2)`.
pub(crate) fn setrlimit(cx: &mut Cx<'_>, resource: u32, new: UserPtr<[u64; 2]>) -> SysResult<()> {
    let [cur, max] = cx.mm().load(new)?;
    set_limit(cx, cx.task, resource, Rlimit::new(cur, max))?;
    Ok(())
}

/// `prlimit64(2)`.
pub(crate) fn prlimit64(
    cx: &mut Cx<'_>,
    pid: i32,
    resource: u32,
    new: UserPtr<[u64; 2]>,
    old: UserPtr<[u64; 2]>,
) -> SysResult<()> {
    let mm = cx.mm();
    let new = new.non_null().map(|new| mm.load(new)).transpose()?;
    let target = match pid {
        0 => Arc::clone(cx.task),
        pid => cx.task_of(pid)?,
    };
    check_foreign(cx, &target)?;
    let was = match new {
        Some([cur, max]) => set_limit(cx, &target, resource, Rlimit::new(cur, max))?,
        None => target.group().limit(Resource::from_raw(resource).ok_or(Errno::EINVAL)?),
    };
    if let Some(old) = old.non_null() {
        mm.store(old, &[was.cur, was.max])?;
    }
    Ok(())
}

/// Another process's limits: all its ids must be the caller's real ones.
fn check_foreign(cx: &Cx<'_>, target: &Task) -> SysResult<()> {
    if target.tgid() == cx.task.tgid() {
        return Ok(());
    }
    let (own, its) = (cx.task.cred(), target.cred());
    let same = [its.uid, its.euid, its.suid].iter().all(|id| *id == own.uid)
        && [its.gid, its.egid, its.sgid].iter().all(|id| *id == own.gid);
    if same || own.capable(CapSet::SYS_RESOURCE) { Ok(()) } else { Err(Errno::EPERM.into()) }
}

/// Most descriptors a limit may allow (`/proc/sys/fs/nr_open`).
const NR_OPEN: u64 = 1 << 20;

fn set_limit(cx: &Cx<'_>, target: &Task, resource: u32, new: Rlimit) -> SysResult<Rlimit> {
    let resource = Resource::from_raw(resource).ok_or(Errno::EINVAL)?;
    if new.cur <= new.max && resource == Resource::OpenFiles && new.max > NR_OPEN {
        return Err(Errno::EPERM.into());
    }
    let may_raise = cx.task.cred().capable(CapSet::SYS_RESOURCE);
    let old = target.group().set_limit(resource, new, may_raise)?;
    target.mm().set_limits(memory_limits(target.group(), &target.cred()));
    if resource == Resource::Cpu {
        target.group().watch_processor_time(target.kernel());
    }
    Ok(old)
}

/// The limits that bear on memory, for a process with `cred`.
pub(crate) fn memory_limits(group: &ThreadGroup, cred: &Credentials) -> MmLimits {
    let mut limits = MmLimits::from_limits(&group.limits());
    if cred.capable(CapSet::IPC_LOCK) {
        limits.locked = INFINITY;
    }
    limits
}
