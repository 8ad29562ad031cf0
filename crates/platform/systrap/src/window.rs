//! What travels with a posted call, as the Sentry sees it: guest memory that is at hand.
//!
//! While a thread serves a posted call, reads of what the stub has brought along are answered from the slot, and
//! writes to where it has said that it will carry something are left there. All else goes to the guest's memory, in
//! the order in which it was asked: what is left in the slot goes first where the two would meet. The stub's word
//! for where things are is the guest's own: a lie changes what it finds in its memory, and nothing else.

use std::cell::Cell;

use guestmem::UserAddr;
use hostproc::memory;

use crate::layout::{MAX_ADDRESS, OFF_GIVE, OFF_GIVEN, OFF_GIVING, OFF_TAKEN, OFF_TAKING, WINDOW};
use crate::marshal;
use crate::raw::mailbox::Mailbox;
use crate::space::Space;

/// Reads and writes that were answered by a window.
#[cfg(test)]
pub(crate) static HITS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[cfg(test)]
fn hit() {
    HITS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(not(test))]
fn hit() {}

thread_local! {
    /// Those of the call that this OS thread serves.
    static OPEN: Cell<Option<Open>> = const { Cell::new(None) };
}

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Piece {
    addr: u64,
    len: u64,
}

impl Piece {
    /// One that fits a window and lies where guests' memory does, or an empty one.
    fn checked(addr: u64, len: u64) -> Self {
        let good = len <= WINDOW && addr.checked_add(len).is_some_and(|end| end <= MAX_ADDRESS);
        if good { Self { addr, len } } else { Self::default() }
    }

    fn end(self) -> u64 {
        self.addr + self.len
    }

    fn has(self, addr: u64, len: usize) -> bool {
        len > 0 && addr >= self.addr && addr.checked_add(len as u64).is_some_and(|end| end <= self.end())
    }

    fn meets(self, addr: u64, len: usize) -> bool {
        self.len > 0 && len > 0 && addr < self.end() && self.addr < addr.saturating_add(len as u64)
    }
}

/// What a posted call has brought along, and where it takes something to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Windows {
    taken: Piece,
    given: Piece,
}

impl Windows {
    /// As the slot says, for a call with which anything travels.
    pub(crate) fn of(mailbox: &Mailbox, slot: usize, nr: u64) -> Self {
        if marshal::TABLE.get(nr as usize).is_none_or(|travels| *travels == 0) {
            return Self::default();
        }
        let piece = |at| Piece::checked(mailbox.get(slot, at), mailbox.get(slot, at + 8));
        Self { taken: piece(OFF_TAKING), given: piece(OFF_GIVING) }
    }
}

/// Windows of a space.
#[derive(Clone, Copy)]
struct Open {
    space: *const Space,
    slot: usize,
    windows: Windows,
    /// What has been left in the window; within what can be given.
    left: Piece,
}

/// Calls `serve` with `windows` open.
pub(crate) fn with(space: &Space, slot: usize, windows: Windows, serve: impl FnOnce()) {
    OPEN.set(Some(Open { space, slot, windows, left: Piece::default() }));
    serve();
    OPEN.set(None);
}

fn open(space: &Space) -> Option<Open> {
    OPEN.get().filter(|open| std::ptr::eq(open.space, space))
}

/// Reads what is at hand of `addr`; how much: all of `buf`, or less when `part` will do.
pub(crate) fn read(space: &Space, addr: UserAddr, buf: &mut [u8], part: bool) -> Option<usize> {
    let open = open(space)?;
    let addr = addr.0;
    if open.left.meets(addr, buf.len()) {
        carry(space);
        return None;
    }
    let taken = open.windows.taken;
    let len =
        if part && taken.has(addr, 1) { buf.len().min((taken.end() - addr) as usize) } else { buf.len() };
    if !taken.has(addr, len) {
        return None;
    }
    hit();
    space.mailbox.read(open.slot, OFF_TAKEN + (addr - taken.addr) as usize, buf.get_mut(..len)?);
    Some(len)
}

/// Leaves `buf` for the stub to carry to `addr`. Whether it does.
pub(crate) fn write(space: &Space, addr: UserAddr, buf: &[u8]) -> bool {
    let Some(mut open) = open(space) else { return false };
    let (addr, len) = (addr.0, buf.len());
    if open.windows.taken.meets(addr, len) {
        open.windows.taken = Piece::default();
    }
    OPEN.set(Some(open));
    let given = open.windows.given;
    let (left, end) = (open.left, addr.saturating_add(len as u64));
    let joins = left.len == 0 || (addr <= left.end() && left.addr <= end);
    if !given.has(addr, len) || !joins {
        if left.meets(addr, len) {
            carry(space);
        }
        return false;
    }
    hit();
    space.mailbox.write(open.slot, OFF_GIVEN + (addr - given.addr) as usize, buf);
    let (from, to) = if left.len == 0 { (addr, end) } else { (addr.min(left.addr), end.max(left.end())) };
    open.left = Piece { addr: from, len: to - from };
    OPEN.set(Some(open));
    true
}

/// Somebody is about to change `len` bytes at `addr` otherwise.
pub(crate) fn give_way(space: &Space, addr: UserAddr, len: usize) {
    let Some(mut open) = open(space) else { return };
    if open.windows.taken.meets(addr.0, len) {
        open.windows.taken = Piece::default();
        OPEN.set(Some(open));
    }
    if open.left.meets(addr.0, len) {
        carry(space);
    }
}

/// Takes what is left to guest memory; whether that could be done.
pub(crate) fn carry(space: &Space) -> bool {
    let Some(mut open) = open(space).filter(|open| open.left.len > 0) else { return true };
    let left = std::mem::take(&mut open.left);
    let from = left.addr - open.windows.given.addr;
    OPEN.set(Some(open));
    store(space, open.slot, left, from)
}

fn store(space: &Space, slot: usize, to: Piece, from: u64) -> bool {
    let mut bytes = vec![0; to.len as usize];
    space.mailbox.read(slot, OFF_GIVEN + from as usize, &mut bytes);
    memory::store(space.pid(), UserAddr(to.addr), &bytes).is_ok()
}

/// Tells the stub of `slot` what is left for it, if it is its call that is served here.
pub(crate) fn hand_out(space: &Space, slot: usize) {
    let Some(mut open) = open(space).filter(|open| open.slot == slot && open.left.len > 0) else { return };
    let left = std::mem::take(&mut open.left);
    OPEN.set(Some(open));
    space.mailbox.set(slot, OFF_GIVE, left.addr - open.windows.given.addr);
    space.mailbox.set(slot, OFF_GIVE + 8, left.len);
}

/// Does for the stub of `slot` what it was told and has not done; whether that could be done.
pub(crate) fn carry_told(space: &Space, slot: usize) -> bool {
    let word = |at| space.mailbox.get(slot, at);
    let (from, len) = (word(OFF_GIVE), word(OFF_GIVE + 8));
    space.mailbox.set(slot, OFF_GIVE + 8, 0);
    let given = Piece::checked(word(OFF_GIVING), word(OFF_GIVING + 8));
    let Some(addr) = given.addr.checked_add(from).filter(|_| len > 0) else { return len == 0 };
    if !given.has(addr, usize::try_from(len).unwrap_or(usize::MAX)) {
        return false;
    }
    store(space, slot, Piece { addr, len }, from)
}
