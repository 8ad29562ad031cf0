//! `mremap(2)`.

use abi::{Errno, PAGE_SIZE, page_up};
use bitflags::bitflags;
use guestmem::UserAddr;
use memmap::{Backing, MapRequest};
use platform::{AddressSpace, MapOp};

use crate::MAX_MAP_COUNT;
use crate::manager::{MemoryManager, State};
use crate::vma::{Source, Vma, VmaFlags};

bitflags! {
    /// Flags of `mremap(2)` (`MREMAP_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct RemapFlags: u32 {
        const MAYMOVE = 1;
        const FIXED = 2;
        const DONTUNMAP = 4;
    }
}

/// Checked arguments.
#[derive(Clone, Copy)]
struct Remap {
    addr: u64,
    old_len: u64,
    new_len: u64,
    flags: RemapFlags,
    to: u64,
}

impl MemoryManager {
    /// `mremap(2)`. `new_addr` counts with `MREMAP_FIXED`, and as a hint with `MREMAP_DONTUNMAP`.
    pub fn mremap(
        &self,
        addr: UserAddr,
        old_len: u64,
        new_len: u64,
        flags: u32,
        new_addr: UserAddr,
    ) -> Result<UserAddr, Errno> {
        let flags = RemapFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        let may_move = flags.contains(RemapFlags::MAYMOVE);
        if (flags.contains(RemapFlags::FIXED) && !may_move)
            || (flags.contains(RemapFlags::DONTUNMAP) && (!may_move || old_len != new_len))
            || !addr.is_page_aligned()
        {
            return Err(Errno::EINVAL);
        }
        let old_len = page_up(old_len).ok_or(Errno::EINVAL)?;
        let new_len = page_up(new_len).filter(|len| *len != 0).ok_or(Errno::EINVAL)?;
        let args = Remap { addr: addr.0, old_len, new_len, flags, to: new_addr.0 };
        if old_len == 0 {
            return self.duplicate(&args);
        }
        self.with(|state, space| state.remap(space, &args)).map(UserAddr)
    }

    /// `old_len == 0`: a second mapping of the same part of a shared object.
    fn duplicate(&self, args: &Remap) -> Result<UserAddr, Errno> {
        let vma = self.find(UserAddr(args.addr)).ok_or(Errno::EFAULT)?;
        let Source::File { file, offset } = &vma.source else { return Err(Errno::EINVAL) };
        if !vma.is_shared() {
            return Err(Errno::EINVAL);
        }
        if !args.flags.contains(RemapFlags::MAYMOVE) {
            return Err(Errno::ENOMEM);
        }
        let offset = offset.checked_add(args.addr - vma.start).ok_or(Errno::EINVAL)?;
        let len = args.new_len;
        let request = MapRequest { offset, len, shared: true, max_prot: vma.max_prot };
        // Without the lock, as files are asked; the object cannot change, whatever becomes of `vma`.
        let backing = file.backing(request)?;
        let source = Source::File { file: file.clone(), offset };
        self.with(|state, space| {
            let start = state.target(args)?;
            state.check_expand(len, false)?;
            state.check_count(2)?;
            let end = start.saturating_add(len);
            let (prot, max_prot, flags) = (vma.prot, vma.max_prot, vma.flags);
            state.map(space, Vma { start, end, prot, max_prot, flags, source }, backing, false)?;
            Ok(UserAddr(start))
        })
    }
}

impl State {
    fn remap(&mut self, space: &dyn AddressSpace, args: &Remap) -> Result<u64, Errno> {
        self.tree.find(args.addr).ok_or(Errno::EFAULT)?;
        if args.flags.intersects(RemapFlags::FIXED | RemapFlags::DONTUNMAP) {
            return self.remap_to(space, args);
        }
        let old_end = self.end_of(args.addr, args.old_len).ok_or(Errno::EFAULT)?;
        if args.old_len >= args.new_len {
            if args.old_len > args.new_len {
                self.unmap(space, args.addr.saturating_add(args.new_len), old_end)?;
            }
            return Ok(args.addr);
        }
        let vma = self.check_resize(args)?;
        if self.grows_in_place(&vma, args) {
            self.grow(space, &vma, args)?;
            return Ok(args.addr);
        }
        if !args.flags.contains(RemapFlags::MAYMOVE) {
            return Err(Errno::ENOMEM);
        }
        self.check_move_count()?;
        let to = self.find_free(0, args.new_len, false)?;
        self.relocate(space, args, to)
    }

