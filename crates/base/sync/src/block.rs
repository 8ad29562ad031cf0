//! Telling the platform that this OS thread is about to sleep.
//!
//! A platform backend serves traps on few threads (systrap: one leader a listener). Before such a
//! thread sleeps it must hand its duty to another; it learns of the sleep here. The hook runs once
//! per registration: after it has handed over, the thread is an ordinary one until its backend
//! installs the hook again.

use std::cell::RefCell;

thread_local! {
    static HOOK: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Installs what runs before this thread next sleeps; replaces what was installed.
pub fn on_block(hook: Box<dyn FnOnce()>) {
    HOOK.with_borrow_mut(|slot| *slot = Some(hook));
}

/// Removes the hook. Returns whether it was still there, that is, the thread did not sleep.
pub fn cancel_hook() -> bool {
    HOOK.with_borrow_mut(|slot| slot.take().is_some())
}

/// Called by whatever is about to put this thread to sleep for a time a guest decides.
/// No lock may be held.
pub fn will_block() {
    crate::lock::assert_none_held("a blocking wait");
    run_hook();
}

/// Called before waiting for a lock that is held while a guest carries something out
/// ([`Class::OVER_GUEST`](crate::order::Class::OVER_GUEST)). Other locks may be held.
pub(crate) fn will_wait_for_lock() {
    run_hook();
}

fn run_hook() {
    let hook = HOOK.with_borrow_mut(Option::take);
    if let Some(hook) = hook {
        hook();
    }
}
