//! `brk(2)`.

use abi::mm::Prot;
use abi::{Errno, PAGE_SIZE, page_up};
use guestmem::UserAddr;
use platform::AddressSpace;

use crate::manager::{MemoryManager, State, anonymous};
use crate::vma::{Source, Vma, VmaFlags};

impl MemoryManager {
    /// `brk(2)`: moves the end of the heap to `to` when it can, and returns where it is.
    pub fn brk(&self, to: UserAddr) -> UserAddr {
        self.with(|state, space| {
            if state.set_brk(space, to.0).is_ok() {
                state.brk = to.0;
            }
            UserAddr(state.brk)
        })
    }
}

impl State {
    fn set_brk(&mut self, space: &dyn AddressSpace, to: u64) -> Result<(), Errno> {
        let start = self.layout.brk_start;
        if to < start || start == 0 || to - start > self.limits.data {
            return Err(Errno::ENOMEM);
        }
        let old = page_up(self.brk).ok_or(Errno::ENOMEM)?;
        let new = page_up(to).filter(|new| *new <= self.layout.max).ok_or(Errno::ENOMEM)?;
        if new <= old {
            return if new < old { self.unmap(space, new, old) } else { Ok(()) };
        }
        let len = new - old;
        // A page is kept free above the heap.
        if !self.tree.is_free(old, new.saturating_add(PAGE_SIZE)) {
            return Err(Errno::ENOMEM);
        }
        self.check_expand(len, true)?;
        self.check_count(1)?;
        if self.lock_future {
            self.check_lock(len)?;
        }
        let prot = Prot::READ | Prot::WRITE;
        space.apply(&[anonymous(old, len, prot, false, self.lock_future)])?;
        let flags = if self.lock_future { VmaFlags::LOCKED } else { VmaFlags::empty() };
        let source = Source::Anonymous;
        self.tree.insert(Vma { start: old, end: new, prot, max_prot: Prot::all(), flags, source });
        Ok(())
    }
}
