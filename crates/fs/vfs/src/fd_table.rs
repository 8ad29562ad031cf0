//! Descriptor tables.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use abi::Errno;
use sync::{Mutex, order};

use crate::Result;
use crate::open_file::OpenFile;

/// No table grows beyond this, whatever the limit says (`fs.nr_open`).
const NR_OPEN: u64 = 1 << 20;

/// One descriptor.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// What it refers to.
    pub file: Arc<OpenFile>,
    /// Closed by a successful `execve(2)`?
    pub cloexec: bool,
}

/// A descriptor table, shared by threads (`CLONE_FILES`). What a call takes out of it is returned, so
/// that it is dropped, and its file closed, without the table's lock.
#[derive(Debug, Default)]
pub struct FdTable {
    slots: Mutex<order::FdTable, BTreeMap<u32, Descriptor>>,
}

fn number(fd: i32) -> Result<u32> {
    u32::try_from(fd).map_err(|_| Errno::EBADF)
}

/// The lowest free number from `min` on; `EMFILE` at `limit`.
fn lowest_free(slots: &BTreeMap<u32, Descriptor>, min: u32, limit: u64) -> Result<u32> {
    let mut free = min;
    for used in slots.range(min..).map(|(fd, _)| *fd) {
        if used != free {
            break;
        }
        free += 1;
    }
    if u64::from(free) >= limit.min(NR_OPEN) { Err(Errno::EMFILE) } else { Ok(free) }
}

impl FdTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The description behind `fd`, `EBADF` when there is none.
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>> {
        self.descriptor(fd).map(|descriptor| descriptor.file)
    }

    /// The descriptor `fd`.
    pub fn descriptor(&self, fd: i32) -> Result<Descriptor> {
        self.slots.lock().get(&number(fd)?).cloned().ok_or(Errno::EBADF)
    }

    /// Enters `file` at the lowest free number not below `min`. `limit` is `RLIMIT_NOFILE`; `EINVAL`
    /// when `min` is beyond it, `EMFILE` when all below it are taken.
    pub fn insert(&self, file: Arc<OpenFile>, cloexec: bool, min: u32, limit: u64) -> Result<i32> {
        if min > 0 && u64::from(min) >= limit.min(NR_OPEN) {
            return Err(Errno::EINVAL);
        }
        let mut slots = self.slots.lock();
        let fd = lowest_free(&slots, min, limit)?;
        slots.insert(fd, Descriptor { file, cloexec });
        Ok(fd as i32)
    }

    /// Is there room for one more? `EMFILE`. For calls that must know before they do what cannot be
    /// undone (`accept(2)`); another thread may still take the place.
    pub fn check_room(&self, limit: u64) -> Result<()> {
        lowest_free(&self.slots.lock(), 0, limit).map(drop)
    }

    /// Two at once (`pipe(2)`, `socketpair(2)`): both or none.
    pub fn insert_pair(&self, files: [Arc<OpenFile>; 2], cloexec: bool, limit: u64) -> Result<[i32; 2]> {
        let mut slots = self.slots.lock();
        let a = lowest_free(&slots, 0, limit)?;
        let b = lowest_free(&slots, a + 1, limit)?;
        let [first, second] = files;
        slots.insert(a, Descriptor { file: first, cloexec });
        slots.insert(b, Descriptor { file: second, cloexec });
        Ok([a as i32, b as i32])
    }

    /// Makes `to` refer to `file` (`dup2(2)`, `dup3(2)`); returns what was there. `EBADF` for a number
    /// beyond `limit`.
    pub fn replace(
        &self,
        to: i32,
        file: Arc<OpenFile>,
        cloexec: bool,
        limit: u64,
    ) -> Result<Option<Arc<OpenFile>>> {
        let to = number(to)?;
        if u64::from(to) >= limit.min(NR_OPEN) {
            return Err(Errno::EBADF);
        }
        let old = self.slots.lock().insert(to, Descriptor { file, cloexec });
        Ok(old.map(|descriptor| descriptor.file))
    }

    /// Takes `fd` out (`close(2)`).
    pub fn remove(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let removed = self.slots.lock().remove(&number(fd)?);
        removed.map(|descriptor| descriptor.file).ok_or(Errno::EBADF)
    }

    /// Takes all of `range` out (`close_range(2)`).
    pub fn remove_range(&self, range: RangeInclusive<u32>) -> Vec<Arc<OpenFile>> {
        if range.is_empty() {
            return Vec::new();
        }
        let mut slots = self.slots.lock();
        let numbers: Vec<u32> = slots.range(range).map(|(fd, _)| *fd).collect();
        numbers.iter().filter_map(|fd| slots.remove(fd)).map(|descriptor| descriptor.file).collect()
    }

    /// Sets close-on-exec for all of `range` (`CLOSE_RANGE_CLOEXEC`).
    pub fn set_cloexec_range(&self, range: RangeInclusive<u32>) {
        if range.is_empty() {
            return;
        }
        for (_, descriptor) in self.slots.lock().range_mut(range) {
            descriptor.cloexec = true;
        }
    }

    /// `F_SETFD`.
    pub fn set_cloexec(&self, fd: i32, cloexec: bool) -> Result<()> {
        let fd = number(fd)?;
        self.slots.lock().get_mut(&fd).ok_or(Errno::EBADF)?.cloexec = cloexec;
        Ok(())
    }

    /// Takes out what `execve(2)` closes.
    pub fn take_cloexec(&self) -> Vec<Arc<OpenFile>> {
        let mut slots = self.slots.lock();
        let (closed, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut *slots).into_iter().partition(|(_, descriptor)| descriptor.cloexec);
        *slots = kept;
        closed.into_values().map(|descriptor| descriptor.file).collect()
    }

    /// Takes everything out (`exit(2)` of the last user).
    pub fn take_all(&self) -> Vec<Arc<OpenFile>> {
        let all = std::mem::take(&mut *self.slots.lock());
        all.into_values().map(|descriptor| descriptor.file).collect()
    }

    /// A table of its own with the same descriptors (`fork(2)`).
    pub fn fork(&self) -> Self {
        Self { slots: Mutex::new(self.slots.lock().clone()) }
    }

    /// Numbers in use, ascending (`/proc/PID/fd`).
    pub fn numbers(&self) -> Vec<i32> {
        self.slots.lock().keys().map(|fd| *fd as i32).collect()
    }
}