    /// `MREMAP_FIXED` and `MREMAP_DONTUNMAP`.
    fn remap_to(&mut self, space: &dyn AddressSpace, args: &Remap) -> Result<u64, Errno> {
        let to_end = self.end_of(args.to, args.new_len).ok_or(Errno::EINVAL)?;
        let from_end = args.addr.saturating_add(args.old_len);
        let overlap = from_end > args.to && to_end > args.addr;
        if !args.to.is_multiple_of(PAGE_SIZE) || overlap {
            return Err(Errno::EINVAL);
        }
        self.check_move_count()?;
        let mut args = *args;
        if args.flags.contains(RemapFlags::FIXED) {
            if args.to < self.layout.min {
                return Err(Errno::EPERM);
            }
            self.unmap(space, args.to, to_end)?;
            if args.old_len > args.new_len {
                self.unmap(space, args.addr.saturating_add(args.new_len), from_end)?;
                args.old_len = args.new_len;
            }
        }
        self.check_resize(&args)?;
        let keeps = args.flags.contains(RemapFlags::DONTUNMAP);
        if keeps {
            self.check_expand(args.new_len, false)?;
        }
        let to = self.target(&args)?;
        self.relocate(space, &args, to)
    }

    /// Where a moved mapping goes.
    fn target(&self, args: &Remap) -> Result<u64, Errno> {
        if !args.flags.contains(RemapFlags::FIXED) {
            let hint = if args.flags.contains(RemapFlags::DONTUNMAP) { args.to } else { 0 };
            return self.find_free(hint, args.new_len, false);
        }
        let aligned = args.to.is_multiple_of(PAGE_SIZE);
        if !aligned || self.end_of(args.to, args.new_len).is_none() {
            return Err(Errno::EINVAL);
        }
        if args.to < self.layout.min { Err(Errno::EPERM) } else { Ok(args.to) }
    }

    /// A move may split at both ends of the old place and at the new one.
    fn check_move_count(&self) -> Result<(), Errno> {
        if self.tree.count().saturating_add(2) >= MAX_MAP_COUNT - 3 { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// May the mapping at `addr` become `new_len` bytes (`vma_to_resize`)?
    fn check_resize(&self, args: &Remap) -> Result<Vma, Errno> {
        let vma = self.tree.find(args.addr).ok_or(Errno::EFAULT)?.clone();
        let fixed_size = vma.flags.contains(VmaFlags::DONTEXPAND);
        if args.flags.contains(RemapFlags::DONTUNMAP) && fixed_size {
            return Err(Errno::EINVAL);
        }
        if args.old_len > vma.end - args.addr {
            return Err(Errno::EFAULT);
        }
        if args.new_len <= args.old_len {
            return Ok(vma);
        }
        if let Source::File { offset, .. } = &vma.source
            && offset.checked_add(args.addr - vma.start).and_then(|at| at.checked_add(args.new_len)).is_none()
        {
            return Err(Errno::EINVAL);
        }
        if fixed_size {
            return Err(Errno::EFAULT);
        }
        let more = args.new_len - args.old_len;
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.check_lock(more)?;
        }
        self.check_expand(more, vma.is_data())?;
        Ok(vma)
    }

    fn grows_in_place(&self, vma: &Vma, args: &Remap) -> bool {
        args.old_len == vma.end - args.addr
            && self.end_of(args.addr, args.new_len).is_some_and(|end| self.tree.is_free(vma.end, end))
    }

    /// Grows in place. The host usually has one mapping where the tree has one, and then extends it;
    /// where it has several (after a fork it merges less), private zero pages are mapped behind them.
    fn grow(&mut self, space: &dyn AddressSpace, vma: &Vma, args: &Remap) -> Result<(), Errno> {
        let end = args.addr.saturating_add(args.new_len);
        let grown = space.apply(&[MapOp::Remap {
            from: UserAddr(args.addr),
            from_len: args.old_len,
            to: UserAddr(args.addr),
            to_len: args.new_len,
            keep: false,
        }]);
        match grown {
            Err(_) if vma.is_private_anonymous() => {
                let more = Vma { start: vma.end, end, ..vma.clone() };
                self.map(space, more, Backing::Anonymous, vma.flags.contains(VmaFlags::LOCKED))
            }
            Err(error) => Err(error.errno),
            Ok(()) => {
                self.tree.remove(vma.start, vma.end);
                self.tree.insert(Vma { end, ..vma.clone() });
                Ok(())
            }
        }
    }

    /// Moves `addr..addr + old_len`, within one mapping, to `to`, which is free.
    fn relocate(&mut self, space: &dyn AddressSpace, args: &Remap, to: u64) -> Result<u64, Errno> {
        let keep = args.flags.contains(RemapFlags::DONTUNMAP);
        space.apply(&[MapOp::Remap {
            from: UserAddr(args.addr),
            from_len: args.old_len,
            to: UserAddr(to),
            to_len: args.new_len,
            keep,
        }])?;
        let end = to.saturating_add(args.new_len);
        for part in self.tree.remove(args.addr, args.addr.saturating_add(args.old_len)) {
            self.tree.insert(Vma { start: to, end, ..part.clone() });
            if keep {
                self.tree.insert(Vma { flags: part.flags - VmaFlags::LOCKED, ..part });
            }
        }
        Ok(to)
    }
}
