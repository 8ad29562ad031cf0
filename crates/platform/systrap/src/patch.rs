//! Rewriting the call sites of programs, so that their calls need not enter the host.
//!
//! When a guest maps a file for execution, privately, it is given a copy of that piece of the file in which
//! each `syscall` that is recognised is a jump through a pointer (at [`POINTERS`]) to a *cell* of its own.
//! The cell posts the call to whoever spins ([`spin`](crate::spin)), and makes it otherwise. Nobody runs what is
//! being rewritten, nothing is rewritten twice: copies are kept by the file's identity.
//!
//! A site keeps its length, and whoever jumps into its middle (to the `syscall` after a `mov`, or behind it)
//! meets an instruction that faults: `06` is none in 64-bit mode, `e5` (`in`) is privileged. Such a fault is told
//! from the guest's own by its address and goes on in the cell. A cell finds back by the address the file is mapped
//! at, a word in each process, so the same file is rewritten only once in an address space.
//!
//! Deliberately absent: code that a guest writes itself, and files that guests wrote (their time of change does
//! not tell of all writes).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use abi::PAGE_SIZE;
use abi::mm::Prot;
use memmap::HostObject;
use parking_lot::{Mutex, RwLock};

use crate::filter::is_postable;
use crate::layout::{BASES, CELL, CELLS, FILES, POINTERS, SITES};
use crate::raw::stub;
use crate::raw::sys::{self, Identity};
use crate::raw::table::Table;

/// Longest piece of a file that is copied.
const MOST_BYTES: u64 = 16 << 20;
/// Bytes all copies may take.
const MOST_KEPT: u64 = 128 << 20;
/// Pieces of files that are remembered, with or without a copy.
const MOST_KNOWN: usize = 4096;

/// How a call site looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `mov $number, %eax; syscall`.
    Move,
    /// `mov $number, %rax; syscall`.
    LongMove,
    /// `syscall; cmp $-4095, %rax`, or -4096.
    Compare,
}

impl Form {
    /// Offset of the `syscall`.
    fn call(self) -> u64 {
        match self {
            Self::Move => 5,
            Self::LongMove => 7,
            Self::Compare => 0,
        }
    }

    /// Offset behind it.
    fn after(self) -> u64 {
        self.call() + 2
    }

    /// Offset of the `syscall` in a cell.
    fn cell_call(self) -> u64 {
        if self == Self::Compare { 12 } else { 17 }
    }

    /// Offset in the site at which a cell goes on.
    fn end(self) -> u64 {
        if self == Self::Compare { 8 } else { self.after() }
    }
}

/// A recognised site of a piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    at: usize,
    form: Form,
    /// The number moved, or the operand of the comparison.
    operand: u32,
}

/// A rewritten site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Which file.
    pub(crate) file: usize,
    /// Offset in the piece.
    at: u32,
    form: Form,
}

impl Site {
    /// Where it begins, when its file is mapped at `base`.
    pub(crate) fn begin(self, base: u64) -> u64 {
        base.wrapping_add(u64::from(self.at))
    }

    /// Where its call is, which may have been jumped to with another number.
    pub(crate) fn call(self, base: u64) -> u64 {
        self.begin(base).wrapping_add(self.form.call())
    }

    /// Where its call returns to.
    pub(crate) fn after(self, base: u64) -> u64 {
        self.begin(base).wrapping_add(self.form.after())
    }
}

/// A rewritten piece of a file.
#[derive(Debug)]
pub(crate) struct Copy {
    /// Its pages; sealed.
    pub(crate) object: OwnedFd,
    /// The number of the file.
    pub(crate) file: usize,
    /// Offsets of the sites, ascending, with their forms and numbers.
    sites: Vec<(u32, Form, usize)>,
}

impl Copy {
    /// Where to go on after a fault at `offset`, which is in the middle of a site.
    fn redirect(&self, offset: u64) -> Option<u64> {
        let next = self.sites.partition_point(|(at, ..)| u64::from(*at) <= offset);
        let (at, form, index) = *self.sites.get(next.checked_sub(1)?)?;
        let cell = CELLS + index as u64 * CELL + form.cell_call();
        match (form, offset - u64::from(at)) {
            (Form::Move, 5) | (Form::LongMove, 7) => Some(cell),
            (Form::Compare, 2) => Some(cell + 2),
            _ => None,
        }
    }
}

