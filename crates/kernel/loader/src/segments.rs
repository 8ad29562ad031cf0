//! An image mapped into an address space.

use std::sync::Arc;

use abi::mm::{MapFlags, Prot};
use abi::{Errno, PAGE_SIZE, page_down, page_up};
use guestmem::{UserAddr, UserMem};
use memmap::Mappable;
use mm::{MapArgs, MapFile, MemoryManager};

use crate::LoadError;
use crate::image::{Image, Segment};

/// Where a position-independent image goes.
#[derive(Clone, Copy)]
pub(crate) enum Base {
    /// Near this address.
    Near(u64),
    /// Wherever the memory manager puts a mapping.
    Anywhere,
}

/// A mapped image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapped {
    /// What was added to the image's addresses.
    pub(crate) bias: u64,
    /// First page.
    pub(crate) start: u64,
    /// End of the highest segment.
    pub(crate) end: u64,
}

impl Mapped {
    /// An address of the image, in memory.
    pub(crate) fn address(&self, vaddr: u64) -> u64 {
        vaddr.wrapping_add(self.bias)
    }
}

/// Maps all segments of `image`.
pub(crate) fn map(
    mm: &MemoryManager,
    file: &Arc<dyn Mappable>,
    image: &Image,
    base: Base,
) -> Result<Mapped, LoadError> {
    let (low, high) = image.span().ok_or(LoadError::Malformed)?;
    let len = high - low;
    let start = if image.relocatable { find_room(mm, image, low, len, base)? } else { low };
    let bias = start.wrapping_sub(low);
    for (index, segment) in image.segments.iter().enumerate() {
        let mut moved = *segment;
        moved.vaddr = moved.vaddr.wrapping_add(bias);
        // Only the first must not replace anything: later ones may overlap the pages of earlier ones.
        let fixed = match index {
            0 if !image.relocatable => MapFlags::FIXED_NOREPLACE,
            _ => MapFlags::FIXED,
        };
        map_segment(mm, file, &moved, fixed)?;
    }
    Ok(Mapped { bias, start, end: start.saturating_add(len) })
}

/// Finds room for the whole image, so that the bias is a multiple of its alignment.
fn find_room(mm: &MemoryManager, image: &Image, low: u64, len: u64, base: Base) -> Result<u64, LoadError> {
    let hint = match base {
        Base::Near(base) => base & !(image.align - 1),
        Base::Anywhere => 0,
    };
    // With slack to align in.
    let total = len.checked_add(image.align - PAGE_SIZE).ok_or(Errno::ENOMEM)?;
    let at = mm.free_range(UserAddr(hint), total)?.0;
    let over = at.wrapping_sub(low) & (image.align - 1);
    Ok(at.saturating_add((image.align - over) & (image.align - 1)))
}

fn map_segment(
    mm: &MemoryManager,
    file: &Arc<dyn Mappable>,
    segment: &Segment,
    fixed: MapFlags,
) -> Result<(), LoadError> {
    let in_page = segment.vaddr % PAGE_SIZE;
    let start = page_down(segment.vaddr);
    let file_end = segment.vaddr.checked_add(segment.file_size).ok_or(LoadError::Malformed)?;
    let mut zero_from = start;
    if segment.file_size > 0 {
        mm.mmap(&MapArgs {
            addr: start,
            len: segment.file_size.saturating_add(in_page),
            prot: segment.prot,
            flags: MapFlags::PRIVATE | fixed,
            offset: segment.offset - in_page,
            file: Some(MapFile { file: Some(Arc::clone(file)), access: Prot::all() }),
        })?;
        zero_from = page_up(file_end).ok_or(LoadError::Malformed)?;
        if segment.mem_size > segment.file_size {
            clear_tail(mm, file_end, segment.prot)?;
        }
    }
    let end = page_up(segment.end()).ok_or(LoadError::Malformed)?;
    if end > zero_from {
        let prot = Prot::READ | Prot::WRITE | (segment.prot & Prot::EXEC);
        let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED;
        mm.mmap(&MapArgs { addr: zero_from, flags, ..MapArgs::anonymous(end - zero_from, prot) })?;
    }
    Ok(())
}

/// Zeroes from `from` to the end of its page: the file goes on there, the program's memory does not. A
/// segment that cannot be written keeps what the file has, as on Linux.
fn clear_tail(mm: &MemoryManager, from: u64, prot: Prot) -> Result<(), LoadError> {
    let zeros = [0; PAGE_SIZE as usize];
    let len = (PAGE_SIZE - from % PAGE_SIZE) % PAGE_SIZE;
    match mm.write(UserAddr(from), zeros.get(..len as usize).unwrap_or_default()) {
        Err(_) if prot.contains(Prot::WRITE) => Err(Errno::EFAULT.into()),
        _ => Ok(()),
    }
}
