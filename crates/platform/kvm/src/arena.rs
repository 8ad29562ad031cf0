//! The arena: all anonymous memory of all guests, and their page tables, as frames of one memfd that is mapped here.
//!
//! A frame has a count of who maps it; a frame that nobody maps is a hole of the memfd, so that the host has its
//! memory back and whoever gets it next finds zeros. A frame that was a page table waits until the machine has
//! forgotten all tables (`slots`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pread;
use parking_lot::Mutex;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use crate::layout::{ARENA_GPA, PAGE};
use crate::raw::memory::{forget_in, populate};
use crate::slots::Slots;

/// Frames of a chunk, by which the arena grows.
const CHUNK: u32 = 16384;
/// Bytes of a chunk.
const CHUNK_BYTES: u64 = CHUNK as u64 * PAGE;
/// Fewest frames: what a machine takes to start.
const LEAST: u64 = 256;
/// Most chunks.
const MAX_CHUNKS: usize = 2048;
/// So many frames may wait until tables are forgotten.
const MAX_RETIRED: usize = 8192;

/// Number of a page of the arena.
pub(crate) type Frame = u32;

/// No frame is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory")]
pub(crate) struct NoMemory;

#[derive(Default)]
struct State {
    /// Runs of frames that nobody has: first and how many.
    free: BTreeMap<Frame, u32>,
    /// How many map each frame.
    refs: Vec<u32>,
    /// Frames that were page tables.
    retired: Vec<Frame>,
    /// Most frames.
    limit: usize,
}

/// See the module.
pub(crate) struct Arena {
    slots: Arc<Slots>,
    file: Arc<File>,
    chunks: Box<[OnceLock<MmapRegion>]>,
    state: Mutex<State>,
}

/// Machine address of a frame.
pub(crate) fn gpa(frame: Frame) -> u64 {
    ARENA_GPA + u64::from(frame) * PAGE
}

/// The frame at a machine address.
pub(crate) fn frame_at(gpa: u64) -> Option<Frame> {
    let frame = gpa.checked_sub(ARENA_GPA).map(|at| at / PAGE)?;
    (frame < u64::from(CHUNK) * MAX_CHUNKS as u64).then_some(frame as Frame)
}

impl Arena {
    /// One of at most `limit` bytes.
    pub(crate) fn new(slots: &Arc<Slots>, limit: u64) -> io::Result<Self> {
        let file = Arc::new(File::from(memfd_create("guests", MFdFlags::MFD_CLOEXEC)?));
        let limit = (limit / PAGE).clamp(LEAST, MAX_CHUNKS as u64 * u64::from(CHUNK));
        file.set_len(limit.next_multiple_of(u64::from(CHUNK)) * PAGE)?;
        let state = State { limit: limit as usize, ..State::default() };
        Ok(Self {
            slots: Arc::clone(slots),
            file,
            chunks: std::iter::repeat_with(OnceLock::new).take(MAX_CHUNKS).collect(),
            state: Mutex::new(state),
        })
    }

    /// At most `wanted` adjacent frames of zeros, each mapped once: the first, and how many.
    pub(crate) fn take(&self, wanted: u32) -> Result<(Frame, u32), NoMemory> {
        let mut state = self.state.lock();
        if state.free.is_empty() {
            self.grow(&mut state)?;
        }
        let fits = state.free.iter().find(|(_, len)| **len >= wanted).or(state.free.iter().next());
        let (first, len) = fits.map(|(first, len)| (*first, *len)).ok_or(NoMemory)?;
        let taken = len.min(wanted);
        state.free.remove(&first);
        if taken < len {
            state.free.insert(first + taken, len - taken);
        }
        for count in state.refs.iter_mut().skip(first as usize).take(taken as usize) {
            *count = 1;
        }
        drop(state);
        if taken > 1
            && let Some((region, at)) = self.place(first)
        {
            populate(region, at, (u64::from(taken) * PAGE) as usize);
        }
        Ok((first, taken))
    }

    /// One frame of zeros.
    pub(crate) fn take_one(&self) -> Result<Frame, NoMemory> {
        self.take(1).map(|(frame, _)| frame)
    }

