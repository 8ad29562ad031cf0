//! `inotify(7)`: event queues, and the registry the VFS's hooks report to.
//!
//! A [`Watches`] maps inodes, named by device and number, to those who watch them. Whoever changes the
//! tree reports to [`Watches::event`], which costs one atomic load while nobody watches. The VFS does not
//! report yet; until it does, queues stay empty.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::poll::PollEvents;
use bitflags::bitflags;
use guestmem::{IoSink, MemExt, UserPtr};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::{File, FileContext, IoctlRequest, Result};

/// Events one queue holds (`max_queued_events`).
const MAX_EVENTS: usize = 16384;
/// Watches of one instance (`max_user_watches`); `ENOSPC` beyond.
const MAX_WATCHES: usize = 65536;
/// Bytes of `struct inotify_event` without its name.
const HEAD: usize = 16;

bitflags! {
    /// Events and options of a watch.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WatchMask: u32 {
        /// Read.
        const ACCESS = 0x1;
        /// Written.
        const MODIFY = 0x2;
        /// Attributes changed.
        const ATTRIB = 0x4;
        /// Closed after writing.
        const CLOSE_WRITE = 0x8;
        /// Closed otherwise.
        const CLOSE_NOWRITE = 0x10;
        /// Opened.
        const OPEN = 0x20;
        /// A name moved away.
        const MOVED_FROM = 0x40;
        /// A name moved here.
        const MOVED_TO = 0x80;
        /// A name was made.
        const CREATE = 0x100;
        /// A name was removed.
        const DELETE = 0x200;
        /// The watched inode was removed.
        const DELETE_SELF = 0x400;
        /// The watched inode was moved.
        const MOVE_SELF = 0x800;
        /// Its file system was unmounted.
        const UNMOUNT = 0x2000;
        /// Events were lost.
        const Q_OVERFLOW = 0x4000;
        /// The watch is gone.
        const IGNORED = 0x8000;
        /// Only a directory may be watched; for the walk.
        const ONLYDIR = 0x0100_0000;
        /// Do not follow a link; for the walk.
        const DONT_FOLLOW = 0x0200_0000;
        /// No events of unlinked children.
        const EXCL_UNLINK = 0x0400_0000;
        /// Fail when there is a watch.
        const MASK_CREATE = 0x1000_0000;
        /// Add to the mask of a watch.
        const MASK_ADD = 0x2000_0000;
        /// The subject is a directory.
        const ISDIR = 0x4000_0000;
        /// One event only.
        const ONESHOT = 0x8000_0000;
    }
}

impl WatchMask {
    /// What can be asked for (`IN_ALL_EVENTS`).
    pub const EVENTS: Self = Self::from_bits_truncate(0xfff);
}

/// An inode: device and number.
pub type Subject = (u64, u64);

/// Who watches what.
#[derive(Debug, Default)]
pub struct Watches {
    /// Watches in all, so that an event nobody waits for takes no lock.
    count: AtomicUsize,
    by_subject: Mutex<order::FileState, HashMap<Subject, Vec<Weak<Inotify>>>>,
}

impl Watches {
    /// Nobody watches.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Something happened to `subject`, or to the name `name` in it. `cookie` ties the two halves of a
    /// rename together.
    pub fn event(&self, subject: Subject, what: WatchMask, cookie: u32, name: &[u8]) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let watchers: Vec<_> = {
            let watchers = self.by_subject.lock();
            watchers.get(&subject).into_iter().flatten().filter_map(Weak::upgrade).collect()
        };
        for watcher in watchers {
            watcher.report(subject, what, cookie, name);
        }
    }

    fn add(&self, subject: Subject, watcher: Weak<Inotify>) {
        self.by_subject.lock().entry(subject).or_default().push(watcher);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self, subject: Subject, watcher: *const Inotify) {
        let mut all = self.by_subject.lock();
        let Some(watchers) = all.get_mut(&subject) else { return };
        let before = watchers.len();
        watchers.retain(|other| !std::ptr::eq(other.as_ptr(), watcher));
        self.count.fetch_sub(before - watchers.len(), Ordering::Relaxed);
        if watchers.is_empty() {
            all.remove(&subject);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Event {
    /// Bytes on their way out: the name ends with a NUL and is padded to the head's size.
    fn encode(&self) -> Vec<u8> {
        let padded = if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEAD) };
        let mut out = Vec::with_capacity(HEAD + padded);
        out.extend_from_slice(&self.wd.to_ne_bytes());
        for word in [self.mask, self.cookie, padded as u32] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        out.extend_from_slice(&self.name);
        out.resize(HEAD + padded, 0);
        out
    }
}

