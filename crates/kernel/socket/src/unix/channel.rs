//! One direction of a connection: a bounded queue of messages.
//!
//! Streams are queues whose messages run together; a message keeps its control data at its first byte,
//! and a read never crosses into the next message that has some (`unix(7)`).

use std::collections::VecDeque;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::{MsgFlags, Ucred};
use guestmem::{IoSink, IoSource};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::Result;

use crate::{Ancillary, Received};

/// Bytes a channel holds by default (`net.core.wmem_default`).
pub const DEFAULT_CAPACITY: usize = 212_992;
/// Messages of any size a channel holds, so that empty ones cannot grow it.
pub const MAX_MESSAGES: usize = 4096;
/// Descriptors in flight in a channel.
pub const MAX_FILES: usize = 1024;
/// Bytes copied from a guest at a time.
const CHUNK: usize = 65_536;

struct Message {
    data: Vec<u8>,
    /// Bytes already read (streams).
    read: usize,
    ancillary: Ancillary,
    sender: Option<Ucred>,
    from: Option<Vec<u8>>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    files: usize,
    capacity: usize,
    /// The reader will not read again: writes fail with `EPIPE`.
    reader_gone: bool,
    /// The writer will not write again: reads end with 0.
    writer_gone: bool,
    /// The reader's end died with data unread: the writer gets `ECONNRESET` once.
    reset: bool,
}

/// A bounded queue of messages with the wait queues of the sockets at its ends.
pub struct Channel {
    queue: Mutex<order::FileState, Queue>,
    reader: WaitQueue,
    writer: WaitQueue,
    /// Message boundaries are kept.
    packets: bool,
}

/// What a sender says of itself with a message.
#[derive(Clone, Default)]
pub struct Sender {
    /// Its credentials, for `SO_PASSCRED`.
    pub credentials: Option<Ucred>,
    /// Its address.
    pub name: Option<Vec<u8>>,
}

impl Channel {
    /// An empty one between the sockets with these wait queues.
    pub fn new(reader: WaitQueue, writer: WaitQueue, packets: bool) -> Self {
        let queue = Queue { capacity: DEFAULT_CAPACITY, ..Queue::default() };
        Self { queue: Mutex::new(queue), reader, writer, packets }
    }

    /// Sets how many bytes it holds (`SO_SNDBUF`; the caller has bounded it).
    pub fn set_capacity(&self, bytes: usize) {
        self.queue.lock().capacity = bytes;
    }

