//! Demand: how a page that somebody wants to touch comes to be there.

use std::os::fd::AsFd;
use std::sync::Arc;

use abi::Errno;
use abi::mm::Prot;
use memmap::HostObject;

use crate::arena::{Arena, Frame, NoMemory, Notes};
use crate::layout::PAGE;
use crate::shared::SharedFile;
use crate::slots::{OpenWindow, WINDOW};
use crate::space::Inner;
use crate::tables::{Entry, Rights, Tables};
use crate::tree::{Mapping, Source, Tree};

/// Pages that are brought in together, aligned: an exit costs as much as all of them.
const AROUND: u64 = 16;

/// What somebody wants to do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Write it whatever the guest said, unless it is shared.
    Force,
    /// Run it.
    Exec,
}

/// Why that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// There is nothing.
    Unmapped,
    /// It may not be touched so.
    Denied,
    /// The file does not reach so far.
    NoFile,
    /// No memory is left.
    NoMemory,
}

impl From<NoMemory> for Miss {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl From<Miss> for Errno {
    fn from(miss: Miss) -> Self {
        if miss == Miss::NoMemory { Self::ENOMEM } else { Self::EFAULT }
    }
}

/// The bytes of a page, as we get at them.
pub(crate) enum Bytes {
    /// Of the arena.
    Frame(Frame),
    /// In a window, from this byte on.
    Window(Arc<OpenWindow>, usize),
    /// Of the host's vDSO, at this machine address.
    Given(u64),
}

/// What `prot` lets user code do with a page; a private one may be written by who alone has it.
pub(crate) fn rights(mapping: &Mapping, alone: bool) -> Rights {
    Rights {
        // The processor knows no right to write or run without one to read.
        read: !mapping.prot.is_empty(),
        write: mapping.prot.contains(Prot::WRITE) && (alone || !mapping.is_private()),
        exec: mapping.prot.contains(Prot::EXEC),
    }
}

fn allows(mapping: &Mapping, access: Access) -> bool {
    match access {
        Access::Read => !mapping.prot.is_empty(),
        Access::Write => mapping.prot.contains(Prot::WRITE),
        Access::Exec => mapping.prot.contains(Prot::EXEC),
        Access::Force => mapping.is_private(),
    }
}

impl Inner {
    /// Makes the page at `addr` one that can be touched so.
    pub(crate) fn touch(
        &mut self,
        arena: &Arena,
        addr: u64,
        access: Access,
        notes: &mut Notes,
    ) -> Result<(), Miss> {
        let page = addr & !(PAGE - 1);
        let (start, mapping) = self.tree.at(page).ok_or(Miss::Unmapped)?;
        if !allows(mapping, access) {
            return Err(Miss::Denied);
        }
        let tables = self.tables.as_ref().ok_or(Miss::Unmapped)?;
        let entry = tables.entry(page);
        let writes = matches!(access, Access::Write | Access::Force);
        if !entry.is_some() {
            let (start, mapping) = (start, mapping.clone());
            self.bring_in(arena, page, start, &mapping)?;
            return Ok(());
        }
        let Some(frame) = entry.frame_of() else { return Ok(()) };
        if writes {
            own(arena, tables, (page, entry), mapping, notes)?;
        } else if !entry.is_present() {
            tables.set(page, entry.with(rights(mapping, arena.count(frame) == 1)))?;
        }
        Ok(())
    }

    /// Makes pages around one that a guest has just written its space's alone too: `pages` of them, aligned, as far as
    /// they are there and may be written. After a fork a guest writes to many, and an exit costs as much as copies.
    pub(crate) fn own_around(&self, arena: &Arena, addr: u64, pages: u64, notes: &mut Notes) {
        let (Some(tables), Some((start, mapping))) = (&self.tables, self.tree.at(addr)) else { return };
        if !mapping.prot.contains(Prot::WRITE) || !mapping.is_private() {
            return;
        }
        let (from, to) = around(addr, pages, start, mapping.end);
        for page in (from..to).step_by(PAGE as usize) {
            let entry = tables.entry(page);
            let shared = entry.frame_of().is_some() && !entry.is_writable();
            // Those around are a kindness.
            if shared && own(arena, tables, (page, entry), mapping, notes).is_err() {
                return;
            }
        }
    }

    /// Brings in the page at `page`, and others around it.
    fn bring_in(&mut self, arena: &Arena, page: u64, start: u64, mapping: &Mapping) -> Result<(), Miss> {
        let rights = rights(mapping, true);
        match Tree::source_at(start, mapping, page) {
            Source::Anonymous => self.bring_zeros(arena, page, start, mapping),
            Source::Private(object, _) => self.bring_copy(arena, page, start, mapping, &object),
            Source::Shared(file, offset) => {
                if !file.reaches(offset) {
                    return Err(Miss::NoFile);
                }
                self.bring_window(&file, offset, page, (start, mapping.end), rights)
            }
            Source::Given(gpa) => self.put(page, Entry::foreign(gpa, Rights { write: false, ..rights })),
        }
    }

