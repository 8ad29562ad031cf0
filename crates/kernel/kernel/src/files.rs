//! The kernel's view of `vfs`: its descriptor table, and its file-system context behind a lock.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use sync::{Mutex, order};
use vfs::locks::Owner;
use vfs::{FdTable, FsContext, OpenFile};

use crate::slots::{FileTable, FsView};
use crate::task::Task;

impl FileTable for FdTable {
    fn fork(&self) -> Arc<dyn FileTable> {
        Arc::new(Self::fork(self))
    }

    fn close_on_exec(&self, pid: i32) {
        close_all(self.take_cloexec(), pid);
    }

    fn release(self: Arc<Self>, pid: i32) {
        if let Some(table) = Arc::into_inner(self) {
            close_all(table.take_all(), pid);
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Closes descriptors of process `pid`, which thereby gives up its record locks (`fcntl(2)`).
fn close_all(files: Vec<Arc<OpenFile>>, pid: i32) {
    for file in files {
        vfs::locks::release_all(file.inode(), Owner::Process(pid));
    }
}

/// Root, working directory and umask, as tasks share them.
pub struct SharedFs(Mutex<order::FsContext, FsContext>);

impl SharedFs {
    /// Nobody shares it yet.
    pub fn new(context: FsContext) -> Arc<Self> {
        Arc::new(Self(Mutex::new(context)))
    }

    /// A copy, to walk with.
    pub fn get(&self) -> FsContext {
        self.0.lock().clone()
    }

    /// Changes it (`chdir(2)`, `chroot(2)`, `umask(2)`); what was there is dropped outside the lock.
    pub fn update<T>(&self, change: impl FnOnce(&mut FsContext) -> T) -> T {
        let mut context = self.0.lock();
        let old = context.clone();
        let result = change(&mut context);
        drop(context);
        drop(old);
        result
    }
}

impl FsView for SharedFs {
    fn fork(&self) -> Arc<dyn FsView> {
        Self::new(self.get())
    }

    fn fork_apart(&self) -> Arc<dyn FsView> {
        Self::new(self.get().apart())
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl Task {
    /// Its descriptor table as `vfs` knows it; `ESRCH` once it has ended.
    pub fn fd_table(&self) -> Result<Arc<FdTable>, Errno> {
        self.fds()?.as_any().downcast().map_err(|_| Errno::ESRCH)
    }

    /// Its file-system context; `ESRCH` once it has ended.
    pub fn fs_context(&self) -> Result<Arc<SharedFs>, Errno> {
        self.fs()?.as_any().downcast().map_err(|_| Errno::ESRCH)
    }
}