    fn grow(&self, state: &mut State) -> Result<(), NoMemory> {
        let first = state.refs.len();
        let cell = self.chunks.get(first / CHUNK as usize).filter(|_| first < state.limit).ok_or(NoMemory)?;
        let len = CHUNK.min((state.limit - first) as u32);
        let at = first as u64 * PAGE;
        let file = FileOffset::from_arc(Arc::clone(&self.file), at);
        let region = MmapRegion::from_file(file, CHUNK_BYTES as usize);
        let region = region.map_err(|_| NoMemory)?;
        self.slots.add(&region, ARENA_GPA + at).map_err(|_| NoMemory)?;
        // The machine sees it from now on: it must stay.
        cell.get_or_init(|| region);
        state.refs.resize(first + len as usize, 0);
        state.free.insert(first as Frame, len);
        Ok(())
    }

    /// One more maps `frame`.
    pub(crate) fn share(&self, frame: Frame) {
        if let Some(count) = self.state.lock().refs.get_mut(frame as usize) {
            *count += 1;
        }
    }

    /// How many map `frame`.
    pub(crate) fn count(&self, frame: Frame) -> u32 {
        self.state.lock().refs.get(frame as usize).copied().unwrap_or(0)
    }

    /// Carries out what was noted.
    pub(crate) fn settle(&self, notes: Notes) {
        let mut unmapped = notes.dropped;
        unmapped.sort_unstable();
        let mut changed = notes.changed;
        let mut freed = Vec::new();
        {
            let mut state = self.state.lock();
            for frame in &unmapped {
                let Some(count) = state.refs.get_mut(*frame as usize) else { continue };
                *count = count.saturating_sub(1);
                if *count == 0 { freed.push(*frame) } else { changed.push(*frame) }
            }
        }
        changed.extend(notes.foreign.iter().copied().filter_map(frame_at));
        changed.sort_unstable();
        for (first, len) in runs(&changed) {
            if let Some((region, at)) = self.place(first) {
                forget_in(region, at, (u64::from(len) * PAGE) as usize);
            }
        }
        let mut rest = notes.foreign;
        rest.retain(|gpa| frame_at(*gpa).is_none());
        self.slots.forget_pages(rest);
        self.free(&freed);
        self.retire(notes.tables);
    }

    /// Gives frames back to the host, with which the machine forgets them, and lets others have them.
    fn free(&self, sorted: &[Frame]) {
        for (first, len) in runs(sorted) {
            let (at, bytes) = (i64::from(first) * PAGE as i64, i64::from(len) * PAGE as i64);
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            if let Err(error) = fallocate(&self.file, flags, at, bytes) {
                // Others must not see what was there. It stays nobody's.
                tracing::error!(%error, "memory cannot be given back");
                if let Some((region, at)) = self.place(first) {
                    forget_in(region, at, bytes as usize);
                }
                continue;
            }
            self.state.lock().release(first, len);
        }
    }

    fn retire(&self, tables: Vec<Frame>) {
        let mut state = self.state.lock();
        state.retired.extend(tables);
        if state.retired.len() < MAX_RETIRED {
            return;
        }
        let mut retired = std::mem::take(&mut state.retired);
        drop(state);
        if let Err(error) = self.slots.forget_tables() {
            tracing::error!(%error, "page tables cannot be forgotten");
            self.state.lock().retired.extend(retired);
            return;
        }
        retired.sort_unstable();
        self.free(&retired);
    }

    /// The mapping that a frame is in, and where in it.
    pub(crate) fn place(&self, frame: Frame) -> Option<(&MmapRegion, usize)> {
        let region = self.chunks.get((frame / CHUNK) as usize)?.get()?;
        Some((region, (frame % CHUNK) as usize * PAGE as usize))
    }