    /// Pages of a window: the one at `page`, `offset` in the file, and those around it that have nothing.
    fn bring_window(
        &mut self,
        file: &Arc<SharedFile>,
        offset: u64,
        page: u64,
        (start, end): (u64, u64),
        rights: Rights,
    ) -> Result<(), Miss> {
        let (window, at) = file.window(offset).map_err(|_| Miss::NoMemory)?;
        self.put(page, Entry::foreign(window.gpa + at as u64, rights))?;
        let (from, to) = around(page, AROUND, start, end);
        for other in (from..to).step_by(PAGE as usize) {
            let Some(offset) = (offset + other).checked_sub(page) else { continue };
            let Some(at) = (at as u64 + other).checked_sub(page).filter(|at| *at < WINDOW) else { continue };
            if self.empty_run(other, other + PAGE) > 0 && file.reaches(offset) {
                self.put(other, Entry::foreign(window.gpa + at, rights))?;
            }
        }
        Ok(())
    }

    /// Zeros for all pages around that have nothing.
    fn bring_zeros(&mut self, arena: &Arena, page: u64, start: u64, mapping: &Mapping) -> Result<(), Miss> {
        let (from, to) = around(page, AROUND, start, mapping.end);
        let mut at = from;
        while at < to {
            let empty = self.empty_run(at, to);
            if empty == 0 {
                at += PAGE;
                continue;
            }
            let taken = arena.take(empty);
            let (first, count) = match taken {
                Ok(taken) => taken,
                // Those around are a kindness.
                Err(NoMemory) if page < at => return Ok(()),
                Err(NoMemory) => return Err(Miss::NoMemory),
            };
            for frame in first..first + count {
                self.put(at, Entry::frame(frame, rights(mapping, true)))?;
                at += PAGE;
            }
        }
        Ok(())
    }

    /// A copy of the file's page and of those around that have nothing.
    fn bring_copy(
        &mut self,
        arena: &Arena,
        page: u64,
        start: u64,
        mapping: &Mapping,
        object: &HostObject,
    ) -> Result<(), Miss> {
        let (from, to) = around(page, AROUND, start, mapping.end);
        // The run of empty pages with this one in it.
        let mut first = page;
        while first > from && self.empty_run(first - PAGE, to) > 0 {
            first -= PAGE;
        }
        let wanted = self.empty_run(first, to);
        let (mut frame, mut count) = arena.take(wanted)?;
        if first + u64::from(count) * PAGE <= page {
            // Too few in a row.
            arena.settle(Notes { dropped: (frame..frame + count).collect(), ..Notes::default() });
            (first, frame, count) = (page, arena.take_one()?, 1);
        }
        let Source::Private(_, offset) = Tree::source_at(start, mapping, first) else {
            return Err(Miss::NoFile);
        };
        let filled = arena.fill(frame, count, object.as_fd(), offset).unwrap_or(0);
        let there = filled.div_ceil(PAGE as usize) as u32;
        for (number, frame) in (frame..frame + count).take(there as usize).enumerate() {
            self.put(first + number as u64 * PAGE, Entry::frame(frame, rights(mapping, true)))?;
        }
        arena.settle(Notes { dropped: (frame + there..frame + count).collect(), ..Notes::default() });
        if page < first + u64::from(there) * PAGE { Ok(()) } else { Err(Miss::NoFile) }
    }

    /// How many pages from `at` on, before `to`, have nothing.
    fn empty_run(&self, at: u64, to: u64) -> u32 {
        let pages = (at..to).step_by(PAGE as usize);
        let Some(tables) = &self.tables else { return 0 };
        pages.take_while(|page| !tables.entry(*page).is_some()).count() as u32
    }

    /// Puts a page where there is none.
    fn put(&mut self, page: u64, entry: Entry) -> Result<(), Miss> {
        self.tables.as_ref().ok_or(Miss::Unmapped)?.set(page, entry)?;
        self.count(entry, 1);
        Ok(())
    }

    /// The bytes of a page that has been touched.
    pub(crate) fn bytes(&self, addr: u64) -> Option<Bytes> {
        let page = addr & !(PAGE - 1);
        let entry = self.tables.as_ref()?.entry(page);
        if let Some(frame) = entry.frame_of() {
            return Some(Bytes::Frame(frame));
        }
        let (start, mapping) = self.tree.at(page)?;
        match Tree::source_at(start, mapping, page) {
            Source::Shared(file, offset) => {
                let (window, at) = SharedFile::window(&file, offset).ok()?;
                Some(Bytes::Window(window, at))
            }
            Source::Given(gpa) => Some(Bytes::Given(gpa)),
            _ => None,
        }
    }
}

/// Makes a page writable, as a copy when others have it too.
fn own(
    arena: &Arena,
    tables: &Tables,
    (page, entry): (u64, Entry),
    mapping: &Mapping,
    notes: &mut Notes,
) -> Result<(), NoMemory> {
    let Some(frame) = entry.frame_of() else { return Ok(()) };
    if arena.count(frame) == 1 {
        return tables.set(page, entry.with(rights(mapping, true)));
    }
    let copy = arena.copy(frame)?;
    tables.set(page, Entry::frame(copy, rights(mapping, true)))?;
    notes.dropped.push(frame);
    Ok(())
}

/// So many pages around an address, aligned, within a mapping.
fn around(addr: u64, pages: u64, start: u64, end: u64) -> (u64, u64) {
    let from = addr & !(pages * PAGE - 1);
    (from.max(start), (from + pages * PAGE).min(end))
}
