//! `inotify(7)`: event queues. What happens to inodes is reported by [`vfs::watch`].

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::poll::PollEvents;
use guestmem::{IoSink, MemExt, UserPtr};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::watch::{Watch, WatchMask, Watcher};
use vfs::{File, FileContext, Inode, IoctlRequest, Result};

/// Events one queue holds (`max_queued_events`).
const MAX_EVENTS: usize = 16384;
/// Watches of one instance (`max_user_watches`); `ENOSPC` beyond.
const MAX_WATCHES: usize = 65536;
/// Bytes of `struct inotify_event` without its name.
const HEAD: usize = 16;

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

/// A watch of one inode.
#[derive(Debug)]
struct Watched {
    inode: usize,
    mask: WatchMask,
    /// Ends the reports when dropped; `None` while it is being registered.
    watch: Option<Watch>,
}

#[derive(Debug, Default)]
struct State {
    watches: BTreeMap<i32, Watched>,
    by_inode: HashMap<usize, i32>,
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

    /// Removes a watch and says so to the reader. What is returned is dropped without the lock.
    fn forget(&mut self, wd: i32) -> Option<Watched> {
        let watched = self.watches.remove(&wd)?;
        self.by_inode.remove(&watched.inode);
        self.push(Event { wd, mask: WatchMask::IGNORED.bits(), cookie: 0, name: Vec::new() });
        Some(watched)
    }
}

/// An inotify instance.
#[derive(Debug)]
pub struct Inotify {
    me: Weak<Self>,
    state: Mutex<order::FileState, State>,
    queue: WaitQueue,
}

