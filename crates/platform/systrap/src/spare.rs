//! The space made ahead: what a program that starts is to have is there already.
//!
//! A process that is cloned, filtered, known and parked takes a good part of an `execve`'s time to make, and needs
//! nothing that only the program's start tells. Nobody has one made before a second program has started: most
//! sandboxes that run one only are many and idle.

use std::sync::Arc;

use parking_lot::Mutex;
use platform::PlatformError;

use crate::host::Shared;
use crate::space::Space;

#[derive(Default)]
struct State {
    space: Option<Arc<Space>>,
    /// It has been asked for one before.
    asked: bool,
    making: bool,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Spare(Mutex<State>);

impl Spare {
    /// Keeps `space`, which the calling thread has made, or ends it when nobody will ask.
    pub(crate) fn put(&self, space: Arc<Space>) {
        space.leave();
        let mut state = self.0.lock();
        state.making = false;
        if !state.closed {
            state.space = Some(space);
        }
    }

    /// Ends it.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let space = state.space.take();
        drop(state);
        drop(space);
    }
}

/// A fresh space: the one made ahead if there is one. The next is ordered then.
pub(crate) fn take(shared: &Arc<Shared>) -> Result<Arc<Space>, PlatformError> {
    let (ready, order) = {
        let mut state = shared.spare.0.lock();
        let again = std::mem::replace(&mut state.asked, true);
        let order = again && !state.making && !state.closed;
        state.making |= order;
        (state.space.take(), order)
    };
    let space = ready.filter(|space| space.is_parked()).map_or_else(|| Space::fresh(shared), Ok);
    if let Ok(space) = &space {
        space.attend();
    }
    let ours = Arc::clone(shared);
    if order && !shared.children.crew.call(move || make(&ours)) {
        shared.spare.0.lock().making = false;
    }
    space
}

fn make(shared: &Arc<Shared>) {
    match Space::fresh(shared) {
        Ok(space) => shared.spare.put(space),
        Err(error) => {
            // Whoever asks next makes one, or learns why not.
            tracing::debug!(%error, "no space made ahead");
            shared.spare.0.lock().making = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use platform::Platform;

    /// Waits for what is being made. Whether there is one.
    fn settles(systrap: &crate::Systrap) -> bool {
        loop {
            let state = systrap.shared.spare.0.lock();
            if !state.making {
                return state.space.is_some();
            }
            drop(state);
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_is_made_for_the_third_program_and_replaced_when_it_has_died() {
        let systrap = crate::Systrap::new().expect("this machine can run systrap");
        let first = systrap.new_address_space().expect("a space");
        assert!(!settles(&systrap), "a sandbox of one program has none");
        let second = systrap.new_address_space().expect("a space");
        assert!(settles(&systrap));
        let ready = systrap.shared.spare.0.lock().space.clone().expect("it is ready");
        let process = ready.parked.lock().clone().expect("it is parked").process.clone();
        process.kill();
        while ready.is_parked() {
            std::thread::yield_now();
        }
        let third = systrap.new_address_space().expect("another space");
        assert!(!std::ptr::addr_eq(std::sync::Arc::as_ptr(&third), std::sync::Arc::as_ptr(&ready)));
        drop((first, second, third));
    }
}
