//! The bytes of one regular file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use abi::{Errno, PAGE_SIZE};
use vfs::Result;

use crate::{MemoryProvider, SharedMemory, TmpFs};

/// Pages a file keeps on the heap; a larger one moves to a host object. The heap is faster, and a host object
/// takes descriptors, of which there are fewer than a guest has files.
const HEAP_PAGES: u64 = 1024;
/// Largest file, in bytes.
pub const MAX_SIZE: u64 = i64::MAX as u64;

type Page = Box<[u8; PAGE_SIZE as usize]>;

enum Store {
    /// Pages that have been written; others are holes.
    Heap(BTreeMap<u64, Page>),
    /// A host object, and which of its pages were written through here.
    Shared(Arc<dyn SharedMemory>, BTreeSet<u64>),
}

/// The pieces of `len` bytes at `offset`, cut at pages: page, start in it, range of the bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = (at % PAGE_SIZE) as usize;
        let end = len.min(done + PAGE_SIZE as usize - start);
        let piece = (done < end).then_some((at / PAGE_SIZE, start, done..end));
        done = end;
        piece
    })
}

/// Zeroes `from..to`, which are in one page.
fn zero(pages: &mut BTreeMap<u64, Page>, from: u64, to: u64) {
    let start = (from % PAGE_SIZE) as usize;
    let end = start + (to - from) as usize;
    if let Some(bytes) = pages.get_mut(&(from / PAGE_SIZE)).and_then(|page| page.get_mut(start..end)) {
        bytes.fill(0);
    }
}

/// Pages written to a host object in one go.
const RUN: usize = 32;

/// Writes pages to a host object, neighbours together.
fn move_pages(pages: &BTreeMap<u64, Page>, memory: &dyn SharedMemory) -> Result<()> {
    let mut run: Vec<u8> = Vec::new();
    let mut start = 0;
    for (page, bytes) in pages {
        let end = start + run.len() as u64;
        if end != page * PAGE_SIZE || run.len() == RUN * PAGE_SIZE as usize {
            memory.write_at(start, &run)?;
            run.clear();
            start = page * PAGE_SIZE;
        }
        run.extend_from_slice(&bytes[..]);
    }
    memory.write_at(start, &run)
}

/// Size and contents. Under its inode's lock; never copies to or from a guest.
pub struct Data {
    size: u64,
    store: Store,
    /// May a mapping have written where nothing was written through here? Then nothing is known to be a hole.
    mapped: bool,
}

impl Default for Data {
    fn default() -> Self {
        Self { size: 0, store: Store::Heap(BTreeMap::new()), mapped: false }
    }
}

impl Data {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Pages charged to the file system.
    pub fn pages(&self) -> u64 {
        match &self.store {
            Store::Heap(pages) => pages.len() as u64,
            Store::Shared(_, pages) => pages.len() as u64,
        }
    }

    fn has(&self, page: u64) -> bool {
        match &self.store {
            Store::Heap(pages) => pages.contains_key(&page),
            Store::Shared(_, pages) => pages.contains(&page),
        }
    }

