//! The address space of a fork that failed: whoever got hold of its manager meanwhile finds nothing,
//! instead of waiting for what never comes.

use std::time::Duration;

use abi::Errno;
use guestmem::{Fault, UserAddr, UserMem};
use platform::space::MemoryUse;
use platform::{AddressSpace, MapError, MapOp};

/// Nothing can be read, written or mapped.
pub(crate) struct Gone;

impl UserMem for Gone {
    fn read(&self, _: UserAddr, _: &mut [u8]) -> Result<(), Fault> {
        Err(Fault { copied: 0 })
    }

    fn write(&self, _: UserAddr, _: &[u8]) -> Result<(), Fault> {
        Err(Fault { copied: 0 })
    }

    fn compare_exchange_u32(&self, _: UserAddr, _: u32, _: u32) -> Result<u32, Fault> {
        Err(Fault { copied: 0 })
    }
}

impl AddressSpace for Gone {
    fn apply(&self, _: &[MapOp]) -> Result<(), MapError> {
        Err(MapError { index: 0, errno: Errno::ESRCH })
    }

    fn write_forced(&self, _: UserAddr, _: &[u8]) -> Result<(), Fault> {
        Err(Fault { copied: 0 })
    }

    fn memory_use(&self) -> MemoryUse {
        MemoryUse::default()
    }

    fn resident_pages(&self, _: UserAddr, _: usize) -> Result<Vec<bool>, Errno> {
        Err(Errno::ESRCH)
    }

    fn map_vdso(&self, _: UserAddr) -> Result<(UserAddr, u64), MapError> {
        Err(MapError { index: 0, errno: Errno::ESRCH })
    }

    fn futex_wake(&self, _: UserAddr, _: u32, _: u32) -> Result<u32, Errno> {
        Err(Errno::ESRCH)
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        (Duration::ZERO, Duration::ZERO)
    }
}