    /// Word `index` of a frame; zero where there is none.
    pub(crate) fn word(&self, frame: Frame, index: usize) -> u64 {
        self.atomic(frame, index).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Stores word `index` of a frame.
    pub(crate) fn set_word(&self, frame: Frame, index: usize, value: u64) {
        if let Some(word) = self.atomic(frame, index) {
            word.store(value, Ordering::SeqCst);
        }
    }

    fn atomic(&self, frame: Frame, index: usize) -> Option<&AtomicU64> {
        let (region, at) = self.place(frame)?;
        region.get_atomic_ref(at + (index & 511) * 8).ok()
    }

    /// Bytes of a frame.
    pub(crate) fn read(&self, frame: Frame, from: usize, bytes: &mut [u8]) -> Option<()> {
        let (region, at) = self.place(frame)?;
        region.get_slice(at + from, bytes.len()).ok()?.read_slice(bytes, 0).ok()
    }

    /// Replaces bytes of a frame.
    pub(crate) fn write(&self, frame: Frame, from: usize, bytes: &[u8]) -> Option<()> {
        let (region, at) = self.place(frame)?;
        region.get_slice(at + from, bytes.len()).ok()?.write_slice(bytes, 0).ok()
    }

    /// Replaces the word at `from` when it is `old`; what was there.
    pub(crate) fn exchange(&self, frame: Frame, from: usize, old: u32, new: u32) -> Option<u32> {
        let (region, at) = self.place(frame)?;
        let word = region.get_atomic_ref::<AtomicU32>(at + from).ok()?;
        let (Ok(was) | Err(was)) = word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        Some(was)
    }

    /// A copy of `frame`.
    pub(crate) fn copy(&self, frame: Frame) -> Result<Frame, NoMemory> {
        let copy = self.take_one()?;
        let mut bytes = [0; PAGE as usize];
        self.read(frame, 0, &mut bytes).ok_or(NoMemory)?;
        self.write(copy, 0, &bytes).ok_or(NoMemory)?;
        Ok(copy)
    }

    /// Fills frames from `first` on with a piece of a file; what is beyond its end stays zero. How many bytes.
    pub(crate) fn fill(
        &self,
        first: Frame,
        frames: u32,
        file: BorrowedFd<'_>,
        offset: u64,
    ) -> nix::Result<usize> {
        let mut buffer = vec![0; frames as usize * PAGE as usize];
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match pread(file, rest, offset.saturating_add(filled as u64) as i64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        for (frame, page) in (first..).zip(buffer.chunks(PAGE as usize)).take(filled.div_ceil(PAGE as usize))
        {
            self.write(frame, 0, page);
        }
        Ok(filled)
    }
}

impl State {
    /// Frames are nobody's; joins them with their neighbours.
    fn release(&mut self, mut first: Frame, mut len: u32) {
        for count in self.refs.iter_mut().skip(first as usize).take(len as usize) {
            *count = 0;
        }
        if let Some((before, n)) = self.free.range(..first).next_back().map(|(at, n)| (*at, *n))
            && before + n == first
        {
            self.free.remove(&before);
            (first, len) = (before, len + n);
        }
        if let Some(n) = self.free.remove(&(first + len)) {
            len += n;
        }
        self.free.insert(first, len);
    }
}

/// What is to be done once page tables have been changed: nothing of it may be done before.
#[derive(Default)]
pub(crate) struct Notes {
    /// Frames that one fewer maps.
    pub(crate) dropped: Vec<Frame>,
    /// Frames that somebody may do less with.
    pub(crate) changed: Vec<Frame>,
    /// Other pages that somebody may do less with, by machine address.
    pub(crate) foreign: Vec<u64>,
    /// Frames that are page tables no more.
    pub(crate) tables: Vec<Frame>,
}

/// Runs of adjacent numbers: first and how many.
fn runs(sorted: &[Frame]) -> impl Iterator<Item = (Frame, u32)> {
    let follows = |a: &Frame, b: &Frame| *a == *b || *a + 1 == *b;
    sorted.chunk_by(follows).filter_map(|run| Some((*run.first()?, run.last()? - run.first()? + 1)))
}

#[cfg(test)]
mod tests {
    use super::{State, runs};

    #[test]
    fn runs_are_found() {
        assert_eq!(runs(&[1, 2, 2, 3, 7, 9, 10]).collect::<Vec<_>>(), [(1, 3), (7, 1), (9, 2)]);
        assert_eq!(runs(&[]).count(), 0);
    }

    #[test]
    fn free_runs_join() {
        let mut state = State { refs: vec![1; 10], ..State::default() };
        for (first, len) in [(0, 2), (4, 2), (2, 2), (8, 1)] {
            state.release(first, len);
        }
        assert_eq!(state.free.into_iter().collect::<Vec<_>>(), [(0, 6), (8, 1)]);
        assert_eq!(state.refs, [0, 0, 0, 0, 0, 0, 1, 1, 0, 1]);
    }
}
