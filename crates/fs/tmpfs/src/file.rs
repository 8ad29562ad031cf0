//! Open files and mappings.

use std::any::Any;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use abi::Errno;
use abi::mm::Prot;
use guestmem::{IoSink, IoSource};
use memmap::{Backing, MapIdentity, MapRequest, Mappable};
use vfs::{DirEntry, DirSink, File, FileContext, Inode, Result, Seals, SeekFrom};

use crate::data::Data;
use crate::node::{Body, Node, State};

const FALLOC_KEEP_SIZE: u32 = 1;
const FALLOC_PUNCH_HOLE: u32 = 2;
/// Bytes moved between guest and file at a time.
const CHUNK: usize = 64 * 1024;
/// Entries of a directory looked at under its lock at once.
const DIR_BATCH: usize = 64;

/// An open directory.
pub(crate) struct DirFile {
    pub(crate) node: Arc<Node>,
}

/// An open regular file.
pub(crate) struct RegularFile {
    pub(crate) node: Arc<Node>,
}

impl DirFile {
    fn batch(&self, position: u64) -> Vec<(u64, Vec<u8>, Arc<Node>)> {
        let state = self.node.state.lock();
        let Body::Directory(dir) = &state.body else { return Vec::new() };
        let after = dir.order.range(position.saturating_add(1)..);
        let named = after.filter_map(|(cookie, name)| {
            dir.names.get(name).map(|entry| (*cookie, name.clone(), Arc::clone(&entry.node)))
        });
        named.take(DIR_BATCH).collect()
    }
}

impl File for DirFile {
    fn read_dir(&self, _cx: &FileContext<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64> {
        let mut position = position;
        loop {
            let batch = self.batch(position);
            if batch.is_empty() {
                return Ok(position);
            }
            for (cookie, name, node) in batch {
                let ino = node.attr()?.ino;
                if !sink.entry(DirEntry { ino, next: cookie, kind: Some(node.kind()), name: &name }) {
                    return Ok(position);
                }
                position = cookie;
            }
        }
    }

    fn fsync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl RegularFile {
    fn with<T>(&self, run: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        with(&self.node, run)
    }

    /// Moves bytes from `source`: fetched from the guest without a lock of the file, then stored under it.
    /// `None`: at the end, wherever that is by then. Returns how many, and where the last one ends.
    fn store(&self, start: Option<u64>, source: &mut dyn IoSource) -> Result<(usize, u64)> {
        let fs = self.node.tmpfs()?;
        with_buffer(source.remaining(), |buffer| {
            let (mut done, mut next) = (0, start.unwrap_or_default());
            while source.remaining() > 0 {
                let stored = source.take(buffer).and_then(|n| {
                    if n == 0 {
                        return Ok((0, 0));
                    }
                    let bytes = buffer.get(..n).ok_or(Errno::EIO)?;
                    let (at, stored) = self.with(|state| {
                        let at = if start.is_some() { next } else { data(state)?.size() };
                        Ok((at, state.write(&fs, at, bytes)?))
                    })?;
                    next = at + stored as u64;
                    Ok((n, stored))
                });
                match stored {
                    Ok((0, _)) => break,
                    Ok((n, stored)) => {
                        done += stored;
                        if stored < n {
                            break;
                        }
                    }
                    Err(error) if done == 0 => return Err(error),
                    Err(_) => break,
                }
            }
            Ok((done, next))
        })
    }
}

thread_local! {
    /// Where bytes are between guest and file. Kept, because clearing a new one costs more than most writes.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends a buffer for `len` bytes, or as many as are moved at a time, of any content.
fn with_buffer<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    let len = len.min(CHUNK);
    // Taken, not borrowed: should `work` come here again, it gets another.
    let mut buffer = SCRATCH.take();
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    let result = work(buffer.get_mut(..len).unwrap_or_default());
    SCRATCH.set(buffer);
    result
}

fn with<T>(node: &Node, run: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
    run(&mut node.state.lock())
}

fn data(state: &mut State) -> Result<&mut Data> {
    match &mut state.body {
        Body::Regular(data) => Ok(data),
        _ => Err(Errno::EINVAL),
    }
}

impl File for RegularFile {
    fn read(&self, _cx: &FileContext<'_>, offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        with_buffer(sink.remaining(), |buffer| {
            let mut done = 0usize;
            while sink.remaining() > 0 {
                let Some(at) = offset.checked_add(done as u64) else { break };
                let want = buffer.len().min(sink.remaining());
                let room = buffer.get_mut(..want).ok_or(Errno::EIO)?;
                let n = self.with(|state| data(state)?.read(at, room))?;
                if n == 0 {
                    break;
                }
                match sink.put(room.get(..n).unwrap_or_default()) {
                    Ok(put) => {
                        done += put;
                        if put < n {
                            break;
                        }
                    }
                    Err(error) if done == 0 => return Err(error),
                    Err(_) => break,
                }
            }
            Ok(done)
        })
    }

