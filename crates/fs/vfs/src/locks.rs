//! Advisory locks: `flock(2)`, POSIX record locks, open-file-description locks (`fcntl(2)`).
//!
//! Nothing waits here: a conflict is [`Conflict`], the caller registers with [`wait_queue`] and tries
//! again, and says with [`Waiting`] for whom, so that processes that wait for each other are told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

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

/// The locks of one inode.
#[derive(Default)]
struct InodeLocks {
    /// Its address.
    inode: usize,
    lists: Mutex<order::Leaf, Lists>,
    queue: WaitQueue,
}

#[derive(Default)]
struct Lists {
    flock: Vec<Record>,
    records: Vec<Record>,
}

impl Lists {
    fn of(&mut self, family: Family) -> &mut Vec<Record> {
        match family {
            Family::Flock => &mut self.flock,
            Family::Record => &mut self.records,
        }
    }

    fn len(&self) -> usize {
        self.flock.len() + self.records.len()
    }
}

/// Who has ever been locked, by the address of the inode. An entry lives as long as its inode: somebody may
/// be about to wait in its queue. Whoever holds a lock has the file open, and so keeps the inode.
#[derive(Default)]
struct Registry {
    inodes: HashMap<usize, (Weak<dyn Inode>, Arc<InodeLocks>)>,
    /// How many entries there may be until those of dead inodes are looked for.
    limit: usize,
}

static REGISTRY: LazyLock<Mutex<order::Leaf, Registry>> = LazyLock::new(Mutex::default);

/// Locks held in all, so that closing costs nothing where nobody locks.
static HELD: AtomicUsize = AtomicUsize::new(0);

impl Registry {
    fn get(&self, inode: &Arc<dyn Inode>) -> Option<Arc<InodeLocks>> {
        let (known, locks) = self.inodes.get(&address(inode))?;
        // At the address of one that is gone there may be another.
        (known.strong_count() > 0).then(|| Arc::clone(locks))
    }

    fn get_or_insert(&mut self, inode: &Arc<dyn Inode>) -> Arc<InodeLocks> {
        if let Some(locks) = self.get(inode) {
            return locks;
        }
        if self.inodes.len() >= self.limit {
            self.inodes.retain(|_, (inode, _)| inode.strong_count() > 0);
            self.limit = 2 * self.inodes.len() + 64;
        }
        let locks = Arc::new(InodeLocks { inode: address(inode), ..InodeLocks::default() });
        self.inodes.insert(address(inode), (Arc::downgrade(inode), Arc::clone(&locks)));
        locks
    }
}

fn address(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>() as usize
}

impl InodeLocks {
    /// Lets `change` change the lists, and say whether somebody who waits may have a chance now.
    fn change<T>(&self, change: impl FnOnce(&mut Lists) -> (T, bool)) -> T {
        let (result, chance) = {
            let mut lists = self.lists.lock();
            let before = lists.len();
            let changed = change(&mut lists);
            HELD.fetch_add(lists.len(), Ordering::SeqCst);
            HELD.fetch_sub(before, Ordering::SeqCst);
            changed
        };
        if chance {
            WAITING.lock().retain(|wait| wait.inode != self.inode);
            self.queue.notify(PollEvents::OUT);
        }
        result
    }
}

/// Where to wait for a lock of `inode` to go away ([`PollEvents::OUT`]).
pub fn wait_queue(inode: &Arc<dyn Inode>) -> Result<WaitQueue> {
    Ok(REGISTRY.lock().get_or_insert(inode).queue.clone())
}

/// The first lock that `wanted` would have to wait for (`F_GETLK`).
pub fn test(inode: &Arc<dyn Inode>, family: Family, wanted: &Record) -> Result<Option<Record>> {
    let Some(locks) = REGISTRY.lock().get(inode) else { return Ok(None) };
    let mut lists = locks.lists.lock();
    Ok(lists.of(family).iter().find(|held| held.conflicts(wanted)).copied())
}

