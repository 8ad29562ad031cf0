//! Limits of a namespace that `/proc/sys/kernel` can change.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{msg, shm};

/// Most bytes a message may be allowed to have: a sender's is copied whole.
pub const LARGEST_MESSAGE: u64 = 1 << 20;
/// Most bytes a queue may be allowed to hold.
pub const LARGEST_QUEUE: u64 = 64 << 20;

/// The limits.
#[derive(Debug)]
pub struct Limits {
    /// Bytes of a message (`msgmax`).
    pub message: AtomicU64,
    /// Bytes of a new queue (`msgmnb`).
    pub queue: AtomicU64,
    /// Bytes of a segment (`shmmax`).
    pub segment: AtomicU64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: AtomicU64::new(msg::MAX_MESSAGE as u64),
            queue: AtomicU64::new(msg::DEFAULT_QUEUE_BYTES as u64),
            segment: AtomicU64::new(shm::MAX_BYTES),
        }
    }
}

impl Limits {
    /// Bytes of a message.
    pub fn message(&self) -> usize {
        self.message.load(Ordering::Relaxed).min(LARGEST_MESSAGE) as usize
    }

    /// Bytes of a new queue.
    pub fn queue(&self) -> usize {
        self.queue.load(Ordering::Relaxed).min(LARGEST_QUEUE) as usize
    }

    /// Bytes of a segment.
    pub fn segment(&self) -> u64 {
        self.segment.load(Ordering::Relaxed).min(shm::MAX_BYTES)
    }
}
