//! Resource limits (`getrlimit(2)`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// No limit (`RLIM_INFINITY`).
pub const INFINITY: u64 = u64::MAX;

/// Number of resources.
pub const RESOURCES: usize = 16;

/// A resource that can be limited (`RLIMIT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Resource {
    /// Seconds of processor time.
    Cpu = 0,
    /// Bytes of a file the process may create.
    FileSize = 1,
    /// Bytes of private writable memory.
    Data = 2,
    /// Bytes of the initial stack.
    Stack = 3,
    /// Bytes of a core dump.
    Core = 4,
    /// Resident bytes; without effect.
    Rss = 5,
    /// Processes of the user.
    Processes = 6,
    /// One more than the highest descriptor.
    OpenFiles = 7,
    /// Bytes of locked memory.
    LockedMemory = 8,
    /// Bytes of address space.
    AddressSpace = 9,
    /// File locks; without effect.
    Locks = 10,
    /// Queued signals of the user.
    PendingSignals = 11,
    /// Bytes in POSIX message queues.
    MessageQueue = 12,
    /// `20 - nice` the process may go to.
    Nice = 13,
    /// Real-time priority.
    RealTimePriority = 14,
    /// Microseconds of real-time processor time without a blocking call.
    RealTimeTime = 15,
}

impl Resource {
    const ALL: [Self; RESOURCES] = [
        Self::Cpu,
        Self::FileSize,
        Self::Data,
        Self::Stack,
        Self::Core,
        Self::Rss,
        Self::Processes,
        Self::OpenFiles,
        Self::LockedMemory,
        Self::AddressSpace,
        Self::Locks,
        Self::PendingSignals,
        Self::MessageQueue,
        Self::Nice,
        Self::RealTimePriority,
        Self::RealTimeTime,
    ];

    /// The resource with this number, when there is one (`EINVAL` otherwise).
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(raw).ok()?).copied()
    }

    /// All resources, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }
}

/// `struct rlimit` and `struct rlimit64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rlimit {
    /// Soft limit: what is enforced.
    pub cur: u64,
    /// Hard limit: how far the soft limit may be raised.
    pub max: u64,
}

impl Rlimit {
    /// No limit.
    pub const UNLIMITED: Self = Self { cur: INFINITY, max: INFINITY };

    /// With these values.
    pub const fn new(cur: u64, max: u64) -> Self {
        Self { cur, max }
    }
}

/// All limits of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits([Rlimit; RESOURCES]);

impl Limits {
    /// One limit.
    pub fn of(&self, resource: Resource) -> Rlimit {
        self.0.get(resource as usize).copied().unwrap_or(Rlimit::UNLIMITED)
    }

    /// Sets one limit. Whether the caller may is the kernel's business.
    pub fn set(&mut self, resource: Resource, limit: Rlimit) {
        if let Some(slot) = self.0.get_mut(resource as usize) {
            *slot = limit;
        }
    }
}

impl Default for Limits {
    /// What Linux gives to the first process.
    fn default() -> Self {
        let mut limits = Self([Rlimit::UNLIMITED; RESOURCES]);
        limits.set(Resource::Stack, Rlimit::new(8 << 20, INFINITY));
        limits.set(Resource::Core, Rlimit::new(0, INFINITY));
        limits.set(Resource::OpenFiles, Rlimit::new(1024, 4096));
        limits.set(Resource::LockedMemory, Rlimit::new(8 << 20, 8 << 20));
        limits.set(Resource::MessageQueue, Rlimit::new(819_200, 819_200));
        limits.set(Resource::Nice, Rlimit::new(0, 0));
        limits.set(Resource::RealTimePriority, Rlimit::new(0, 0));
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Resource, Rlimit};

    #[test]
    fn numbers_name_their_resource() {
        for (raw, resource) in Resource::all().enumerate() {
            assert_eq!(resource as usize, raw);
            assert_eq!(Resource::from_raw(raw as u32), Some(resource));
        }
        assert_eq!(Resource::from_raw(16), None);
    }

    #[test]
    fn a_limit_set_is_the_limit_read() {
        let mut limits = Limits::default();
        limits.set(Resource::Data, Rlimit::new(1, 2));
        assert_eq!(limits.of(Resource::Data), Rlimit::new(1, 2));
        assert_eq!(limits.of(Resource::Stack).cur, 8 << 20);
    }
}
