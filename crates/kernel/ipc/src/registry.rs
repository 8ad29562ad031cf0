//! Ids, keys and permissions, the same for all three kinds of System V object.
//!
//! An id is `sequence * MAX + slot`, so that an id used after its object was removed is told from the
//! object that took its slot (`EINVAL`), as on Linux.

use std::collections::HashMap;
use std::sync::Arc;

use abi::Errno;
use cred::{CapSet, Credentials};
use sync::{Mutex, order};

use crate::Result;

/// Slots a table can have (`IPCMNI`).
pub const MAX: usize = 32_768;
/// The key that never names an existing object.
pub const IPC_PRIVATE: i32 = 0;
/// Create when missing.
pub const IPC_CREAT: u32 = 0o1000;
/// Fail when it exists.
pub const IPC_EXCL: u32 = 0o2000;

/// Owner and mode of an object (`struct ipc64_perm`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Key it was made with.
    pub key: i32,
    /// Owner.
    pub uid: u32,
    /// Owner's group.
    pub gid: u32,
    /// Creator.
    pub cuid: u32,
    /// Creator's group.
    pub cgid: u32,
    /// The nine permission bits.
    pub mode: u32,
}

impl Permissions {
    fn new(key: i32, flags: u32, cred: &Credentials) -> Self {
        let (uid, gid) = (cred.euid, cred.egid);
        Self { key, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777 }
    }

