//! `mmap(2)` and `munmap(2)`.

use std::sync::Arc;

use abi::mm::{MapFlags, Prot};
use abi::{Errno, PAGE_SIZE, page_up};
use guestmem::UserAddr;
use memmap::{Backing, MapRequest, Mappable};
use platform::{AddressSpace, MapOp};

use crate::manager::{MemoryManager, State};
use crate::vma::{Source, Vma, VmaFlags};

/// An open file to map.
#[derive(Clone)]
pub struct MapFile {
    /// The file; `None` for one that cannot be mapped (`ENODEV`).
    pub file: Option<Arc<dyn Mappable>>,
    /// What open mode and mount allow: readable, writable, not `noexec`.
    pub access: Prot,
}

/// Arguments of `mmap(2)`, unchecked.
#[derive(Clone)]
pub struct MapArgs {
    /// Hint, or the address with `MAP_FIXED`.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Protection.
    pub prot: Prot,
    /// Flags.
    pub flags: MapFlags,
    /// Byte of the file.
    pub offset: u64,
    /// The file; `None` with `MAP_ANONYMOUS`.
    pub file: Option<MapFile>,
}

impl MapArgs {
    /// Private zero pages wherever they fit.
    pub fn anonymous(len: u64, prot: Prot) -> Self {
        let flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS;
        Self { addr: 0, len, prot, flags, offset: 0, file: None }
    }

    fn is_shared(&self) -> bool {
        self.flags.contains(MapFlags::SHARED)
    }
}

/// Lowest address of the bottom-up search (`TASK_UNMAPPED_BASE`), as a part of the address space.
const UNMAPPED_BASE_DIVISOR: u64 = 3;
/// The window of `MAP_32BIT`.
const WINDOW_32BIT: (u64, u64) = (0x4000_0000, 0x8000_0000);
/// Flags `MAP_SHARED_VALIDATE` lets pass.
const SHARED_FLAGS: MapFlags = MapFlags::all().difference(MapFlags::SYNC);

impl MemoryManager {
    /// `mmap(2)`. A `populate` that fails is no error.
    pub fn mmap(&self, args: &MapArgs) -> Result<UserAddr, Errno> {
        if !args.offset.is_multiple_of(PAGE_SIZE) || args.len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = page_up(args.len).filter(|len| *len != 0).ok_or(Errno::ENOMEM)?;
        if args.flags.contains(MapFlags::ANONYMOUS | MapFlags::HUGETLB) {
            return Err(Errno::ENOMEM);
        }
        if args.offset.checked_add(len).is_none() {
            return Err(Errno::EOVERFLOW);
        }
        if args.file.is_some() || args.is_shared() {
            // A first look, so that errors come in order and no object is made in vain; files are asked
            // without the lock, and the second look under it decides.
            self.with(|state, _| state.check_map(args, len))?;
        }
        let (source, backing) = self.map_source(args, len)?;
        self.with(|state, space| {
            let start = state.check_map(args, len)?;
            let vma = Vma {
                start,
                end: start.saturating_add(len),
                prot: args.prot,
                max_prot: max_prot(args),
                flags: state.vma_flags(args),
                source,
            };
            let populate = args.flags.contains(MapFlags::POPULATE)
                && !args.flags.contains(MapFlags::NONBLOCK)
                || vma.flags.contains(VmaFlags::LOCKED);
            state.map(space, vma, backing, populate && !args.prot.is_empty())?;
            Ok(UserAddr(start))
        })
    }

    /// What is mapped and where its pages are. No lock is held.
    fn map_source(&self, args: &MapArgs, len: u64) -> Result<(Source, Backing), Errno> {
        let (file, offset) = match &args.file {
            Some(file) => (Arc::clone(file.file.as_ref().ok_or(Errno::ENODEV)?), args.offset),
            None if args.is_shared() => (self.shared_memory.create(len)?, 0),
            None => return Ok((Source::Anonymous, Backing::Anonymous)),
        };
        let request = MapRequest { offset, len, shared: args.is_shared(), max_prot: max_prot(args) };
        let backing = file.backing(request)?;
        Ok((Source::File { file, offset }, backing))
    }

