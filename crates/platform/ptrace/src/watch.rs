//! The watch: reaps what nobody waits for, and finds processes that died while their threads' tracers were in
//! handlers, where they cannot notice.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::Shared;
use crate::layout::STUB;
use crate::process::Process;
use crate::task::Task;

/// Between two looks at tasks; how late a death in a handler is told, at most twice that.
const TICK: Duration = Duration::from_millis(100);
/// The same while something is to be reaped.
const SHORT_TICK: Duration = Duration::from_millis(2);

#[derive(Default)]
struct State {
    /// Tasks, and their beats when last looked at.
    tasks: Vec<(Weak<Task>, u64)>,
    ending: Vec<(Arc<Process>, i32)>,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Watch {
    state: Mutex<State>,
    woken: Condvar,
}

impl Watch {
    /// Starts it for `shared`, whose watch it is.
    pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
        let shared = Arc::downgrade(shared);
        let run = move || while shared.upgrade().is_some_and(|shared| shared.watch.turn(&shared)) {};
        std::thread::Builder::new().name("ptrace-watch".into()).stack_size(256 << 10).spawn(run)?;
        Ok(())
    }

    /// Watches a task while it lives. Whether the platform is still there.
    pub(crate) fn add(&self, task: &Arc<Task>) -> bool {
        let mut state = self.state.lock();
        state.tasks.push((Arc::downgrade(task), 0));
        self.woken.notify_one();
        !state.closed
    }

    /// Reaps a thread that ends soon, and that nobody waits for.
    pub(crate) fn reap(&self, process: &Arc<Process>, tid: i32) {
        self.state.lock().ending.push((Arc::clone(process), tid));
        self.woken.notify_one();
    }

    /// Ends all tasks, for good.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let tasks: Vec<_> = state.tasks.iter().filter_map(|(task, _)| task.upgrade()).collect();
        drop(state);
        for task in tasks {
            task.process().kill();
        }
        self.woken.notify_one();
    }

    /// Waits and looks once. Whether to go on.
    fn turn(&self, shared: &Shared) -> bool {
        let mut state = self.state.lock();
        if state.closed && state.tasks.is_empty() && state.ending.is_empty() {
            return false;
        }
        let tick = if state.ending.is_empty() { TICK } else { SHORT_TICK };
        let ticked = self.woken.wait_for(&mut state, tick).timed_out();
        state.ending.retain(|(process, tid)| !process.reap(*tid));
        if !ticked || tick != TICK {
            return true;
        }
        let mut stuck = Vec::new();
        state.tasks.retain_mut(|(task, last)| {
            let Some(task) = task.upgrade() else { return false };
            let beat = task.beat.load(Ordering::Relaxed);
            if beat == *last && !task.is_running() {
                stuck.push(task);
            }
            *last = beat;
            true
        });
        drop(state);
        shared.files.sweep();
        for task in stuck.iter().filter(|task| hostproc::memory::read(task.tid(), STUB, &mut [0]) == 0) {
            task.lost();
        }
        true
    }
}
