//! One thread that wakes those who wait for host descriptors of guests.
//!
//! It knows the files weakly: a guest's last close closes the host's descriptor, which others may wait for,
//! such as the reader of a pipe.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use abi::poll::PollEvents;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Who is told that a descriptor may be ready.
pub(crate) trait Ready: Send + Sync {
    /// The descriptor.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// It may be ready for `events`.
    fn ready(&self, events: PollEvents);
}

/// The thread and what it watches. Both live as long as the Sentry.
pub(crate) struct Watcher {
    epoll: Epoll,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    next: u64,
    watched: HashMap<u64, Weak<dyn Ready>>,
}

impl Watcher {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let watcher = Arc::new(Self { epoll, files: Mutex::default() });
        let running = Arc::clone(&watcher);
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || running.run())?;
        Ok(watcher)
    }

    /// Nothing that holds this lock panics, so that a poisoned one is as good. No lock of `sync` is taken
    /// under it.
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a file until it is gone. One that cannot be watched, such as `/dev/null`, is always ready.
    pub(crate) fn add(&self, file: &Arc<dyn Ready>) {
        let id = {
            let mut files = self.lock();
            files.watched.retain(|_, file| file.strong_count() > 0);
            files.next += 1;
            let id = files.next;
            files.watched.insert(id, Arc::downgrade(file));
            id
        };
        let interest =
            EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        if self.epoll.add(file.descriptor(), EpollEvent::new(interest, id)).is_err() {
            self.lock().watched.remove(&id);
        }
    }

    /// Ends the watch over a descriptor that is about to be closed: other descriptors of the same file,
    /// outside, would keep it up.
    pub(crate) fn forget(&self, descriptor: BorrowedFd<'_>) {
        // Fails when it could not be watched.
        let _ = self.epoll.delete(descriptor);
    }

    fn run(&self) {
        let mut events = [EpollEvent::empty(); 8];
        loop {
            let n = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(n) => n,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "the watch over host descriptors ended");
                    return;
                }
            };
            for event in events.iter().take(n) {
                let ready = PollEvents::from_bits_truncate(event.events().bits() as u32);
                let file = self.lock().watched.get(&event.data()).and_then(Weak::upgrade);
                if let Some(file) = file {
                    file.ready(ready | PollEvents::READABLE | PollEvents::WRITABLE);
                }
            }
        }
    }
}
