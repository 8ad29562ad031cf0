//! [`MemoryManager`]: one guest address space, its lock, fork, and the growth of stacks.

use std::sync::{Arc, OnceLock};

use abi::limits::{INFINITY, Limits, Resource};
use abi::mm::Prot;
use abi::{Errno, PAGE_SIZE, page_down};
use guestmem::{Fault, UserAddr, UserMem};
use memmap::{Backing, Mappable};
use platform::{AddressSpace, Features, MapOp};
use sync::{Mutex, order};

use crate::gone::Gone;
use crate::tree::Tree;
use crate::vma::{Source, Vma, VmaFlags};
use crate::{MAX_MAP_COUNT, STACK_GUARD_GAP};

/// Makes the objects behind shared anonymous mappings; handed in by the kernel.
pub trait SharedMemory: Send + Sync {
    /// A new zero-filled object of `len` bytes.
    fn create(&self, len: u64) -> Result<Arc<dyn Mappable>, Errno>;
}

/// Where things go in an address space; chosen at `exec` (`loader` adds the randomness).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Lowest address that may be mapped.
    pub min: u64,
    /// First address that may not.
    pub max: u64,
    /// Mappings without a hint are placed downwards from here.
    pub mmap_top: u64,
    /// First byte of the heap; page-aligned.
    pub brk_start: u64,
}

impl Layout {
    /// A layout without randomness: stack limit and gap below the top, heap where the program says.
    pub fn new(features: &Features) -> Self {
        let max = page_down(features.max_address.min(0x7fff_ffff_f000));
        // Room for the stack (8 MiB) and its gap; the loader computes a better one.
        Self { min: features.min_address, max, mmap_top: max.saturating_sub(128 << 20), brk_start: 0 }
    }
}

/// The limits that bear on memory, as last set by the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmLimits {
    /// Bytes of address space (`RLIMIT_AS`).
    pub address_space: u64,
    /// Bytes of private writable memory (`RLIMIT_DATA`).
    pub data: u64,
    /// Bytes of stack (`RLIMIT_STACK`).
    pub stack: u64,
    /// Bytes of locked memory (`RLIMIT_MEMLOCK`); [`INFINITY`] with `CAP_IPC_LOCK`.
    pub locked: u64,
}

impl MmLimits {
    /// No limits.
    pub const UNLIMITED: Self =
        Self { address_space: INFINITY, data: INFINITY, stack: INFINITY, locked: INFINITY };

    /// From the limits of a process. With `CAP_IPC_LOCK` the caller sets [`locked`](Self::locked) to
    /// [`INFINITY`] afterwards.
    pub fn from_limits(limits: &Limits) -> Self {
        Self {
            address_space: limits.of(Resource::AddressSpace).cur,
            data: limits.of(Resource::Data).cur,
            stack: limits.of(Resource::Stack).cur,
            locked: limits.of(Resource::LockedMemory).cur,
        }
    }
}

/// Sizes for `/proc/PID/status` and `statm`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// All mappings.
    pub total: u64,
    /// Highest `total` so far.
    pub peak: u64,
    /// Private writable mappings.
    pub data: u64,
    /// Mappings that grow downwards.
    pub stack: u64,
    /// Executable mappings.
    pub exec: u64,
    /// Locked mappings.
    pub locked: u64,
    /// Resident, of all kinds.
    pub resident: u64,
    /// Resident and shared or of files.
    pub shared: u64,
    /// Highest `resident` so far.
    pub peak_resident: u64,
}

/// What the lock protects.
pub(crate) struct State {
    pub(crate) tree: Tree,
    pub(crate) layout: Layout,
    pub(crate) limits: MmLimits,
    /// End of the heap, not rounded.
    pub(crate) brk: u64,
    /// Flags of `mlockall(MCL_FUTURE)` for new mappings.
    pub(crate) lock_future: bool,
    /// An address in the initial stack, for its name.
    pub(crate) stack_start: u64,
    /// Highest total so far.
    pub(crate) peak: u64,
}