/// A rewritten piece of a file in an address space.
#[derive(Clone)]
pub(crate) struct Patched {
    /// First byte.
    pub(crate) base: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// What is there.
    pub(crate) copy: Arc<Copy>,
    /// What would be there otherwise.
    pub(crate) object: Arc<HostObject>,
    /// From which byte on.
    pub(crate) offset: u64,
    /// How it was mapped.
    pub(crate) prot: Prot,
}

impl Patched {
    /// See [`Copy`].
    pub(crate) fn redirect(&self, ip: u64) -> Option<u64> {
        let offset = ip.checked_sub(self.base).filter(|offset| *offset < self.len)?;
        self.copy.redirect(offset)
    }

    /// Whether the range has any of it.
    pub(crate) fn overlaps(&self, at: u64, len: u64) -> bool {
        at < self.base + self.len && self.base < at.saturating_add(len)
    }

    /// Whether the range has all of it.
    pub(crate) fn is_within(&self, at: u64, len: u64) -> bool {
        at <= self.base && self.base + self.len <= at.saturating_add(len)
    }
}

/// A piece of a file: what it is, and from where to where.
type Piece = (Identity, u64, u64);

#[derive(Default)]
struct Known {
    pieces: HashMap<Piece, Option<Arc<Copy>>>,
    kept: u64,
    files: usize,
}

/// All rewritten pieces of files.
pub(crate) struct Patches {
    table: Mutex<Table>,
    known: Mutex<Known>,
    sites: RwLock<Vec<Site>>,
}

impl Patches {
    /// None yet, with the cells that all guests map.
    pub(crate) fn new(table: Table) -> Self {
        Self { table: Mutex::new(table), known: Mutex::default(), sites: RwLock::default() }
    }

    /// The site whose cell has the instruction at guest address `ip`, and where that is to its call.
    pub(crate) fn site(&self, ip: u64) -> Option<(Site, Ordering)> {
        let at = ip.checked_sub(CELLS)?;
        let site = self.sites.read().get((at / CELL) as usize).copied()?;
        Some((site, (at % CELL).cmp(&site.form.cell_call())))
    }

    /// The site whose cell has its call at exactly `ip`.
    pub(crate) fn site_of_call(&self, ip: u64) -> Option<Site> {
        let (site, place) = self.site(ip)?;
        (place == Ordering::Equal).then_some(site)
    }

    /// A rewritten copy of `len` bytes of the file from `offset` on, if there is one or it pays to make one.
    pub(crate) fn copy(&self, object: &HostObject, offset: u64, len: u64) -> Option<Arc<Copy>> {
        if len > MOST_BYTES {
            return None;
        }
        let identity = sys::identity(object.as_fd().as_raw_fd())?;
        if !identity.is_settled() || offset.checked_add(len)? > identity.size.next_multiple_of(PAGE_SIZE) {
            return None;
        }
        let mut known = self.known.lock();
        let piece = (identity, offset, len);
        if let Some(copy) = known.pieces.get(&piece) {
            return copy.clone();
        }
        if known.pieces.len() >= MOST_KNOWN {
            return None;
        }
        let copy = self.make(&known, object, offset, len).map(Arc::new);
        if copy.is_some() {
            known.files += 1;
            known.kept += len;
        }
        known.pieces.insert(piece, copy.clone());
        copy
    }

    fn make(&self, known: &Known, object: &HostObject, offset: u64, len: u64) -> Option<Copy> {
        if known.files >= FILES || known.kept + len > MOST_KEPT {
            return None;
        }
        let mut code = vec![0; usize::try_from(len).ok()?];
        read(object, offset, &mut code)?;
        let found = find(&code);
        let file = known.files;
        let mut table = self.table.lock();
        let mut sites = self.sites.write();
        if found.is_empty() || sites.len() + found.len() > SITES {
            return None;
        }
        let mut made = Vec::with_capacity(found.len());
        let first = sites.len();
        for (i, found) in found.iter().enumerate() {
            let index = first + i;
            table.set_cell(index, &cell(index, file, found));
            rewrite(&mut code, index, found)?;
            made.push((found.at as u32, found.form, index));
        }
        let object = sys::sealed_copy(&code)?;
        sites.extend(made.iter().map(|(at, form, _)| Site { file, at: *at, form: *form }));
        Some(Copy { object, file, sites: made })
    }
}

