//! Open files and directories.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use abi::Errno;
use abi::mm::Prot;
use gofer_proto::{DirEntry, Request, Response};
use guestmem::{IoSink, IoSource};
use memmap::{Backing, HostObject, MapIdentity, MapRequest, Mappable};
use nix::unistd::Whence;
use sync::Mutex;
use sync::order::Leaf;
use vfs::{DirSink, File, FileContext, FileSystem, Inode, SeekFrom};

use crate::host;
use crate::inode::GoferInode;

/// Bytes moved between guest and host at a time.
const CHUNK: usize = 128 * 1024;
/// Bytes of directory entries asked for at a time.
const LISTING: u32 = 32 * 1024;

/// An open regular file: a donated descriptor.
pub(crate) struct GoferFile {
    inode: Arc<GoferInode>,
    object: Arc<HostObject>,
}

impl GoferFile {
    pub(crate) fn new(inode: Arc<GoferInode>, object: Arc<HostObject>) -> Self {
        Self { inode, object }
    }

    fn size(&self) -> Result<u64, Errno> {
        host::attributes(&*self.object).map(|attr| attr.stat().size.max(0).cast_unsigned())
    }
}

thread_local! {
    /// Where bytes are between guest and host. Kept, because clearing and mapping a new one costs more than
    /// most reads.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends a buffer of `len` bytes, at most [`CHUNK`], of any content.
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

/// The result of a transfer that did `done` bytes before `error`: those count, if there are any.
fn partial(done: usize, error: Errno) -> Result<usize, Errno> {
    if done > 0 { Ok(done) } else { Err(error) }
}

/// Moves bytes from `source` to `write`, which gets them and how many went before.
fn drain(
    source: &mut dyn IoSource,
    mut write: impl FnMut(&[u8], usize) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    with_buffer(source.remaining(), |buffer| {
        let mut done = 0;
        while source.remaining() > 0 {
            let taken = match source.take(buffer) {
                Ok(0) => break,
                Ok(taken) => taken,
                Err(error) => return partial(done, error),
            };
            match write(buffer.get(..taken).unwrap_or_default(), done) {
                Ok(written) => {
                    done += written;
                    if written < taken {
                        break;
                    }
                }
                Err(error) => return partial(done, error),
            }
        }
        Ok(done)
    })
}

/// Moves bytes of `object` from `offset` on to `sink`, until either ends.
fn fill(object: &HostObject, offset: u64, sink: &mut dyn IoSink) -> Result<usize, Errno> {
    with_buffer(sink.remaining(), |buffer| {
        let mut done = 0;
        while sink.remaining() > 0 {
            let want = buffer.len().min(sink.remaining());
            let room = buffer.get_mut(..want).unwrap_or_default();
            let Some(at) = offset.checked_add(done as u64) else { break };
            let got = match host::read_at(object, room, at) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) => return partial(done, error),
            };
            match sink.put(room.get(..got).unwrap_or_default()) {
                Ok(put) => {
                    done += put;
                    if put < got || got < want {
                        break;
                    }
                }
                Err(error) => return partial(done, error),
            }
        }
        Ok(done)
    })
}

impl File for GoferFile {
    fn read(&self, _cx: &FileContext<'_>, offset: u64, sink: &mut dyn IoSink) -> Result<usize, Errno> {
        let done = fill(&self.object, offset, sink);
        self.inode.touch();
        done
    }

    fn write(&self, _cx: &FileContext<'_>, offset: u64, source: &mut dyn IoSource) -> Result<usize, Errno> {
        drain(source, |bytes, done| {
            let at = offset.checked_add(done as u64).ok_or(Errno::EFBIG)?;
            host::write_at(&*self.object, bytes, at)
        })
    }

    /// Atomic in pieces of 128 KiB, also as to other sandboxes: the host appends. The end is the one
    /// just after, which another appender may already have moved.
    fn append(&self, _cx: &FileContext<'_>, source: &mut dyn IoSource) -> Result<(usize, u64), Errno> {
        let done = drain(source, |bytes, _| host::append(&*self.object, bytes))?;
        Ok((done, self.size()?))
    }

    fn seek(&self, current: u64, to: SeekFrom) -> Result<u64, Errno> {
        let (base, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(by) => (current, by),
            SeekFrom::End(by) => (self.size()?, by),
            SeekFrom::Data(at) => return host::seek(&*self.object, at, Whence::SeekData),
            SeekFrom::Hole(at) => return host::seek(&*self.object, at, Whence::SeekHole),
        };
        let to = i128::from(base) + i128::from(by);
        match i64::try_from(to) {
            Ok(to) if to >= 0 => Ok(to.cast_unsigned()),
            Err(_) if to > 0 && by > 0 => Err(Errno::EOVERFLOW),
            _ => Err(Errno::EINVAL),
        }
    }

