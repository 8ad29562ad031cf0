//! The machine's memory: which slots it has, and that what is behind them stays as long as they do.
//!
//! A guest's mapping that changed is forgotten by all processors when the memory that it led to is taken from the
//! machine for a moment: `madvise` of our own mapping of it does that (the host's MMU notifier), for processors with
//! nested page tables and for those whose guest tables are shadowed alike, and nobody has to be interrupted for it.
//! What it does not reach is shadows of page-table *pages*. Those go all at once, when a slot is taken away; see
//! [`Slots::forget_tables`].

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use parking_lot::Mutex;
use vm_memory::MmapRegion;

use crate::layout::{NOTHING_GPA, PAGE, SWITCH_GPA, WINDOWS_GPA};
use crate::raw::memory::{Window, set_slot};

/// Number of the slot that is taken away and given back.
const SWITCH: u32 = 0;
/// Number of the slot with nothing behind it.
const NOTHING: u32 = 1;
/// The first for everything else.
const FIRST: u32 = 2;
/// Bytes of a window into a file, and by what its machine address is aligned.
pub(crate) const WINDOW: u64 = 16 << 20;
/// Most windows at a time; KVM has 32764 slots.
const MAX_WINDOWS: usize = 8192;

/// Numbers and machine addresses.
#[derive(Default)]
struct Numbers {
    next: u32,
    free: Vec<u32>,
    next_window: u64,
    free_windows: Vec<u64>,
    /// Those that are open, by their machine address.
    windows: HashMap<u64, Arc<Window>>,
}

/// See the module.
pub(crate) struct Slots {
    vm: VmFd,
    numbers: Mutex<Numbers>,
    switch: Mutex<Window>,
    /// Behind the page with nothing behind it.
    _nothing: Window,
}

impl Slots {
    /// Of a new machine.
    pub(crate) fn new(vm: VmFd) -> io::Result<Self> {
        let page = NonZeroUsize::MIN.saturating_add(PAGE as usize - 1);
        let (switch, nothing) = (Window::of_nothing(page)?, Window::of_nothing(page)?);
        set_slot(&vm, SWITCH, SWITCH_GPA, switch.address(), PAGE)?;
        set_slot(&vm, NOTHING, NOTHING_GPA, nothing.address(), PAGE)?;
        let numbers = Numbers { next: FIRST, ..Numbers::default() };
        Ok(Self { vm, numbers: Mutex::new(numbers), switch: Mutex::new(switch), _nothing: nothing })
    }

    /// The machine.
    pub(crate) fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// Gives it `region` at `gpa` for good.
    pub(crate) fn add(&self, region: &MmapRegion, gpa: u64) -> io::Result<()> {
        let mut numbers = self.numbers.lock();
        let slot = numbers.take();
        set_slot(&self.vm, slot, gpa, region.as_ptr().addr() as u64, region.size() as u64)
    }

    /// Gives it `len` bytes at `address` that the host keeps there as long as this process lives: the vDSO.
    pub(crate) fn add_given(&self, gpa: u64, address: u64, len: u64) -> io::Result<()> {
        let slot = self.numbers.lock().take();
        set_slot(&self.vm, slot, gpa, address, len)
    }

    /// Gives it a window into a file, until the answer is dropped.
    pub(crate) fn open(self: &Arc<Self>, window: Window, len: u64) -> io::Result<OpenWindow> {
        let mut numbers = self.numbers.lock();
        if numbers.windows.len() >= MAX_WINDOWS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let slot = numbers.take();
        let gpa = numbers.free_windows.pop().unwrap_or(WINDOWS_GPA + numbers.next_window * WINDOW);
        if gpa == WINDOWS_GPA + numbers.next_window * WINDOW {
            numbers.next_window += 1;
        }
        if let Err(error) = set_slot(&self.vm, slot, gpa, window.address(), len) {
            numbers.free.push(slot);
            numbers.free_windows.push(gpa);
            return Err(error);
        }
        let window = Arc::new(window);
        numbers.windows.insert(gpa, Arc::clone(&window));
        Ok(OpenWindow { window, gpa, slot, slots: Arc::clone(self) })
    }

    /// Makes all processors look again at pages that are not the arena's, by machine address.
    pub(crate) fn forget_pages(&self, mut pages: Vec<u64>) {
        pages.sort_unstable();
        if pages.first().is_some_and(|first| *first < WINDOWS_GPA) {
            // The host's own, of which nothing less will do; hardly anybody unmaps the vDSO.
            if let Err(error) = self.forget_tables() {
                tracing::error!(%error, "memory cannot be taken from guests");
                std::process::abort();
            }
            return;
        }
        for run in pages.chunk_by(|a, b| a == b || (a + PAGE == *b && b % WINDOW != 0)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let base = first - (first - WINDOWS_GPA) % WINDOW;
            let window = self.numbers.lock().windows.get(&base).cloned();
            // One that is closed has been forgotten whole.
            if let Some(window) = window {
                window.forget((first - base) as usize, (last - first + PAGE) as usize);
            }
        }
    }

    /// Makes all processors forget all page tables there are no more: shadows of pages that were tables are
    /// recognised by their number alone, so a page may be a table again only after this.
    pub(crate) fn forget_tables(&self) -> io::Result<()> {
        let switch = self.switch.lock();
        set_slot(&self.vm, SWITCH, SWITCH_GPA, switch.address(), 0)?;
        set_slot(&self.vm, SWITCH, SWITCH_GPA, switch.address(), PAGE)
    }
}

impl Numbers {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

/// A window that the machine sees.
pub(crate) struct OpenWindow {
    /// The mapping behind it.
    pub(crate) window: Arc<Window>,
    /// Its first machine address.
    pub(crate) gpa: u64,
    slot: u32,
    slots: Arc<Slots>,
}

impl Drop for OpenWindow {
    fn drop(&mut self) {
        let mut numbers = self.slots.numbers.lock();
        if let Err(error) = set_slot(&self.slots.vm, self.slot, self.gpa, self.window.address(), 0) {
            // The machine would go on to see whatever comes there next.
            tracing::error!(%error, "memory cannot be taken from the machine");
            std::process::abort();
        }
        numbers.free.push(self.slot);
        numbers.free_windows.push(self.gpa);
        numbers.windows.remove(&self.gpa);
    }
}
