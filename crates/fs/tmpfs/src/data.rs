//! The bytes of one regular file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use abi::{Errno, PAGE_SIZE};
use vfs::Result;

use crate::{MemoryProvider, SharedMemory, TmpFs};

/// Pages a file keeps on the heap; a larger one moves to a host object.
const HEAP_PAGES: u64 = 16;
/// Largest file, in bytes.
pub const MAX_SIZE: u64 = i64::MAX as u64;

type Page = Box<[u8; PAGE_SIZE as usize]>;

enum Store {
    /// Pages that have been written; others are holes.
    Heap(BTreeMap<u64, Page>),
    /// A host object, and which of its pages were written through here.
    Shared(Arc<dyn SharedMemory>, BTreeSet<u64>),
}

/// Size and contents. Under its inode's lock; never copies to or from a guest.
pub struct Data {
    size: u64,
    store: Store,
}

impl Default for Data {
    fn default() -> Self {
        Self { size: 0, store: Store::Heap(BTreeMap::new()) }
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

    /// Fills the start of `buf` with what lies at `offset`, up to the end of its page or of the file;
    /// 0 at the end.
    pub fn read(&self, offset: u64, buf: &mut [u8; PAGE_SIZE as usize]) -> Result<usize> {
        let left = self.size.saturating_sub(offset);
        let (page, at) = (offset / PAGE_SIZE, (offset % PAGE_SIZE) as usize);
        let n = left.min(PAGE_SIZE - at as u64) as usize;
        let out = buf.get_mut(..n).ok_or(Errno::EIO)?;
        match &self.store {
            Store::Heap(pages) => match pages.get(&page).and_then(|page| page.get(at..at + n)) {
                Some(bytes) => out.copy_from_slice(bytes),
                None => out.fill(0),
            },
            // Through the object even where nothing was written here: a mapping may have.
            Store::Shared(memory, _) => memory.read_at(offset, out)?,
        }
        Ok(n)
    }

    /// Writes `bytes`, which do not cross a page boundary, at `offset`.
    pub fn write(&mut self, fs: &TmpFs, offset: u64, bytes: &[u8]) -> Result<()> {
        let (page, at) = (offset / PAGE_SIZE, (offset % PAGE_SIZE) as usize);
        let end =
            offset.checked_add(bytes.len() as u64).filter(|end| *end <= MAX_SIZE).ok_or(Errno::EFBIG)?;
        let new = !self.has(page);
        if new {
            fs.charge_pages(1)?;
        }
        let written = self.put(&*fs.memory, page, at, offset, bytes);
        if written.is_err() && new && !self.has(page) {
            fs.uncharge_pages(1);
        }
        written?;
        self.size = self.size.max(end);
        Ok(())
    }

    fn put(
        &mut self,
        memory: &dyn MemoryProvider,
        page: u64,
        at: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        if self.pages() >= HEAP_PAGES && matches!(self.store, Store::Heap(_)) {
            self.share(memory)?;
        }
        match &mut self.store {
            Store::Heap(pages) => {
                let page = pages.entry(page).or_insert_with(|| Box::new([0; PAGE_SIZE as usize]));
                page.get_mut(at..at + bytes.len()).ok_or(Errno::EIO)?.copy_from_slice(bytes);
            }
            Store::Shared(memory, pages) => {
                memory.write_at(offset, bytes)?;
                pages.insert(page);
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
            for (page, bytes) in pages {
                memory.write_at(page * PAGE_SIZE, &bytes[..])?;
            }
            memory.set_len(self.size)?;
            let written = pages.keys().copied().collect();
            self.store = Store::Shared(Arc::clone(&memory), written);
        }
        Ok(memory)
    }

    /// `truncate`: what lies beyond the new end is gone, and reads as zeroes when it comes back.
    pub fn resize(&mut self, fs: &TmpFs, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(Errno::EFBIG);
        }
        if size < self.size {
            self.zero_tail(size)?;
            let keep = size.div_ceil(PAGE_SIZE);
            let before = self.pages();
            match &mut self.store {
                Store::Heap(pages) => drop(pages.split_off(&keep)),
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

    /// Zeroes the rest of the page `size` is in.
    fn zero_tail(&mut self, size: u64) -> Result<()> {
        let (page, at) = (size / PAGE_SIZE, (size % PAGE_SIZE) as usize);
        if let Store::Heap(pages) = &mut self.store
            && let Some(tail) = pages.get_mut(&page).and_then(|page| page.get_mut(at..))
        {
            tail.fill(0);
        }
        Ok(())
    }

    /// Zeroes `from..to` (`FALLOC_FL_PUNCH_HOLE`), within the size.
    pub fn punch(&mut self, fs: &TmpFs, from: u64, to: u64) -> Result<()> {
        let to = to.min(self.size);
        let mut at = from;
        while at < to {
            let page = at / PAGE_SIZE;
            let end = to.min((page + 1).saturating_mul(PAGE_SIZE));
            let whole = end - at == PAGE_SIZE;
            let had = self.has(page);
            match &mut self.store {
                Store::Heap(pages) if whole => drop(pages.remove(&page)),
                Store::Heap(pages) => {
                    let range = (at % PAGE_SIZE) as usize..((end - 1) % PAGE_SIZE) as usize + 1;
                    if let Some(bytes) = pages.get_mut(&page).and_then(|page| page.get_mut(range)) {
                        bytes.fill(0);
                    }
                }
                Store::Shared(memory, pages) => {
                    let zeroes = [0; PAGE_SIZE as usize];
                    memory.write_at(at, zeroes.get(..(end - at) as usize).unwrap_or_default())?;
                    if whole {
                        pages.remove(&page);
                    }
                }
            }
            if had && !self.has(page) {
                fs.uncharge_pages(1);
            }
            at = end;
            // A hole of exabytes is skipped, not walked.
            if !self.has(at / PAGE_SIZE) && matches!(self.store, Store::Heap(_)) {
                at = self.next_page(at / PAGE_SIZE).map_or(to, |page| page * PAGE_SIZE).max(at);
            }
        }
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
        let page = self.next_page(offset / PAGE_SIZE).ok_or(Errno::ENXIO)?;
        Ok((page * PAGE_SIZE).max(offset))
            .and_then(|at| if at < self.size { Ok(at) } else { Err(Errno::ENXIO) })
    }

    /// `SEEK_HOLE`: the end of the file is one.
    pub fn seek_hole(&self, offset: u64) -> Result<u64> {
        if offset >= self.size {
            return Err(Errno::ENXIO);
        }
        let mut page = offset / PAGE_SIZE;
        while self.has(page) {
            page += 1;
        }
        Ok((page * PAGE_SIZE).max(offset).min(self.size))
    }
}
