//! What Unix sockets are bound to.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use abi::Errno;
use sync::{Mutex, order};
use vfs::Result;

use super::UnixSocket;

/// The identity of an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// A name of the abstract namespace, without its leading NUL.
    Abstract(Vec<u8>),
    /// A socket inode.
    Node {
        /// Device.
        dev: u64,
        /// Inode number.
        ino: u64,
    },
}

/// The bound sockets of a network namespace.
#[derive(Default)]
pub struct Names(Mutex<order::FileLocks, HashMap<Name, Weak<UnixSocket>>>);

impl Names {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The socket bound to `name`; `ECONNREFUSED` when there is none.
    pub fn find(&self, name: &Name) -> Result<Arc<UnixSocket>> {
        self.0.lock().get(name).and_then(Weak::upgrade).ok_or(Errno::ECONNREFUSED)
    }

    /// Claims `name`; `EADDRINUSE` when a living socket has it.
    pub(super) fn claim(&self, name: Name, socket: &Arc<UnixSocket>) -> Result<()> {
        let mut names = self.0.lock();
        if names.get(&name).is_some_and(|holder| holder.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        names.insert(name, Arc::downgrade(socket));
        Ok(())
    }

    /// Finds a free five-digit abstract name (`autobind`, `unix(7)`) and claims it.
    pub(super) fn claim_any(&self, socket: &Arc<UnixSocket>) -> Result<Vec<u8>> {
        let mut names = self.0.lock();
        for number in 0..0x10_0000u32 {
            let name = format!("{number:05x}").into_bytes();
            let key = Name::Abstract(name.clone());
            if names.get(&key).is_none_or(|holder| holder.strong_count() == 0) {
                names.insert(key, Arc::downgrade(socket));
                return Ok(name);
            }
        }
        Err(Errno::ENOSPC)
    }

    /// Gives `name` back, when `socket` (which is being dropped) still has it.
    pub(super) fn release(&self, name: &Name, socket: *const UnixSocket) {
        let mut names = self.0.lock();
        if names.get(name).is_some_and(|holder| std::ptr::eq(holder.as_ptr(), socket)) {
            names.remove(name);
        }
    }
}
