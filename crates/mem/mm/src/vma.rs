//! One mapping of an address space.

use std::fmt;
use std::sync::Arc;

use abi::mm::Prot;
use bitflags::bitflags;
use memmap::{MapRequest, Mappable};

bitflags! {
    /// Properties of a mapping beside its protection (`VM_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct VmaFlags: u32 {
        /// Writes reach the object, a fork shares the pages.
        const SHARED = 1 << 0;
        /// Grows downwards on a fault below.
        const GROWSDOWN = 1 << 1;
        /// Counts as locked memory.
        const LOCKED = 1 << 2;
        /// No swap space reserved.
        const NORESERVE = 1 << 3;
        /// Not in a fork.
        const DONTFORK = 1 << 4;
        /// Zero pages in a fork.
        const WIPEONFORK = 1 << 5;
        /// Not in a core dump.
        const DONTDUMP = 1 << 6;
        /// Its size does not change (`[vdso]`).
        const DONTEXPAND = 1 << 7;
    }
}

/// Where the bytes of a mapping come from.
#[derive(Clone)]
pub enum Source {
    /// Zero pages.
    Anonymous,
    /// A file, from byte `offset` on.
    File {
        /// The file.
        file: Arc<dyn Mappable>,
        /// Byte of the file at the start of the mapping.
        offset: u64,
    },
    /// Pages the platform provides, by the name they have in `/proc/PID/maps`.
    Special(&'static str),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::File { offset, .. } => write!(f, "File({offset:#x})"),
            Self::Special(name) => f.write_str(name),
        }
    }
}

/// One mapping: a page-aligned range with one protection and one source.
#[derive(Clone, Debug)]
pub struct Vma {
    /// First byte.
    pub start: u64,
    /// First byte behind it.
    pub end: u64,
    /// Protection.
    pub prot: Prot,
    /// Most that `mprotect` may give it.
    pub max_prot: Prot,
    /// Properties.
    pub flags: VmaFlags,
    /// Its bytes.
    pub source: Source,
}

impl Vma {
    /// Bytes.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Is it without a byte? Never true for one in a tree.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// Does it cover `addr`?
    pub fn contains(&self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Is it shared?
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }

    /// Anonymous and private?
    pub fn is_private_anonymous(&self) -> bool {
        matches!(self.source, Source::Anonymous) && !self.is_shared()
    }

    /// Does it count against `RLIMIT_DATA`: private, writable and no stack?
    pub fn is_data(&self) -> bool {
        self.prot.contains(Prot::WRITE) && !self.flags.intersects(VmaFlags::SHARED | VmaFlags::GROWSDOWN)
    }

    /// Lowest address another mapping must end at: the guard gap of a stack is kept free.
    pub(crate) fn start_with_gap(&self) -> u64 {
        if self.flags.contains(VmaFlags::GROWSDOWN) {
            self.start.saturating_sub(crate::STACK_GUARD_GAP)
        } else {
            self.start
        }
    }

    /// How it looks to its file; `None` without one.
    pub(crate) fn request(&self) -> Option<(Arc<dyn Mappable>, MapRequest)> {
        let Source::File { file, offset } = &self.source else { return None };
        let request = MapRequest {
            offset: *offset,
            len: self.len(),
            shared: self.is_shared(),
            max_prot: self.max_prot,
        };
        Some((Arc::clone(file), request))
    }

    /// The same mapping cut to `start..end`, which lies within it.
    pub(crate) fn cut(&self, start: u64, end: u64) -> Self {
        let mut part = Self { start, end, ..self.clone() };
        if let Source::File { offset, .. } = &mut part.source {
            *offset = offset.saturating_add(start.saturating_sub(self.start));
        }
        part
    }

    /// Can `next`, which begins where this ends, become part of it?
    pub(crate) fn joins(&self, next: &Self) -> bool {
        let alike = self.end == next.start
            && self.prot == next.prot
            && self.max_prot == next.max_prot
            && self.flags == next.flags
            && !self.flags.contains(VmaFlags::GROWSDOWN);
        alike
            && match (&self.source, &next.source) {
                (Source::Anonymous, Source::Anonymous) => true,
                (Source::File { file: a, offset: x }, Source::File { file: b, offset: y }) => {
                    Arc::ptr_eq(a, b) && x.checked_add(self.len()) == Some(*y)
                }
                _ => false,
            }
    }
}
