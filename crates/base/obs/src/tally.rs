//! Counts of events by kind, where the kinds are known beforehand and the events are frequent.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::registry;

/// How many copies of the counts there are. Threads take them by turns, so that few write to the same line of a
/// cache; a reading adds them up.
const SHARDS: usize = 8;

/// A named count of events for each of `N` kinds; declare it `static`.
///
/// ```
/// fn name(kind: usize) -> Option<&'static str> {
///     ["hit", "miss"].get(kind).copied()
/// }
/// static LOOKUPS: obs::Tally<2> = obs::Tally::new("cache.lookups", "names looked up", "outcome", name);
/// LOOKUPS.increment(1);
/// assert_eq!(LOOKUPS.value(1), 1);
/// ```
#[derive(Debug)]
pub struct Tally<const N: usize> {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    naming: fn(usize) -> Option<&'static str>,
    shards: [[AtomicU64; N]; SHARDS],
    registered: AtomicBool,
}

impl<const N: usize> Tally<N> {
    /// All counts at zero. `name` and `help` as for a [`Counter`](crate::Counter); `label` says what a kind is, and
    /// `naming` names each; one without a name is not shown.
    pub const fn new(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        naming: fn(usize) -> Option<&'static str>,
    ) -> Self {
        let shards = [const { [const { AtomicU64::new(0) }; N] }; SHARDS];
        Self { name, help, label, naming, shards, registered: AtomicBool::new(false) }
    }

    /// Counts one event of this kind; one that is none of the `N` is not counted.
    pub fn increment(&'static self, kind: usize) {
        if !self.registered.load(Ordering::Relaxed) && !self.registered.swap(true, Ordering::Relaxed) {
            registry::enter(registry::Entry::Tally(self));
        }
        if let Some(count) = self.shards.get(shard()).and_then(|counts| counts.get(kind)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events of this kind so far.
    pub fn value(&self, kind: usize) -> u64 {
        let counts = self.shards.iter().filter_map(|counts| counts.get(kind));
        counts.fold(0, |sum, count| sum.wrapping_add(count.load(Ordering::Relaxed)))
    }
}

/// A [`Tally`] of any size, to be read.
pub(crate) trait Tallied: Sync {
    fn name(&self) -> &'static str;
    fn help(&self) -> &'static str;
    fn label(&self) -> &'static str;
    /// Each kind that has a name and was seen.
    fn counts(&self) -> Vec<(&'static str, u64)>;
}

impl<const N: usize> Tallied for Tally<N> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn label(&self) -> &'static str {
        self.label
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let named = (0..N).filter_map(|kind| Some(((self.naming)(kind)?, self.value(kind))));
        named.filter(|(_, count)| *count > 0).collect()
    }
}

/// Which of the copies this thread counts in.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    // Threads that are ending have no place of their own any more.
    let known = SHARD.try_with(Cell::get).unwrap_or(0);
    if known != usize::MAX {
        return known;
    }
    let taken = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    let _ = SHARD.try_with(|shard| shard.set(taken));
    taken
}

#[cfg(test)]
mod tests {
    use super::Tally;
    use crate::{Reading, snapshot};

    fn name(kind: usize) -> Option<&'static str> {
        ["a", "b"].get(kind).copied()
    }

    #[test]
    fn threads_are_added_up_and_kinds_out_of_range_are_nothing() {
        static EVENTS: Tally<3> = Tally::new("test.tally", "events", "kind", name);
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..50).for_each(|_| EVENTS.increment(1)));
            }
        });
        EVENTS.increment(2);
        EVENTS.increment(3);
        assert_eq!((EVENTS.value(0), EVENTS.value(1), EVENTS.value(2)), (0, 1000, 1));
        let counts = snapshot().into_iter().find_map(|reading| match reading {
            Reading::Tally { name: "test.tally", label: "kind", counts, .. } => Some(counts),
            _ => None,
        });
        assert_eq!(counts, Some(vec![("b", 1000)]));
    }
}
