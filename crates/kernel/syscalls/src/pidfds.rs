//! Processes as files: `pidfd_open(2)`, `pidfd_send_signal(2)`, `pidfd_getfd(2)`.

use std::any::Any;
use std::sync::Arc;

use abi::fs::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::{SigInfo, Signal};
use abi::{Errno, SysResult};
use cred::CapSet;
use guestmem::{MemExt, UserPtr};
use kernel::{Task, ThreadGroup};
use sync::wait::WaitQueue;
use vfs::{File, OpenFile};

use crate::anon::{creation_flags, install_for};
use crate::args::Fd;
use crate::cx::Cx;
use crate::services::Services;

/// What `/proc/PID/fd` shows.
const LABEL: &str = "[pidfd]";

/// A process, ended or not: its id may be another's by now, so it is told apart by itself.
struct PidFd {
    group: Arc<ThreadGroup>,
}

impl File for PidFd {
    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        if self.group.ended().is_some() { PollEvents::READABLE } else { PollEvents::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.group.end_events())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The process behind a pidfd; `EBADF` for another file.
fn group_of(cx: &Cx<'_>, fd: Fd) -> SysResult<Arc<ThreadGroup>> {
    let file = cx.io_file(fd)?;
    match file.file().as_any().downcast_ref::<PidFd>() {
        Some(pidfd) => Ok(Arc::clone(&pidfd.group)),
        None => Ok(named_in_proc(cx, &file).ok_or(Errno::EBADF)?),
    }
}

/// A directory `/proc/PID` stands for the process, too.
fn named_in_proc(cx: &Cx<'_>, file: &OpenFile) -> Option<Arc<ThreadGroup>> {
    let path = file.path();
    let below_root = path.dentry.parent().is_some_and(|parent| parent.parent().is_none());
    if path.inode().fs().type_name() != "proc" || !below_root {
        return None;
    }
    let pid = std::str::from_utf8(&path.dentry.name()).ok()?.parse().ok()?;
    cx.task.kernel().process(cx.id(pid).ok()?)
}

/// Its id, for `waitid(2)`.
pub(crate) fn process_of(cx: &Cx<'_>, fd: Fd) -> SysResult<i32> {
    Ok(group_of(cx, fd)?.tgid())
}

/// `pidfd_open(2)`. Only of a process, not of a thread.
pub(crate) fn pidfd_open(cx: &mut Cx<'_>, pid: i32, flags: u32) -> SysResult<Fd> {
    let flags = creation_flags(flags, OpenFlags::empty())?;
    if pid <= 0 || flags.contains(OpenFlags::CLOEXEC) {
        return Err(Errno::EINVAL.into());
    }
    let id = cx.id(pid)?;
    let Some(group) = cx.task.kernel().process(id) else {
        let thread = cx.task.kernel().task(id).is_some();
        return Err(if thread { Errno::EINVAL } else { Errno::ESRCH }.into());
    };
    let flags = flags | OpenFlags::RDWR | OpenFlags::CLOEXEC;
    Ok(install_for(cx.task, cx.services, LABEL, Arc::new(PidFd { group }), flags)?)
}

/// A pidfd of the caller's for a process that is being made.
pub(crate) fn of_child(task: &Task, services: &Services, group: &Arc<ThreadGroup>) -> Result<Fd, Errno> {
    let pidfd = PidFd { group: Arc::clone(group) };
    install_for(task, services, LABEL, Arc::new(pidfd), OpenFlags::RDWR | OpenFlags::CLOEXEC)
}

/// `pidfd_send_signal(2)`.
pub(crate) fn pidfd_send_signal(
    cx: &mut Cx<'_>,
    fd: Fd,
    signal: i32,
    info: UserPtr<SigInfo>,
    flags: u32,
) -> SysResult<()> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let group = group_of(cx, fd)?;
    let kernel = cx.task.kernel();
    // The id is the process's as long as nobody has waited for it.
    if !kernel.process(group.tgid()).is_some_and(|found| Arc::ptr_eq(&found, &group)) {
        return Err(Errno::ESRCH.into());
    }
    let target = match signal {
        0 => None,
        number => Some(Signal::new(number).ok_or(Errno::EINVAL)?),
    };
    let Some(info) = info.non_null() else { return Ok(kernel.kill(cx.task, group.tgid(), target)?) };
    let info = cx.mm().load(info)?;
    if info.signo != signal {
        return Err(Errno::EINVAL.into());
    }
    Ok(kernel.sigqueue(cx.task, None, group.tgid(), target, info)?)
}

/// `pidfd_getfd(2)`: for who could trace the process, which here is its own user or who has the
/// capability.
pub(crate) fn pidfd_getfd(cx: &mut Cx<'_>, fd: Fd, target: Fd, flags: u32) -> SysResult<Fd> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let group = group_of(cx, fd)?;
    let threads = cx.task.kernel().threads(group.tgid());
    let task = threads.first().filter(|task| Arc::ptr_eq(task.group(), &group)).ok_or(Errno::ESRCH)?;
    let (own, its) = (cx.task.cred(), task.cred());
    let same = [its.uid, its.euid, its.suid].iter().all(|id| *id == own.fsuid)
        && [its.gid, its.egid, its.sgid].iter().all(|id| *id == own.fsgid)
        && own.permitted.contains(its.permitted);
    let may = same && group.is_dumpable() || own.capable(CapSet::SYS_PTRACE);
    if !may {
        return Err(Errno::EPERM.into());
    }
    let file = task.fd_table()?.get(target.0)?;
    cx.install(file, true)
}
