//! Page tables of one address space: four levels, built here and read by the processor (SDM volume 3, 4.5).
//!
//! An entry of the last level also keeps what we know of a page: whether it is a frame of the arena, and that also
//! while nobody may touch it, when it is not *present*. Accessed and dirty bits are always set, so that neither the
//! processor nor the host ever writes to a table.

use std::sync::Arc;

use crate::arena::{Arena, Frame, NoMemory, Notes, frame_at, gpa};
use crate::layout::{PAGE, SYSTEM};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Accessed and dirty.
const USED: u64 = 1 << 5 | 1 << 6;
/// Ours: the entry holds a frame of the arena, counted.
const FRAME: u64 = 1 << 9;
const NO_EXEC: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const TABLE: u64 = PRESENT | WRITABLE | USER | USED;

/// An entry of the last level. Zero is *nothing here*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64);

/// What user code may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// Anything at all.
    pub(crate) read: bool,
    /// Write it.
    pub(crate) write: bool,
    /// Run it.
    pub(crate) exec: bool,
}

impl Entry {
    /// A frame of the arena.
    pub(crate) fn frame(frame: Frame, rights: Rights) -> Self {
        Self(gpa(frame) | FRAME).with(rights)
    }

    /// Memory that is not counted here.
    pub(crate) fn foreign(gpa: u64, rights: Rights) -> Self {
        Self(gpa).with(rights)
    }

    /// A page of the system window: user code has `user`, or nothing.
    fn system(frame: Frame, user: Option<Rights>) -> Self {
        user.map_or(Self(gpa(frame) | PRESENT | WRITABLE | USED), |rights| Self(gpa(frame)).with(rights))
    }

    /// The same page with other rights.
    pub(crate) fn with(self, rights: Rights) -> Self {
        let mut entry = self.0 & (ADDRESS | FRAME) | USER | USED;
        entry |= if rights.read { PRESENT } else { 0 };
        entry |= if rights.write { WRITABLE } else { 0 };
        entry |= if rights.exec { 0 } else { NO_EXEC };
        Self(entry)
    }

    /// The same page, not to be written.
    pub(crate) fn read_only(self) -> Self {
        Self(self.0 & !WRITABLE)
    }

    /// Whether there is a page.
    pub(crate) fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Whether user code may touch it.
    pub(crate) fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether user code may write it.
    pub(crate) fn is_writable(self) -> bool {
        self.0 & (PRESENT | WRITABLE) == PRESENT | WRITABLE
    }

    /// The frame, when it is one of the arena's.
    pub(crate) fn frame_of(self) -> Option<Frame> {
        (self.0 & FRAME != 0).then(|| frame_at(self.0 & ADDRESS)).flatten()
    }

    /// Its machine address.
    pub(crate) fn address(self) -> u64 {
        self.0 & ADDRESS
    }

    /// Whether somebody who had this one may do less with `other`.
    pub(crate) fn loses(self, other: Self) -> bool {
        let weaker = |bit| self.0 & bit != 0 && other.0 & bit == 0;
        self.is_present()
            && (weaker(PRESENT)
                || weaker(WRITABLE)
                || (self.0 & NO_EXEC == 0 && other.0 & NO_EXEC != 0)
                || (self.0 ^ other.0) & ADDRESS != 0)
    }
}

/// What maps the system window, the same for all spaces.
pub(crate) struct SystemTables {
    arena: Arc<Arena>,
    directory: Frame,
}

impl SystemTables {
    /// An empty one.
    pub(crate) fn new(arena: &Arc<Arena>) -> Result<Self, NoMemory> {
        Ok(Self { directory: arena.take_one()?, arena: Arc::clone(arena) })
    }

    fn place(&self, addr: u64) -> Result<(Frame, usize), NoMemory> {
        let index = (addr >> 21) as usize & 511;
        let mut table = self.arena.word(self.directory, index);
        if table == 0 {
            table = gpa(self.arena.take_one()?) | TABLE;
            self.arena.set_word(self.directory, index, table);
        }
        Ok((frame_at(table & ADDRESS).ok_or(NoMemory)?, (addr >> 12) as usize & 511))
    }

    /// Maps a page that user code has no rights to, or the gate, which it has `user` to.
    pub(crate) fn map(&self, addr: u64, frame: Frame, user: Option<Rights>) -> Result<(), NoMemory> {
        let (table, index) = self.place(addr)?;
        self.arena.set_word(table, index, Entry::system(frame, user).0);
        Ok(())
    }

    /// Maps memory that is none of the arena's.
    pub(crate) fn map_foreign(&self, addr: u64, gpa: u64, user: Rights) -> Result<(), NoMemory> {
        let (table, index) = self.place(addr)?;
        self.arena.set_word(table, index, Entry::foreign(gpa, user).0);
        Ok(())
    }
}

/// See the module.
pub(crate) struct Tables {
    arena: Arc<Arena>,
    root: Frame,
}

/// What [`Tables::change`] makes of a page: the address and the entry in, the new entry out.
pub(crate) type Change<'a> = &'a mut dyn FnMut(u64, Entry) -> Entry;

/// Bits of an address below an entry of level `level`.
const fn shift(level: u32) -> u32 {
    12 + 9 * level
}

