//! The host's vDSO for guests: its code, and the very pages that the host keeps its clocks in, which the machine sees
//! where the Sentry has them.
//!
//! Its code reads the time-stamp counter, so guests get it only where theirs is the host's (`probe::has_our_clock`).

use abi::Errno;
use abi::mm::Prot;
use guestmem::UserAddr;
use hostproc::HostView;

use crate::layout::{PAGE, VDSO_GPA};
use crate::slots::Slots;
use crate::space::Space;
use crate::tree::Source;

/// See the module.
pub(crate) struct GuestVdso {
    /// Where the Sentry has it, and its length.
    at: (u64, u64),
    /// The ELF header, from there on, behind the pages of the clocks.
    header: u64,
}

impl GuestVdso {
    /// The one that the host has for us, which the machine gets to see.
    pub(crate) fn new(view: &HostView, slots: &Slots) -> Option<Self> {
        let vdso = view.vdso()?;
        let (at, len) = vdso.original();
        let fits = at.is_multiple_of(PAGE) && len.is_multiple_of(PAGE);
        if let Err(error) = slots
            .add_given(VDSO_GPA, at, len)
            .and_then(|()| if fits { Ok(()) } else { Err(std::io::ErrorKind::InvalidInput.into()) })
        {
            tracing::debug!(%error, "guests get no vDSO");
            return None;
        }
        Some(Self { at: (at, len), header: vdso.header() - vdso.kept().0 })
    }

    /// Where the Sentry has what the machine sees at `gpa`.
    pub(crate) fn address(&self, gpa: u64) -> Option<u64> {
        let from = gpa.checked_sub(VDSO_GPA).filter(|from| *from < self.at.1)?;
        Some(self.at.0 + from)
    }

    /// Maps it; its ELF header, and its length.
    pub(crate) fn map(&self, space: &Space, addr: UserAddr) -> Result<(UserAddr, u64), Errno> {
        let (len, code) = (self.at.1, addr.0.checked_add(self.header).ok_or(Errno::ENOMEM)?);
        let end = addr.0.checked_add(len).ok_or(Errno::ENOMEM)?;
        space.map((addr.0, code), Prot::READ, Source::Given(VDSO_GPA))?;
        space.map((code, end), Prot::READ | Prot::EXEC, Source::Given(VDSO_GPA + self.header))?;
        Ok((UserAddr(code), len))
    }
}
