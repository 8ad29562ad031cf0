//! The mappings of an address space in order, their totals, and the search for free ranges.
//!
//! Every change is a sequence of `put` and `take`, which keep the totals and note what files must hear
//! of; so announcements balance whatever is split and merged.

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::mm::Prot;
use memmap::{MapRequest, Mappable};

use crate::vma::{Vma, VmaFlags};

/// What a file must be told once the lock is gone.
pub(crate) struct Notice {
    file: Arc<dyn Mappable>,
    request: MapRequest,
    gone: bool,
}

impl Notice {
    pub(crate) fn deliver(self) {
        if self.gone {
            self.file.unmapped(self.request);
        } else {
            self.file.mapped(self.request);
        }
    }
}

/// Bytes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) all: u64,
    pub(crate) data: u64,
    pub(crate) stack: u64,
    pub(crate) exec: u64,
    pub(crate) locked: u64,
}

impl Totals {
    fn each(&mut self, vma: &Vma, change: impl Fn(&mut u64, u64)) {
        let len = vma.len();
        change(&mut self.all, len);
        if vma.is_data() {
            change(&mut self.data, len);
        }
        if vma.flags.contains(VmaFlags::GROWSDOWN) {
            change(&mut self.stack, len);
        }
        if vma.prot.contains(Prot::EXEC) && !vma.prot.contains(Prot::WRITE) {
            change(&mut self.exec, len);
        }
        if vma.flags.contains(VmaFlags::LOCKED) {
            change(&mut self.locked, len);
        }
    }
}

/// The mappings, keyed by their first byte.
#[derive(Default)]
pub(crate) struct Tree {
    vmas: BTreeMap<u64, Vma>,
    totals: Totals,
    notices: Vec<Notice>,
}

impl Tree {
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn count(&self) -> usize {
        self.vmas.len()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.vmas.values()
    }

    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.notices);
        // New ones first: a file whose mapping was only split never hears that the last one is gone.
        notices.sort_by_key(|notice| notice.gone);
        notices
    }

    /// Adds without merging.
    pub(crate) fn put(&mut self, vma: Vma) {
        if vma.is_empty() {
            return;
        }
        self.totals.each(&vma, |total, len| *total = total.saturating_add(len));
        self.note(&vma, false);
        self.vmas.insert(vma.start, vma);
    }

    fn take(&mut self, start: u64) -> Option<Vma> {
        let vma = self.vmas.remove(&start)?;
        self.totals.each(&vma, |total, len| *total = total.saturating_sub(len));
        self.note(&vma, true);
        Some(vma)
    }

    fn note(&mut self, vma: &Vma, gone: bool) {
        if let Some((file, request)) = vma.request() {
            self.notices.push(Notice { file, request, gone });
        }
    }

    /// The mapping that covers `addr`.
    pub(crate) fn find(&self, addr: u64) -> Option<&Vma> {
        self.before(addr).filter(|vma| vma.contains(addr))
    }

    /// The last mapping that starts at or below `addr`.
    fn before(&self, addr: u64) -> Option<&Vma> {
        self.vmas.range(..=addr).next_back().map(|(_, vma)| vma)
    }

    /// The last mapping that ends at or below `addr`.
    pub(crate) fn below(&self, addr: u64) -> Option<&Vma> {
        self.vmas.range(..addr).map(|(_, vma)| vma).rfind(|vma| vma.end <= addr)
    }

    /// The first mapping that ends above `addr`.
    pub(crate) fn at_or_above(&self, addr: u64) -> Option<&Vma> {
        self.find(addr).or_else(|| self.vmas.range(addr..).next().map(|(_, vma)| vma))
    }

    /// All mappings that share a byte with `start..end`, in order.
    pub(crate) fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = &Vma> {
        let first = self.find(start).map_or(start, |vma| vma.start);
        self.vmas.range(first..end.max(first)).map(|(_, vma)| vma)
    }

    /// Is all of `start..end` mapped?
    pub(crate) fn covers(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        for vma in self.overlapping(start, end) {
            if vma.start > at {
                return false;
            }
            at = vma.end;
        }
        at >= end
    }

    /// Bytes of `start..end` that are mapped and satisfy `which`.
    pub(crate) fn mapped_bytes(&self, start: u64, end: u64, which: impl Fn(&Vma) -> bool) -> u64 {
        self.overlapping(start, end)
            .filter(|vma| which(vma))
            .map(|vma| vma.end.min(end).saturating_sub(vma.start.max(start)))
            .sum()
    }

    /// How many mappings more `remove(start, end)` leaves because it splits.
    pub(crate) fn splits(&self, start: u64, end: u64) -> bool {
        self.find(start).is_some_and(|vma| vma.start < start && end < vma.end)
    }

    fn split(&mut self, addr: u64) {
        let Some(start) = self.find(addr).map(|vma| vma.start).filter(|start| *start < addr) else { return };
        if let Some(vma) = self.take(start) {
            self.put(vma.cut(vma.start, addr));
            self.put(vma.cut(addr, vma.end));
        }
    }

    /// Takes `start..end` out and returns what was there, cut to the range.
    pub(crate) fn remove(&mut self, start: u64, end: u64) -> Vec<Vma> {
        self.split(start);
        self.split(end);
        let starts: Vec<u64> = self.vmas.range(start..end.max(start)).map(|(at, _)| *at).collect();
        starts.into_iter().filter_map(|at| self.take(at)).collect()
    }

    /// Adds, merging with its neighbours. The range is free.
    pub(crate) fn insert(&mut self, mut vma: Vma) {
        let before = vma.start.checked_sub(1).and_then(|addr| self.find(addr));
        if let Some(at) = before.filter(|b| b.joins(&vma)).map(|b| b.start)
            && let Some(before) = self.take(at)
        {
            vma = Vma { end: vma.end, ..before };
        }
        let after = self.vmas.get(&vma.end);
        if let Some(at) = after.filter(|a| vma.joins(a)).map(|a| a.start)
            && let Some(after) = self.take(at)
        {
            vma.end = after.end;
        }
        self.put(vma);
    }

    /// Changes every mapping of `start..end`.
    pub(crate) fn update(&mut self, start: u64, end: u64, change: impl Fn(&mut Vma)) {
        for mut vma in self.remove(start, end) {
            change(&mut vma);
            self.insert(vma);
        }
    }

    /// Is `start..end` free, guard gaps included?
    pub(crate) fn is_free(&self, start: u64, end: u64) -> bool {
        self.at_or_above(start).is_none_or(|vma| vma.start_with_gap() >= end)
    }

    /// The highest free range of `len` bytes within `low..high`.
    pub(crate) fn highest_gap(&self, low: u64, high: u64, len: u64) -> Option<u64> {
        let mut top = high;
        for vma in self.vmas.range(..high).rev().map(|(_, vma)| vma) {
            let bottom = vma.end.max(low);
            if top >= bottom && top - bottom >= len {
                return Some(top - len);
            }
            top = top.min(vma.start_with_gap());
            if top < low {
                return None;
            }
        }
        // A stack above the window may reach into it with its gap; checked by the caller's `is_free`.
        top.checked_sub(len).filter(|start| *start >= low)
    }

    /// The lowest free range of `len` bytes within `low..high`.
    pub(crate) fn lowest_gap(&self, low: u64, high: u64, len: u64) -> Option<u64> {
        let mut at = low;
        for vma in self.overlapping(low, high) {
            if vma.start_with_gap().checked_sub(at).is_some_and(|free| free >= len) {
                return Some(at);
            }
            at = at.max(vma.end);
        }
        let end = at.checked_add(len)?;
        (end <= high).then_some(at)
    }
}
