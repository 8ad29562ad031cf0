//! What a task holds of the file layer, as far as the kernel itself must act on it.
//!
//! The descriptor table and the file-system context are `vfs`'s; the kernel only copies them for a
//! clone, tells them of an `exec`, and drops them at the end. System calls get the concrete type back
//! by [`FileTable::as_any`] and [`FsView::as_any`].

use std::any::Any;
use std::sync::Arc;

/// A descriptor table.
pub trait FileTable: Send + Sync + Any {
    /// A copy, for a clone without `CLONE_FILES`.
    fn fork(&self) -> Arc<dyn FileTable>;
    /// Closes what is marked close-on-exec, for process `pid`.
    fn close_on_exec(&self, pid: i32);
    /// Process `pid` ends and has no use for it any more; the last user closes everything.
    fn release(self: Arc<Self>, pid: i32);
    /// For downcasts.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// Root, working directory and umask.
pub trait FsView: Send + Sync + Any {
    /// A copy, for a clone without `CLONE_FS`.
    fn fork(&self) -> Arc<dyn FsView>;
    /// A copy in a mount namespace of its own (`CLONE_NEWNS`).
    fn fork_apart(&self) -> Arc<dyn FsView>;
    /// For downcasts.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// A controlling terminal, as far as job control needs it.
pub trait Terminal: Send + Sync + Any {
    /// The session leader ended: the terminal is nobody's any more.
    fn disassociate(&self);
    /// For downcasts.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}
