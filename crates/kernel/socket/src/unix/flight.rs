//! Descriptors under way.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use vfs::Result;

use super::names::{MAX_IN_FLIGHT, Names};
use crate::FileRef;

/// Descriptors in a message, counted while they are.
pub(super) struct InFlight {
    files: Vec<FileRef>,
    names: Arc<Names>,
}

impl InFlight {
    /// Counts `files` in; `ETOOMANYREFS`.
    pub(super) fn new(files: Vec<FileRef>, names: &Arc<Names>) -> Result<Self> {
        let before = names.in_flight.fetch_add(files.len(), Ordering::Relaxed);
        let flight = Self { files, names: Arc::clone(names) };
        if before.saturating_add(flight.files.len()) > MAX_IN_FLIGHT && !flight.files.is_empty() {
            return Err(Errno::ETOOMANYREFS);
        }
        Ok(flight)
    }

    /// The same descriptors again (`MSG_PEEK`).
    pub(super) fn copies(&self) -> Vec<FileRef> {
        self.files.clone()
    }

    /// They have arrived.
    pub(super) fn land(&mut self) -> Vec<FileRef> {
        let files = std::mem::take(&mut self.files);
        self.names.in_flight.fetch_sub(files.len(), Ordering::Relaxed);
        files
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        bury_files(self.land());
    }
}

thread_local! {
    /// Descriptors that a drop further up this thread's stack will close.
    static GRAVE: RefCell<Option<Vec<FileRef>>> = const { RefCell::new(None) };
}

/// Closes descriptors, with no lock held, one after the other: one that is a socket with more descriptors in its queue adds
/// those to the list, rather than to the stack, which a guest could make as deep as it likes.
fn bury_files(files: Vec<FileRef>) {
    if files.is_empty() {
        return;
    }
    let first = GRAVE.with_borrow_mut(|grave| match grave {
        Some(grave) => {
            grave.extend(files);
            false
        }
        None => {
            *grave = Some(files);
            true
        }
    });
    if !first {
        return;
    }
    while let Some(file) = GRAVE.with_borrow_mut(|grave| grave.as_mut().and_then(Vec::pop)) {
        drop(file);
    }
    GRAVE.set(None);
}
