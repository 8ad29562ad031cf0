//! What a task shares with others, given up or taken up (`unshare(2)`, `setns(2)`).

use std::sync::Arc;

use abi::process::CloneFlags;
use abi::{Errno, SysResult};
use cred::CapSet;
use kernel::{PidNamespace, SharedFs, Task};
use vfs::{FsContext, MountNamespace};

use crate::args::Fd;
use crate::cx::Cx;
use crate::nsfiles::{self, Namespace};
use crate::pidfds;

/// Namespaces of which there can be more than one.
const MADE: CloneFlags = CloneFlags::NEWPID.union(CloneFlags::NEWNS);

/// `unshare(2)`: files, directories, mounts and the pid namespace of children.
pub(crate) fn unshare(cx: &mut Cx<'_>, flags: u64) -> SysResult<()> {
    let flags = CloneFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let known = CloneFlags::FILES | CloneFlags::FS | CloneFlags::SYSVSEM | MADE;
    if !known.contains(flags) {
        obs::stub!("unshare of a namespace", "there is one of each kind but pid and mount");
        return Err(Errno::EINVAL.into());
    }
    if flags.intersects(MADE) && !cx.task.cred().capable(CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    if flags.contains(CloneFlags::NEWPID) {
        let current = cx.task.children_pid_ns();
        // As Linux: one that was made and not entered yet is in the way.
        if !Arc::ptr_eq(&current, cx.task.group().pid_ns()) {
            return Err(Errno::EINVAL.into());
        }
        cx.task.set_children_pid_ns(PidNamespace::below(&current)?);
    }
    if flags.contains(CloneFlags::FILES) {
        let own = cx.fds()?.fork();
        cx.task.set_fds(Arc::new(own));
    }
    if flags.contains(CloneFlags::NEWNS) {
        cx.task.set_fs(cx.task.fs()?.fork_apart());
    } else if flags.contains(CloneFlags::FS) {
        cx.task.set_fs(cx.task.fs()?.fork());
    }
    Ok(())
}

/// `setns(2)`: with a file of `/proc/PID/ns`, or a pidfd and the kinds that are wanted.
pub(crate) fn setns(cx: &mut Cx<'_>, fd: Fd, kinds: i32) -> SysResult<()> {
    let kinds = u64::try_from(kinds).ok().and_then(CloneFlags::from_bits).ok_or(Errno::EINVAL)?;
    let file = cx.io_file(fd)?;
    if let Some(namespace) = nsfiles::of_file(file.file().as_ref()) {
        if !kinds.is_empty() && kinds != namespace.kind() {
            return Err(Errno::EINVAL.into());
        }
        return enter(cx, &[namespace]);
    }
    // Any other file is no namespace.
    let id = pidfds::process_of(cx, fd).map_err(|_| Errno::EINVAL)?;
    if kinds.is_empty() || !CloneFlags::NAMESPACES.contains(kinds) {
        return Err(Errno::EINVAL.into());
    }
    let target = cx.task.kernel().threads(id).into_iter().next().ok_or(Errno::ESRCH)?;
    let mut namespaces = Vec::new();
    if kinds.contains(CloneFlags::NEWPID) {
        namespaces.push(Namespace::Pid(Arc::clone(target.group().pid_ns())));
    }
    if kinds.contains(CloneFlags::NEWNS) {
        namespaces.push(Namespace::Mount(target.fs_context()?.get().mounts));
    }
    if kinds.contains(CloneFlags::NEWUSER) {
        namespaces.push(Namespace::Only(CloneFlags::NEWUSER, 0));
    }
    enter(cx, &namespaces)
}

/// All or none.
fn enter(cx: &Cx<'_>, namespaces: &[Namespace]) -> SysResult<()> {
    if namespaces.iter().any(|namespace| namespace.kind() == CloneFlags::NEWUSER) {
        // One does not enter the user namespace one is in.
        return Err(Errno::EINVAL.into());
    }
    if !cx.task.cred().capable(CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    for namespace in namespaces {
        match namespace {
            Namespace::Pid(namespace) if !cx.task.group().pid_ns().holds(namespace) => {
                return Err(Errno::EINVAL.into());
            }
            // Who shares its directories would move others along.
            Namespace::Mount(_) if shares_directories(cx.task)? => return Err(Errno::EINVAL.into()),
            _ => {}
        }
    }
    for namespace in namespaces {
        match namespace {
            Namespace::Pid(namespace) => cx.task.set_children_pid_ns(Arc::clone(namespace)),
            Namespace::Mount(namespace) => enter_mounts(cx.task, namespace)?,
            Namespace::Only(..) => {}
        }
    }
    Ok(())
}

fn shares_directories(task: &Task) -> Result<bool, Errno> {
    // The task's own, and the one asked with.
    Ok(Arc::strong_count(&task.fs()?) > 2)
}

fn enter_mounts(task: &Task, namespace: &Arc<MountNamespace>) -> Result<(), Errno> {
    let umask = task.fs_context()?.get().umask;
    task.set_fs(SharedFs::new(FsContext { umask, ..FsContext::new(namespace) }));
    Ok(())
}
