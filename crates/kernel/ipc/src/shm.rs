//! Shared memory segments (`shmget(2)`, `shmat(2)`, `shmctl(2)`).
//!
//! A segment wraps the mappable object behind it and counts its mappings as Linux does (a split or a
//! fork is one more), so that a removed segment can tell when its last user is gone. Attaching is an
//! ordinary shared mapping made by the memory manager.

use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use memmap::{Backing, MapIdentity, MapRequest, Mappable};
use sync::{Mutex, order};

use crate::Result;
use crate::registry::{Permissions, Registry};

/// Bytes of the largest segment (`SHMMAX` of Linux, less a margin against overflow of page rounding).
pub const MAX_BYTES: u64 = u64::MAX - (1 << 24);

/// What `IPC_STAT` shows (`struct shmid64_ds`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Owner and mode.
    pub permissions: Permissions,
    /// Bytes asked for.
    pub bytes: u64,
    /// Mappings.
    pub attached: u64,
    /// Process that made it.
    pub creator: i32,
    /// Process of the last attach or detach.
    pub last_pid: i32,
    /// Second of the last attach.
    pub attach_time: i64,
    /// Second of the last detach.
    pub detach_time: i64,
    /// Second of the last change.
    pub change_time: i64,
    /// Removed, and waiting for its last user (`SHM_DEST`).
    pub removed: bool,
}

/// A segment.
pub struct Segment {
    object: Arc<dyn Mappable>,
    /// Of the class below the VMA tree: the memory manager counts mappings with its lock held.
    status: Mutex<order::Ipc, Status>,
    /// Shown in `/proc/PID/maps`.
    key: i32,
    /// Where it is registered, and as what.
    home: OnceLock<(Weak<Registry<Segment>>, i32)>,
}

impl Segment {
    /// A segment of `bytes` over `object`, which has at least as many; made by `creator` at `now`
    /// (seconds). `EINVAL` for an impossible size.
    pub fn new(
        permissions: Permissions,
        bytes: u64,
        object: Arc<dyn Mappable>,
        creator: i32,
        now: i64,
    ) -> Result<Self> {
        if bytes == 0 || bytes > MAX_BYTES {
            return Err(Errno::EINVAL);
        }
        let status = Status {
            permissions,
            bytes,
            attached: 0,
            creator,
            last_pid: 0,
            attach_time: 0,
            detach_time: 0,
            change_time: now,
            removed: false,
        };
        Ok(Self { object, status: Mutex::new(status), key: permissions.key, home: OnceLock::new() })
    }

    /// It is in `registry` under `id`, and is to leave it once it is removed and its last mapping gone.
    pub fn settle(&self, registry: &Arc<Registry<Self>>, id: i32) {
        // Who finds it settled has found it under the same id.
        let _ = self.home.set((Arc::downgrade(registry), id));
    }

    /// Its state.
    pub fn status(&self) -> Status {
        *self.status.lock()
    }

    /// Bytes to map: the size, rounded up to pages.
    pub fn mapped_bytes(&self) -> u64 {
        abi::page_up(self.status.lock().bytes).unwrap_or(0)
    }

    /// An existing segment may be got with a smaller size, not a larger one.
    pub fn check_size(&self, bytes: u64) -> Result<()> {
        if bytes > self.status.lock().bytes { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// `IPC_SET`.
    pub fn set_permissions(&self, uid: u32, gid: u32, mode: u32, now: i64) {
        let mut status = self.status.lock();
        status.permissions.set(uid, gid, mode);
        status.change_time = now;
    }

    /// Process `pid` attached it. `EIDRM` when it has been removed and nobody has it any more.
    pub fn note_attach(&self, pid: i32, now: i64) -> Result<()> {
        let mut status = self.status.lock();
        if status.removed && status.attached == 0 {
            return Err(Errno::EIDRM);
        }
        (status.last_pid, status.attach_time) = (pid, now);
        Ok(())
    }

    /// Process `pid` detached it.
    pub fn note_detach(&self, pid: i32, now: i64) {
        let mut status = self.status.lock();
        (status.last_pid, status.detach_time) = (pid, now);
    }

    /// `IPC_RMID`. True when nobody has it attached, so that it goes at once.
    pub fn mark_removed(&self, now: i64) -> bool {
        let mut status = self.status.lock();
        (status.removed, status.change_time) = (true, now);
        status.attached == 0
    }
}

impl Mappable for Segment {
    fn backing(&self, request: MapRequest) -> core::result::Result<Backing, Errno> {
        self.object.backing(request)
    }

    fn mapped(&self, request: MapRequest) {
        self.status.lock().attached += 1;
        self.object.mapped(request);
    }

    fn unmapped(&self, request: MapRequest) {
        let gone = {
            let mut status = self.status.lock();
            status.attached = status.attached.saturating_sub(1);
            status.removed && status.attached == 0
        };
        self.object.unmapped(request);
        if let Some((registry, id)) = self.home.get().filter(|_| gone)
            && let Some(registry) = registry.upgrade()
        {
            // Another may have taken it out at the same moment.
            drop(registry.remove(*id));
        }
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn identity(&self) -> MapIdentity {
        let name = format!("/SYSV{:08x} (deleted)", self.key).into_bytes();
        MapIdentity { name, ..self.object.identity() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use abi::Errno;
    use abi::mm::Prot;
    use cred::Credentials;
    use memmap::{Backing, MapIdentity, MapRequest, Mappable};

    use super::Segment;
    use crate::registry::{IPC_CREAT, Permissions, Registry};

    struct Zeroes;

    impl Mappable for Zeroes {
        fn backing(&self, _: MapRequest) -> Result<Backing, Errno> {
            Ok(Backing::Anonymous)
        }

        fn identity(&self) -> MapIdentity {
            MapIdentity::default()
        }
    }

    fn segment(bytes: u64) -> crate::Result<Segment> {
        let registry: Registry<Permissions> = Registry::new(1);
        let id = registry.get(0x2a, IPC_CREAT | 0o600, &Credentials::root(), |_| Ok(()), Ok)?;
        Segment::new(*registry.find(id)?, bytes, Arc::new(Zeroes), 7, 0)
    }

    const PAGE: MapRequest = MapRequest { offset: 0, len: 4096, shared: true, max_prot: Prot::all() };

    #[test]
    fn sizes_are_checked_and_rounded_for_mapping_only() {
        assert_eq!(segment(0).err(), Some(Errno::EINVAL));
        assert_eq!(segment(u64::MAX).err(), Some(Errno::EINVAL));
        let segment = segment(5000).expect("valid");
        assert_eq!((segment.status().bytes, segment.mapped_bytes()), (5000, 8192));
        assert_eq!(segment.check_size(5001), Err(Errno::EINVAL));
        assert_eq!(segment.identity().name, b"/SYSV0000002a (deleted)");
    }

    #[test]
    fn a_removed_segment_lives_until_its_last_mapping_goes() {
        let segment = segment(4096).expect("valid");
        segment.note_attach(7, 1).expect("alive");
        segment.mapped(PAGE);
        segment.mapped(PAGE);
        assert!(!segment.mark_removed(2));
        segment.note_attach(8, 3).expect("attached elsewhere");
        segment.unmapped(PAGE);
        segment.unmapped(PAGE);
        assert_eq!(segment.status().attached, 0);
        assert_eq!(segment.note_attach(8, 4), Err(Errno::EIDRM));
    }
}
