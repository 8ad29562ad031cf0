//! Address spaces.
//!
//! Whoever changes one holds its lock, writes page-table entries, notes what others may do less with, and has the
//! arena settle that before it lets go: only then is memory given back or to somebody else. Nobody is interrupted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use abi::Errno;
use abi::mm::Prot;
use guestmem::{Fault, UserAddr, UserMem};
use hostproc::memory;
use memmap::Backing;
use parking_lot::Mutex;
use platform::space::MemoryUse;
use platform::{AddressSpace, Advice, MapError, MapOp, PlatformError};

use crate::Shared;
use crate::arena::{NoMemory, Notes};
use crate::fault::{Access, Bytes, Miss, rights};
use crate::layout::{MAX_ADDRESS, PAGE};
use crate::tables::{Entry, Tables};
use crate::tree::{Inherit, Mapping, Source, Tree};

/// What an address space is.
pub(crate) struct Inner {
    pub(crate) tree: Tree,
    /// `None` once it is over.
    pub(crate) tables: Option<Tables>,
    /// Pages that are there.
    resident: u64,
    /// Those of files.
    foreign: u64,
    peak: u64,
    /// Threads that run in it.
    threads: usize,
}

/// One guest address space.
pub(crate) struct Space {
    pub(crate) shared: Arc<Shared>,
    inner: Mutex<Inner>,
    /// Times of threads that have left.
    times: Mutex<(Duration, Duration)>,
}

impl From<NoMemory> for PlatformError {
    fn from(_: NoMemory) -> Self {
        Self::Exhausted("memory")
    }
}

impl Inner {
    /// Counts pages that come or go.
    pub(crate) fn count(&mut self, entry: Entry, by: i64) {
        self.resident = self.resident.saturating_add_signed(by);
        self.peak = self.peak.max(self.resident);
        if entry.frame_of().is_none() {
            self.foreign = self.foreign.saturating_add_signed(by);
        }
    }

    /// Takes the pages of a range away; the mappings stay.
    fn drop_pages(&mut self, from: u64, to: u64, notes: &mut Notes) {
        let Some(tables) = self.tables.take() else { return };
        let mut gone = Vec::new();
        tables.clear(from, to, notes, &mut |_, entry| gone.push(entry));
        self.tables = Some(tables);
        self.note(&gone, notes);
    }

    /// Notes pages that are gone.
    fn note(&mut self, gone: &[Entry], notes: &mut Notes) {
        for entry in gone {
            self.count(*entry, -1);
            match entry.frame_of() {
                Some(frame) => notes.dropped.push(frame),
                None => notes.foreign.push(entry.address()),
            }
        }
    }

    /// Takes the mappings of a range away. What the machine sees of them must be kept until the notes are settled.
    fn unmap(&mut self, from: u64, to: u64, notes: &mut Notes) -> Vec<(u64, Mapping)> {
        let removed = self.tree.remove(from, to);
        if !removed.is_empty() {
            self.drop_pages(from, to, notes);
        }
        removed
    }

    fn protect(
        &mut self,
        from: u64,
        to: u64,
        prot: Prot,
        notes: &mut Notes,
        shared: &Shared,
    ) -> Result<(), Errno> {
        if !self.tree.covers(from, to) {
            return Err(Errno::ENOMEM);
        }
        let pieces = self.tree.within(from, to);
        let allows = |(_, piece): &(u64, Mapping)| match &piece.source {
            Source::Shared(file, _) => file.allows(prot),
            Source::Given(_) => !prot.contains(Prot::WRITE),
            _ => true,
        };
        if !pieces.iter().all(allows) {
            return Err(Errno::EACCES);
        }
        self.tree.alter(from, to, |mapping| mapping.prot = prot);
        let Some(tables) = &self.tables else { return Err(Errno::ESRCH) };
        for (start, piece) in pieces {
            let piece = Mapping { prot, ..piece };
            tables.change(start, piece.end, &mut |_, entry| {
                let alone = entry.frame_of().is_none_or(|frame| shared.arena.count(frame) == 1);
                let new = entry.with(rights(&piece, alone));
                if entry.loses(new) {
                    match entry.frame_of() {
                        Some(frame) => notes.changed.push(frame),
                        None => notes.foreign.push(entry.address()),
                    }
                }
                new
            });
        }
        Ok(())
    }

