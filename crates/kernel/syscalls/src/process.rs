//! Processes: ending, waiting, groups, sessions and limits (`exit(2)`, `wait4(2)`, `setpgid(2)`,
//! `prlimit(2)`).

use abi::limits::{Resource, Rlimit};
use abi::process::{Rusage, WaitOptions};
use abi::{Errno, SysResult};
use cred::CapSet;
use guestmem::{MemExt, UserPtr};
use kernel::wait::WaitTarget;

use crate::cx::Cx;

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
        pid if pid < 0 => WaitTarget::Group(-pid),
        pid => WaitTarget::Process(pid),
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

/// `getppid(2)`.
pub(crate) fn getppid(cx: &mut Cx<'_>) -> SysResult<i32> {
    Ok(cx.task.kernel().parent_of(cx.task.tgid()))
}

/// `getpgrp(2)`.
pub(crate) fn getpgrp(cx: &mut Cx<'_>) -> SysResult<i32> {
    getpgid(cx, 0)
}

/// `getpgid(2)`.
pub(crate) fn getpgid(cx: &mut Cx<'_>, pid: i32) -> SysResult<i32> {
    let pid = if pid == 0 { cx.task.tgid() } else { pid };
    cx.task.kernel().pgrp_of(pid).ok_or(Errno::ESRCH.into())
}

/// `getsid(2)`.
pub(crate) fn getsid(cx: &mut Cx<'_>, pid: i32) -> SysResult<i32> {
    let pid = if pid == 0 { cx.task.tgid() } else { pid };
    cx.task.kernel().session_of(pid).ok_or(Errno::ESRCH.into())
}

/// `setpgid(2)`.
pub(crate) fn setpgid(cx: &mut Cx<'_>, pid: i32, pgrp: i32) -> SysResult<()> {
    Ok(cx.task.setpgid(pid, pgrp)?)
}

/// `setsid(2)`.
pub(crate) fn setsid(cx: &mut Cx<'_>) -> SysResult<i32> {
    Ok(cx.task.setsid()?)
}

/// `getrlimit(2)`.
pub(crate) fn getrlimit(cx: &mut Cx<'_>, resource: u32, out: UserPtr<[u64; 2]>) -> SysResult<()> {
    let resource = Resource::from_raw(resource).ok_or(Errno::EINVAL)?;
    let limit = cx.task.group().limit(resource);
    Ok(cx.task.mm().store(out, &[limit.cur, limit.max])?)
}

/// `setrlimit(2)`.
pub(crate) fn setrlimit(cx: &mut Cx<'_>, resource: u32, new: UserPtr<[u64; 2]>) -> SysResult<()> {
    let resource = Resource::from_raw(resource).ok_or(Errno::EINVAL)?;
    let [cur, max] = cx.task.mm().load(new)?;
    let may_raise = cx.task.cred().capable(CapSet::SYS_RESOURCE);
    cx.task.group().set_limit(resource, Rlimit::new(cur, max), may_raise)?;
    Ok(())
}
