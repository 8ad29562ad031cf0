//! What is mapped where: the mappings of one address space by their first address.

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::mm::Prot;
use memmap::HostObject;

use crate::shared::SharedFile;

/// Where the pages of a mapping come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// Zeros of its own.
    Anonymous,
    /// A copy of a file's pages, from this byte on.
    Private(Arc<HostObject>, u64),
    /// A file's pages, from this byte on.
    Shared(Arc<SharedFile>, u64),
    /// Pages that are there from the beginning and never change, by machine address, from this one on.
    Given(u64),
}

impl Source {
    /// What it is `by` bytes further on.
    fn after(&self, by: u64) -> Self {
        match self {
            Self::Anonymous => Self::Anonymous,
            Self::Private(object, offset) => Self::Private(Arc::clone(object), offset + by),
            Self::Shared(file, offset) => Self::Shared(Arc::clone(file), offset + by),
            Self::Given(gpa) => Self::Given(gpa + by),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Anonymous, Self::Anonymous) => true,
            (Self::Private(a, x), Self::Private(b, y)) => Arc::ptr_eq(a, b) && x == y,
            (Self::Shared(a, x), Self::Shared(b, y)) => Arc::ptr_eq(a, b) && x == y,
            (Self::Given(x), Self::Given(y)) => x == y,
            _ => false,
        }
    }
}

/// What a child gets of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inherit {
    /// Nothing (`MADV_DONTFORK`).
    pub(crate) nothing: bool,
    /// Zeros (`MADV_WIPEONFORK`).
    pub(crate) zeros: bool,
}

/// One mapping.
#[derive(Clone)]
pub(crate) struct Mapping {
    /// Behind its last byte.
    pub(crate) end: u64,
    pub(crate) prot: Prot,
    pub(crate) source: Source,
    pub(crate) inherit: Inherit,
}

impl Mapping {
    /// Whether writes stay with the space.
    pub(crate) fn is_private(&self) -> bool {
        !matches!(self.source, Source::Shared(..) | Source::Given(_))
    }

    fn from(&self, start: u64, at: u64) -> Self {
        Self { source: self.source.after(at - start), ..self.clone() }
    }

    fn joins(&self, start: u64, next: &Self) -> bool {
        self.prot == next.prot
            && self.inherit == next.inherit
            && self.source.after(self.end - start).is(&next.source)
    }
}

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Tree(BTreeMap<u64, Mapping>);

impl Tree {
    /// The mapping at `addr`, and where it begins.
    pub(crate) fn at(&self, addr: u64) -> Option<(u64, &Mapping)> {
        let (start, mapping) = self.0.range(..=addr).next_back()?;
        (addr < mapping.end).then_some((*start, mapping))
    }

    /// The source of the page at `addr` of a mapping that begins at `start`.
    pub(crate) fn source_at(start: u64, mapping: &Mapping, addr: u64) -> Source {
        mapping.source.after(addr - start)
    }

    /// Makes `addr` a border.
    fn split(&mut self, addr: u64) {
        let Some((start, mapping)) = self.at(addr) else { return };
        if start == addr {
            return;
        }
        let rest = mapping.from(start, addr);
        self.0.insert(addr, rest);
        if let Some(mapping) = self.0.get_mut(&start) {
            mapping.end = addr;
        }
    }

    /// Whether every byte of a range is mapped.
    pub(crate) fn covers(&self, from: u64, to: u64) -> bool {
        let mut at = from;
        while at < to {
            let Some((_, mapping)) = self.at(at) else { return false };
            at = mapping.end;
        }
        true
    }

    /// The mappings of a range, cut to it.
    pub(crate) fn within(&self, from: u64, to: u64) -> Vec<(u64, Mapping)> {
        let first = self.at(from).map_or(from, |(start, _)| start);
        let cut = |(start, mapping): (&u64, &Mapping)| {
            let begin = (*start).max(from);
            (begin, Mapping { end: mapping.end.min(to), ..mapping.from(*start, begin) })
        };
        self.0.range(first..to).map(cut).collect()
    }

    /// Takes the mappings of a range out.
    pub(crate) fn remove(&mut self, from: u64, to: u64) -> Vec<(u64, Mapping)> {
        self.split(from);
        self.split(to);
        let starts: Vec<u64> = self.0.range(from..to).map(|(start, _)| *start).collect();
        starts.into_iter().filter_map(|start| Some((start, self.0.remove(&start)?))).collect()
    }

    /// Puts a mapping where there is none, and joins it with its neighbours.
    pub(crate) fn insert(&mut self, start: u64, mapping: Mapping) {
        let end = mapping.end;
        self.0.insert(start, mapping);
        self.join(end);
        self.join(start);
    }

    /// Joins what ends at `border` with what begins there, if they are one.
    fn join(&mut self, border: u64) {
        let Some(next) = self.0.get(&border) else { return };
        let Some((start, before)) = self.0.range(..border).next_back() else { return };
        if before.end != border || !before.joins(*start, next) {
            return;
        }
        let (start, end) = (*start, next.end);
        self.0.remove(&border);
        if let Some(before) = self.0.get_mut(&start) {
            before.end = end;
        }
    }

    /// Changes every mapping of a range.
    pub(crate) fn alter(&mut self, from: u64, to: u64, change: impl Fn(&mut Mapping)) {
        for (start, mut mapping) in self.remove(from, to) {
            change(&mut mapping);
            self.insert(start, mapping);
        }
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Mapping)> {
        self.0.iter().map(|(start, mapping)| (*start, mapping))
    }
}

#[cfg(test)]
mod tests {
    use super::{Inherit, Mapping, Source, Tree};
    use abi::mm::Prot;

    fn anonymous(end: u64, prot: Prot) -> Mapping {
        Mapping { end, prot, source: Source::Anonymous, inherit: Inherit::default() }
    }

    #[test]
    fn pieces_split_and_join() {
        let mut tree = Tree::default();
        tree.insert(0x1000, anonymous(0x5000, Prot::READ));
        tree.alter(0x2000, 0x3000, |mapping| mapping.prot = Prot::WRITE);
        assert_eq!(tree.iter().count(), 3);
        assert!(tree.covers(0x1000, 0x5000) && !tree.covers(0x1000, 0x5001));
        assert_eq!(tree.at(0x2fff).map(|(start, m)| (start, m.prot)), Some((0x2000, Prot::WRITE)));
        tree.alter(0x2000, 0x3000, |mapping| mapping.prot = Prot::READ);
        assert_eq!(tree.iter().map(|(start, m)| (start, m.end)).collect::<Vec<_>>(), [(0x1000, 0x5000)]);
        assert_eq!(tree.remove(0x1800, 0x2000).len(), 1);
        assert_eq!(tree.iter().count(), 2);
        let cut: Vec<_> = tree.within(0x1400, 0x2400).iter().map(|(start, m)| (*start, m.end)).collect();
        assert_eq!(cut, [(0x1400, 0x1800), (0x2000, 0x2400)]);
    }

    #[test]
    fn given_pages_keep_their_order() {
        let mut tree = Tree::default();
        let given = Mapping { source: Source::Given(0x10_0000), ..anonymous(0x3000, Prot::READ) };
        tree.insert(0, given);
        tree.remove(0x1000, 0x2000);
        let Some((start, mapping)) = tree.at(0x2000) else { panic!("it is there") };
        assert!(matches!(Tree::source_at(start, mapping, 0x2800), Source::Given(0x10_2800)));
    }
}