    fn remap(
        &mut self,
        (from, from_len): (u64, u64),
        (to, to_len): (u64, u64),
        keep: bool,
        notes: &mut Notes,
    ) -> Result<Vec<(u64, Mapping)>, Errno> {
        if !self.tree.covers(from, from + from_len) {
            return Err(Errno::EFAULT);
        }
        let mut gone = Vec::new();
        let len = from_len.min(to_len);
        if to_len < from_len {
            gone.extend(self.unmap(from + to_len, from + from_len, notes));
        }
        if to != from {
            gone.extend(self.unmap(to, to + to_len, notes));
            gone.extend(self.shift(from, to, len, keep, notes)?);
        }
        if to_len > len {
            let end = to + len;
            let last = self.tree.at(end - PAGE).map(|(start, mapping)| {
                let source = Tree::source_at(start, mapping, end - PAGE);
                Mapping { source, end, ..mapping.clone() }
            });
            // One that begins a page before the end, whose continuation is wanted.
            let last = last.ok_or(Errno::EFAULT)?;
            gone.extend(self.unmap(end, to + to_len, notes));
            let probe = Mapping { end: to + to_len, ..last };
            let source = Tree::source_at(end - PAGE, &probe, end);
            self.tree.insert(end, Mapping { source, ..probe });
        }
        Ok(gone)
    }

    /// Moves mappings and their pages.
    fn shift(
        &mut self,
        from: u64,
        to: u64,
        len: u64,
        keep: bool,
        notes: &mut Notes,
    ) -> Result<Vec<(u64, Mapping)>, Errno> {
        let pieces = self.tree.within(from, from + len);
        let gone = if keep { Vec::new() } else { self.tree.remove(from, from + len) };
        for (start, piece) in pieces {
            self.tree.insert(start - from + to, Mapping { end: piece.end - from + to, ..piece });
        }
        let tables = self.tables.take().ok_or(Errno::ESRCH)?;
        let mut moved = Vec::new();
        tables.clear(from, from + len, notes, &mut |addr, entry| moved.push((addr, entry)));
        let mut result = Ok(gone);
        let mut lost = Vec::new();
        for (addr, entry) in moved {
            let Some(frame) = entry.frame_of() else {
                // It is asked for again.
                lost.push(entry);
                continue;
            };
            notes.changed.push(frame);
            if tables.set(addr - from + to, entry).is_err() {
                lost.push(entry);
                result = Err(Errno::ENOMEM);
            }
        }
        self.tables = Some(tables);
        self.note(&lost, notes);
        result
    }
}

impl Space {
    /// An empty one.
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<Arc<Self>, PlatformError> {
        let tables = Tables::new(&shared.arena, shared.system())?;
        Ok(Self::with(shared, Tree::default(), tables, (0, 0)))
    }

    fn with(shared: &Arc<Shared>, tree: Tree, tables: Tables, pages: (u64, u64)) -> Arc<Self> {
        let (resident, foreign) = pages;
        let inner = Inner { tree, tables: Some(tables), resident, foreign, peak: resident, threads: 0 };
        let space =
            Arc::new(Self { shared: Arc::clone(shared), inner: Mutex::new(inner), times: Mutex::default() });
        let mut spaces = shared.spaces.lock();
        spaces.retain(|_, space: &mut Weak<Self>| space.strong_count() > 0);
        spaces.insert(Arc::as_ptr(&space).addr(), Arc::downgrade(&space));
        drop(spaces);
        space
    }

    /// `CR3`; zero once it is over.
    pub(crate) fn root(&self) -> u64 {
        self.inner.lock().tables.as_ref().map_or(0, Tables::root)
    }

    /// A thread runs in it from now on.
    pub(crate) fn enter(&self) -> Result<(), PlatformError> {
        let mut inner = self.inner.lock();
        if inner.tables.is_none() {
            return Err(PlatformError::Gone);
        }
        inner.threads += 1;
        Ok(())
    }

    /// How many do.
    pub(crate) fn threads(&self) -> usize {
        self.inner.lock().threads
    }

    /// A thread does not any more; `last` says how long it ran and is not counted elsewhere from then on. With the last
    /// one it is over.
    pub(crate) fn leave(&self, last: impl FnOnce() -> (Duration, Duration)) {
        {
            let mut sum = self.times.lock();
            *sum = add(*sum, last());
        }
        let mut inner = self.inner.lock();
        inner.threads = inner.threads.saturating_sub(1);
        if inner.threads == 0 {
            self.end(&mut inner);
        }
    }

