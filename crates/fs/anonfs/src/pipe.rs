//! Pipes and fifos (`pipe(7)`, `fifo(7)`).
//!
//! A [`Pipe`] is the buffer; a [`PipeEnd`] is one open file on it. Neither blocks. The rendezvous of a
//! fifo's `open(2)` is state: [`PipeEnd::peer_seen`] says whether the other side has come, and the
//! system-call layer waits for it on [`Pipe::open_queue`].
//!
//! A write reserves its room under the lock, fetches the bytes with the lock released, and appends them
//! in one step: so writes of up to [`PIPE_BUF`] bytes are atomic, and no lock is held over a guest copy.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use abi::fs::OpenFlags;
use abi::poll::PollEvents;
use cred::{CapSet, Credentials};
use guestmem::{IoSink, IoSource, MemExt, UserPtr};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::{File, FileContext, IoctlRequest, Result};

mod buffer;
use buffer::Buffer;

/// Writes of up to this many bytes are atomic.
pub const PIPE_BUF: usize = 4096;
/// Bytes a new pipe holds.
pub const DEFAULT_CAPACITY: usize = 65536;
/// Most an unprivileged `F_SETPIPE_SZ` may ask for (`/proc/sys/fs/pipe-max-size`).
pub const MAX_CAPACITY: usize = 1 << 20;
/// Most anybody may ask for: what a sandbox can afford, far below Linux's 2 GiB.
const HARD_CAPACITY: usize = 1 << 24;

/// The buffer shared by the ends of a pipe or fifo.
#[derive(Debug)]
pub struct Pipe {
    state: Mutex<order::FileState, State>,
    queue: WaitQueue,
    open_queue: WaitQueue,
    /// Made by `pipe(2)`: an open through `/proc/PID/fd/N` waits for nobody.
    anonymous: bool,
}

#[derive(Debug)]
struct State {
    buffer: Buffer,
    readers: u32,
    writers: u32,
    /// How often a reader was opened, so that an opener sees one that has come and gone.
    reader_opens: u64,
    /// As `reader_opens`, for writers.
    writer_opens: u64,
}

impl Pipe {
    /// A buffer without ends: what a fifo's inode keeps.
    pub fn fifo() -> Arc<Self> {
        Self::new(false)
    }

    fn new(anonymous: bool) -> Arc<Self> {
        let state = State {
            buffer: Buffer::new(DEFAULT_CAPACITY),
            readers: 0,
            writers: 0,
            reader_opens: 0,
            writer_opens: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            queue: WaitQueue::new(),
            open_queue: WaitQueue::new(),
            anonymous,
        })
    }

    /// The two ends of a new pipe, reader first (`pipe2(2)`). Of `flags`, `DIRECT` counts.
    pub fn pair(flags: OpenFlags) -> (PipeEnd, PipeEnd) {
        let pipe = Self::new(true);
        let reader = PipeEnd::attach(&pipe, OpenFlags::empty());
        let writer = PipeEnd::attach(&pipe, OpenFlags::WRONLY | (flags & OpenFlags::DIRECT));
        (reader, writer)
    }

    /// Opens a fifo. `ENXIO` for a non-blocking writer without a reader. Unless `NONBLOCK`, the caller
    /// waits for [`PipeEnd::peer_seen`] and drops the end when a signal comes first.
    pub fn open(self: &Arc<Self>, flags: OpenFlags) -> Result<PipeEnd> {
        let write_only = flags.writable() && !flags.readable();
        let demands = write_only && flags.contains(OpenFlags::NONBLOCK) && !self.anonymous;
        if demands && self.state.lock().readers == 0 {
            return Err(Errno::ENXIO);
        }
        let end = PipeEnd::attach(self, flags);
        self.open_queue.notify(PollEvents::READABLE | PollEvents::WRITABLE);
        Ok(end)
    }

    /// Where an opener waits for the other side.
    pub fn open_queue(&self) -> &WaitQueue {
        &self.open_queue
    }

    /// Bytes it holds when full (`F_GETPIPE_SZ`).
    pub fn capacity(&self) -> usize {
        self.state.lock().buffer.capacity()
    }

    /// `F_SETPIPE_SZ`: returns the new capacity, `size` rounded up to a power of two of pages. `EINVAL`
    /// for zero or too much, `EPERM` above [`MAX_CAPACITY`] without `CAP_SYS_RESOURCE`, `EBUSY` when more
    /// is in the pipe.
    pub fn set_capacity(&self, cred: &Credentials, size: u64) -> Result<usize> {
        let size = usize::try_from(size).ok().filter(|s| *s <= 1 << 31).ok_or(Errno::EINVAL)?;
        if size == 0 {
            return Err(Errno::EINVAL);
        }
        let size = size.max(PIPE_BUF).next_power_of_two();
        if size > MAX_CAPACITY && !cred.capable(CapSet::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        if size > HARD_CAPACITY {
            return Err(Errno::ENOMEM);
        }
        self.state.lock().buffer.set_capacity(size)?;
        self.queue.notify(PollEvents::WRITABLE);
        Ok(size)
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.state.lock().buffer.len()
    }

    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes it still takes.
    pub fn room(&self) -> usize {
        self.state.lock().buffer.room()
    }

    /// Copy of up to `max` bytes from the front, which stay (`tee(2)`).
    pub fn peek(&self, max: usize) -> Vec<u8> {
        self.state.lock().buffer.peek(max)
    }
}

/// One open file on a [`Pipe`].
#[derive(Debug)]
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    readable: bool,
    writable: bool,
    /// `O_DIRECT`: each write is a packet.
    packets: AtomicBool,
    /// `reader_opens` and `writer_opens` when this end was opened.
    opened: (u64, u64),
    /// Was there a peer at the open already?
    had_peer: bool,
}