    /// Fills the start of `buf` with what lies at `offset`, up to the end of the file; 0 there.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let left = self.size.saturating_sub(offset);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let out = buf.get_mut(..n).ok_or(Errno::EIO)?;
        match &self.store {
            Store::Heap(pages) => {
                for (page, at, range) in pieces(offset, n) {
                    let to = out.get_mut(range).ok_or(Errno::EIO)?;
                    match pages.get(&page).and_then(|page| page.get(at..at + to.len())) {
                        Some(bytes) => to.copy_from_slice(bytes),
                        None => to.fill(0),
                    }
                }
            }
            // Through the object even where nothing was written here: a mapping may have.
            Store::Shared(memory, _) => memory.read_at(offset, out)?,
        }
        Ok(n)
    }

    /// Writes `bytes` at `offset`, or as many of them as there is room for.
    pub fn write(&mut self, fs: &TmpFs, offset: u64, bytes: &[u8]) -> Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let room = usize::try_from(MAX_SIZE.saturating_sub(offset)).unwrap_or(usize::MAX);
        if room == 0 {
            return Err(Errno::EFBIG);
        }
        let bytes = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        let (mut charged, mut fits) = (Vec::new(), 0);
        for (page, _, range) in pieces(offset, bytes.len()) {
            if !self.has(page) {
                match fs.charge_pages(1) {
                    Ok(()) => charged.push(page),
                    Err(error) if fits == 0 => return Err(error),
                    Err(_) => break,
                }
            }
            fits = range.end;
        }
        let written = self.put(&*fs.memory, offset, bytes.get(..fits).ok_or(Errno::EIO)?);
        fs.uncharge_pages(charged.iter().filter(|page| !self.has(**page)).count() as u64);
        written?;
        self.size = self.size.max(offset + fits as u64);
        Ok(fits)
    }

    fn put(&mut self, memory: &dyn MemoryProvider, offset: u64, bytes: &[u8]) -> Result<()> {
        let more = bytes.len() as u64 / PAGE_SIZE;
        if matches!(self.store, Store::Heap(_)) && self.pages() + more >= HEAP_PAGES {
            // Where there is none to be had, the heap must do.
            let _ = self.share(memory);
        }
        match &mut self.store {
            Store::Heap(pages) => {
                for (page, at, range) in pieces(offset, bytes.len()) {
                    let from = bytes.get(range).ok_or(Errno::EIO)?;
                    let page = pages.entry(page).or_insert_with(|| Box::new([0; PAGE_SIZE as usize]));
                    page.get_mut(at..at + from.len()).ok_or(Errno::EIO)?.copy_from_slice(from);
                }
            }
            Store::Shared(memory, pages) => {
                memory.write_at(offset, bytes)?;
                pages.extend(pieces(offset, bytes.len()).map(|(page, ..)| page));
            }
        }
        Ok(())
    }

    /// The host object behind the file; moves the data there first.
    pub fn share(&mut self, provider: &dyn MemoryProvider) -> Result<Arc<dyn SharedMemory>> {
        if let Store::Shared(memory, _) = &self.store {
            return Ok(Arc::clone(memory));
        }
        let memory = provider.create()?;
        if let Store::Heap(pages) = &self.store {
            move_pages(pages, &*memory)?;
            memory.set_len(self.size)?;
            let written = pages.keys().copied().collect();
            self.store = Store::Shared(Arc::clone(&memory), written);
        }
        Ok(memory)
    }

    /// There is a mapping that may write.
    pub fn set_mapped(&mut self) {
        self.mapped = true;
    }

    /// `truncate`: what lies beyond the new end is gone, and reads as zeroes when it comes back.
    pub fn resize(&mut self, fs: &TmpFs, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        if size < self.size {
            let keep = size.div_ceil(PAGE_SIZE);
            let before = self.pages();
            match &mut self.store {
                Store::Heap(pages) => {
                    drop(pages.split_off(&keep));
                    zero(pages, size, keep.saturating_mul(PAGE_SIZE));
                }
                Store::Shared(_, pages) => drop(pages.split_off(&keep)),
            }
            fs.uncharge_pages(before - self.pages());
        }
        if let Store::Shared(memory, _) = &self.store {
            memory.set_len(size)?;
        }
        self.size = size;
        Ok(())
    }

    /// Zeroes `from..to` (`FALLOC_FL_PUNCH_HOLE`), within the size; whole pages are given back.
    pub fn punch(&mut self, fs: &TmpFs, from: u64, to: u64) -> Result<()> {
        let to = to.min(self.size);
        if from >= to {
            return Ok(());
        }
        let whole = from.div_ceil(PAGE_SIZE)..(to / PAGE_SIZE).max(from.div_ceil(PAGE_SIZE));
        let before = self.pages();
        match &mut self.store {
            Store::Heap(pages) => {
                let first_end = to.min((from / PAGE_SIZE + 1).saturating_mul(PAGE_SIZE));
                zero(pages, from, first_end);
                zero(pages, from.max(to / PAGE_SIZE * PAGE_SIZE), to);
                let gone: Vec<u64> = pages.range(whole).map(|(page, _)| *page).collect();
                for page in gone {
                    pages.remove(&page);
                }
            }
            Store::Shared(memory, pages) => {
                memory.punch(from, to - from)?;
                let gone: Vec<u64> = pages.range(whole).copied().collect();
                for page in gone {
                    pages.remove(&page);
                }
            }
        }
        fs.uncharge_pages(before - self.pages());
        Ok(())
    }

    fn next_page(&self, from: u64) -> Option<u64> {
        match &self.store {
            Store::Heap(pages) => pages.range(from..).next().map(|(page, _)| *page),
            Store::Shared(_, pages) => pages.range(from..).next().copied(),
        }
    }

    /// `SEEK_DATA`: `ENXIO` beyond the last.
    pub fn seek_data(&self, offset: u64) -> Result<u64> {
        if offset >= self.size {
            return Err(Errno::ENXIO);
        }
        if self.mapped {
            return Ok(offset);
        }
        let page = self.next_page(offset / PAGE_SIZE).ok_or(Errno::ENXIO)?;
        Ok((page * PAGE_SIZE).max(offset))
            .and_then(|at| if at < self.size { Ok(at) } else { Err(Errno::ENXIO) })
    }

    /// `SEEK_HOLE`: the end of the file is one.
    pub fn seek_hole(&self, offset: u64) -> Result<u64> {
        if offset >= self.size {
            return Err(Errno::ENXIO);
        }
        if self.mapped {
            return Ok(self.size);
        }
        let mut page = offset / PAGE_SIZE;
        while self.has(page) {
            page += 1;
        }
        Ok((page * PAGE_SIZE).max(offset).min(self.size))
    }
}

#[cfg(test)]
mod tests;