    /// Where `mmap` would put `len` bytes with this hint. Nothing keeps the range free: for the loader,
    /// while nobody else maps.
    pub fn free_range(&self, hint: UserAddr, len: u64) -> Result<UserAddr, Errno> {
        let len = page_up(len).ok_or(Errno::ENOMEM)?;
        self.with(|state, _| state.find_free(hint.0, len, false)).map(UserAddr)
    }

    /// `munmap(2)`.
    pub fn munmap(&self, addr: UserAddr, len: u64) -> Result<(), Errno> {
        self.with(|state, space| {
            let max = state.layout.max;
            if !addr.is_page_aligned() || addr.0 > max || len > max - addr.0 {
                return Err(Errno::EINVAL);
            }
            let len = page_up(len).filter(|len| *len != 0).ok_or(Errno::EINVAL)?;
            state.unmap(space, addr.0, addr.0.saturating_add(len))
        })
    }
}

/// Errors of the kind of mapping and the open mode of its file.
fn check_kind(args: &MapArgs) -> Result<(), Errno> {
    let kind = args.flags & (MapFlags::SHARED | MapFlags::PRIVATE);
    let validate = kind == MapFlags::SHARED | MapFlags::PRIVATE;
    let grows = args.flags.contains(MapFlags::GROWSDOWN);
    let Some(file) = &args.file else {
        return if kind.is_empty() || validate || (kind == MapFlags::SHARED && grows) {
            Err(Errno::EINVAL)
        } else {
            Ok(())
        };
    };
    if kind.is_empty() {
        return Err(Errno::EINVAL);
    }
    if validate && !(args.flags - SHARED_FLAGS).is_empty() {
        return Err(Errno::EOPNOTSUPP);
    }
    let writes = args.is_shared() && args.prot.contains(Prot::WRITE);
    if !file.access.contains(Prot::READ) || (writes && !file.access.contains(Prot::WRITE)) {
        return Err(Errno::EACCES);
    }
    if args.prot.contains(Prot::EXEC) && !file.access.contains(Prot::EXEC) {
        return Err(Errno::EPERM);
    }
    let sealed = file.file.as_ref().is_some_and(|file| !file.shared_limit().contains(Prot::WRITE));
    if writes && sealed {
        return Err(Errno::EPERM);
    }
    if file.file.is_none() {
        return Err(Errno::ENODEV);
    }
    if grows { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Most the mapping may ever be given.
fn max_prot(args: &MapArgs) -> Prot {
    match &args.file {
        None => Prot::all(),
        Some(MapFile { file: Some(file), access }) if args.is_shared() => *access & file.shared_limit(),
        Some(file) if args.is_shared() => file.access,
        Some(file) => file.access | Prot::READ | Prot::WRITE,
    }
}

impl State {
    /// All checks, in order; returns where the mapping goes.
    fn check_map(&self, args: &MapArgs, len: u64) -> Result<u64, Errno> {
        let start = self.place(args, len)?;
        self.check_lock_flags(args, len)?;
        check_kind(args)?;
        self.check_map_limits(args, start, len)?;
        Ok(start)
    }

    /// Where a new mapping of `len` bytes goes.
    fn place(&self, args: &MapArgs, len: u64) -> Result<u64, Errno> {
        self.check_count(0)?;
        let fixed = args.flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE);
        if !fixed {
            return self.find_free(args.addr, len, args.flags.contains(MapFlags::BIT_32));
        }
        let end = self.end_of(args.addr, len).ok_or(Errno::ENOMEM)?;
        if !args.addr.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if args.addr < self.layout.min {
            return Err(Errno::EPERM);
        }
        if args.flags.contains(MapFlags::FIXED_NOREPLACE)
            && self.tree.overlapping(args.addr, end).next().is_some()
        {
            return Err(Errno::EEXIST);
        }
        Ok(args.addr)
    }

    /// A free range: at the hint, else from the top down, else from the bottom up.
    pub(crate) fn find_free(&self, hint: u64, len: u64, low: bool) -> Result<u64, Errno> {
        let layout = self.layout;
        if len > layout.max {
            return Err(Errno::ENOMEM);
        }
        if let Some(hint) = page_up(hint).filter(|_| hint != 0).map(|hint| hint.max(layout.min))
            && let Some(end) = self.end_of(hint, len)
            && (!low || end <= WINDOW_32BIT.1)
            && self.tree.is_free(hint, end)
            && self.clear_below(hint)
        {
            return Ok(hint);
        }
        if low {
            return self.tree.lowest_gap(WINDOW_32BIT.0, WINDOW_32BIT.1, len).ok_or(Errno::ENOMEM);
        }
        let top = self.window_top();
        let bottom = abi::page_down(layout.max / UNMAPPED_BASE_DIVISOR);
        self.tree
            .highest_gap(layout.min, top, len)
            .or_else(|| self.tree.lowest_gap(bottom, layout.max, len))
            .ok_or(Errno::ENOMEM)
    }

    /// The top of the downward search, below the guard gap of a stack that stands above it.
    fn window_top(&self) -> u64 {
        let top = self.layout.mmap_top;
        self.tree.at_or_above(top).map_or(top, |vma| top.min(vma.start_with_gap()))
    }

    /// `start` is not inside another mapping (a hint just above one is fine).
    fn clear_below(&self, start: u64) -> bool {
        self.tree.find(start).is_none()
    }

    fn check_lock_flags(&self, args: &MapArgs, len: u64) -> Result<(), Errno> {
        if args.flags.contains(MapFlags::LOCKED) && self.limits.locked == 0 {
            return Err(Errno::EPERM);
        }
        if args.flags.contains(MapFlags::LOCKED) || self.lock_future {
            self.check_lock(len)?;
        }
        Ok(())
    }

    fn vma_flags(&self, args: &MapArgs) -> VmaFlags {
        let mut flags = VmaFlags::empty();
        flags.set(VmaFlags::SHARED, args.is_shared());
        flags.set(VmaFlags::GROWSDOWN, args.flags.contains(MapFlags::GROWSDOWN));
        flags.set(VmaFlags::NORESERVE, args.flags.contains(MapFlags::NORESERVE));
        flags.set(VmaFlags::LOCKED, args.flags.contains(MapFlags::LOCKED) || self.lock_future);
        flags
    }

    /// Limits, less what the new mapping replaces.
    fn check_map_limits(&self, args: &MapArgs, start: u64, len: u64) -> Result<(), Errno> {
        let end = start.saturating_add(len);
        if self.tree.splits(start, end) {
            self.check_count(2)?;
        }
        let replaced = self.tree.mapped_bytes(start, end, |_| true);
        self.check_expand(len.saturating_sub(replaced), false)?;
        let data =
            args.prot.contains(Prot::WRITE) && !args.is_shared() && !args.flags.contains(MapFlags::GROWSDOWN);
        if data {
            let replaced = self.tree.mapped_bytes(start, end, Vma::is_data);
            let total = self.tree.totals().data.saturating_add(len).saturating_sub(replaced);
            if total > self.limits.data {
                return Err(Errno::ENOMEM);
            }
        }
        Ok(())
    }

    /// Maps `vma`, replacing what is there, on the host and in the tree.
    pub(crate) fn map(
        &mut self,
        space: &dyn AddressSpace,
        vma: Vma,
        backing: Backing,
        populate: bool,
    ) -> Result<(), Errno> {
        space.apply(&[MapOp::Map {
            addr: UserAddr(vma.start),
            len: vma.len(),
            prot: vma.prot,
            shared: vma.is_shared() && !matches!(backing, Backing::Anonymous),
            backing,
            no_reserve: vma.flags.contains(VmaFlags::NORESERVE),
            populate,
        }])?;
        self.tree.remove(vma.start, vma.end);
        self.tree.insert(vma);
        Ok(())
    }

    /// Unmaps `start..end` on the host and in the tree.
    pub(crate) fn unmap(&mut self, space: &dyn AddressSpace, start: u64, end: u64) -> Result<(), Errno> {
        if self.tree.overlapping(start, end).next().is_none() {
            return Ok(());
        }
        if self.tree.splits(start, end) {
            self.check_count(1)?;
        }
        space.apply(&[MapOp::Unmap { addr: UserAddr(start), len: end - start }])?;
        self.tree.remove(start, end);
        Ok(())
    }
}