impl PipeEnd {
    fn attach(pipe: &Arc<Pipe>, flags: OpenFlags) -> Self {
        let (readable, writable) = (flags.readable(), flags.writable());
        let mut state = pipe.state.lock();
        state.readers += u32::from(readable);
        state.writers += u32::from(writable);
        state.reader_opens += u64::from(readable);
        state.writer_opens += u64::from(writable);
        let had_peer = (!readable || state.writers > 0) && (!writable || state.readers > 0);
        let opened = (state.reader_opens, state.writer_opens);
        let packets = AtomicBool::new(flags.contains(OpenFlags::DIRECT));
        drop(state);
        Self { pipe: Arc::clone(pipe), readable, writable, packets, opened, had_peer }
    }

    /// The buffer behind it.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }

    /// Has the other side been open at any time since this end was opened?
    pub fn peer_seen(&self) -> bool {
        if self.had_peer || self.pipe.anonymous {
            return true;
        }
        let state = self.pipe.state.lock();
        if self.readable { state.writer_opens != self.opened.1 } else { state.reader_opens != self.opened.0 }
    }

    /// Takes bytes to deliver, or says why there are none.
    fn take(&self, want: usize) -> Result<buffer::Taken> {
        let mut state = self.pipe.state.lock();
        if state.buffer.is_empty() && state.writers > 0 {
            return Err(Errno::EAGAIN);
        }
        Ok(state.buffer.take(want))
    }

    /// Reserves room for the next piece of a write of `len` bytes; `atomic` wants all of it.
    fn reserve(&self, len: usize, packet: bool, atomic: bool) -> Result<usize> {
        let mut state = self.pipe.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        state.buffer.reserve(len, packet, atomic).ok_or(Errno::EAGAIN)
    }

    /// Moves one piece; `Ok(0)` when the source has ended.
    fn write_piece(&self, source: &mut dyn IoSource, atomic: bool) -> Result<usize> {
        let packet = self.packets.load(Ordering::Relaxed);
        let room = self.reserve(source.remaining(), packet, atomic)?;
        let mut bytes = vec![0u8; room];
        let fetched = source.take(&mut bytes);
        bytes.truncate(*fetched.as_ref().unwrap_or(&0));
        self.pipe.state.lock().buffer.commit(room, bytes, packet);
        fetched
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let (no_readers, no_writers) = {
            let mut state = self.pipe.state.lock();
            state.readers -= u32::from(self.readable);
            state.writers -= u32::from(self.writable);
            if state.readers == 0 && state.writers == 0 {
                state.buffer.clear();
            }
            (state.readers == 0, state.writers == 0)
        };
        let mut events = PollEvents::empty();
        if self.readable && no_readers {
            events |= PollEvents::ERR | PollEvents::WRITABLE;
        }
        if self.writable && no_writers {
            events |= PollEvents::HUP | PollEvents::READABLE;
        }
        if !events.is_empty() {
            self.pipe.queue.notify(events);
        }
    }
}

impl File for PipeEnd {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        if !self.readable {
            return Err(Errno::EBADF);
        }
        let mut done = 0;
        // Bounded: each turn takes bytes that were in the pipe, and a packet ends the read.
        while sink.remaining() > 0 {
            let taken = match self.take(sink.remaining()) {
                Ok(taken) if !taken.bytes.is_empty() => taken,
                Err(errno) if done == 0 => return Err(errno),
                _ => break,
            };
            let put = sink.put(&taken.bytes);
            let (n, whole) = (*put.as_ref().unwrap_or(&0), taken.bytes.len());
            if n < whole && !taken.packet {
                self.pipe.state.lock().buffer.give_back(taken.bytes, n);
            }
            self.pipe.queue.notify(PollEvents::WRITABLE);
            done += n;
            match put {
                Err(errno) if done == 0 => return Err(errno),
                Ok(_) if n == whole && !taken.packet => {}
                _ => break,
            }
        }
        Ok(done)
    }

    fn write(&self, _cx: &FileContext<'_>, _offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        if !self.writable {
            return Err(Errno::EBADF);
        }
        let atomic = source.remaining() <= PIPE_BUF;
        let mut done = 0;
        while source.remaining() > 0 {
            match self.write_piece(source, atomic) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
            self.pipe.queue.notify(PollEvents::READABLE);
        }
        Ok(done)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        let state = self.pipe.state.lock();
        let mut events = PollEvents::empty();
        if self.readable {
            if !state.buffer.is_empty() {
                events |= PollEvents::READABLE;
            }
            // A reader that came first has not been hung up on until a writer was there.
            if state.writers == 0 && (self.had_peer || state.writer_opens != self.opened.1) {
                events |= PollEvents::HUP;
            }
        }
        if self.writable {
            if state.buffer.room() >= PIPE_BUF {
                events |= PollEvents::WRITABLE;
            }
            if state.readers == 0 {
                events |= PollEvents::ERR;
            }
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.queue)
    }

    fn ioctl(&self, _cx: &FileContext<'_>, request: &IoctlRequest<'_>) -> Result<u64> {
        match request.cmd {
            abi::ioctl::FIONREAD => {
                let len = self.pipe.state.lock().buffer.len();
                let len = i32::try_from(len).unwrap_or(i32::MAX);
                request.mem.store(UserPtr::new(request.addr()), &len)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    fn set_flags(&self, flags: OpenFlags) -> Result<()> {
        self.packets.store(flags.contains(OpenFlags::DIRECT), Ordering::Relaxed);
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests;
