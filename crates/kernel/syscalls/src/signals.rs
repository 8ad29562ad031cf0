//! Signals (`rt_sigaction(2)`, `kill(2)`, `rt_sigprocmask(2)` and their kin).

use abi::signal::{SigAction, SigAltStack, SigInfo, SigSet, Signal};
use abi::time::Timespec;
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserMem, UserPtr};
use sync::wait::deadline_after;

use crate::cx::Cx;

/// Every call with a set says how large it thinks one is.
fn check_set_size(size: usize) -> SysResult<()> {
    if size == size_of::<SigSet>() { Ok(()) } else { Err(Errno::EINVAL.into()) }
}

/// A signal to send: 0 only checks.
fn to_send(number: i32) -> SysResult<Option<Signal>> {
    match number {
        0 => Ok(None),
        n => Signal::new(n).map(Some).ok_or(Errno::EINVAL.into()),
    }
}

/// `rt_sigaction(2)`.
pub(crate) fn rt_sigaction(
    cx: &mut Cx<'_>,
    signal: Signal,
    new: UserPtr<SigAction>,
    old: UserPtr<SigAction>,
    size: usize,
) -> SysResult<()> {
    check_set_size(size)?;
    let mem = cx.task.mm();
    let new = new.non_null().map(|new| mem.load(new)).transpose()?;
    let was = cx.task.sigaction(signal, new)?;
    if let Some(old) = old.non_null() {
        mem.store(old, &was)?;
    }
    Ok(())
}

/// `rt_sigprocmask(2)`.
pub(crate) fn rt_sigprocmask(
    cx: &mut Cx<'_>,
    how: i32,
    new: UserPtr<SigSet>,
    old: UserPtr<SigSet>,
    size: usize,
) -> SysResult<()> {
    check_set_size(size)?;
    let mem = cx.task.mm();
    let was = cx.task.mask();
    if let Some(new) = new.non_null() {
        let set = mem.load(new)?;
        let mask = match how {
            0 => was.union(set),
            1 => was.difference(set),
            2 => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        cx.task.set_mask(mask);
    }
    if let Some(old) = old.non_null() {
        mem.store(old, &was)?;
    }
    Ok(())
}

/// `rt_sigpending(2)`: up to the eight bytes of a set.
pub(crate) fn rt_sigpending(cx: &mut Cx<'_>, out: UserPtr<SigSet>, size: usize) -> SysResult<()> {
    if size > size_of::<SigSet>() {
        return Err(Errno::EINVAL.into());
    }
    let pending = cx.task.pending().0.to_le_bytes();
    let mem = cx.task.mm();
    Ok(mem.write(out.addr(), pending.get(..size).unwrap_or_default())?)
}

/// `rt_sigsuspend(2)`.
pub(crate) fn rt_sigsuspend(cx: &mut Cx<'_>, mask: UserPtr<SigSet>, size: usize) -> SysResult<u64> {
    check_set_size(size)?;
    let mask = cx.task.mm().load(mask)?;
    cx.task.sigsuspend(mask)
}

/// `pause(2)`.
pub(crate) fn pause(cx: &mut Cx<'_>) -> SysResult<u64> {
    cx.task.pause()
}

/// `rt_sigtimedwait(2)`.
pub(crate) fn rt_sigtimedwait(
    cx: &mut Cx<'_>,
    set: UserPtr<SigSet>,
    info: UserPtr<SigInfo>,
    timeout: UserPtr<Timespec>,
    size: usize,
) -> SysResult<i32> {
    check_set_size(size)?;
    let mem = cx.task.mm();
    let set = mem.load(set)?;
    let deadline = match timeout.non_null() {
        Some(timeout) => deadline_after(mem.load(timeout)?.to_duration().ok_or(Errno::EINVAL)?),
        None => None,
    };
    let (signal, record) = cx.task.sigtimedwait(set, deadline)?;
    if let Some(info) = info.non_null() {
        mem.store(info, &record)?;
    }
    Ok(i32::from(signal.number()))
}

/// `kill(2)`.
pub(crate) fn kill(cx: &mut Cx<'_>, pid: i32, signal: i32) -> SysResult<()> {
    let signal = to_send(signal)?;
    let id = match pid {
        i32::MIN | -1 | 0 => pid,
        pid if pid < 0 => -cx.id(-pid)?,
        pid => cx.id(pid)?,
    };
    Ok(cx.task.kernel().kill(cx.task, id, signal)?)
}

/// `tkill(2)`.
pub(crate) fn tkill(cx: &mut Cx<'_>, tid: i32, signal: i32) -> SysResult<()> {
    if tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let signal = to_send(signal)?;
    Ok(cx.task.kernel().tgkill(cx.task, None, cx.id(tid)?, signal)?)
}

/// `tgkill(2)`.
pub(crate) fn tgkill(cx: &mut Cx<'_>, tgid: i32, tid: i32, signal: i32) -> SysResult<()> {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let signal = to_send(signal)?;
    Ok(cx.task.kernel().tgkill(cx.task, Some(cx.id(tgid)?), cx.id(tid)?, signal)?)
}

/// `rt_sigqueueinfo(2)`.
pub(crate) fn rt_sigqueueinfo(
    cx: &mut Cx<'_>,
    tgid: i32,
    signal: i32,
    info: UserPtr<SigInfo>,
) -> SysResult<()> {
    queue(cx, None, tgid, signal, info)
}

/// `rt_tgsigqueueinfo(2)`.
pub(crate) fn rt_tgsigqueueinfo(
    cx: &mut Cx<'_>,
    tgid: i32,
    tid: i32,
    signal: i32,
    info: UserPtr<SigInfo>,
) -> SysResult<()> {
    if tgid <= 0 || tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    queue(cx, Some(tgid), tid, signal, info)
}

fn queue(cx: &mut Cx<'_>, tgid: Option<i32>, id: i32, signal: i32, info: UserPtr<SigInfo>) -> SysResult<()> {
    let mut info = cx.task.mm().load(info)?;
    let number = signal;
    let signal = to_send(number)?;
    info.signo = number;
    let tgid = tgid.map(|tgid| cx.id(tgid)).transpose()?;
    Ok(cx.task.kernel().sigqueue(cx.task, tgid, cx.id(id)?, signal, info)?)
}

/// `rt_sigreturn(2)`.
pub(crate) fn rt_sigreturn(cx: &mut Cx<'_>) -> SysResult<u64> {
    cx.task.sigreturn(cx.thread)
}

/// `sigaltstack(2)`.
pub(crate) fn sigaltstack(
    cx: &mut Cx<'_>,
    new: UserPtr<SigAltStack>,
    old: UserPtr<SigAltStack>,
) -> SysResult<()> {
    let mem = cx.task.mm();
    let new = new.non_null().map(|new| mem.load(new)).transpose()?;
    let rsp = cx.thread.registers().map_err(Errno::from)?.rsp;
    let was = cx.task.sigaltstack(new, rsp)?;
    if let Some(old) = old.non_null() {
        mem.store(old, &was)?;
    }
    Ok(())
}