impl State {
    /// Room for `len` bytes more, of which `data` say whether they count as data (`may_expand_vm`)?
    pub(crate) fn check_expand(&self, len: u64, data: bool) -> Result<(), Errno> {
        let totals = self.tree.totals();
        if totals.all.saturating_add(len) > self.limits.address_space
            || (data && totals.data.saturating_add(len) > self.limits.data)
        {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// May `len` bytes more be locked?
    pub(crate) fn check_lock(&self, len: u64) -> Result<(), Errno> {
        let locked = self.tree.totals().locked;
        if self.limits.locked != INFINITY && locked.saturating_add(len) > self.limits.locked {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// Is there room for `extra` mappings more?
    pub(crate) fn check_count(&self, extra: usize) -> Result<(), Errno> {
        if self.tree.count().saturating_add(extra) > MAX_MAP_COUNT { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// `start + len` when the range lies within the address space.
    pub(crate) fn end_of(&self, start: u64, len: u64) -> Option<u64> {
        start.checked_add(len).filter(|end| *end <= self.layout.max)
    }

    pub(crate) fn note_peak(&mut self) {
        self.peak = self.peak.max(self.tree.totals().all);
    }
}

/// One guest address space: see the [crate documentation](crate).
pub struct MemoryManager {
    /// Set once; a fork's child is built before its host address space exists.
    space: OnceLock<Arc<dyn AddressSpace>>,
    pub(crate) shared_memory: Arc<dyn SharedMemory>,
    state: Mutex<order::Vmas, State>,
}

impl std::fmt::Debug for MemoryManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryManager").finish_non_exhaustive()
    }
}

impl MemoryManager {
    /// Manages `space`, which is fresh and empty.
    pub fn new(
        space: Arc<dyn AddressSpace>,
        shared_memory: Arc<dyn SharedMemory>,
        layout: Layout,
        limits: MmLimits,
    ) -> Arc<Self> {
        let state = State {
            tree: Tree::default(),
            layout,
            limits,
            brk: layout.brk_start,
            lock_future: false,
            stack_start: 0,
            peak: 0,
        };
        Arc::new(Self { space: OnceLock::from(space), shared_memory, state: Mutex::new(state) })
    }

    /// The host's side of it. In a fork's child waits until the parent's `fork` has it.
    pub fn space(&self) -> &Arc<dyn AddressSpace> {
        self.space.wait()
    }

    /// Runs `f` under the lock, and then tells files what became of their mappings.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut State, &dyn AddressSpace) -> R) -> R {
        let space = self.space();
        let mut state = self.state.lock();
        let result = f(&mut state, space.as_ref());
        state.note_peak();
        let notices = state.tree.take_notices();
        drop(state);
        for notice in notices {
            notice.deliver();
        }
        result
    }

    /// The layout.
    pub fn layout(&self) -> Layout {
        self.state.lock().layout
    }

    /// Replaces the layout and puts the end of the heap at its start. For the loader, while nothing runs.
    pub fn set_layout(&self, layout: Layout) {
        let mut state = self.state.lock();
        state.layout = layout;
        state.brk = layout.brk_start;
    }

    /// The limits in force.
    pub fn limits(&self) -> MmLimits {
        self.state.lock().limits
    }

    /// Sets the limits: after `setrlimit`, and when a capability that lifts one comes or goes.
    pub fn set_limits(&self, limits: MmLimits) {
        self.state.lock().limits = limits;
    }

    /// Says where the initial stack pointer is, by which `/proc` finds `[stack]`.
    pub fn set_stack_start(&self, sp: u64) {
        self.state.lock().stack_start = sp;
    }

    /// The initial stack pointer.
    pub fn stack_start(&self) -> u64 {
        self.state.lock().stack_start
    }

    /// Sizes by kind.
    pub fn sizes(&self) -> Sizes {
        let (totals, peak) = {
            let state = self.state.lock();
            (state.tree.totals(), state.peak)
        };
        let used = self.space().memory_use();
        Sizes {
            total: totals.all,
            peak,
            data: totals.data,
            stack: totals.stack,
            exec: totals.exec,
            locked: totals.locked,
            resident: used.resident,
            shared: used.shared,
            peak_resident: used.peak_resident,
        }
    }

    /// A snapshot of all mappings, in order.
    pub fn vmas(&self) -> Vec<Vma> {
        self.state.lock().tree.iter().cloned().collect()
    }

    /// The mapping that covers `addr`.
    pub fn find(&self, addr: UserAddr) -> Option<Vma> {
        self.state.lock().tree.find(addr.0).cloned()
    }

    /// Copies the address space for `fork(2)`. `start` makes the host's copy, and usually starts the
    /// child: it is handed the child's manager, which may be used at once by others (they wait for
    /// the host's side) but not by `start` itself.
    ///
    /// The parent's `Vmas` lock is held over `start`, so that no other thread maps between the two
    /// copies; `start` may take no lock that stands above `Vmas`.
    pub fn fork<E>(
        &self,
        start: impl FnOnce(&Arc<Self>) -> Result<Arc<dyn AddressSpace>, E>,
    ) -> Result<Arc<Self>, E> {
        let parent = self.state.lock();
        let mut tree = Tree::default();
        for vma in parent.tree.iter().filter(|vma| !vma.flags.contains(VmaFlags::DONTFORK)) {
            // Locks are not inherited (mlock(2)).
            tree.put(Vma { flags: vma.flags - VmaFlags::LOCKED, ..vma.clone() });
        }
        let notices = tree.take_notices();
        let peak = tree.totals().all;
        let state = State { tree, peak, lock_future: false, ..*parent };
        let child = Arc::new(Self {
            space: OnceLock::new(),
            shared_memory: Arc::clone(&self.shared_memory),
            state: Mutex::new(state),
        });
        let space = start(&child);
        drop(parent);
        for notice in notices {
            notice.deliver();
        }
        // Cannot be set already: nobody else has the right to.
        match space {
            Ok(space) => {
                let _ = child.space.set(space);
                Ok(child)
            }
            Err(error) => {
                let _ = child.space.set(Arc::new(Gone));
                Err(error)
            }
        }
    }

    /// Grows the stack above `addr` down to it, as a page fault does: `true` when it grew (the access
    /// is to be tried again), `false` when `addr` is mapped already (the fault has another reason).
    /// Errors mean `SIGSEGV`.
    pub fn grow_stack(&self, addr: UserAddr) -> Result<bool, Errno> {
        self.with(|state, space| state.grow_stack(space, page_down(addr.0)))
    }

    /// Maps a stack of `len` bytes that ends at `top`, both page-aligned, and grows downwards
    /// later. For the loader.
    pub fn map_stack(&self, top: UserAddr, len: u64, prot: Prot) -> Result<(), Errno> {
        self.with(|state, space| {
            let start = top.0.checked_sub(len).filter(|at| *at >= state.layout.min).ok_or(Errno::ENOMEM)?;
            if top.0 > state.layout.max || !state.tree.is_free(start, top.0) {
                return Err(Errno::ENOMEM);
            }
            state.check_expand(len, false)?;
            space.apply(&[anonymous(start, len, prot, false, false)])?;
            state.tree.insert(Vma {
                start,
                end: top.0,
                prot,
                max_prot: Prot::all(),
                flags: VmaFlags::GROWSDOWN,
                source: Source::Anonymous,
            });
            Ok(())
        })
    }

    /// Maps the host's vDSO into a free place; returns the address of its ELF header.
    pub fn map_vdso(&self) -> Result<UserAddr, Errno> {
        /// More than any vDSO with its data pages takes.
        const ROOM: u64 = 16 * PAGE_SIZE;
        self.with(|state, space| {
            let layout = state.layout;
            let gap = state.tree.highest_gap(layout.min, layout.mmap_top, ROOM);
            let at = gap.ok_or(Errno::ENOMEM)?;
            let (header, used) = space.map_vdso(UserAddr(at))?;
            let end = abi::page_up(at.saturating_add(used)).unwrap_or(at);
            let special = |start: u64, end: u64, prot: Prot, name: &'static str| Vma {
                start,
                end,
                prot,
                max_prot: Prot::all(),
                flags: VmaFlags::DONTEXPAND | VmaFlags::DONTDUMP,
                source: Source::Special(name),
            };
            let split = header.0.clamp(at, end);
            state.tree.insert(special(at, split, Prot::READ, "[vvar]"));
            state.tree.insert(special(split, end, Prot::READ | Prot::EXEC, "[vdso]"));
            Ok(header)
        })
    }
}

impl State {
    fn grow_stack(&mut self, space: &dyn AddressSpace, addr: u64) -> Result<bool, Errno> {
        let vma = self.tree.at_or_above(addr).ok_or(Errno::EFAULT)?;
        if vma.start <= addr {
            return Ok(false);
        }
        if !vma.flags.contains(VmaFlags::GROWSDOWN) {
            return Err(Errno::EFAULT);
        }
        if addr < self.layout.min {
            return Err(Errno::EPERM);
        }
        let vma = vma.clone();
        // Another stack, or memory nobody may touch, needs no gap before it.
        if let Some(below) = self.tree.below(vma.start)
            && (addr < below.end
                || (!below.flags.contains(VmaFlags::GROWSDOWN)
                    && !below.prot.is_empty()
                    && addr - below.end < STACK_GUARD_GAP))
        {
            return Err(Errno::ENOMEM);
        }
        let grow = vma.start - addr;
        if vma.len().saturating_add(grow) > self.limits.stack {
            return Err(Errno::ENOMEM);
        }
        self.check_expand(grow, false)?;
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.check_lock(grow).map_err(|_| Errno::ENOMEM)?;
        }
        space.apply(&[anonymous(addr, grow, vma.prot, false, false)])?;
        self.tree.remove(vma.start, vma.end);
        self.tree.put(Vma { start: addr, ..vma });
        Ok(true)
    }
}

/// The operation that maps private zero pages.
pub(crate) fn anonymous(start: u64, len: u64, prot: Prot, no_reserve: bool, populate: bool) -> MapOp {
    MapOp::Map {
        addr: UserAddr(start),
        len,
        prot,
        backing: Backing::Anonymous,
        shared: false,
        no_reserve,
        populate,
    }
}

impl Drop for MemoryManager {
    fn drop(&mut self) {
        let tree = &mut self.state.get_mut().tree;
        tree.remove(0, u64::MAX);
        for notice in tree.take_notices() {
            notice.deliver();
        }
    }
}

impl MemoryManager {
    /// After a fault at `addr`: has it moved the bottom of a stack, so that trying again is worth it?
    fn grew(&self, addr: UserAddr, copied: usize) -> bool {
        // A child whose host side is not there yet, and the parent in `fork`, have nothing to grow.
        addr.checked_add(copied as u64).is_some_and(|at| self.grow_stack(at) == Ok(true))
    }
}

impl UserMem for MemoryManager {
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
        let fault = match self.space().read(addr, buf) {
            Err(fault) if self.grew(addr, fault.copied) => fault,
            other => return other,
        };
        let at = addr.checked_add(fault.copied as u64).ok_or(fault)?;
        let rest = buf.get_mut(fault.copied..).ok_or(fault)?;
        self.space().read(at, rest).map_err(|next| Fault { copied: fault.copied + next.copied })
    }

    fn read_some(&self, addr: UserAddr, buf: &mut [u8]) -> Result<usize, Fault> {
        match self.space().read_some(addr, buf) {
            Ok(read) => Ok(read),
            Err(_) => self.read(addr, buf).map(|()| buf.len()),
        }
    }

    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        let fault = match self.space().write(addr, buf) {
            Err(fault) if self.grew(addr, fault.copied) => fault,
            other => return other,
        };
        let at = addr.checked_add(fault.copied as u64).ok_or(fault)?;
        let rest = buf.get(fault.copied..).ok_or(fault)?;
        self.space().write(at, rest).map_err(|next| Fault { copied: fault.copied + next.copied })
    }

    /// Does not grow stacks: futexes call it with their own locks held, which stand below `Vmas`.
    fn compare_exchange_u32(&self, addr: UserAddr, old: u32, new: u32) -> Result<u32, Fault> {
        self.space().compare_exchange_u32(addr, old, new)
    }
}