fn read(object: &HostObject, offset: u64, code: &mut [u8]) -> Option<()> {
    let mut done = 0;
    while let Some(rest) = code.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = i64::try_from(offset + done as u64).ok()?;
        match nix::sys::uio::pread(object.as_fd(), rest, at) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(nix::Error::EINTR) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

/// Guest address of the word that says where a file is mapped.
pub(crate) fn base_word(file: usize) -> u64 {
    BASES + file as u64 * 8
}

/// The recognised sites in `code`, ascending.
fn find(code: &[u8]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut free = 0;
    for at in 0..code.len().saturating_sub(1) {
        if code.get(at..at + 2) != Some(&[0x0f, 0x05]) || at < free {
            continue;
        }
        let Some(site) = recognise(code, at).filter(|site| site.at >= free) else { continue };
        free = site.at + site.form.end() as usize;
        found.push(site);
    }
    found
}

fn recognise(code: &[u8], call: usize) -> Option<Found> {
    let word = |at: usize| code.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let back = |n: usize| call.checked_sub(n).and_then(|at| code.get(at)).copied();
    let moved = call.checked_sub(4).and_then(word).filter(|nr| *nr < 512);
    if let Some(operand) = moved {
        let postable = is_postable(u64::from(operand));
        if back(7) == Some(0x48) && back(6) == Some(0xc7) && back(5) == Some(0xc0) {
            return postable.then_some(Found { at: call - 7, form: Form::LongMove, operand });
        }
        if back(5) == Some(0xb8) && is_whole_move([back(6), back(7), back(8)]) {
            return postable.then_some(Found { at: call - 5, form: Form::Move, operand });
        }
    }
    let operand = word(call + 4)?;
    let compares = code.get(call + 2..call + 4) == Some(&[0x48, 0x3d]) && operand & !1 == 0xffff_f000;
    compares.then_some(Found { at: call, form: Form::Compare, operand })
}

/// Whether a `b8` behind these bytes, the nearest first, begins an instruction: not with a prefix that makes it
/// another, nor as the displacement of a store or comparison with an immediate operand.
fn is_whole_move([first, second, third]: [Option<u8>; 3]) -> bool {
    let prefix = first.is_some_and(|byte| (0x40..0x50).contains(&byte) || byte == 0x66);
    let with_immediate = |byte: Option<u8>| matches!(byte, Some(0x69 | 0x81 | 0xc7 | 0xf7));
    !prefix && !with_immediate(second) && !with_immediate(third)
}

/// Makes a site a jump through its pointer.
fn rewrite(code: &mut [u8], index: usize, found: &Found) -> Option<()> {
    let pointer = (POINTERS as u32 + index as u32 * 8).to_le_bytes();
    let site = code.get_mut(found.at..found.at + found.form.end() as usize)?;
    let (prefix, suffix): (&[u8], &[u8]) = match found.form {
        Form::Move => (&[], &[]),
        Form::LongMove => (&[0x2e, 0x2e], &[]),
        Form::Compare => (&[], &[0x90]),
    };
    let bytes = prefix.iter().chain(&[0xff, 0x24, 0xe5]).chain(&pointer).chain(suffix);
    for (to, from) in site.iter_mut().zip(bytes) {
        *to = *from;
    }
    Some(())
}

/// The cell of a site.
fn cell(index: usize, file: usize, found: &Found) -> [u8; CELL as usize] {
    let at = CELLS + index as u64 * CELL;
    let mut code: Vec<u8> = Vec::with_capacity(CELL as usize);
    // Distances to addresses from behind a field of four bytes that is about to be added.
    let distance =
        |code: &Vec<u8>, to: u64| (to.wrapping_sub(at + code.len() as u64 + 4) as u32).to_le_bytes();
    if found.form != Form::Compare {
        code.push(0xb8); // mov $number, %eax
        code.extend(found.operand.to_le_bytes());
    }
    code.extend([0x4c, 0x8d, 0x1d]); // lea call, %r11
    let to = distance(&code, at + found.form.cell_call());
    code.extend(to);
    code.push(0xe9); // jmp
    let to = distance(&code, stub::call_entry());
    code.extend(to);
    code.extend([0x0f, 0x05]); // syscall
    if found.form == Form::Compare {
        code.extend([0x48, 0x3d]); // cmp $operand, %rax
        code.extend(found.operand.to_le_bytes());
    }
    code.extend([0x4c, 0x8b, 0x1d]); // mov base, %r11
    let to = distance(&code, base_word(file));
    code.extend(to);
    code.extend([0x4d, 0x8d, 0x9b]); // lea end(%r11), %r11
    code.extend((found.at as u32 + found.form.end() as u32).to_le_bytes());
    code.extend([0x41, 0xff, 0xe3]); // jmp *%r11
    let mut whole = [0xcc; CELL as usize];
    for (to, from) in whole.iter_mut().zip(code) {
        *to = from;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::{Form, cell, find, rewrite};

    fn forms(code: &[u8]) -> Vec<(usize, Form)> {
        find(code).iter().map(|found| (found.at, found.form)).collect()
    }

    #[test]
    fn sites_are_recognised() {
        assert_eq!(forms(b"\x90\xb8\x27\0\0\0\x0f\x05\xc3"), [(1, Form::Move)]);
        assert_eq!(forms(b"\x90\x48\xc7\xc0\x27\0\0\0\x0f\x05\xc3"), [(1, Form::LongMove)]);
        assert_eq!(forms(b"\x90\x0f\x05\x48\x3d\x01\xf0\xff\xff\x90"), [(1, Form::Compare)]);
        let both = b"\xb8\0\0\0\0\x0f\x05\x48\x3d\0\xf0\xff\xff";
        assert_eq!(forms(both), [(0, Form::Move)]);
        assert_eq!(forms(&both.repeat(3)), [(0, Form::Move), (13, Form::Move), (26, Form::Move)]);
    }

    #[test]
    fn what_only_looks_like_a_site_is_left_alone() {
        // mov $8, %r8d; syscall
        assert_eq!(forms(b"\x41\xb8\x08\0\0\0\x0f\x05\xc3"), []);
        // movl $3, -0x48(%rax); syscall, and with (%rsp)
        assert_eq!(forms(b"\x90\xc7\x40\xb8\x03\0\0\0\x0f\x05"), []);
        assert_eq!(forms(b"\xc7\x44\x24\xb8\x03\0\0\0\x0f\x05"), []);
        // Calls that need all registers, or more of them than there are.
        assert_eq!(forms(b"\x90\xb8\x38\0\0\0\x0f\x05\xc3"), []);
        assert_eq!(forms(b"\x90\xb8\x38\x02\0\0\x0f\x05\xc3"), []);
        assert_eq!(forms(b"\x0f\x05\x48\x3d\x01\xf0\xff"), []);
        assert_eq!(forms(b"\x0f\x05\xc3"), []);
    }

    #[test]
    fn middles_of_sites_fault() {
        for index in [0, 1, 255, 8191] {
            let mut code = *b"\x48\xc7\xc0\x27\0\0\0\x0f\x05";
            let found = find(&code)[0];
            rewrite(&mut code, index, &found).expect("it fits");
            assert_eq!((code[7], code[8]), (0x06, 0));
            let mut code = *b"\x90\xb8\x27\0\0\0\x0f\x05";
            let found = find(&code)[0];
            rewrite(&mut code, index, &found).expect("it fits");
            assert_eq!((code[0], code[6], code[7]), (0x90, 0x06, 0));
            let mut code = *b"\x0f\x05\x48\x3d\x01\xf0\xff\xff";
            let found = find(&code)[0];
            rewrite(&mut code, index, &found).expect("it fits");
            assert_eq!((code[2], code[7]), (0xe5, 0x90));
        }
    }

    #[test]
    fn cells_have_their_call_where_it_is_said_to_be() {
        for code in [&b"\xb8\x27\0\0\0\x0f\x05"[..], b"\x0f\x05\x48\x3d\x01\xf0\xff\xff"] {
            let found = find(code)[0];
            let at = found.form.cell_call() as usize;
            assert_eq!(cell(7, 0, &found)[at..at + 2], [0x0f, 0x05]);
            assert_eq!(cell(7, 0, &found).last(), Some(&0xcc));
        }
    }
}