#[derive(Debug, Default)]
struct State {
    watches: BTreeMap<i32, (Subject, WatchMask)>,
    by_subject: HashMap<Subject, i32>,
    last_wd: i32,
    events: VecDeque<Event>,
}

impl State {
    fn push(&mut self, event: Event) {
        // Equal neighbours become one, as on Linux.
        if self.events.back() == Some(&event) {
            return;
        }
        match self.events.len() {
            MAX_EVENTS.. => {}
            len if len == MAX_EVENTS - 1 => self.events.push_back(Event {
                wd: -1,
                mask: WatchMask::Q_OVERFLOW.bits(),
                cookie: 0,
                name: Vec::new(),
            }),
            _ => self.events.push_back(event),
        }
    }

    /// Removes a watch and says so to the reader.
    fn forget(&mut self, wd: i32) -> Option<Subject> {
        let (subject, _) = self.watches.remove(&wd)?;
        self.by_subject.remove(&subject);
        self.push(Event { wd, mask: WatchMask::IGNORED.bits(), cookie: 0, name: Vec::new() });
        Some(subject)
    }
}

/// An inotify instance.
#[derive(Debug)]
pub struct Inotify {
    me: Weak<Self>,
    watches: Arc<Watches>,
    state: Mutex<order::FileState, State>,
    queue: WaitQueue,
}

impl Inotify {
    /// Without watches.
    pub fn new(watches: Arc<Watches>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            watches,
            state: Mutex::default(),
            queue: WaitQueue::new(),
        })
    }

    /// `inotify_add_watch(2)`: returns the watch descriptor. `EINVAL` for a mask without events, `EEXIST`
    /// with `MASK_CREATE`, `ENOSPC`.
    pub fn add_watch(&self, subject: Subject, mask: WatchMask) -> Result<i32> {
        let both = WatchMask::MASK_ADD | WatchMask::MASK_CREATE;
        if !mask.intersects(WatchMask::EVENTS) || mask.contains(both) {
            return Err(Errno::EINVAL);
        }
        let wd = {
            let mut state = self.state.lock();
            if let Some(wd) = state.by_subject.get(&subject).copied() {
                if mask.contains(WatchMask::MASK_CREATE) {
                    return Err(Errno::EEXIST);
                }
                if let Some((_, old)) = state.watches.get_mut(&wd) {
                    *old = if mask.contains(WatchMask::MASK_ADD) { *old | mask } else { mask };
                }
                return Ok(wd);
            }
            if state.watches.len() >= MAX_WATCHES {
                return Err(Errno::ENOSPC);
            }
            let wd = state.last_wd.checked_add(1).ok_or(Errno::ENOSPC)?;
            state.last_wd = wd;
            state.watches.insert(wd, (subject, mask));
            state.by_subject.insert(subject, wd);
            wd
        };
        self.watches.add(subject, self.me.clone());
        Ok(wd)
    }

    /// `inotify_rm_watch(2)`; `EINVAL` for a descriptor that is none.
    pub fn remove_watch(&self, wd: i32) -> Result<()> {
        let subject = self.state.lock().forget(wd).ok_or(Errno::EINVAL)?;
        self.watches.remove(subject, self);
        self.queue.notify(PollEvents::READABLE);
        Ok(())
    }

    fn report(&self, subject: Subject, what: WatchMask, cookie: u32, name: &[u8]) {
        let gone = {
            let mut state = self.state.lock();
            let Some(wd) = state.by_subject.get(&subject).copied() else { return };
            let mask = state.watches.get(&wd).map_or(WatchMask::empty(), |(_, mask)| *mask);
            let ends = what.intersects(WatchMask::DELETE_SELF | WatchMask::UNMOUNT);
            let wanted = what.intersects(mask & WatchMask::EVENTS) || what.contains(WatchMask::UNMOUNT);
            if wanted {
                state.push(Event { wd, mask: what.bits(), cookie, name: name.to_vec() });
            }
            let gone = ends || (wanted && mask.contains(WatchMask::ONESHOT));
            if !wanted && !gone {
                return;
            }
            if gone { state.forget(wd) } else { None }
        };
        if let Some(subject) = gone {
            self.watches.remove(subject, self);
        }
        self.queue.notify(PollEvents::READABLE);
    }

    /// Takes the next event if it fits into `room` bytes; `None` when there is none.
    fn take(&self, room: usize) -> Option<Result<Vec<u8>>> {
        let mut state = self.state.lock();
        let bytes = state.events.front()?.encode();
        if bytes.len() > room {
            return Some(Err(Errno::EINVAL));
        }
        state.events.pop_front();
        Some(Ok(bytes))
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        let subjects: Vec<_> = self.state.get_mut().by_subject.keys().copied().collect();
        for subject in subjects {
            self.watches.remove(subject, self);
        }
    }
}

