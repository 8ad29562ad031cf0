//! `madvise(2)`, `msync(2)` and `mincore(2)`.

use std::sync::Arc;

use abi::raw::general as raw;
use abi::{Errno, PAGE_SIZE, page_up};
use guestmem::UserAddr;
use memmap::Mappable;
use platform::{AddressSpace, Advice, MapOp};

use crate::manager::{MemoryManager, State};
use crate::vma::{Source, Vma, VmaFlags};

/// What an advice value means here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Nothing to do.
    Ignore,
    /// Nothing to do, but not on locked memory.
    IgnoreUnlocked,
    /// A hint for the host, which may refuse it.
    Hint(Advice),
    /// Drop pages.
    Drop(Advice, Locked),
    /// Fault pages in.
    Populate(Advice),
    /// Set or clear a property of the mapping.
    Set(VmaFlags, Option<Advice>),
    /// The opposite.
    Clear(VmaFlags, Option<Advice>),
    /// Punch a hole into the object behind: not supported.
    Remove,
}

/// Are locked pages dropped, too?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Locked {
    Refuse,
    Drop,
}

/// The table of advice.
fn meaning(advice: u32) -> Option<Meaning> {
    Some(match advice {
        raw::MADV_NORMAL | raw::MADV_RANDOM | raw::MADV_SEQUENTIAL => Meaning::Ignore,
        raw::MADV_MERGEABLE | raw::MADV_UNMERGEABLE => Meaning::Ignore,
        raw::MADV_COLD | raw::MADV_PAGEOUT => Meaning::IgnoreUnlocked,
        raw::MADV_WILLNEED => Meaning::Hint(Advice::WillNeed),
        raw::MADV_HUGEPAGE => Meaning::Hint(Advice::HugePage),
        raw::MADV_NOHUGEPAGE => Meaning::Hint(Advice::NoHugePage),
        raw::MADV_DONTNEED => Meaning::Drop(Advice::DontNeed, Locked::Refuse),
        raw::MADV_DONTNEED_LOCKED => Meaning::Drop(Advice::DontNeed, Locked::Drop),
        raw::MADV_FREE => Meaning::Drop(Advice::Free, Locked::Refuse),
        raw::MADV_POPULATE_READ => Meaning::Populate(Advice::PopulateRead),
        raw::MADV_POPULATE_WRITE => Meaning::Populate(Advice::PopulateWrite),
        raw::MADV_DONTFORK => Meaning::Set(VmaFlags::DONTFORK, Some(Advice::DontFork)),
        raw::MADV_DOFORK => Meaning::Clear(VmaFlags::DONTFORK, Some(Advice::DoFork)),
        raw::MADV_WIPEONFORK => Meaning::Set(VmaFlags::WIPEONFORK, Some(Advice::WipeOnFork)),
        raw::MADV_KEEPONFORK => Meaning::Clear(VmaFlags::WIPEONFORK, Some(Advice::KeepOnFork)),
        raw::MADV_DONTDUMP => Meaning::Set(VmaFlags::DONTDUMP, None),
        raw::MADV_DODUMP => Meaning::Clear(VmaFlags::DONTDUMP, None),
        raw::MADV_REMOVE => Meaning::Remove,
        _ => return None,
    })
}

impl Meaning {
    /// Why a mapping may not have this advice.
    fn refused(self, vma: &Vma) -> Option<Errno> {
        let locked = vma.flags.contains(VmaFlags::LOCKED);
        match self {
            Self::IgnoreUnlocked | Self::Drop(_, Locked::Refuse) if locked => Some(Errno::EINVAL),
            Self::Drop(Advice::Free, _) if !vma.is_private_anonymous() => Some(Errno::EINVAL),
            Self::Set(VmaFlags::WIPEONFORK, _) if !vma.is_private_anonymous() => Some(Errno::EINVAL),
            Self::Clear(VmaFlags::DONTDUMP, _) if matches!(vma.source, Source::Special(_)) => {
                Some(Errno::EINVAL)
            }
            Self::Remove => Some(match (&vma.source, vma.is_shared()) {
                (Source::File { .. }, true) if !locked => Errno::EOPNOTSUPP,
                _ => Errno::EINVAL,
            }),
            _ => None,
        }
    }
}

impl MemoryManager {
    /// `madvise(2)`. Holes give `ENOMEM`, after everything else in the range was advised.
    ///
    /// `MADV_REMOVE` and the fault injection of `MADV_HWPOISON` are deliberately absent.
    pub fn madvise(&self, addr: UserAddr, len: u64, advice: u32) -> Result<(), Errno> {
        let meaning = meaning(advice).ok_or(Errno::EINVAL)?;
        if !addr.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        let end = page_up(len).and_then(|len| addr.0.checked_add(len)).ok_or(Errno::EINVAL)?;
        if end == addr.0 {
            return Ok(());
        }
        self.with(|state, space| state.advise(space, addr.0, end, meaning))
    }