    /// May `cred` do what `want` (bits of one class: 4 read, 2 alter) says? `EACCES`.
    pub fn check(&self, cred: &Credentials, want: u32) -> Result<()> {
        let shift = if cred.euid == self.uid || cred.euid == self.cuid {
            6
        } else if cred.in_group(self.gid) || cred.in_group(self.cgid) {
            3
        } else {
            0
        };
        let granted = (self.mode >> shift) & 0o7;
        let fine = want & !granted == 0 || cred.capable(CapSet::IPC_OWNER);
        if fine { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// May `cred` change or remove the object? `EPERM`.
    pub fn check_owner(&self, cred: &Credentials) -> Result<()> {
        let owner = cred.euid == self.uid || cred.euid == self.cuid;
        if owner || cred.capable(CapSet::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// `IPC_SET`: a new owner and mode.
    pub fn set(&mut self, uid: u32, gid: u32, mode: u32) {
        (self.uid, self.gid, self.mode) = (uid, gid, mode & 0o777);
    }
}

struct Slot<T> {
    sequence: u32,
    object: Option<Arc<T>>,
}

struct Table<T> {
    slots: Vec<Slot<T>>,
    by_key: HashMap<i32, usize>,
    used: usize,
}

/// The objects of one kind.
pub struct Registry<T> {
    table: Mutex<order::Ipc, Table<T>>,
    limit: usize,
}

impl<T> Registry<T> {
    /// An empty one that holds up to `limit` objects.
    pub fn new(limit: usize) -> Self {
        let table = Table { slots: Vec::new(), by_key: HashMap::new(), used: 0 };
        Self { table: Mutex::new(table), limit: limit.min(MAX) }
    }

    /// The `*get` calls: the object `key` names, or a new one from `make`. `check` looks at an existing
    /// object (size, permissions). `ENOENT`, `EEXIST`, `ENOSPC`.
    pub fn get(
        &self,
        key: i32,
        flags: u32,
        cred: &Credentials,
        check: impl FnOnce(&T) -> Result<()>,
        make: impl FnOnce(Permissions) -> Result<T>,
    ) -> Result<i32> {
        let mut table = self.table.lock();
        let existing = if key == IPC_PRIVATE { None } else { table.by_key.get(&key).copied() };
        if let Some(at) = existing {
            let slot = table.slots.get(at).ok_or(Errno::EINVAL)?;
            let object = slot.object.clone().ok_or(Errno::EINVAL)?;
            let id = id(slot.sequence, at);
            if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL {
                return Err(Errno::EEXIST);
            }
            // The object's own lock comes before the registry's.
            drop(table);
            return check(&object).map(|()| id);
        }
        if key != IPC_PRIVATE && flags & IPC_CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        if table.used >= self.limit {
            return Err(Errno::ENOSPC);
        }
        let object = Arc::new(make(Permissions::new(key, flags, cred))?);
        table.insert(key, object).ok_or(Errno::ENOSPC)
    }

    /// The object with this id; `EINVAL` when there is none (any more).
    pub fn find(&self, id: i32) -> Result<Arc<T>> {
        let (sequence, at) = split(id)?;
        let table = self.table.lock();
        let slot = table.slots.get(at).filter(|slot| slot.sequence == sequence).ok_or(Errno::EINVAL)?;
        slot.object.clone().ok_or(Errno::EINVAL)
    }

    /// Takes the object with this id out; its memory goes with its last user.
    pub fn remove(&self, id: i32) -> Result<Arc<T>> {
        let (sequence, at) = split(id)?;
        let mut table = self.table.lock();
        let slot = table.slots.get_mut(at).filter(|slot| slot.sequence == sequence).ok_or(Errno::EINVAL)?;
        let object = slot.object.take().ok_or(Errno::EINVAL)?;
        slot.sequence = (slot.sequence + 1) % (i32::MAX as u32 / MAX as u32);
        table.by_key.retain(|_, slot| *slot != at);
        table.used -= 1;
        Ok(object)
    }

    /// Makes the key of this object nobody's, while the object stays (a segment that is removed and still
    /// attached).
    pub fn forget_key(&self, id: i32) {
        let Ok((sequence, at)) = split(id) else { return };
        let mut table = self.table.lock();
        if table.slots.get(at).is_some_and(|slot| slot.sequence == sequence) {
            table.by_key.retain(|_, slot| *slot != at);
        }
    }

    /// All objects with their ids, by slot (`*_STAT`, `/proc/sysvipc`).
    pub fn list(&self) -> Vec<(i32, Arc<T>)> {
        let table = self.table.lock();
        let slots = table.slots.iter().enumerate();
        slots.filter_map(|(at, slot)| Some((id(slot.sequence, at), slot.object.clone()?))).collect()
    }
}

impl<T> Table<T> {
    fn insert(&mut self, key: i32, object: Arc<T>) -> Option<i32> {
        let at = match self.slots.iter().position(|slot| slot.object.is_none()) {
            Some(at) => at,
            None => {
                self.slots.push(Slot { sequence: 0, object: None });
                self.slots.len() - 1
            }
        };
        let slot = self.slots.get_mut(at)?;
        slot.object = Some(object);
        self.used += 1;
        if key != IPC_PRIVATE {
            self.by_key.insert(key, at);
        }
        Some(id(slot.sequence, at))
    }
}

fn id(sequence: u32, at: usize) -> i32 {
    (sequence as usize * MAX + at) as i32
}

fn split(id: i32) -> Result<(u32, usize)> {
    let id = usize::try_from(id).map_err(|_| Errno::EINVAL)?;
    Ok(((id / MAX) as u32, id % MAX))
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use cred::Credentials;

    use super::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE, Permissions, Registry};

    fn get(registry: &Registry<Permissions>, key: i32, flags: u32) -> crate::Result<i32> {
        registry.get(key, flags, &Credentials::root(), |_| Ok(()), Ok)
    }

    #[test]
    fn keys_name_objects_until_removed() {
        let registry = Registry::new(2);
        assert_eq!(get(&registry, 5, 0), Err(Errno::ENOENT));
        let id = get(&registry, 5, IPC_CREAT | 0o600).expect("room");
        assert_eq!(get(&registry, 5, 0), Ok(id));
        assert_eq!(get(&registry, 5, IPC_CREAT | IPC_EXCL), Err(Errno::EEXIST));
        registry.remove(id).expect("there");
        assert_eq!(registry.find(id).err(), Some(Errno::EINVAL));
        let again = get(&registry, 5, IPC_CREAT).expect("room");
        assert_ne!(again, id);
    }

    #[test]
    fn the_table_is_bounded_and_private_keys_are_fresh() {
        let registry = Registry::new(2);
        let (a, b) = (get(&registry, IPC_PRIVATE, 0), get(&registry, IPC_PRIVATE, 0));
        assert_ne!(a.expect("room"), b.expect("room"));
        assert_eq!(get(&registry, IPC_PRIVATE, 0), Err(Errno::ENOSPC));
        assert_eq!(registry.find(-1).err(), Some(Errno::EINVAL));
    }

    #[test]
    fn modes_are_checked_by_class() {
        let owner = Credentials::user(1000, 1000);
        let object = Permissions::new(1, 0o640, &owner);
        assert_eq!(object.check(&owner, 6), Ok(()));
        assert_eq!(object.check(&Credentials::user(1, 1000), 4), Ok(()));
        assert_eq!(object.check(&Credentials::user(1, 1000), 2), Err(Errno::EACCES));
        assert_eq!(object.check(&Credentials::user(1, 1), 4), Err(Errno::EACCES));
        assert_eq!(object.check_owner(&Credentials::user(1, 1)), Err(Errno::EPERM));
    }
}