    fn end(&self, inner: &mut Inner) {
        let Some(tables) = inner.tables.take() else { return };
        let (mut notes, mut gone) = (Notes::default(), Vec::new());
        tables.drop_all(&mut notes, &mut |_, entry| gone.push(entry));
        inner.note(&gone, &mut notes);
        self.shared.arena.settle(notes);
        inner.tree = Tree::default();
    }

    /// Changes it, and settles what that leaves.
    fn changing<T>(&self, change: impl FnOnce(&mut Inner, &mut Notes) -> T) -> T {
        let mut inner = self.inner.lock();
        let mut notes = Notes::default();
        let result = change(&mut inner, &mut notes);
        self.shared.arena.settle(notes);
        result
    }

    /// Makes the page at `addr` one that can be touched so.
    pub(crate) fn touch(&self, addr: u64, access: Access) -> Result<(), Miss> {
        self.changing(|inner, notes| inner.touch(&self.shared.arena, addr, access, notes))
    }

    /// The same for a guest that came out because it cannot, with what it would come out for next.
    pub(crate) fn touched(&self, addr: u64, access: Access) -> Result<(), Miss> {
        let (arena, pages) = (&self.shared.arena, self.shared.machine.copies_an_exit);
        self.changing(|inner, notes| {
            inner.touch(arena, addr, access, notes)?;
            if access == Access::Write && pages > 1 {
                inner.own_around(arena, addr, pages, notes);
            }
            Ok(())
        })
    }

    /// Takes away pages of files that do not reach so far any more. Whether there were any.
    pub(crate) fn shrink(&self) -> bool {
        self.changing(|inner, notes| {
            let over = |(start, mapping): (u64, &Mapping)| match &mapping.source {
                Source::Shared(file, offset) => {
                    let mut pages = (start..mapping.end).step_by(PAGE as usize);
                    let first = pages.find(|page| !file.reaches(offset + (page - start)))?;
                    Some((first, mapping.end))
                }
                _ => None,
            };
            let ranges: Vec<_> = inner.tree.iter().filter_map(over).collect();
            let before = inner.resident;
            for (from, to) in ranges {
                inner.drop_pages(from, to, notes);
            }
            inner.resident != before
        })
    }

    /// A copy-on-write copy.
    pub(crate) fn fork(&self) -> Result<Arc<Self>, PlatformError> {
        let shared = &self.shared;
        let child = Tables::new(&shared.arena, shared.system())?;
        self.changing(|inner, notes| {
            let parent = inner.tables.as_ref().ok_or(PlatformError::Gone)?;
            let (mut tree, mut pages, mut full) = (Tree::default(), 0, false);
            for (start, mapping) in inner.tree.iter().filter(|(_, mapping)| !mapping.inherit.nothing) {
                tree.insert(start, mapping.clone());
                if !mapping.is_private() || mapping.inherit.zeros {
                    continue;
                }
                parent.change(start, mapping.end, &mut |addr, entry| {
                    let Some(frame) = entry.frame_of().filter(|_| !full) else { return entry };
                    if child.set(addr, entry.read_only()).is_err() {
                        full = true;
                        return entry;
                    }
                    shared.arena.share(frame);
                    pages += 1;
                    if entry.is_writable() {
                        notes.changed.push(frame);
                    }
                    entry.read_only()
                });
            }
            let space = Self::with(shared, tree, child, (pages, 0));
            // Dropped, it gives back what it has.
            if full { Err(NoMemory.into()) } else { Ok(space) }
        })
    }

    fn op(&self, op: &MapOp) -> Result<(), Errno> {
        let range = |addr: &UserAddr, len: &u64| {
            let end = addr.0.checked_add(*len).filter(|end| *end <= MAX_ADDRESS && addr.is_page_aligned());
            end.map(|end| (addr.0, end)).ok_or(Errno::ENOMEM)
        };
        match op {
            MapOp::Map { addr, len, prot, backing, shared, populate, .. } => {
                let source = self.source(backing, *shared, *prot)?;
                self.map(range(addr, len)?, *prot, source)?;
                if *populate {
                    let access = if prot.contains(Prot::WRITE) { Access::Write } else { Access::Read };
                    let _ = self.populate(range(addr, len)?, access);
                }
                Ok(())
            }
            MapOp::Unmap { addr, len } => {
                let (from, to) = range(addr, len)?;
                let gone = self.changing(|inner, notes| inner.unmap(from, to, notes));
                drop(gone);
                Ok(())
            }
            MapOp::Protect { addr, len, prot } => {
                let (from, to) = range(addr, len)?;
                self.changing(|inner, notes| inner.protect(from, to, *prot, notes, &self.shared))
            }
            MapOp::Remap { from, from_len, to, to_len, keep } => {
                range(from, from_len)?;
                range(to, to_len)?;
                let (from, to) = ((from.0, *from_len), (to.0, *to_len));
                self.changing(|inner, notes| inner.remap(from, to, *keep, notes)).map(drop)
            }
            MapOp::Advise { addr, len, advice } => self.advise(range(addr, len)?, *advice),
        }
    }