    /// `msync(2)`.
    pub fn msync(&self, addr: UserAddr, len: u64, flags: u32) -> Result<(), Errno> {
        let known = raw::MS_ASYNC | raw::MS_INVALIDATE | raw::MS_SYNC;
        let both = raw::MS_ASYNC | raw::MS_SYNC;
        if flags & !known != 0 || !addr.is_page_aligned() || flags & both == both {
            return Err(Errno::EINVAL);
        }
        let end = page_up(len).and_then(|len| addr.0.checked_add(len)).ok_or(Errno::ENOMEM)?;
        if end == addr.0 {
            return Ok(());
        }
        let (files, holes) = self.with(|state, _| {
            let locked = |vma: &Vma| vma.flags.contains(VmaFlags::LOCKED);
            if flags & raw::MS_INVALIDATE != 0 && state.tree.overlapping(addr.0, end).any(locked) {
                return Err(Errno::EBUSY);
            }
            Ok((state.shared_files(addr.0, end), !state.tree.covers(addr.0, end)))
        })?;
        if flags & raw::MS_SYNC != 0 {
            for (file, offset, len) in files {
                file.sync(offset, len)?;
            }
        }
        if holes { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// `mincore(2)`: hands one byte a page, low bit set when resident, to `out`, in pieces.
    pub fn mincore(
        &self,
        addr: UserAddr,
        len: u64,
        mut out: impl FnMut(&[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        /// Pages a piece.
        const PIECE: u64 = 4096;
        if !addr.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        let end = page_up(len).and_then(|len| addr.0.checked_add(len)).ok_or(Errno::ENOMEM)?;
        if end > self.layout().max {
            return Err(Errno::ENOMEM);
        }
        let mut at = addr.0;
        while at < end {
            let stop = end.min(at.saturating_add(PIECE * PAGE_SIZE));
            if !self.with(|state, _| state.tree.covers(at, stop)) {
                return Err(Errno::ENOMEM);
            }
            let pages = ((stop - at) / PAGE_SIZE) as usize;
            let resident = self.space().resident_pages(UserAddr(at), pages)?;
            let bytes: Vec<u8> = resident.into_iter().map(u8::from).collect();
            out(&bytes)?;
            at = stop;
        }
        Ok(())
    }
}

impl State {
    fn advise(
        &mut self,
        space: &dyn AddressSpace,
        start: u64,
        end: u64,
        meaning: Meaning,
    ) -> Result<(), Errno> {
        let holes = !self.tree.covers(start, end);
        if let Meaning::Populate(_) = meaning
            && holes
        {
            return Err(Errno::ENOMEM);
        }
        let parts: Vec<Vma> = self
            .tree
            .overlapping(start, end)
            .map(|vma| vma.cut(vma.start.max(start), vma.end.min(end)))
            .collect();
        for part in &parts {
            if let Some(errno) = meaning.refused(part) {
                return Err(errno);
            }
            self.advise_part(space, part, meaning)?;
        }
        if holes { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    fn advise_part(&mut self, space: &dyn AddressSpace, vma: &Vma, meaning: Meaning) -> Result<(), Errno> {
        let special = matches!(vma.source, Source::Special(_));
        let op = |advice| MapOp::Advise { addr: UserAddr(vma.start), len: vma.len(), advice };
        match meaning {
            Meaning::Ignore | Meaning::IgnoreUnlocked | Meaning::Remove => Ok(()),
            // A host without huge pages refuses; the guest loses nothing.
            Meaning::Hint(advice) => {
                let _ = space.apply(&[op(advice)]);
                Ok(())
            }
            Meaning::Drop(..) if special => Err(Errno::EINVAL),
            Meaning::Drop(advice, _) | Meaning::Populate(advice) => Ok(space.apply(&[op(advice)])?),
            Meaning::Set(flag, advice) => self.set_flag(space, vma, flag, advice.map(op), true),
            Meaning::Clear(flag, advice) => self.set_flag(space, vma, flag, advice.map(op), false),
        }
    }

    fn set_flag(
        &mut self,
        space: &dyn AddressSpace,
        vma: &Vma,
        flag: VmaFlags,
        op: Option<MapOp>,
        value: bool,
    ) -> Result<(), Errno> {
        if vma.flags.contains(flag) == value {
            return Ok(());
        }
        self.check_count(2)?;
        if let Some(op) = op {
            space.apply(&[op])?;
        }
        self.tree.update(vma.start, vma.end, |vma| vma.flags.set(flag, value));
        Ok(())
    }

    /// The parts of shared files that `start..end` maps: file, first byte, bytes.
    fn shared_files(&self, start: u64, end: u64) -> Vec<(Arc<dyn Mappable>, u64, u64)> {
        self.tree
            .overlapping(start, end)
            .filter(|vma| vma.is_shared())
            .filter_map(|vma| vma.cut(vma.start.max(start), vma.end.min(end)).request())
            .map(|(file, request)| (file, request.offset, request.len))
            .collect()
    }
}
