//! New tasks: `clone(2)`, `fork(2)`, `vfork(2)`.

use std::sync::Arc;

use abi::process::{CloneArgs, CloneFlags};
use abi::{Errno, PAGE_SIZE, SysResult};
use guestmem::{MemExt, UserAddr, UserMem, UserPtr};
use kernel::ThreadGroup;
use kernel::clone::CloneRequest;
use zerocopy::IntoBytes;

use crate::cx::Cx;
use crate::pidfds;

/// The signal bits of `clone(2)`'s flags (`CSIGNAL`).
const EXIT_SIGNAL_MASK: u64 = 0xff;
/// Smallest `struct clone_args` (`CLONE_ARGS_SIZE_VER0`).
const CLONE_ARGS_MIN: usize = 64;

/// `fork(2)`.
pub(crate) fn fork(cx: &mut Cx<'_>) -> SysResult<i32> {
    cx.task.clone_task(cx.thread, &CloneRequest::fork())
}

/// `vfork(2)`.
pub(crate) fn vfork(cx: &mut Cx<'_>) -> SysResult<i32> {
    cx.task.clone_task(cx.thread, &CloneRequest::vfork())
}

/// `clone(2)`, with the argument order of x86-64. Unknown flag bits are ignored, as Linux does here.
pub(crate) fn clone(
    cx: &mut Cx<'_>,
    flags: u64,
    stack: UserAddr,
    parent_tid: UserAddr,
    child_tid: UserAddr,
    tls: u64,
) -> SysResult<i32> {
    let request = CloneRequest {
        flags: CloneFlags::from_bits_truncate(flags & !EXIT_SIGNAL_MASK),
        exit_signal: flags & EXIT_SIGNAL_MASK,
        stack: stack.0,
        parent_tid: parent_tid.0,
        child_tid: child_tid.0,
        tls,
    };
    if !request.flags.contains(CloneFlags::PIDFD) {
        return cx.task.clone_task(cx.thread, &request);
    }
    // Both would be stored at one place.
    if request.flags.contains(CloneFlags::PARENT_SETTID) {
        return Err(Errno::EINVAL.into());
    }
    with_pidfd(cx, &request, UserPtr::new(parent_tid))
}

/// Makes a process and a file of it, whose descriptor goes to `out`.
fn with_pidfd(cx: &mut Cx<'_>, request: &CloneRequest, out: UserPtr<i32>) -> SysResult<i32> {
    if request.flags.intersects(CloneFlags::THREAD | CloneFlags::DETACHED) {
        return Err(Errno::EINVAL.into());
    }
    let Cx { task, thread, services } = cx;
    let mut installed = None;
    let made = |group: &Arc<ThreadGroup>| {
        let fd = pidfds::of_child(task, services, group)?;
        installed = Some(fd);
        Ok(task.mm().store(out, &fd.0)?)
    };
    let result = task.clone_task_with(*thread, request, made);
    if let (Err(_), Some(fd)) = (&result, installed) {
        drop(task.fd_table()?.remove(fd.0));
    }
    result
}

/// `clone3(2)`: no chosen ids (`set_tid`), no cgroup.
pub(crate) fn clone3(cx: &mut Cx<'_>, args: UserPtr<CloneArgs>, size: usize) -> SysResult<i32> {
    if size > PAGE_SIZE as usize {
        return Err(Errno::E2BIG.into());
    }
    if size < CLONE_ARGS_MIN {
        return Err(Errno::EINVAL.into());
    }
    let args = load_args(cx, args, size)?;
    let flags = CloneFlags::from_bits(args.flags).ok_or(Errno::EINVAL)?;
    let chooses = args.set_tid != 0 || args.set_tid_size != 0 || flags.contains(CloneFlags::INTO_CGROUP);
    let signal_is_bad = args.exit_signal > u64::from(abi::signal::Signal::MAX);
    if chooses || signal_is_bad || (args.stack == 0) != (args.stack_size == 0) {
        return Err(Errno::EINVAL.into());
    }
    let stack = args.stack.checked_add(args.stack_size).ok_or(Errno::EINVAL)?;
    let request = CloneRequest {
        flags,
        exit_signal: args.exit_signal,
        stack,
        parent_tid: args.parent_tid,
        child_tid: args.child_tid,
        tls: args.tls,
    };
    match flags.contains(CloneFlags::PIDFD) {
        true => with_pidfd(cx, &request, UserPtr::new(UserAddr(args.pidfd))),
        false => cx.task.clone_task(cx.thread, &request),
    }
}

/// A structure that may grow in later kernels: what we do not know must be zero (`E2BIG`).
fn load_args(cx: &Cx<'_>, from: UserPtr<CloneArgs>, size: usize) -> SysResult<CloneArgs> {
    let mut bytes = vec![0u8; size];
    cx.task.mm().read(from.addr(), &mut bytes)?;
    let mut args: CloneArgs = zerocopy::FromZeros::new_zeroed();
    let known = size_of::<CloneArgs>().min(size);
    let (head, tail) = bytes.split_at(known);
    if tail.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG.into());
    }
    if let Some(to) = args.as_mut_bytes().get_mut(..known) {
        to.copy_from_slice(head);
    }
    Ok(args)
}
