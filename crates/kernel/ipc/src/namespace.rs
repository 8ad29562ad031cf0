//! The objects of an IPC namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use abi::Errno;

use crate::Result;
use crate::limits::Limits;
use crate::msg::MessageQueue;
use crate::registry::Registry;
use crate::sem::SemaphoreSet;
use crate::shm::Segment;

/// Semaphore sets (`SEMMNI`), message queues (`MSGMNI`).
pub const MAX_OBJECTS: usize = 32_000;
/// Segments (`SHMMNI`).
pub const MAX_SEGMENTS: usize = 4096;
/// Semaphores in all sets together (`SEMMNS`). Linux has room for a thousand times as many.
pub const MAX_SEMAPHORES: usize = 1 << 20;

/// An IPC namespace.
pub struct Namespace {
    /// Semaphore sets.
    pub semaphores: Registry<SemaphoreSet>,
    /// Message queues.
    pub queues: Registry<MessageQueue>,
    /// Shared memory segments.
    pub segments: Arc<Registry<Segment>>,
    /// What can be changed of the limits.
    pub limits: Limits,
    /// Semaphores in all sets.
    used: AtomicUsize,
    /// Somebody has used `SEM_UNDO`.
    undoes: AtomicBool,
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            semaphores: Registry::new(MAX_OBJECTS),
            queues: Registry::new(MAX_OBJECTS),
            segments: Arc::new(Registry::new(MAX_SEGMENTS)),
            limits: Limits::default(),
            used: AtomicUsize::new(0),
            undoes: AtomicBool::new(false),
        }
    }
}

impl Namespace {
    /// Counts `count` new semaphores in; `ENOSPC`.
    pub fn reserve_semaphores(&self, count: usize) -> Result<()> {
        let before = self.used.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) > MAX_SEMAPHORES {
            self.used.fetch_sub(count, Ordering::Relaxed);
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    /// Takes a semaphore set out; who waits for it gets `EIDRM`.
    pub fn remove_semaphores(&self, id: i32) -> Result<()> {
        let set = self.semaphores.remove(id)?;
        self.used.fetch_sub(set.len(), Ordering::Relaxed);
        set.mark_removed();
        Ok(())
    }

    /// An operation with `SEM_UNDO` is about to happen.
    pub fn note_undo(&self) {
        self.undoes.store(true, Ordering::Relaxed);
    }

    /// Process `pid` ends: what it did with `SEM_UNDO` is undone.
    pub fn process_ended(&self, pid: i32) {
        if self.undoes.load(Ordering::Relaxed) {
            for (_, set) in self.semaphores.list() {
                set.undo(pid);
            }
        }
    }
}