    fn write(&self, _cx: &FileContext<'_>, offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        self.store(Some(offset), source).map(|(n, _)| n)
    }

    fn append(&self, _cx: &FileContext<'_>, source: &mut dyn IoSource) -> Result<(usize, u64)> {
        let _alone = self.node.appending.lock().unwrap_or_else(PoisonError::into_inner);
        self.store(None, source)
    }

    fn seek(&self, current: u64, to: SeekFrom) -> Result<u64> {
        let from = |base: u64, by: i64| base.checked_add_signed(by).ok_or(Errno::EINVAL);
        self.with(|state| {
            let data = data(state)?;
            match to {
                SeekFrom::Start(at) => Ok(at),
                SeekFrom::Current(by) => from(current, by),
                SeekFrom::End(by) => from(data.size(), by),
                SeekFrom::Data(at) => data.seek_data(at),
                SeekFrom::Hole(at) => data.seek_hole(at),
            }
        })
    }

    fn mappable(&self) -> Option<Arc<dyn Mappable>> {
        Some(Arc::new(Mapping { node: Arc::clone(&self.node), writable: AtomicBool::new(false) }))
    }

    fn fsync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        let fs = self.node.tmpfs()?;
        let end = offset.checked_add(len).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
        self.with(|state| match mode {
            0 | FALLOC_KEEP_SIZE => state.check_grow(end),
            m if m == FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE => state.check_write(),
            _ => Err(Errno::EOPNOTSUPP),
        })?;
        self.with(|state| match mode {
            0 => {
                let data = data(state)?;
                if end > data.size() { data.resize(&fs, end) } else { Ok(()) }
            }
            FALLOC_KEEP_SIZE => Ok(()),
            m if m == FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE => {
                data(state)?.punch(&fs, offset, end)?;
                state.touch();
                Ok(())
            }
            _ => Err(Errno::EOPNOTSUPP),
        })
    }

    fn seals(&self) -> Result<Seals> {
        self.with(|state| Ok(state.seals))
    }

    fn add_seals(&self, seals: Seals) -> Result<()> {
        self.node.add_seals(seals)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Can the mapping be used to change the file?
fn is_writable(request: MapRequest) -> bool {
    request.shared && request.max_prot.contains(Prot::WRITE)
}

/// What is mapped. Every part of the mapping, and every copy a fork makes, holds it; so the last of them
/// ends it, whether or not anything came to be mapped.
struct Mapping {
    node: Arc<Node>,
    /// Did it hand out pages to write?
    writable: AtomicBool,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if *self.writable.get_mut() {
            self.node.writable_maps.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Mappable for Mapping {
    fn backing(&self, request: MapRequest) -> Result<Backing> {
        let fs = self.node.tmpfs()?;
        let memory = with(&self.node, |state| {
            if is_writable(request) {
                state.check_write()?;
                if !self.writable.swap(true, Ordering::Relaxed) {
                    self.node.writable_maps.fetch_add(1, Ordering::SeqCst);
                }
            }
            let data = data(state)?;
            if is_writable(request) {
                data.set_mapped();
            }
            data.share(&*fs.memory)
        })?;
        let object = memory.object().ok_or(Errno::ENODEV)?;
        Ok(Backing::Host { object, offset: request.offset })
    }

    fn shared_limit(&self) -> Prot {
        if self.node.write_sealed.load(Ordering::SeqCst) { Prot::READ | Prot::EXEC } else { Prot::all() }
    }

    fn identity(&self) -> MapIdentity {
        let ino = self.node.attr().map_or(0, |attr| attr.ino);
        MapIdentity { dev: self.node.fs().dev(), ino, name: Vec::new() }
    }
}
