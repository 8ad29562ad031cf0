//! Watches the memory of all containers, and tells when some ran out of it.

use std::collections::HashMap;
use std::sync::Arc;

use cgroup::{Cgroups, OomWatch, Seen};
use containerd_shim_protos::events::task::TaskOOM;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use parking_lot::Mutex;

use crate::events::Publisher;

/// Most events taken at a time.
const EVENTS: usize = 16;

/// The watches of all containers of a shim.
pub(crate) struct Watcher {
    epoll: Epoll,
    watches: Mutex<Watches>,
    publisher: Publisher,
}

#[derive(Default)]
struct Watches {
    by_token: HashMap<u64, (String, OomWatch)>,
    next: u64,
}

impl Watcher {
    /// Makes it, and starts its thread.
    pub(crate) fn start(publisher: Publisher) -> std::io::Result<Arc<Self>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let watcher = Arc::new(Self { epoll, watches: Mutex::default(), publisher });
        let own = watcher.clone();
        std::thread::spawn(move || own.run());
        Ok(watcher)
    }

    /// Begins to watch the groups at `path` for a container. One without any is not watched.
    pub(crate) fn watch(&self, id: &str, path: &str) {
        let watch = match Cgroups::find(path).and_then(|groups| groups.watch_oom()) {
            Ok(Some(watch)) => watch,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, id, "its memory is not watched"),
        };
        let mut watches = self.watches.lock();
        let token = watches.next;
        if let Err(error) = self.epoll.add(&watch, EpollEvent::new(EpollFlags::EPOLLIN, token)) {
            return tracing::warn!(%error, id, "its memory is not watched");
        }
        watches.next += 1;
        watches.by_token.insert(token, (id.to_owned(), watch));
    }

    /// Tells what has happened to a container and has not been told: what follows is told after it.
    pub(crate) fn check(&self, id: &str) {
        let mut watches = self.watches.lock();
        let tokens = watches.by_token.iter().filter(|(_, (of, _))| of == id).map(|(token, _)| *token);
        for token in tokens.collect::<Vec<_>>() {
            self.look(&mut watches, token);
        }
    }

    /// Stops watching a container.
    pub(crate) fn forget(&self, id: &str) {
        self.watches.lock().by_token.retain(|_, (of, _)| of != id);
    }

    fn look(&self, watches: &mut Watches, token: u64) {
        let Some((id, watch)) = watches.by_token.get_mut(&token) else { return };
        match watch.look() {
            Seen::Nothing => {}
            Seen::Oom => {
                tracing::info!(id, "ran out of memory");
                self.publisher.publish(&TaskOOM { container_id: id.clone(), ..TaskOOM::default() });
            }
            Seen::Gone => drop(watches.by_token.remove(&token)),
        }
    }

    fn run(&self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return tracing::error!(%error, "memory is not watched any more"),
            };
            let mut watches = self.watches.lock();
            for event in events.iter().take(count) {
                self.look(&mut watches, event.data());
            }
        }
    }
}