    fn source(&self, backing: &Backing, shared: bool, prot: Prot) -> Result<Source, Errno> {
        match backing {
            Backing::Anonymous => Ok(Source::Anonymous),
            Backing::Host { object, offset } if shared => {
                let file = self.shared.files.of(object)?;
                if file.allows(prot) { Ok(Source::Shared(file, *offset)) } else { Err(Errno::EACCES) }
            }
            Backing::Host { object, offset } => Ok(Source::Private(Arc::clone(object), *offset)),
        }
    }

    /// Maps, replacing what is there.
    pub(crate) fn map(&self, (from, to): (u64, u64), prot: Prot, source: Source) -> Result<(), Errno> {
        let gone = self.changing(|inner, notes| {
            if inner.tables.is_none() {
                return Err(Errno::ESRCH);
            }
            let gone = inner.unmap(from, to, notes);
            inner.tree.insert(from, Mapping { end: to, prot, source, inherit: Inherit::default() });
            Ok(gone)
        })?;
        drop(gone);
        Ok(())
    }

    fn populate(&self, (from, to): (u64, u64), access: Access) -> Result<(), Errno> {
        for page in (from..to).step_by(PAGE as usize) {
            self.touch(page, access)?;
        }
        Ok(())
    }

    fn advise(&self, (from, to): (u64, u64), advice: Advice) -> Result<(), Errno> {
        let inherit = |change: fn(&mut Inherit)| {
            self.changing(|inner, _| inner.tree.alter(from, to, |mapping| change(&mut mapping.inherit)));
            Ok(())
        };
        match advice {
            Advice::DontNeed | Advice::Free => {
                self.changing(|inner, notes| inner.drop_pages(from, to, notes));
                Ok(())
            }
            Advice::PopulateRead => self.populate((from, to), Access::Read),
            Advice::PopulateWrite => self.populate((from, to), Access::Write),
            Advice::DontFork => inherit(|inherit| inherit.nothing = true),
            Advice::DoFork => inherit(|inherit| inherit.nothing = false),
            Advice::WipeOnFork => inherit(|inherit| inherit.zeros = true),
            Advice::KeepOnFork => inherit(|inherit| inherit.zeros = false),
            Advice::WillNeed | Advice::HugePage | Advice::NoHugePage => Ok(()),
        }
    }

    /// Calls `copy` with the bytes of each page of a range: the page, where in it, and how many bytes are done and
    /// wanted.
    fn each_page(
        &self,
        addr: UserAddr,
        len: usize,
        access: Access,
        mut copy: impl FnMut(&Bytes, usize, std::ops::Range<usize>) -> Option<()>,
    ) -> Result<(), Fault> {
        let mut done = 0;
        while done < len {
            let fault = Fault { copied: done };
            let at = addr.0.checked_add(done as u64).filter(|at| *at < MAX_ADDRESS).ok_or(fault)?;
            let within = (at % PAGE) as usize;
            let wanted = (PAGE as usize - within).min(len - done);
            self.changing(|inner, notes| {
                inner.touch(&self.shared.arena, at, access, notes).ok()?;
                copy(&inner.bytes(at)?, within, done..done + wanted)
            })
            .ok_or(fault)?;
            done += wanted;
        }
        Ok(())
    }

