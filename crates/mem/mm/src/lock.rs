//! `mlock(2)` and its relatives: the accounting, and bringing the pages in. The host's pages are not
//! pinned, since the host's own limit is not the guest's.

use abi::limits::INFINITY;
use abi::mm::Prot;
use abi::raw::general as raw;
use abi::{Errno, PAGE_SIZE, page_up};
use guestmem::UserAddr;
use platform::{AddressSpace, Advice, MapOp};

use crate::manager::{MemoryManager, State};
use crate::vma::VmaFlags;

impl MemoryManager {
    /// `mlock(2)`, and `mlock2(2)` with its flags.
    pub fn mlock(&self, addr: UserAddr, len: u64, flags: u32) -> Result<(), Errno> {
        if flags & !raw::MLOCK_ONFAULT != 0 {
            return Err(Errno::EINVAL);
        }
        self.with(|state, space| {
            if state.limits.locked == 0 {
                return Err(Errno::EPERM);
            }
            let (start, end) = lock_range(addr, len)?;
            let already = state.tree.mapped_bytes(start, end, |vma| vma.flags.contains(VmaFlags::LOCKED));
            let locked = state.tree.totals().locked.saturating_sub(already).saturating_add(end - start);
            if state.limits.locked != INFINITY && locked > state.limits.locked {
                return Err(Errno::ENOMEM);
            }
            state.set_locked(start, end, true)?;
            if flags & raw::MLOCK_ONFAULT == 0 {
                state.populate(space, start, end);
            }
            Ok(())
        })
    }

    /// `munlock(2)`.
    pub fn munlock(&self, addr: UserAddr, len: u64) -> Result<(), Errno> {
        self.with(|state, _| {
            let (start, end) = lock_range(addr, len)?;
            state.set_locked(start, end, false)
        })
    }

    /// `mlockall(2)`.
    pub fn mlockall(&self, flags: u32) -> Result<(), Errno> {
        let known = raw::MCL_CURRENT | raw::MCL_FUTURE | raw::MCL_ONFAULT;
        if flags == 0 || flags & !known != 0 || flags == raw::MCL_ONFAULT {
            return Err(Errno::EINVAL);
        }
        self.with(|state, space| {
            let limit = state.limits.locked;
            if limit == 0 {
                return Err(Errno::EPERM);
            }
            let current = flags & raw::MCL_CURRENT != 0;
            if current && limit != INFINITY && state.tree.totals().all > limit {
                return Err(Errno::ENOMEM);
            }
            state.lock_future = flags & raw::MCL_FUTURE != 0;
            if current {
                let max = state.layout.max;
                state.tree.update(0, max, |vma| vma.flags.insert(VmaFlags::LOCKED));
                if flags & raw::MCL_ONFAULT == 0 {
                    state.populate(space, 0, max);
                }
            }
            Ok(())
        })
    }

    /// `munlockall(2)`.
    pub fn munlockall(&self) {
        self.with(|state, _| {
            state.lock_future = false;
            let max = state.layout.max;
            state.tree.update(0, max, |vma| vma.flags.remove(VmaFlags::LOCKED));
        });
    }
}

/// The pages that `addr..addr + len` touches.
fn lock_range(addr: UserAddr, len: u64) -> Result<(u64, u64), Errno> {
    let start = addr.page_down().0;
    let len = len.checked_add(addr.0 % PAGE_SIZE).and_then(page_up).ok_or(Errno::EINVAL)?;
    Ok((start, start.checked_add(len).ok_or(Errno::EINVAL)?))
}

impl State {
    /// Up to the first hole, which gives `ENOMEM`.
    fn set_locked(&mut self, start: u64, end: u64, value: bool) -> Result<(), Errno> {
        if start == end {
            return Ok(());
        }
        self.check_count(2)?;
        let mut done = start;
        for vma in self.tree.overlapping(start, end) {
            if vma.start > done {
                break;
            }
            done = vma.end.min(end);
        }
        self.tree.update(start, done, |vma| vma.flags.set(VmaFlags::LOCKED, value));
        if done < end { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Brings pages in, as far as the host has them.
    fn populate(&self, space: &dyn AddressSpace, start: u64, end: u64) {
        for vma in self.tree.overlapping(start, end) {
            let (from, to) = (vma.start.max(start), vma.end.min(end));
            let advice = match vma.prot.contains(Prot::WRITE) && !vma.is_shared() {
                true => Advice::PopulateWrite,
                false => Advice::PopulateRead,
            };
            if !vma.prot.is_empty() {
                let _ = space.apply(&[MapOp::Advise { addr: UserAddr(from), len: to - from, advice }]);
            }
        }
    }
}