impl Tables {
    /// Empty ones but for the system window.
    pub(crate) fn new(arena: &Arc<Arena>, system: &SystemTables) -> Result<Self, NoMemory> {
        let tables = Self { root: arena.take_one()?, arena: Arc::clone(arena) };
        let table = tables.arena.take_one()?;
        tables.arena.set_word(tables.root, index(SYSTEM, 3), gpa(table) | TABLE);
        tables.arena.set_word(table, index(SYSTEM, 2), gpa(system.directory) | TABLE);
        Ok(tables)
    }

    /// `CR3`.
    pub(crate) fn root(&self) -> u64 {
        gpa(self.root)
    }

    fn below(&self, table: Frame, index: usize) -> Option<Frame> {
        let entry = self.arena.word(table, index);
        (entry != 0).then(|| frame_at(entry & ADDRESS)).flatten()
    }

    /// What is at `addr`.
    pub(crate) fn entry(&self, addr: u64) -> Entry {
        let mut table = self.root;
        for level in [3, 2, 1] {
            match self.below(table, index(addr, level)) {
                Some(next) => table = next,
                None => return Entry::default(),
            }
        }
        Entry(self.arena.word(table, index(addr, 0)))
    }

    /// Replaces what is at `addr`.
    pub(crate) fn set(&self, addr: u64, entry: Entry) -> Result<(), NoMemory> {
        let mut table = self.root;
        for level in [3, 2, 1] {
            let at = index(addr, level);
            table = match self.below(table, at) {
                Some(next) => next,
                None => {
                    let next = self.arena.take_one()?;
                    self.arena.set_word(table, at, gpa(next) | TABLE);
                    next
                }
            };
        }
        self.arena.set_word(table, index(addr, 0), entry.0);
        Ok(())
    }

    /// Changes what there is from `from` to `to`, below the system window.
    pub(crate) fn change(&self, from: u64, to: u64, change: Change<'_>) {
        self.walk(self.root, 3, 0, (from, to.min(SYSTEM)), change, None);
    }

    /// Clears what there is from `from` to `to`, after `last` has seen it, and tables that get empty with it.
    pub(crate) fn clear(&self, from: u64, to: u64, notes: &mut Notes, last: &mut dyn FnMut(u64, Entry)) {
        let mut change = |addr, entry| {
            last(addr, entry);
            Entry::default()
        };
        self.walk(self.root, 3, 0, (from, to.min(SYSTEM)), &mut change, Some(notes));
    }

    fn walk(
        &self,
        table: Frame,
        level: u32,
        base: u64,
        range: (u64, u64),
        change: Change<'_>,
        mut notes: Option<&mut Notes>,
    ) {
        let size = 1u64 << shift(level);
        let (from, to) = (range.0.max(base), range.1.min(base.saturating_add(size * 512)));
        if from >= to {
            return;
        }
        for at in index(from, level)..=index(to - 1, level) {
            let addr = base + at as u64 * size;
            let word = self.arena.word(table, at);
            if word == 0 {
                continue;
            }
            if level == 0 {
                let new = change(addr, Entry(word)).0;
                if new != word {
                    self.arena.set_word(table, at, new);
                }
                continue;
            }
            let Some(below) = frame_at(word & ADDRESS) else { continue };
            self.walk(below, level - 1, addr, range, &mut *change, notes.as_deref_mut());
            if let Some(notes) = notes.as_deref_mut()
                && range.0 <= addr
                && addr + size <= range.1
            {
                self.arena.set_word(table, at, 0);
                notes.tables.push(below);
            }
        }
    }

    /// Everything goes: what is mapped, after `last` has seen it, and the tables.
    pub(crate) fn drop_all(&self, notes: &mut Notes, last: &mut dyn FnMut(u64, Entry)) {
        self.clear(0, SYSTEM, notes, last);
        let system = self.below(self.root, index(SYSTEM, 3));
        notes.tables.extend(system);
        notes.tables.push(self.root);
    }
}

/// Which entry of a table of `level` an address is in.
const fn index(addr: u64, level: u32) -> usize {
    (addr >> shift(level)) as usize & 511
}

const _: () = assert!(SYSTEM.is_multiple_of(1 << 30) && PAGE == 1 << shift(0));

#[cfg(test)]
mod tests {
    use super::{Entry, Rights, index};

    const ALL: Rights = Rights { read: true, write: true, exec: true };

    #[test]
    fn indices_are_of_nine_bits() {
        assert_eq!([3, 2, 1, 0].map(|level| index(0x7fff_0000_5000, level)), [255, 508, 0, 5]);
    }

    #[test]
    fn entries_keep_frames_without_rights() {
        let none = Rights { read: false, write: false, exec: false };
        let entry = Entry::frame(7, none);
        assert!(entry.is_some() && !entry.is_present() && !entry.is_writable());
        assert_eq!((entry.frame_of(), entry.with(ALL).frame_of()), (Some(7), Some(7)));
        assert_eq!(Entry::foreign(0x5000, ALL).frame_of(), None);
    }

    #[test]
    fn losses_are_seen() {
        let all = Entry::frame(7, ALL);
        assert!(all.loses(all.read_only()) && all.loses(Entry::default()) && all.loses(Entry::frame(8, ALL)));
        assert!(all.loses(all.with(Rights { exec: false, ..ALL })));
        assert!(!all.read_only().loses(all) && !Entry::default().loses(all) && !all.loses(all));
    }
}