impl Inotify {
    /// Without watches.
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self { me: me.clone(), state: Mutex::default(), queue: WaitQueue::new() })
    }

    /// `inotify_add_watch(2)`: returns the watch descriptor. `EINVAL` for a mask without events, `EEXIST`
    /// with `MASK_CREATE`, `ENOSPC`.
    pub fn add_watch(&self, inode: &Arc<dyn Inode>, mask: WatchMask) -> Result<i32> {
        let both = WatchMask::MASK_ADD | WatchMask::MASK_CREATE;
        if !mask.intersects(WatchMask::EVENTS) || mask.contains(both) {
            return Err(Errno::EINVAL);
        }
        let key = vfs::watch::key(inode);
        let wd = {
            let mut state = self.state.lock();
            if let Some(wd) = state.by_inode.get(&key).copied() {
                if mask.contains(WatchMask::MASK_CREATE) {
                    return Err(Errno::EEXIST);
                }
                if let Some(watched) = state.watches.get_mut(&wd) {
                    let add = mask.contains(WatchMask::MASK_ADD);
                    watched.mask = if add { watched.mask | mask } else { mask };
                }
                return Ok(wd);
            }
            if state.watches.len() >= MAX_WATCHES {
                return Err(Errno::ENOSPC);
            }
            let wd = state.last_wd.checked_add(1).ok_or(Errno::ENOSPC)?;
            state.last_wd = wd;
            state.watches.insert(wd, Watched { inode: key, mask, watch: None });
            state.by_inode.insert(key, wd);
            wd
        };
        let watch = Watch::new(inode, self.me.clone(), wd);
        let unwanted = match self.state.lock().watches.get_mut(&wd) {
            Some(watched) => watched.watch.replace(watch),
            // Removed by another thread meanwhile.
            None => Some(watch),
        };
        drop(unwanted);
        Ok(wd)
    }

    /// `inotify_rm_watch(2)`; `EINVAL` for a descriptor that is none.
    pub fn remove_watch(&self, wd: i32) -> Result<()> {
        let gone = self.state.lock().forget(wd).ok_or(Errno::EINVAL)?;
        drop(gone);
        self.queue.notify(PollEvents::READABLE);
        Ok(())
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

impl Watcher for Inotify {
    fn event(&self, wd: i32, what: WatchMask, cookie: u32, name: &[u8]) {
        let gone = {
            let mut state = self.state.lock();
            let Some(watched) = state.watches.get(&wd) else { return };
            let mask = watched.mask;
            if (what & mask).contains(WatchMask::EXCL_UNLINK) {
                return;
            }
            let ends = what.intersects(WatchMask::DELETE_SELF | WatchMask::UNMOUNT);
            let wanted = what.intersects(mask & WatchMask::EVENTS) || what.contains(WatchMask::UNMOUNT);
            if !wanted && !ends {
                return;
            }
            if wanted {
                let mut shown = what - WatchMask::EXCL_UNLINK;
                if what.intersects(WatchMask::DELETE_SELF | WatchMask::MOVE_SELF) {
                    shown -= WatchMask::ISDIR;
                }
                state.push(Event { wd, mask: shown.bits(), cookie, name: name.to_vec() });
            }
            let spent = wanted && mask.contains(WatchMask::ONESHOT);
            if ends || spent { state.forget(wd) } else { None }
        };
        drop(gone);
        self.queue.notify(PollEvents::READABLE);
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
    use abi::fs::FileType;
    use abi::time::Timespec;
    use cred::Credentials;
    use guestmem::VecSink;

    fn read(file: &Inotify, room: usize) -> Result<Vec<u8>> {
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let mut sink = VecSink::new(room);
        file.read(&cx, 0, &mut sink).map(|_| sink.bytes)
    }

    fn inode() -> Arc<dyn Inode> {
        let attr = crate::AnonAttr { kind: FileType::Regular, uid: 0, gid: 0, now: Timespec::default() };
        crate::AnonFs::anon_inodefs(1).inode(None, attr)
    }

    #[test]
    fn events_arrive_padded_merged_and_masked() {
        let inotify = Inotify::new();
        assert_eq!(inotify.add_watch(&inode(), WatchMask::CREATE), Ok(1));
        assert_eq!(read(&inotify, 100), Err(Errno::EAGAIN));
        inotify.event(1, WatchMask::CREATE, 0, b"name");
        inotify.event(1, WatchMask::CREATE, 0, b"name");
        inotify.event(1, WatchMask::DELETE, 0, b"name");
        inotify.event(2, WatchMask::CREATE, 0, b"name");
        assert_eq!(read(&inotify, 31), Err(Errno::EINVAL));
        let bytes = read(&inotify, 100).unwrap_or_default();
        assert_eq!(bytes.len(), 32);
        assert_eq!((bytes[0], bytes[5], bytes[12]), (1, 1, 16));
        assert_eq!(&bytes[16..21], b"name\0");
    }

    #[test]
    fn a_removed_or_spent_watch_says_so() {
        let inotify = Inotify::new();
        let (one, two) = (inode(), inode());
        assert_eq!(inotify.add_watch(&one, WatchMask::OPEN | WatchMask::ONESHOT), Ok(1));
        assert_eq!(inotify.add_watch(&two, WatchMask::OPEN), Ok(2));
        assert_eq!(inotify.add_watch(&two, WatchMask::OPEN | WatchMask::MASK_CREATE), Err(Errno::EEXIST));
        inotify.event(1, WatchMask::OPEN, 0, b"");
        assert_eq!(inotify.remove_watch(1), Err(Errno::EINVAL));
        assert_eq!(read(&inotify, 100).map(|bytes| bytes.len()), Ok(32));
        assert_eq!(Arc::strong_count(&one), 1, "the inode is let go");
        assert_eq!(inotify.remove_watch(2), Ok(()));
        assert_eq!(inotify.add_watch(&one, WatchMask::OPEN), Ok(3));
    }

    #[test]
    fn a_full_queue_says_that_events_were_lost() {
        let inotify = Inotify::new();
        assert_eq!(inotify.add_watch(&inode(), WatchMask::CREATE), Ok(1));
        for n in 0..MAX_EVENTS + 10 {
            inotify.event(1, WatchMask::CREATE, 0, n.to_string().as_bytes());
        }
        let state = inotify.state.lock();
        assert_eq!((state.events.len(), state.events.back().map(|event| event.wd)), (MAX_EVENTS, Some(-1)));
    }
}
