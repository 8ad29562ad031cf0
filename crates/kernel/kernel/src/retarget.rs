//! Which thread of a process gets a signal that was sent to the process (signal(7), "Execution of signal
//! handlers"): the first one, if it wants the signal, else any that does. The others leave it alone, so
//! that a thread that signals its own process does not take away what is to interrupt the first one.

use std::sync::atomic::Ordering;

use abi::signal::SigSet;

use crate::task::{Signals, Task};

impl Task {
    /// What it would take of the signals sent to its process.
    fn wanted(&self) -> SigSet {
        if self.exited.load(Ordering::SeqCst) {
            return SigSet::EMPTY;
        }
        let signals = self.signals.lock();
        SigSet::FULL.difference(signals.mask).union(signals.awaited)
    }

    /// Signals pending for the process that are this thread's to take, whatever its mask says.
    pub(crate) fn shared_pending(&self) -> SigSet {
        let pending = self.group().queue.lock().pending();
        if pending.is_empty() || self.tid() == self.tgid() {
            return pending;
        }
        let first = self.kernel().task(self.tgid());
        pending.difference(first.map_or(SigSet::EMPTY, |first| first.wanted()))
    }

    /// Changes the mask, and makes others look at signals that this thread was to take and now blocks.
    pub(crate) fn change_mask<T>(&self, change: impl FnOnce(&mut Signals) -> T) -> T {
        let (result, blocked) = {
            let mut signals = self.signals.lock();
            let before = signals.mask;
            let result = change(&mut signals);
            (result, signals.mask.difference(before))
        };
        self.hand_over(blocked);
        result
    }

    /// Interrupts a thread for each pending signal of `given_up` that another one wants.
    pub(crate) fn hand_over(&self, given_up: SigSet) {
        if given_up.is_empty() {
            return;
        }
        let mut left = self.group().queue.lock().pending().intersection(given_up);
        if left.is_empty() {
            return;
        }
        let members = self.kernel().table.lock().members(self.tgid());
        for task in members.iter().filter(|task| task.tid() != self.tid()) {
            let wanted = task.wanted().intersection(left);
            if !wanted.is_empty() {
                task.interrupt();
                left = left.difference(wanted);
            }
        }
    }
}
