//! `mprotect(2)`.

use abi::mm::Prot;
use abi::{Errno, page_up};
use guestmem::UserAddr;
use platform::{AddressSpace, MapOp};

use crate::manager::{MemoryManager, State};
use crate::vma::{Vma, VmaFlags};

/// `PROT_SEM`: allowed, without effect.
const PROT_SEM: u32 = 0x8;
/// `PROT_GROWSDOWN`: extend the change to the start of a stack.
const PROT_GROWSDOWN: u32 = 0x0100_0000;
/// `PROT_GROWSUP`: never fits, nothing grows upwards here.
const PROT_GROWSUP: u32 = 0x0200_0000;

impl MemoryManager {
    /// `mprotect(2)`. When a later part of the range may not be changed, the parts before it have been.
    pub fn mprotect(&self, addr: UserAddr, len: u64, prot: u32) -> Result<(), Errno> {
        let grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP);
        if grows == PROT_GROWSDOWN | PROT_GROWSUP || !addr.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let end = page_up(len).and_then(|len| addr.0.checked_add(len)).filter(|end| *end > addr.0);
        let end = end.ok_or(Errno::ENOMEM)?;
        let prot = Prot::from_bits(prot & !grows & !PROT_SEM).ok_or(Errno::EINVAL)?;
        self.with(|state, space| {
            let start = state.protect_start(addr.0, end, grows)?;
            state.protect(space, start, end, prot)
        })
    }
}

impl State {
    fn protect_start(&self, start: u64, end: u64, grows: u32) -> Result<u64, Errno> {
        let vma = self.tree.at_or_above(start).ok_or(Errno::ENOMEM)?;
        match grows {
            PROT_GROWSDOWN if vma.start >= end => Err(Errno::ENOMEM),
            PROT_GROWSDOWN if !vma.flags.contains(VmaFlags::GROWSDOWN) => Err(Errno::EINVAL),
            PROT_GROWSDOWN => Ok(vma.start),
            _ if vma.start > start => Err(Errno::ENOMEM),
            0 => Ok(start),
            _ => Err(Errno::EINVAL),
        }
    }

    fn protect(&mut self, space: &dyn AddressSpace, start: u64, end: u64, prot: Prot) -> Result<(), Errno> {
        let mut done = start;
        let mut data = self.tree.totals().data;
        let mut count = self.tree.count();
        let mut failed = None;
        for vma in self.tree.overlapping(start, end) {
            let (from, to) = (vma.start.max(start), vma.end.min(end));
            if from > done {
                break;
            }
            failed = self.protect_error(vma, prot, to - from, &mut data, &mut count);
            if failed.is_some() {
                break;
            }
            done = to;
        }
        if done > start {
            space.apply(&[MapOp::Protect { addr: UserAddr(start), len: done - start, prot }])?;
            self.tree.update(start, done, |vma| vma.prot = prot);
        }
        match failed {
            Some(errno) => Err(errno),
            None if done < end => Err(Errno::ENOMEM),
            None => Ok(()),
        }
    }

    /// Why `len` bytes of `vma` may not have `prot`; counts what they add.
    fn protect_error(
        &self,
        vma: &Vma,
        prot: Prot,
        len: u64,
        data: &mut u64,
        count: &mut usize,
    ) -> Option<Errno> {
        if !vma.max_prot.contains(prot) {
            return Some(Errno::EACCES);
        }
        if len < vma.len() {
            *count += 1;
            if *count > crate::MAX_MAP_COUNT {
                return Some(Errno::ENOMEM);
            }
        }
        let becomes_data = !vma.is_data() && Vma { prot, ..vma.clone() }.is_data();
        if becomes_data {
            *data = data.saturating_add(len);
            if *data > self.limits.data {
                return Some(Errno::ENOMEM);
            }
        }
        None
    }
}
