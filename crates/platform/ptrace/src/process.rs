//! Host processes of guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use platform::HostExit;

use crate::raw::sys;
use crate::task::Task;

/// A host thread group.
pub(crate) struct Process {
    /// Its id.
    pub(crate) tgid: i32,
    /// It has been reaped, and its id may be anybody's.
    buried: Mutex<bool>,
    requested: AtomicBool,
    corrupt: AtomicBool,
    /// Guest threads in it that have not ended.
    tasks: Mutex<Vec<Arc<Task>>>,
}

impl Process {
    /// One that has just been cloned.
    pub(crate) fn new(tgid: i32) -> Arc<Self> {
        Arc::new(Self {
            tgid,
            buried: Mutex::new(false),
            requested: AtomicBool::new(false),
            corrupt: AtomicBool::new(false),
            tasks: Mutex::default(),
        })
    }

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

    /// Ends it.
    pub(crate) fn kill(&self) {
        self.requested.store(true, Ordering::SeqCst);
        let buried = self.buried.lock();
        if !*buried {
            sys::kill(self.tgid);
        }
    }

    /// Its guest's state cannot be trusted any more: ends it.
    pub(crate) fn condemn(&self) {
        self.corrupt.store(true, Ordering::SeqCst);
        self.kill();
    }

    /// Makes one of its threads stop for a signal.
    pub(crate) fn poke(&self, tid: i32) {
        let buried = self.buried.lock();
        if !*buried {
            sys::poke(self.tgid, tid);
        }
    }

    /// Reaps one of its ended threads, if it is. Whether it is gone.
    pub(crate) fn reap(&self, tid: i32) -> bool {
        let mut buried = self.buried.lock();
        let gone = sys::reap(tid);
        *buried |= gone && tid == self.tgid;
        gone
    }

    /// How it ended, when a thread of it was ended by `signal`.
    pub(crate) fn exit(&self, signal: Option<i32>) -> HostExit {
        if self.corrupt.load(Ordering::SeqCst) {
            HostExit::Corrupt
        } else if self.requested.load(Ordering::SeqCst) {
            HostExit::Requested
        } else {
            signal.map_or(HostExit::Requested, HostExit::Signaled)
        }
    }
}
