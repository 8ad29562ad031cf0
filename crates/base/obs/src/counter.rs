//! Counters that only go up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::registry;

/// A named count of events; declare it `static`.
///
/// ```
/// static OPENS: obs::Counter = obs::Counter::new("vfs.opens", "files opened");
/// OPENS.increment();
/// assert_eq!(OPENS.value(), 1);
/// ```
#[derive(Debug)]
pub struct Counter {
    name: &'static str,
    help: &'static str,
    value: AtomicU64,
    registered: AtomicBool,
}

impl Counter {
    /// A counter at zero. `name` is dotted, `subsystem.what`; `help` says what one event is.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, value: AtomicU64::new(0), registered: AtomicBool::new(false) }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What one event is.
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// How many events so far. Wraps after 2^64.
    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Counts one event; the count before it.
    pub fn increment(&'static self) -> u64 {
        self.add(1)
    }

    /// Counts `events` events; the count before them.
    pub fn add(&'static self, events: u64) -> u64 {
        // The load keeps the usual path free of a read-modify-write on the flag.
        if !self.registered.load(Ordering::Relaxed) && !self.registered.swap(true, Ordering::Relaxed) {
            registry::enter(registry::Entry::Counter(self));
        }
        self.value.fetch_add(events, Ordering::Relaxed)
    }
}