    fn mappable(&self) -> Option<Arc<dyn Mappable>> {
        let (inode, object) = (Arc::clone(&self.inode), Arc::clone(&self.object));
        Some(Arc::new(GoferMapping { inode, object }))
    }

    fn fsync(&self, data_only: bool) -> Result<(), Errno> {
        host::sync(&*self.object, data_only)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        host::allocate(&*self.object, mode, offset, len)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for GoferFile {
    fn drop(&mut self) {
        written(&self.inode, &self.object);
    }
}

/// What was open for writing is about to be closed. Attributes another thread asked for while it was open,
/// and has not kept yet, may be those from before the last write: counting a change, while the object is
/// still there to be seen, makes them stale.
fn written(inode: &GoferInode, object: &HostObject) {
    if object.max_prot().contains(Prot::WRITE) {
        inode.gofer_fs().changed(u64::MAX);
    }
}

/// A mapped file: the platform maps the donated descriptor itself.
struct GoferMapping {
    inode: Arc<GoferInode>,
    object: Arc<HostObject>,
}

impl Mappable for GoferMapping {
    fn backing(&self, request: MapRequest) -> Result<Backing, Errno> {
        Ok(Backing::Host { object: Arc::clone(&self.object), offset: request.offset })
    }

    fn sync(&self, _offset: u64, _len: u64) -> Result<(), Errno> {
        host::sync(&*self.object, true)
    }

    /// Without a name, which is the dentry's to tell.
    fn identity(&self) -> MapIdentity {
        let dev = self.inode.gofer_fs().dev();
        let ino = self.inode.attr().map_or(0, |attr| attr.ino);
        MapIdentity { dev, ino, name: Vec::new() }
    }
}

impl Drop for GoferMapping {
    fn drop(&mut self) {
        written(&self.inode, &self.object);
    }
}

/// An open directory.
pub(crate) struct GoferDir {
    inode: Arc<GoferInode>,
    ahead: Mutex<Leaf, Ahead>,
}

/// Entries the Gofer sent that have not been taken, and the position of the first of them.
#[derive(Default)]
struct Ahead {
    position: u64,
    entries: VecDeque<DirEntry>,
}

impl GoferDir {
    pub(crate) fn new(inode: Arc<GoferInode>) -> Self {
        Self { inode, ahead: Mutex::default() }
    }

    /// Entries from `position` on; none at the end. A listing from the start is always asked for anew,
    /// so that a rewind shows what has changed.
    fn entries(&self, position: u64) -> Result<VecDeque<DirEntry>, Errno> {
        let ahead = std::mem::take(&mut *self.ahead.lock());
        if position != 0 && ahead.position == position && !ahead.entries.is_empty() {
            return Ok(ahead.entries);
        }
        let request = Request::Readdir { node: self.inode.node(), cookie: position, max: LISTING };
        let (fs, node) = (self.inode.gofer_fs(), self.inode.node());
        let changes = fs.changes();
        let Response::Entries(entries) = fs.client().ask(&request)? else { return Err(Errno::EIO) };
        let entries = entries.into();
        fs.listed(node, changes, position == 0, &entries);
        Ok(entries)
    }
}

impl File for GoferDir {
    /// Positions are the host's cookies.
    fn read_dir(&self, _cx: &FileContext<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64, Errno> {
        let mut position = position;
        loop {
            let mut entries = self.entries(position)?;
            if entries.is_empty() {
                return Ok(position);
            }
            while let Some(entry) = entries.front() {
                let (ino, next, kind) = (entry.ino, entry.cookie, entry.file_type);
                if !sink.entry(vfs::DirEntry { ino, next, kind, name: &entry.name }) {
                    *self.ahead.lock() = Ahead { position, entries };
                    return Ok(position);
                }
                position = next;
                entries.pop_front();
            }
        }
    }

    /// `lseek` on a directory sets the position, which is a cookie (`readdir(3)`).
    fn seek(&self, current: u64, to: SeekFrom) -> Result<u64, Errno> {
        match to {
            SeekFrom::Start(at) if i64::try_from(at).is_ok() => Ok(at),
            SeekFrom::Current(0) => Ok(current),
            _ => Err(Errno::EINVAL),
        }
    }

    fn fsync(&self, _data_only: bool) -> Result<(), Errno> {
        self.inode.gofer_fs().client().done(&Request::Fsync { node: self.inode.node() })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
