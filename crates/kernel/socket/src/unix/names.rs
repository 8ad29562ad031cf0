//! What Unix sockets are bound to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::socket::SocketKind;
use sync::{Mutex, order};
use vfs::Result;

use super::state::Core;
use crate::Node;

/// Descriptors under way between all sockets of a namespace.
pub const MAX_IN_FLIGHT: usize = 65_536;
/// Names `bind(2)` can pick: five hexadecimal digits.
const PICKS: u32 = 0x10_0000;

/// The identity of an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// A name of the abstract namespace, without its leading NUL. Every type of socket has its own.
    Abstract(SocketKind, Vec<u8>),
    /// A socket inode.
    Node(Node),
}

/// The bound sockets of a network namespace.
#[derive(Default)]
pub struct Names {
    bound: Mutex<order::FileLocks, HashMap<Name, Weak<Core>>>,
    next_pick: AtomicU32,
    pub(super) in_flight: AtomicUsize,
}

impl Names {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The socket bound to `name`; `ECONNREFUSED` when there is none.
    pub(super) fn find(&self, name: &Name) -> Result<Arc<Core>> {
        let found = self.bound.lock().get(name).and_then(Weak::upgrade);
        found.ok_or(Errno::ECONNREFUSED)
    }

    /// Claims `name`; `EADDRINUSE` when a socket has it. An inode has just been made for the claim, so
    /// who seems to have it had one of the same number that is gone.
    pub(super) fn claim(&self, name: Name, socket: &Arc<Core>) -> Result<()> {
        let mut bound = self.bound.lock();
        let taken = bound.get(&name).is_some_and(|holder| holder.strong_count() > 0);
        if taken && matches!(name, Name::Abstract(..)) {
            return Err(Errno::EADDRINUSE);
        }
        bound.insert(name, Arc::downgrade(socket));
        Ok(())
    }

    /// Finds a free five-digit abstract name (`unix(7)`, autobind) and claims it.
    pub(super) fn claim_any(&self, kind: SocketKind, socket: &Arc<Core>) -> Result<Vec<u8>> {
        let mut bound = self.bound.lock();
        for _ in 0..PICKS {
            let number = self.next_pick.fetch_add(1, Ordering::Relaxed) % PICKS;
            let name = format!("{number:05x}").into_bytes();
            let key = Name::Abstract(kind, name.clone());
            if bound.get(&key).is_none_or(|holder| holder.strong_count() == 0) {
                bound.insert(key, Arc::downgrade(socket));
                return Ok(name);
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Gives `name` back, when `socket` still has it.
    pub(super) fn release(&self, name: &Name, socket: &Arc<Core>) {
        let mut bound = self.bound.lock();
        if bound.get(name).is_some_and(|holder| std::ptr::eq(holder.as_ptr(), Arc::as_ptr(socket))) {
            bound.remove(name);
        }
    }
}
