//! The host's vDSO for guests: a copy of its code, and the very pages that the host keeps its clocks in.
//!
//! The guest's time-stamp counter is the host's, so what the code reads and the counter fit together.

use abi::Errno;
use abi::mm::Prot;
use guestmem::UserAddr;
use hostproc::HostView;

use crate::machine::Machine;
use crate::space::Space;

/// See the module.
pub(crate) struct GuestVdso;

impl GuestVdso {
    /// The one that the host has for us.
    pub(crate) fn new(_view: &HostView, _machine: &Machine) -> Option<Self> {
        None
    }

    /// Maps it; its ELF header, and its length.
    pub(crate) fn map(&self, _space: &Space, _addr: UserAddr) -> Result<(UserAddr, u64), Errno> {
        let _ = Prot::READ;
        Err(Errno::ENOSYS)
    }
}
