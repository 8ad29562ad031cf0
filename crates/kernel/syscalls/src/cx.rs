//! What a handler runs in.

use std::sync::Arc;

use abi::limits::Resource;
use abi::{Errno, SysResult};
use cred::Credentials;
use kernel::Task;
use mm::MemoryManager;
use platform::GuestThread;
use vfs::{FdTable, FileContext, OpenFile};

use crate::args::Fd;
use crate::handler::Context;
use crate::services::Services;

/// The calling task, and its thread while it is stopped in the call.
pub struct Cx<'a> {
    /// The task.
    pub task: &'a Arc<Task>,
    /// Its thread. Few calls need it: those that read or set all registers.
    pub thread: &'a mut dyn GuestThread,
    /// What the calls need beside the kernel.
    pub services: &'a Services,
}

/// The tables of the kernel.
#[derive(Debug)]
pub struct KernelCalls;

impl Context for KernelCalls {
    type Of<'a> = Cx<'a>;
}

/// Who asks, for file operations: the task's credentials and ids at one moment.
pub(crate) struct Who {
    pub(crate) cred: Arc<Credentials>,
    pid: i32,
    tid: i32,
}

impl Who {
    /// As the file layer wants it.
    pub(crate) fn cx(&self) -> FileContext<'_> {
        FileContext { cred: &self.cred, pid: self.pid, tid: self.tid }
    }
}

impl Cx<'_> {
    /// The caller's memory.
    pub(crate) fn mm(&self) -> Arc<MemoryManager> {
        self.task.mm()
    }

    /// The kernel-wide id behind a pid, thread id, process group or session that the caller said; `ESRCH`.
    pub(crate) fn id(&self, number: i32) -> Result<i32, Errno> {
        self.task.group().pid_ns().id(number).ok_or(Errno::ESRCH)
    }

    /// What the caller is told of a kernel-wide id: 0 for what its pid namespace does not know.
    pub(crate) fn number(&self, id: i32) -> i32 {
        self.task.group().pid_ns().number(id)
    }

    /// The task that the caller calls `number`; `ESRCH`.
    pub(crate) fn task_of(&self, number: i32) -> Result<Arc<Task>, Errno> {
        self.task.kernel().task(self.id(number)?).ok_or(Errno::ESRCH)
    }

    /// Who asks.
    pub(crate) fn who(&self) -> Who {
        Who { cred: self.task.cred(), pid: self.task.tgid(), tid: self.task.tid() }
    }

    /// The descriptor table.
    pub(crate) fn fds(&self) -> SysResult<Arc<FdTable>> {
        Ok(self.task.fd_table()?)
    }

    /// The description behind `fd`; `EBADF`.
    pub(crate) fn file(&self, fd: Fd) -> SysResult<Arc<OpenFile>> {
        Ok(self.fds()?.get(fd.0)?)
    }

    /// As [`file`](Self::file), and not one of a path only (`EBADF`).
    pub(crate) fn io_file(&self, fd: Fd) -> SysResult<Arc<OpenFile>> {
        let file = self.file(fd)?;
        file.require_io()?;
        Ok(file)
    }

    /// `RLIMIT_NOFILE`.
    pub(crate) fn max_fds(&self) -> u64 {
        self.task.group().limit(Resource::OpenFiles).cur
    }

    /// Enters `file` at the lowest free number; `EMFILE`.
    pub(crate) fn install(&self, file: Arc<OpenFile>, cloexec: bool) -> SysResult<Fd> {
        Ok(Fd(self.fds()?.insert(file, cloexec, 0, self.max_fds())?))
    }
}
