//! Guest processes: what is ended together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use platform::HostExit;

use crate::task::Task;

/// The threads of a process.
#[derive(Default)]
pub(crate) struct Process {
    tasks: Mutex<Vec<Arc<Task>>>,
    over: AtomicBool,
    /// How it ended, unless somebody asked for that.
    cause: Mutex<Option<HostExit>>,
}

impl Process {
    /// `task` runs in it.
    pub(crate) fn join(&self, task: &Arc<Task>) {
        self.tasks.lock().push(Arc::clone(task));
    }

    /// `task` does not any more. Whether others do.
    pub(crate) fn leave(&self, task: &Arc<Task>) -> bool {
        let mut tasks = self.tasks.lock();
        tasks.retain(|other| !Arc::ptr_eq(other, task));
        !tasks.is_empty()
    }

    /// Whether it has been ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Ends it because it was asked for.
    pub(crate) fn kill(&self) {
        self.end(HostExit::Requested);
    }

    /// Ends it; the first to say so says why.
    pub(crate) fn end(&self, exit: HostExit) {
        self.cause.lock().get_or_insert(exit);
        self.over.store(true, Ordering::SeqCst);
        let tasks = self.tasks.lock().clone();
        for task in tasks {
            task.over(self);
        }
    }

    /// How it ended.
    pub(crate) fn exit(&self) -> HostExit {
        self.cause.lock().unwrap_or(HostExit::Requested)
    }
}