/// Takes `wanted`, replacing what its owner holds of the range. `Ok(Some(..))` when another's lock is
/// in the way; `ENOLCK` when the inode has too many.
pub fn acquire(inode: &Arc<dyn Inode>, family: Family, wanted: Record) -> Result<Option<Conflict>> {
    if wanted.start > wanted.end {
        return Err(Errno::EINVAL);
    }
    let locks = REGISTRY.lock().get_or_insert(inode);
    locks.change(|lists| {
        let list = lists.of(family);
        if let Some(held) = list.iter().find(|held| held.conflicts(&wanted)) {
            return (Ok(Some(Conflict(*held))), false);
        }
        if list.len() + 2 > RECORDS_MAX {
            return (Err(Errno::ENOLCK), false);
        }
        // A write lock turned into a read lock lets others in.
        let weaker = carve(list, wanted.owner, wanted.start, wanted.end);
        list.push(wanted);
        merge(list, wanted.owner);
        (Ok(None), weaker)
    })
}

/// Gives `start..=end` back (`F_UNLCK`, `LOCK_UN`).
pub fn release(inode: &Arc<dyn Inode>, family: Family, owner: Owner, start: u64, end: u64) -> Result<()> {
    let locks = REGISTRY.lock().get(inode);
    if let Some(locks) = locks {
        locks.change(|lists| ((), carve(lists.of(family), owner, start, end)));
    }
    Ok(())
}

/// Gives everything of `owner` on `inode` back: a process closed a descriptor of it (POSIX), or the last
/// reference to a description is gone.
pub fn release_all(inode: &Arc<dyn Inode>, owner: Owner) {
    if HELD.load(Ordering::SeqCst) == 0 {
        return;
    }
    let locks = REGISTRY.lock().get(inode);
    let Some(locks) = locks else { return };
    locks.change(|lists| {
        let before = lists.len();
        lists.flock.retain(|record| record.owner != owner);
        lists.records.retain(|record| record.owner != owner);
        ((), lists.len() < before)
    });
}

/// A thread of process `waiter` waits for a lock of an inode that `holder` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wait {
    waiter: i32,
    holder: i32,
    inode: usize,
}

/// All of them. What is released ends those at its inode: they look again, and say so again.
static WAITING: Mutex<order::Leaf, Vec<Wait>> = Mutex::new(Vec::new());

/// A wait for a record lock. While it exists, others can tell that it would never end.
#[derive(Debug)]
pub struct Waiting {
    owner: Owner,
    inode: usize,
    wait: Option<Wait>,
}

impl Waiting {
    /// `owner` is about to wait for a lock of `inode`.
    pub fn new(inode: &Arc<dyn Inode>, owner: Owner) -> Self {
        Self { owner, inode: address(inode), wait: None }
    }

    /// It waits for `held` to go away. `EDEADLK` when the holder waits, through whomever, for the owner.
    /// Only processes are told (`fcntl(2)`): a description has many users, of whom another may unlock.
    pub fn behind(&mut self, held: &Record) -> Result<()> {
        self.end();
        let (Owner::Process(waiter), Owner::Process(holder)) = (self.owner, held.owner) else {
            return Ok(());
        };
        let wait = Wait { waiter, holder, inode: self.inode };
        let mut waiting = WAITING.lock();
        if reaches(&waiting, holder, waiter) {
            return Err(Errno::EDEADLK);
        }
        waiting.push(wait);
        self.wait = Some(wait);
        Ok(())
    }

    fn end(&mut self) {
        let Some(wait) = self.wait.take() else { return };
        let mut waiting = WAITING.lock();
        if let Some(at) = waiting.iter().position(|other| *other == wait) {
            waiting.swap_remove(at);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

/// Does `from` wait for `to`, or for somebody who does?
fn reaches(waiting: &[Wait], from: i32, to: i32) -> bool {
    let mut reached = vec![from];
    let mut next = 0;
    while let Some(at) = reached.get(next).copied() {
        if at == to {
            return true;
        }
        for wait in waiting.iter().filter(|wait| wait.waiter == at) {
            if !reached.contains(&wait.holder) {
                reached.push(wait.holder);
            }
        }
        next += 1;
    }
    false
}

/// Cuts `start..=end` out of what `owner` holds; was there any of it?
fn carve(list: &mut Vec<Record>, owner: Owner, start: u64, end: u64) -> bool {
    let mut cut = false;
    let mut pieces = Vec::new();
    list.retain(|held| {
        if held.owner != owner || held.end < start || end < held.start {
            return true;
        }
        cut = true;
        if held.start < start {
            pieces.push(Record { end: start - 1, ..*held });
        }
        if held.end > end {
            pieces.push(Record { start: end + 1, ..*held });
        }
        false
    });
    list.append(&mut pieces);
    cut
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
