//! Memory that both the Sentry and the virtual machine see.
//!
//! # Soundness
//! A [`Window`] owns its mapping and unmaps it when dropped; nobody gets a reference into it. A virtual machine is
//! given addresses only here, and who gives them keeps what is mapped there for as long (`slots`). Advice goes to
//! shared memory of files only, whose bytes it cannot change.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags};
use vm_memory::MmapRegion;

/// A mapping of ours that a virtual machine may see.
pub(crate) struct Window {
    at: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: an address and a length; what is there is reached by atomics and by the host.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Maps a piece of a file, shared.
    pub(crate) fn of_file(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: NonZeroUsize,
        prot: ProtFlags,
    ) -> nix::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(|_| nix::Error::EINVAL)?;
        // SAFETY: a new mapping, at an address of the host's choice.
        let at = unsafe { nix::sys::mman::mmap(None, len, prot, MapFlags::MAP_SHARED, fd, offset) }?;
        Ok(Self { at, len: len.get() })
    }

    /// Addresses at which there is nothing and never will be.
    pub(crate) fn of_nothing(len: NonZeroUsize) -> nix::Result<Self> {
        let (prot, flags) = (ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE);
        // SAFETY: a new mapping, at an address of the host's choice.
        let at = unsafe { nix::sys::mman::mmap_anonymous(None, len, prot, flags) }?;
        Ok(Self { at, len: len.get() })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> u64 {
        self.at.as_ptr().addr() as u64
    }

    /// Whatever maps a page of it looks again; its bytes stay.
    pub(crate) fn forget(&self, from: usize, len: usize) {
        if from.checked_add(len).is_none_or(|end| end > self.len) {
            return;
        }
        let at = self.at.as_ptr().wrapping_byte_add(from);
        forget(at, len);
    }

    /// Replaces the aligned word at `from` when it is `old`; what was there. `None` outside.
    pub(crate) fn exchange(&self, from: usize, old: u32, new: u32) -> Option<u32> {
        let fits = from.is_multiple_of(4) && from.checked_add(4).is_some_and(|end| end <= self.len);
        let at = fits.then(|| self.at.as_ptr().wrapping_byte_add(from).cast::<u32>())?;
        // SAFETY: within the mapping and aligned; whoever else uses it uses atomics or is a guest.
        let word = unsafe { AtomicU32::from_ptr(at) };
        let (Ok(was) | Err(was)) = word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        Some(was)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody uses any more.
        if let Err(error) = unsafe { nix::sys::mman::munmap(self.at, self.len) } {
            tracing::warn!(%error, "a window stays mapped");
        }
    }
}

fn forget(at: *mut libc::c_void, len: usize) {
    let Some(at) = NonNull::new(at) else { return };
    // SAFETY: shared memory of a file, whose bytes stay.
    if let Err(error) = unsafe { nix::sys::mman::madvise(at, len, MmapAdvise::MADV_DONTNEED) } {
        // Guests would keep what they may not have any more.
        tracing::error!(%error, "memory cannot be taken from guests");
        std::process::abort();
    }
}

/// As [`Window::forget`], for a piece of `region`, which is of a file.
pub(crate) fn forget_in(region: &MmapRegion, from: usize, len: usize) {
    if region.file_offset().is_none() || from.checked_add(len).is_none_or(|end| end > region.size()) {
        return;
    }
    forget(region.as_ptr().wrapping_byte_add(from).cast(), len);
}

/// Brings pages of `region` in, for writing. That it can fail is no matter: it is done for speed.
pub(crate) fn populate(region: &MmapRegion, from: usize, len: usize) {
    if from.checked_add(len).is_none_or(|end| end > region.size()) {
        return;
    }
    // SAFETY: our own mapping; pages are brought in, not changed.
    let _ = unsafe { libc::madvise(region.as_ptr().wrapping_byte_add(from).cast(), len, 23) };
}

/// Gives the machine `len` bytes at `address` of ours as its memory from `gpa` on; none takes slot `slot` away.
pub(crate) fn set_slot(vm: &VmFd, slot: u32, gpa: u64, address: u64, len: u64) -> std::io::Result<()> {
    let region = kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: gpa,
        memory_size: len,
        userspace_addr: address,
    };
    // SAFETY: see the module: the caller keeps what is mapped there until the slot is taken away.
    unsafe { vm.set_user_memory_region(region) }.map_err(|e| std::io::Error::from_raw_os_error(e.errno()))
}