    /// Appends what `source` has. A packet goes whole or not at all (`EMSGSIZE` when it never could); a
    /// stream takes what fits. `EAGAIN` when full, `EPIPE` when nobody will read.
    pub fn write(&self, source: &mut dyn IoSource, ancillary: Ancillary, sender: &Sender) -> Result<usize> {
        let want = source.remaining();
        let room = self.room(want, ancillary.files.len())?;
        if want == 0 && !self.packets {
            return Ok(0);
        }
        // The guest's bytes are copied with no lock held.
        let mut data = vec![0; want.min(room).min(if self.packets { usize::MAX } else { CHUNK })];
        let mut filled = 0;
        while filled < data.len() {
            let part = data.get_mut(filled..).unwrap_or_default();
            match source.take(part) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(errno) if filled == 0 || self.packets => return Err(errno),
                Err(_) => break,
            }
        }
        if self.packets && filled < data.len() {
            return Err(Errno::EFAULT);
        }
        data.truncate(filled);
        self.push(Message {
            data,
            read: 0,
            ancillary,
            sender: sender.credentials,
            from: sender.name.clone(),
        })?;
        self.reader.notify(PollEvents::READABLE);
        Ok(filled)
    }

    /// Bytes that may be written now.
    fn room(&self, want: usize, files: usize) -> Result<usize> {
        let mut queue = self.queue.lock();
        if queue.reader_gone {
            return Err(if std::mem::take(&mut queue.reset) { Errno::ECONNRESET } else { Errno::EPIPE });
        }
        if self.packets && want > queue.capacity {
            return Err(Errno::EMSGSIZE);
        }
        if queue.files + files > MAX_FILES {
            return Err(Errno::ETOOMANYREFS);
        }
        let free = queue.capacity.saturating_sub(queue.bytes);
        let full = queue.messages.len() >= MAX_MESSAGES || if self.packets { free < want } else { free == 0 };
        if full && (want > 0 || self.packets) { Err(Errno::EAGAIN) } else { Ok(free) }
    }

    fn push(&self, message: Message) -> Result<()> {
        let mut queue = self.queue.lock();
        if queue.reader_gone {
            return Err(Errno::EPIPE);
        }
        // Several writers may have measured the same room; the overshoot is one message a writer.
        queue.bytes += message.data.len();
        queue.files += message.ancillary.files.len();
        let plain = message.ancillary.is_empty();
        match queue.messages.back_mut() {
            // Small stream writes run together rather than cost an entry each.
            Some(last)
                if !self.packets && plain && last.sender == message.sender && last.data.len() < CHUNK =>
            {
                last.data.extend_from_slice(&message.data);
            }
            _ => queue.messages.push_back(message),
        }
        Ok(())
    }

    /// Takes the next message, or as much of the stream as `sink` takes. `EAGAIN` when there is nothing
    /// yet; an empty result at the end.
    pub fn read(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        let Some(taken) = self.take(sink.remaining(), flags.contains(MsgFlags::PEEK))? else {
            return Ok(Received::default());
        };
        let Taken { data, full_len, ancillary, from } = taken;
        let mut bytes = 0;
        while let Some(rest) = data.get(bytes..).filter(|rest| !rest.is_empty()) {
            match sink.put(rest)? {
                0 => break,
                n => bytes += n,
            }
        }
        if !flags.contains(MsgFlags::PEEK) {
            self.writer.notify(PollEvents::WRITABLE);
        }
        let mut out_flags = MsgFlags::empty();
        out_flags.set(MsgFlags::TRUNC, self.packets && bytes < full_len);
        Ok(Received { bytes, full_len, ancillary, from, flags: out_flags })
    }

    /// Takes bytes out of the queue before they are copied to the guest, so that no lock is held then.
    fn take(&self, limit: usize, peek: bool) -> Result<Option<Taken>> {
        let mut guard = self.queue.lock();
        let queue = &mut *guard;
        let Some(first) = queue.messages.front_mut() else {
            return if queue.writer_gone || queue.reader_gone { Ok(None) } else { Err(Errno::EAGAIN) };
        };
        if !self.packets && limit == 0 {
            return Ok(None);
        }
        let unread = first.data.get(first.read..).unwrap_or_default();
        let n = unread.len().min(limit);
        let mut taken = Taken {
            data: unread.get(..n).unwrap_or_default().to_vec(),
            full_len: unread.len(),
            ancillary: first.ancillary.clone(),
            from: first.from.clone(),
        };
        if taken.ancillary.credentials.is_none() {
            taken.ancillary.credentials = first.sender;
        }
        if peek {
            return Ok(Some(taken));
        }
        queue.files -= first.ancillary.files.len();
        first.ancillary = Ancillary::default();
        let sender = first.sender;
        if self.packets || n == unread.len() {
            queue.bytes -= taken.full_len;
            queue.messages.pop_front();
        } else {
            first.read += n;
            queue.bytes -= n;
        }
        if !self.packets {
            taken.absorb(queue, limit, sender);
            taken.full_len = taken.data.len();
        }
        Ok(Some(taken))
    }

    /// The reading side closes; `reset` when the whole socket died.
    pub fn close_reader(&self, dead: bool) {
        let dropped: Vec<Message>;
        {
            let mut queue = self.queue.lock();
            queue.reader_gone = true;
            queue.reset = dead && queue.bytes > 0;
            dropped = if dead { queue.messages.drain(..).collect() } else { Vec::new() };
            if dead {
                (queue.bytes, queue.files) = (0, 0);
            }
        }
        // Outside the lock: descriptors in flight close now, and may be sockets themselves.
        drop(dropped);
        self.writer.notify(PollEvents::WRITABLE | PollEvents::ERR | PollEvents::HUP);
        self.reader.notify(PollEvents::READABLE | PollEvents::RDHUP | PollEvents::HUP);
    }

    /// The writing side closes.
    pub fn close_writer(&self) {
        self.queue.lock().writer_gone = true;
        self.reader.notify(PollEvents::READABLE | PollEvents::RDHUP | PollEvents::HUP);
    }

    /// Bytes waiting to be read (`SIOCINQ`): of the first packet, or of the whole stream.
    pub fn pending(&self) -> usize {
        let queue = self.queue.lock();
        if self.packets { queue.messages.front().map_or(0, |m| m.data.len()) } else { queue.bytes }
    }

    /// Would a read not wait?
    pub fn readable(&self) -> bool {
        let queue = self.queue.lock();
        !queue.messages.is_empty() || queue.writer_gone || queue.reader_gone
    }

    /// Is there an end to be read (`EPOLLRDHUP`)?
    pub fn writer_is_gone(&self) -> bool {
        self.queue.lock().writer_gone
    }

    /// Has the reading side been closed?
    pub fn reader_is_gone(&self) -> bool {
        self.queue.lock().reader_gone
    }

    /// Would a write not wait? As Linux: only while at most a quarter of the buffer is in use,
    /// so that a writer woken by it has room for more than a byte.
    pub fn writable(&self) -> bool {
        let queue = self.queue.lock();
        queue.reader_gone
            || (queue.bytes.saturating_mul(4) <= queue.capacity && queue.messages.len() < MAX_MESSAGES)
    }
}

/// Bytes on their way from the queue to a guest.
struct Taken {
    data: Vec<u8>,
    full_len: usize,
    ancillary: Ancillary,
    from: Option<Vec<u8>>,
}

impl Taken {
    /// Goes on into the following stream messages, up to one with control data or another sender.
    fn absorb(&mut self, queue: &mut Queue, limit: usize, sender: Option<Ucred>) {
        while self.data.len() < limit {
            let Some(next) = queue.messages.front_mut() else { return };
            if !next.ancillary.is_empty() || next.sender != sender || next.read != 0 {
                return;
            }
            let n = next.data.len().min(limit - self.data.len());
            self.data.extend(next.data.iter().take(n));
            queue.bytes -= n;
            if n == next.data.len() {
                queue.messages.pop_front();
            } else {
                next.read = n;
                return;
            }
        }
    }
}
