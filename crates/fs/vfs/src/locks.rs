//! Advisory locks: `flock(2)`, POSIX record locks, open-file-description locks (`fcntl(2)`).
//!
//! Nothing waits here: a conflict is [`Conflict`], the caller registers with [`wait_queue`] and tries
//! again. So no cycle of sleepers exists that a signal could not break; `EDEADLK` is not detected.

use std::collections::HashMap;
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use sync::wait::WaitQueue;
use sync::{Mutex, order};

use crate::{Inode, Result};

/// Records one inode may have.
const RECORDS_MAX: usize = 65_536;

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A process, by thread-group id (POSIX).
    Process(i32),
    /// An open file description, by [`OpenFile::id`](crate::OpenFile::id) (OFD locks, `flock`).
    Description(usize),
}

/// The two families, which do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `flock(2)`: whole files.
    Flock,
    /// `fcntl(2)`: ranges, POSIX and OFD.
    Record,
}

/// One locked range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Owner.
    pub owner: Owner,
    /// Exclusive (a write lock)?
    pub exclusive: bool,
    /// First byte.
    pub start: u64,
    /// Last byte; `u64::MAX` for "to the end, wherever that will be".
    pub end: u64,
}

impl Record {
    fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.owner != other.owner && (self.exclusive || other.exclusive) && self.overlaps(other)
    }
}

/// Somebody else's lock that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict(pub Record);

#[derive(Default)]
struct InodeLocks {
    flock: Vec<Record>,
    records: Vec<Record>,
    queue: WaitQueue,
}

impl InodeLocks {
    fn list(&mut self, family: Family) -> &mut Vec<Record> {
        match family {
            Family::Flock => &mut self.flock,
            Family::Record => &mut self.records,
        }
    }
}

/// Device and inode number: an inode object may be forgotten and made again, its locks may not.
type Key = (u64, u64);

static TABLE: std::sync::LazyLock<Mutex<order::Leaf, HashMap<Key, InodeLocks>>> =
    std::sync::LazyLock::new(Mutex::default);

/// Descriptions that ever took a lock; so that closing others costs nothing.
fn key(inode: &Arc<dyn Inode>) -> Result<Key> {
    Ok((inode.fs().dev(), inode.attr()?.ino))
}

/// Where to wait for a lock of `inode` to go away ([`PollEvents::OUT`]).
pub fn wait_queue(inode: &Arc<dyn Inode>) -> Result<WaitQueue> {
    let key = key(inode)?;
    Ok(TABLE.lock().entry(key).or_default().queue.clone())
}

/// The first lock that `wanted` would have to wait for (`F_GETLK`).
pub fn test(inode: &Arc<dyn Inode>, family: Family, wanted: &Record) -> Result<Option<Record>> {
    let key = key(inode)?;
    let mut table = TABLE.lock();
    let Some(locks) = table.get_mut(&key) else { return Ok(None) };
    Ok(locks.list(family).iter().find(|held| held.conflicts(wanted)).copied())
}

/// Takes `wanted`, replacing what its owner holds of the range. `Ok(Some(..))` when another's lock is
/// in the way; `ENOLCK` when the inode has too many.
pub fn acquire(inode: &Arc<dyn Inode>, family: Family, wanted: Record) -> Result<Option<Conflict>> {
    if wanted.start > wanted.end {
        return Err(Errno::EINVAL);
    }
    let key = key(inode)?;
    let queue = {
        let mut table = TABLE.lock();
        let locks = table.entry(key).or_default();
        let queue = locks.queue.clone();
        let list = locks.list(family);
        if let Some(held) = list.iter().find(|held| held.conflicts(&wanted)) {
            return Ok(Some(Conflict(*held)));
        }
        if list.len() + 2 > RECORDS_MAX {
            return Err(Errno::ENOLCK);
        }
        carve(list, wanted.owner, wanted.start, wanted.end);
        list.push(wanted);
        merge(list, wanted.owner);
        queue
    };
    // A write lock turned into a read lock lets others in.
    queue.notify(PollEvents::OUT);
    Ok(None)
}

/// Gives `start..=end` back (`F_UNLCK`, `LOCK_UN`).
pub fn release(inode: &Arc<dyn Inode>, family: Family, owner: Owner, start: u64, end: u64) -> Result<()> {
    let key = key(inode)?;
    release_in(key, |locks| carve(locks.list(family), owner, start, end));
    Ok(())
}

/// Gives everything of `owner` on `inode` back: a process closed a descriptor of it (POSIX).
pub fn release_all(inode: &Arc<dyn Inode>, owner: Owner) {
    if TABLE.lock().is_empty() {
        return;
    }
    let Ok(key) = key(inode) else { return };
    release_in(key, |locks| {
        locks.flock.retain(|record| record.owner != owner);
        locks.records.retain(|record| record.owner != owner);
    });
}

/// The last reference to a description is gone.
pub(crate) fn release_description(inode: &Arc<dyn Inode>, id: usize) {
    let owner = Owner::Description(id);
    let holds = TABLE
        .lock()
        .values()
        .any(|locks| locks.flock.iter().chain(&locks.records).any(|record| record.owner == owner));
    if holds {
        release_all(inode, owner);
    }
}

fn release_in(key: Key, change: impl FnOnce(&mut InodeLocks)) {
    let queue = {
        let mut table = TABLE.lock();
        let Some(locks) = table.get_mut(&key) else { return };
        change(locks);
        let queue = locks.queue.clone();
        if locks.flock.is_empty() && locks.records.is_empty() && queue.is_empty() {
            table.remove(&key);
        }
        queue
    };
    queue.notify(PollEvents::OUT);
}

/// Cuts `start..=end` out of what `owner` holds.
fn carve(list: &mut Vec<Record>, owner: Owner, start: u64, end: u64) {
    let mut pieces = Vec::new();
    list.retain(|held| {
        if held.owner != owner || held.end < start || end < held.start {
            return true;
        }
        if held.start < start {
            pieces.push(Record { end: start - 1, ..*held });
        }
        if held.end > end {
            pieces.push(Record { start: end + 1, ..*held });
        }
        false
    });
    list.append(&mut pieces);
}

/// Joins adjoining ranges of one owner and kind, so that many small locks become few.
fn merge(list: &mut Vec<Record>, owner: Owner) {
    let (mut own, mut rest): (Vec<_>, Vec<_>) = list.drain(..).partition(|record| record.owner == owner);
    own.sort_by_key(|record| record.start);
    for record in own {
        match rest.last_mut() {
            Some(last)
                if last.owner == owner
                    && last.exclusive == record.exclusive
                    && last.end.checked_add(1) == Some(record.start) =>
            {
                last.end = record.end;
            }
            _ => rest.push(record),
        }
    }
    *list = rest;
}
