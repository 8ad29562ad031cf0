//! OS threads for whoever needs one, kept for the next when their work is done.
//!
//! A guest's program begins with a listener that somebody must serve, and ends with it soon after; to make a thread
//! for that takes as long as a dozen of its calls.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Threads kept without work.
const SPARE: usize = 4;

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    /// Threads that wait, but for those that `work` is for.
    idle: usize,
    work: VecDeque<Work>,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Crew {
    state: Mutex<State>,
    called: Condvar,
}

impl Crew {
    /// Has a thread do `work`. Whether there is one.
    pub(crate) fn call(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> bool {
        let mut state = self.state.lock();
        if state.idle > 0 {
            state.idle -= 1;
            state.work.push_back(Box::new(work));
            drop(state);
            self.called.notify_one();
            return true;
        }
        drop(state);
        let crew = Arc::clone(self);
        let run = move || crew.run(Box::new(work));
        std::thread::Builder::new().name("systrap".into()).stack_size(1 << 20).spawn(run).is_ok()
    }

    fn run(&self, first: Work) {
        first();
        while let Some(work) = self.next() {
            work();
        }
    }

    /// `None` when enough others wait for it.
    fn next(&self) -> Option<Work> {
        let mut state = self.state.lock();
        if state.idle >= SPARE {
            return None;
        }
        state.idle += 1;
        loop {
            if let Some(work) = state.work.pop_front() {
                return Some(work);
            }
            if state.closed {
                state.idle -= 1;
                return None;
            }
            self.called.wait(&mut state);
        }
    }

    /// Lets those go that wait.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread::{self, ThreadId};

    use super::{Arc, Crew, SPARE};

    fn who(crew: &Arc<Crew>) -> ThreadId {
        let (tell, told) = channel();
        assert!(crew.call(move || tell.send(thread::current().id()).expect("somebody asks")));
        told.recv().expect("an answer")
    }

    #[test]
    fn a_thread_serves_again() {
        let crew = Arc::new(Crew::default());
        let first = who(&crew);
        while crew.state.lock().idle == 0 {
            thread::yield_now();
        }
        assert_eq!(who(&crew), first);
        crew.close();
        while Arc::strong_count(&crew) > 1 {
            thread::yield_now();
        }
        assert_ne!(who(&crew), first, "there is one for whoever is late, too");
    }

    #[test]
    fn all_work_is_done_at_once_and_few_threads_stay() {
        let crew = Arc::new(Crew::default());
        let (tell, told) = channel();
        let (go, gate) = channel::<()>();
        let gate = Arc::new(parking_lot::Mutex::new(gate));
        for _ in 0..3 * SPARE {
            let (tell, gate) = (tell.clone(), Arc::clone(&gate));
            assert!(crew.call(move || {
                tell.send(()).expect("somebody counts");
                let _ = gate.lock().recv();
            }));
        }
        for _ in 0..3 * SPARE {
            told.recv().expect("all of them run, though none has ended");
        }
        drop(go);
        while Arc::strong_count(&crew) > 1 + SPARE {
            thread::yield_now();
        }
        assert!(crew.state.lock().idle <= SPARE);
        crew.close();
        while Arc::strong_count(&crew) > 1 {
            thread::yield_now();
        }
    }
}
