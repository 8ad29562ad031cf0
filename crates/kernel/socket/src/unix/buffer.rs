//! What one socket may have under way to others (`SO_SNDBUF`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use abi::poll::PollEvents;
use sync::wait::WaitQueue;

/// Bytes by default (`net.core.wmem_default`).
pub(super) const DEFAULT_BYTES: usize = 212_992;
/// What the smallest message costs, so that empty ones are bounded too; as on Linux.
const LEAST: usize = 768;
/// What a message costs beside its data.
const OVERHEAD: usize = 256;
/// Bytes of a packet that do not fit beside a buffer's own head.
const HEAD: usize = 32;
/// Most bytes of a stream that travel as one message.
const CHUNK: usize = 65_536;

/// Counts what a socket has sent and nobody has read.
pub(super) struct SendBuffer {
    used: AtomicUsize,
    limit: AtomicUsize,
    /// The sender's.
    wait: WaitQueue,
}

impl SendBuffer {
    /// An empty one of a socket that waits on `wait`.
    pub(super) fn new(wait: WaitQueue) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit: AtomicUsize::new(DEFAULT_BYTES), wait })
    }

    pub(super) fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
        self.wait.notify(PollEvents::WRITABLE);
    }

    /// Bytes under way (`SIOCOUTQ`).
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Largest packet.
    pub(super) fn max_packet(&self) -> usize {
        self.limit.load(Ordering::Relaxed).saturating_sub(HEAD)
    }

    /// Room for up to `want` bytes, and a claim on it; `None` when it is full. Whoever measures less
    /// than the limit gets room, so the overshoot is one message a writer.
    pub(super) fn reserve(self: &Arc<Self>, want: usize, whole: bool) -> Option<(usize, Charge)> {
        let limit = self.limit.load(Ordering::Relaxed);
        let used = self.used.load(Ordering::SeqCst);
        if used >= limit {
            return None;
        }
        let room = if whole { want } else { want.min(CHUNK).min((limit - used).max(LEAST)) };
        let bytes = room.saturating_add(OVERHEAD).max(LEAST);
        self.used.fetch_add(bytes, Ordering::SeqCst);
        Some((room, Charge { buffer: Arc::clone(self), bytes }))
    }

    /// As Linux: only while at most a quarter of the buffer is in use, so that a writer woken by it has
    /// room for more than a byte.
    pub(super) fn is_writable(&self) -> bool {
        self.used().saturating_mul(4) <= self.limit.load(Ordering::Relaxed)
    }
}

/// A claim on a part of a send buffer, given back when dropped; which must not happen under a lock,
/// because it wakes the sender.
pub(super) struct Charge {
    buffer: Arc<SendBuffer>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.buffer.used.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.buffer.is_writable() {
            self.buffer.wait.notify(PollEvents::WRITABLE);
        }
    }
}