impl File for Inotify {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        let mut done = 0;
        loop {
            let bytes = match self.take(sink.remaining()) {
                Some(Ok(bytes)) => bytes,
                _ if done > 0 => return Ok(done),
                Some(Err(errno)) => return Err(errno),
                None => return Err(Errno::EAGAIN),
            };
            match sink.put(&bytes) {
                Ok(n) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => return Ok(done),
            }
        }
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        if self.state.lock().events.is_empty() { PollEvents::empty() } else { PollEvents::READABLE }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn ioctl(&self, _cx: &FileContext<'_>, request: &IoctlRequest<'_>) -> Result<u64> {
        if request.cmd != abi::ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let len: usize = self.state.lock().events.iter().map(|event| event.encode().len()).sum();
        request.mem.store(UserPtr::new(request.addr()), &i32::try_from(len).unwrap_or(i32::MAX))?;
        Ok(0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cred::Credentials;
    use guestmem::VecSink;

    fn read(file: &Inotify, room: usize) -> Result<Vec<u8>> {
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let mut sink = VecSink::new(room);
        file.read(&cx, 0, &mut sink).map(|_| sink.bytes)
    }

    #[test]
    fn events_arrive_padded_merged_and_masked() {
        let watches = Watches::new();
        let inotify = Inotify::new(Arc::clone(&watches));
        assert_eq!(inotify.add_watch((1, 2), WatchMask::CREATE), Ok(1));
        assert_eq!(read(&inotify, 100), Err(Errno::EAGAIN));
        watches.event((1, 2), WatchMask::CREATE, 0, b"name");
        watches.event((1, 2), WatchMask::CREATE, 0, b"name");
        watches.event((1, 2), WatchMask::DELETE, 0, b"name");
        watches.event((1, 3), WatchMask::CREATE, 0, b"name");
        assert_eq!(read(&inotify, 31), Err(Errno::EINVAL));
        let bytes = read(&inotify, 100).unwrap_or_default();
        assert_eq!(bytes.len(), 32);
        assert_eq!((bytes[0], bytes[5], bytes[12]), (1, 1, 16));
        assert_eq!(&bytes[16..21], b"name\0");
    }

    #[test]
    fn a_removed_or_spent_watch_says_so_and_leaves_the_registry() {
        let watches = Watches::new();
        let inotify = Inotify::new(Arc::clone(&watches));
        assert_eq!(inotify.add_watch((1, 2), WatchMask::OPEN | WatchMask::ONESHOT), Ok(1));
        assert_eq!(inotify.add_watch((1, 4), WatchMask::OPEN), Ok(2));
        watches.event((1, 2), WatchMask::OPEN, 0, b"");
        assert_eq!(inotify.remove_watch(1), Err(Errno::EINVAL));
        assert_eq!(read(&inotify, 100).map(|bytes| bytes.len()), Ok(32));
        assert_eq!(watches.count.load(Ordering::Relaxed), 1);
        drop(inotify);
        assert_eq!(watches.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_queue_says_that_events_were_lost() {
        let watches = Watches::new();
        let inotify = Inotify::new(Arc::clone(&watches));
        assert_eq!(inotify.add_watch((1, 2), WatchMask::CREATE), Ok(1));
        for n in 0..MAX_EVENTS + 10 {
            watches.event((1, 2), WatchMask::CREATE, 0, n.to_string().as_bytes());
        }
        let state = inotify.state.lock();
        assert_eq!((state.events.len(), state.events.back().map(|event| event.wd)), (MAX_EVENTS, Some(-1)));
    }
}
