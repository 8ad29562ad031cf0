//! Sources and sinks of file I/O.

use abi::Errno;

use crate::{UserMem, UserSlice};

/// Where the bytes of a read go.
pub trait IoSink {
    /// Bytes it still takes.
    fn remaining(&self) -> usize;

    /// Takes as many of `bytes` as fit, and returns how many. `EFAULT` only when not one byte could be
    /// delivered; a later fault ends the sink (its `remaining` becomes zero).
    fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno>;

    /// Puts `bytes` until they are through or it is full; how many. An error only when none could be delivered.
    fn put_all(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.put(rest) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

/// Where the bytes of a write come from.
pub trait IoSource {
    /// Bytes it still has.
    fn remaining(&self) -> usize;

    /// Fills as much of `buf` as it can, and returns how much. `EFAULT` only when not one byte could be
    /// fetched; a later fault ends the source.
    fn take(&mut self, buf: &mut [u8]) -> Result<usize, Errno>;

    /// Fills `buf` until it is full or there is no more; how much. An error only when nothing could be fetched.
    fn take_all(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.take(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(errno) if filled == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(filled)
    }

    /// Fetches exactly `len` bytes; `EFAULT` when there are fewer.
    fn take_exact(&mut self, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; len];
        let filled = self.take_all(&mut bytes)?;
        if filled == len { Ok(bytes) } else { Err(Errno::EFAULT) }
    }
}

/// A sink into a kernel buffer of fixed size.
#[derive(Debug)]
pub struct SliceSink<'a> {
    buf: &'a mut [u8],
    filled: usize,
}

impl<'a> SliceSink<'a> {
    /// Nothing filled yet.
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, filled: 0 }
    }

    /// Bytes filled.
    pub fn filled(&self) -> usize {
        self.filled
    }
}

impl IoSink for SliceSink<'_> {
    fn remaining(&self) -> usize {
        self.buf.len() - self.filled
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let n = bytes.len().min(self.remaining());
        let (Some(to), Some(from)) = (self.buf.get_mut(self.filled..self.filled + n), bytes.get(..n)) else {
            return Ok(0);
        };
        to.copy_from_slice(from);
        self.filled += n;
        Ok(n)
    }
}

/// A sink that grows up to a limit.
#[derive(Debug)]
pub struct VecSink {
    /// What has arrived.
    pub bytes: Vec<u8>,
    limit: usize,
}

impl VecSink {
    /// An empty one that takes up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }
}

impl IoSink for VecSink {
    fn remaining(&self) -> usize {
        self.limit - self.bytes.len()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let n = bytes.len().min(self.remaining());
        self.bytes.extend(bytes.iter().take(n));
        Ok(n)
    }
}

/// A source from a kernel buffer.
#[derive(Debug)]
pub struct SliceSource<'a>(pub &'a [u8]);

impl IoSource for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let n = buf.len().min(self.0.len());
        let (head, tail) = self.0.split_at(n);
        if let Some(to) = buf.get_mut(..n) {
            to.copy_from_slice(head);
        }
        self.0 = tail;
        Ok(n)
    }
}

/// A guest's `iovec`s, as a source or a sink.
pub struct UserIo<'a> {
    mem: &'a dyn UserMem,
    /// Segments not used up; the first may be partly used.
    segments: Vec<UserSlice>,
    next: usize,
    remaining: usize,
    moved: bool,
}

impl<'a> UserIo<'a> {
    /// Over several segments. The caller has checked that the lengths sum to at most `MAX_RW_COUNT`.
    pub fn new(mem: &'a dyn UserMem, segments: Vec<UserSlice>) -> Self {
        let remaining = segments.iter().fold(0usize, |sum, s| sum.saturating_add(s.len));
        Self { mem, segments, next: 0, remaining, moved: false }
    }

    /// Over one buffer.
    pub fn single(mem: &'a dyn UserMem, slice: UserSlice) -> Self {
        Self::new(mem, vec![slice])
    }

    /// Moves up to `total` bytes a segment at a time through `copy(segment part, offset)`.
    fn transfer(
        &mut self,
        total: usize,
        mut copy: impl FnMut(&dyn UserMem, UserSlice, usize) -> Result<(), crate::Fault>,
    ) -> Result<usize, Errno> {
        let mut done = 0;
        while done < total {
            let Some(segment) = self.segments.get_mut(self.next) else { break };
            if segment.len == 0 {
                self.next += 1;
                continue;
            }
            let n = segment.len.min(total - done);
            let part = UserSlice { addr: segment.addr, len: n };
            let (n, fault) = match copy(self.mem, part, done) {
                Ok(()) => (n, false),
                Err(fault) => (fault.copied.min(n), true),
            };
            done += n;
            self.remaining -= n;
            segment.len -= n;
            segment.addr = segment.addr.checked_add(n as u64).unwrap_or_default();
            if fault {
                self.remaining = 0;
                self.segments.clear();
                if done == 0 && !self.moved {
                    return Err(Errno::EFAULT);
                }
            }
        }
        self.moved |= done > 0;
        Ok(done)
    }
}

impl IoSink for UserIo<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let total = bytes.len().min(self.remaining);
        self.transfer(total, |mem, part, at| {
            let chunk = bytes.get(at..at + part.len).unwrap_or_default();
            mem.write(part.addr, chunk)
        })
    }
}

impl IoSource for UserIo<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn take(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let total = buf.len().min(self.remaining);
        self.transfer(total, |mem, part, at| match buf.get_mut(at..at + part.len) {
            Some(chunk) => mem.read(part.addr, chunk),
            None => Ok(()),
        })
    }
}
