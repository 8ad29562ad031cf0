//! Everything that has been counted, in one place.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::counter::Counter;
use crate::stub::Stub;

/// Not a `sync::Mutex`: that crate stands beside this one, and nothing is taken inside this lock.
static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Something that was hit at least once.
#[derive(Clone, Copy)]
pub(crate) enum Entry {
    Counter(&'static Counter),
    Stub(&'static Stub),
}

/// Adds an entry. Called once for each `static`.
pub(crate) fn enter(entry: Entry) {
    entries().push(entry);
}

fn entries() -> MutexGuard<'static, Vec<Entry>> {
    // A push either happened or did not, so a poisoned list is still a list.
    ENTRIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One entry as it stood when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// A [`Counter`].
    Counter {
        /// Its name.
        name: &'static str,
        /// What one event is.
        help: &'static str,
        /// How many.
        value: u64,
    },
    /// A [`Stub`].
    Stub {
        /// What the guest asked for.
        name: &'static str,
        /// Why it is not there.
        reason: &'static str,
        /// How often.
        hits: u64,
    },
}

/// All counters and then all stubs that were hit so far, each sorted by name. The readings are not
/// one instant: events go on meanwhile.
pub fn snapshot() -> Vec<Reading> {
    let entries = entries().clone();
    let mut readings: Vec<Reading> = entries
        .into_iter()
        .map(|entry| match entry {
            Entry::Counter(c) => Reading::Counter { name: c.name(), help: c.help(), value: c.value() },
            Entry::Stub(s) => Reading::Stub { name: s.name(), reason: s.reason(), hits: s.hits() },
        })
        .collect();
    readings.sort();
    readings
}

/// The snapshot as text, a line each: the count, the name, and the explanation.
pub fn report() -> String {
    let mut text = String::new();
    for reading in snapshot() {
        // Writing to a `String` cannot fail.
        let _ = match reading {
            Reading::Counter { name, help, value } => writeln!(text, "{value:>12} {name} ({help})"),
            Reading::Stub { name, reason, hits } => {
                writeln!(text, "{hits:>12} unimplemented {name}: {reason}")
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Reading, report, snapshot};
    use crate::Counter;

    #[test]
    fn entries_appear_once_when_first_hit() {
        static HIT: Counter = Counter::new("test.hit", "hits");
        static IDLE: Counter = Counter::new("test.idle", "never");
        assert_eq!(HIT.increment(), 0);
        assert_eq!(HIT.add(4), 1);
        let named = |wanted| {
            let is = |r: &Reading| matches!(r, Reading::Counter { name, .. } if *name == wanted);
            snapshot().into_iter().filter(is).collect::<Vec<_>>()
        };
        assert_eq!(named(HIT.name()), [Reading::Counter { name: "test.hit", help: "hits", value: 5 }]);
        assert_eq!(named(IDLE.name()), []);
    }

    #[test]
    fn a_stub_counts_and_tells_its_reason() {
        for _ in 0..3 {
            crate::stub!("test.stub", "only a test");
        }
        let line = "           3 unimplemented test.stub: only a test";
        assert_eq!(report().lines().filter(|l| *l == line).count(), 1);
    }
}