    fn write_as(&self, addr: UserAddr, buf: &[u8], access: Access) -> Result<(), Fault> {
        self.each_page(addr, buf.len(), access, |bytes, from, part| {
            let buf = buf.get(part)?;
            match bytes {
                Bytes::Frame(frame) => self.shared.arena.write(*frame, from, buf),
                Bytes::Window(window, at) => {
                    let at = window.window.address() + (*at + from) as u64;
                    (memory::write(self.shared.pid, at, buf) == buf.len()).then_some(())
                }
                Bytes::Given(_) => None,
            }
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let mut inner = std::mem::replace(
            self.inner.get_mut(),
            Inner { tree: Tree::default(), tables: None, resident: 0, foreign: 0, peak: 0, threads: 0 },
        );
        self.end(&mut inner);
    }
}

impl UserMem for Space {
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
        self.each_page(addr, buf.len(), Access::Read, |bytes, from, part| {
            let buf = buf.get_mut(part)?;
            match bytes {
                Bytes::Frame(frame) => self.shared.arena.read(*frame, from, buf),
                Bytes::Window(window, at) => {
                    let at = window.window.address() + (*at + from) as u64;
                    (memory::read(self.shared.pid, at, buf) == buf.len()).then_some(())
                }
                Bytes::Given(gpa) => {
                    let at = self.shared.vdso.as_ref()?.address(*gpa)? + from as u64;
                    (memory::read(self.shared.pid, at, buf) == buf.len()).then_some(())
                }
            }
        })
    }

    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        self.write_as(addr, buf, Access::Write)
    }

    fn compare_exchange_u32(&self, addr: UserAddr, old: u32, new: u32) -> Result<u32, Fault> {
        let mut was = None;
        if !addr.0.is_multiple_of(4) {
            return Err(Fault { copied: 0 });
        }
        self.each_page(addr, 4, Access::Write, |bytes, from, _| {
            was = match bytes {
                Bytes::Frame(frame) => self.shared.arena.exchange(*frame, from, old, new),
                Bytes::Window(window, at) => {
                    // Brought in, or found to be gone, before it is touched.
                    let mut now = [0; 4];
                    let there = memory::read(
                        self.shared.pid,
                        window.window.address() + (*at + from) as u64,
                        &mut now,
                    );
                    (there == 4).then(|| window.window.exchange(*at + from, old, new)).flatten()
                }
                Bytes::Given(_) => None,
            };
            was.map(drop)
        })?;
        was.ok_or(Fault { copied: 0 })
    }
}

impl AddressSpace for Space {
    fn apply(&self, ops: &[MapOp]) -> Result<(), MapError> {
        for (index, op) in ops.iter().enumerate() {
            if self.inner.lock().tables.is_none() {
                return Err(MapError { index, errno: Errno::ESRCH });
            }
            self.op(op).map_err(|errno| MapError { index, errno })?;
        }
        Ok(())
    }

    fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        self.write_as(addr, buf, Access::Force).or_else(|_| self.write_as(addr, buf, Access::Write))
    }

    fn memory_use(&self) -> MemoryUse {
        let inner = self.inner.lock();
        MemoryUse {
            resident: inner.resident * PAGE,
            shared: inner.foreign * PAGE,
            peak_resident: inner.peak * PAGE,
        }
    }

    fn resident_pages(&self, addr: UserAddr, pages: usize) -> Result<Vec<bool>, Errno> {
        let end =
            (pages as u64).checked_mul(PAGE).and_then(|len| addr.0.checked_add(len)).ok_or(Errno::ENOMEM)?;
        let inner = self.inner.lock();
        let tables = inner.tables.as_ref().ok_or(Errno::ESRCH)?;
        if !inner.tree.covers(addr.0, end) {
            return Err(Errno::ENOMEM);
        }
        Ok((addr.0..end).step_by(PAGE as usize).map(|page| tables.entry(page).is_some()).collect())
    }

    fn map_vdso(&self, addr: UserAddr) -> Result<(UserAddr, u64), MapError> {
        let error = |errno| MapError { index: 0, errno };
        let vdso = self.shared.vdso.as_ref().ok_or(error(Errno::ENOSYS))?;
        vdso.map(self, addr).map_err(error)
    }

    fn futex_wake(&self, _: UserAddr, _: u32, _: u32) -> Result<u32, Errno> {
        // Nobody waits natively.
        Ok(0)
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        let left = self.times.lock();
        let tasks: Vec<_> = self.shared.tasks.lock().iter().flatten().filter_map(Weak::upgrade).collect();
        tasks.iter().filter_map(|task| task.times_in(self)).fold(*left, add)
    }
}

fn add(a: (Duration, Duration), b: (Duration, Duration)) -> (Duration, Duration) {
    (a.0 + b.0, a.1 + b.1)
}
