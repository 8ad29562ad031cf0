//! Everything that has been counted, in one place.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::counter::Counter;
use crate::stub::Stub;
use crate::tally::Tallied;

/// Not a `sync::Mutex`: that crate stands beside this one, and nothing is taken inside this lock.
static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Something that was hit at least once.
#[derive(Clone, Copy)]
pub(crate) enum Entry {
    Counter(&'static Counter),
    Stub(&'static Stub),
    Tally(&'static dyn Tallied),
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// A [`Tally`](crate::Tally).
    Tally {
        /// Its name.
        name: &'static str,
        /// What one event is.
        help: &'static str,
        /// What a kind is.
        label: &'static str,
        /// The kinds that were seen, and how often.
        counts: Vec<(&'static str, u64)>,
    },
}

/// All counters, then all stubs, then all tallies that were hit so far, each sorted by name. The readings are not
/// one instant: events go on meanwhile.
pub fn snapshot() -> Vec<Reading> {
    let entries = entries().clone();
    let mut readings: Vec<Reading> = entries
        .into_iter()
        .map(|entry| match entry {
            Entry::Counter(c) => Reading::Counter { name: c.name(), help: c.help(), value: c.value() },
            Entry::Stub(s) => Reading::Stub { name: s.name(), reason: s.reason(), hits: s.hits() },
            Entry::Tally(t) => {
                Reading::Tally { name: t.name(), help: t.help(), label: t.label(), counts: t.counts() }
            }
        })
        .collect();
    readings.sort();
    readings
}

#[cfg(test)]
mod tests {
    use super::{Reading, snapshot};
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
        let wanted = Reading::Stub { name: "test.stub", reason: "only a test", hits: 3 };
        assert_eq!(snapshot().into_iter().filter(|reading| *reading == wanted).count(), 1);
    }
}
