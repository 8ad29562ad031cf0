//! `eventfd(2)`: a 64-bit counter as a file.

use std::any::Any;

use abi::Errno;
use abi::poll::PollEvents;
use guestmem::{IoSink, IoSource};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::{File, FileContext, Result};

/// Largest value the counter holds.
const MAX: u64 = u64::MAX - 1;

/// What a read takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFdMode {
    /// The whole counter.
    Counter,
    /// One (`EFD_SEMAPHORE`).
    Semaphore,
}

/// An eventfd.
#[derive(Debug)]
pub struct EventFd {
    mode: EventFdMode,
    count: Mutex<order::FileState, u64>,
    queue: WaitQueue,
}

impl EventFd {
    /// A counter that starts at `initial`.
    pub fn new(initial: u32, mode: EventFdMode) -> Self {
        Self { mode, count: Mutex::new(u64::from(initial)), queue: WaitQueue::new() }
    }

    /// Adds `n` on the kernel's own behalf (AIO completions); saturates at what makes `POLLERR`.
    pub fn signal(&self, n: u64) {
        {
            let mut count = self.count.lock();
            *count = count.saturating_add(n);
        }
        self.queue.notify(PollEvents::READABLE);
    }

    /// Current value, for `/proc/PID/fdinfo`.
    pub fn value(&self) -> u64 {
        *self.count.lock()
    }

    fn take(&self) -> Result<u64> {
        let mut count = self.count.lock();
        if *count == 0 {
            return Err(Errno::EAGAIN);
        }
        let taken = match self.mode {
            EventFdMode::Counter => *count,
            EventFdMode::Semaphore => 1,
        };
        *count -= taken;
        Ok(taken)
    }
}

impl File for EventFd {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let taken = self.take()?;
        self.queue.notify(PollEvents::WRITABLE);
        // As on Linux, a fault here loses the value.
        match sink.put(&taken.to_ne_bytes())? {
            8 => Ok(8),
            _ => Err(Errno::EFAULT),
        }
    }

    fn write(&self, _cx: &FileContext<'_>, _offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        if source.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        // A caller that will try again must find its value still in the source: look for the one case
        // that can be known to fail before the value is fetched.
        if *self.count.lock() >= MAX {
            return Err(Errno::EAGAIN);
        }
        let mut bytes = [0u8; 8];
        if source.take(&mut bytes)? < 8 {
            return Err(Errno::EFAULT);
        }
        let value = u64::from_ne_bytes(bytes);
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        {
            let mut count = self.count.lock();
            if MAX - (*count).min(MAX) < value {
                return Err(Errno::EAGAIN);
            }
            *count += value;
        }
        self.queue.notify(PollEvents::READABLE);
        Ok(8)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        let count = *self.count.lock();
        let mut events = PollEvents::empty();
        if count > 0 {
            events |= PollEvents::READABLE;
        }
        if count < MAX {
            events |= PollEvents::WRITABLE;
        }
        if count == u64::MAX {
            events |= PollEvents::ERR;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cred::Credentials;
    use guestmem::{SliceSource, VecSink};

    fn read(fd: &EventFd) -> Result<u64> {
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let mut sink = VecSink::new(8);
        fd.read(&cx, 0, &mut sink)?;
        Ok(u64::from_ne_bytes(sink.bytes.as_slice().try_into().unwrap_or_default()))
    }

    fn write(fd: &EventFd, value: u64) -> Result<usize> {
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        fd.write(&cx, 0, &mut SliceSource(&value.to_ne_bytes()))
    }

    #[test]
    fn a_counter_is_taken_whole_and_a_semaphore_by_one() {
        let counter = EventFd::new(3, EventFdMode::Counter);
        assert_eq!(write(&counter, 4), Ok(8));
        assert_eq!(read(&counter), Ok(7));
        assert_eq!(read(&counter), Err(Errno::EAGAIN));
        let semaphore = EventFd::new(2, EventFdMode::Semaphore);
        assert_eq!((read(&semaphore), read(&semaphore)), (Ok(1), Ok(1)));
        assert_eq!(read(&semaphore), Err(Errno::EAGAIN));
    }

    #[test]
    fn the_counter_stops_below_the_top() {
        let fd = EventFd::new(0, EventFdMode::Counter);
        assert_eq!(write(&fd, u64::MAX), Err(Errno::EINVAL));
        assert_eq!(write(&fd, MAX), Ok(8));
        assert_eq!(write(&fd, 1), Err(Errno::EAGAIN));
        assert_eq!(fd.poll(), PollEvents::READABLE);
    }
}
