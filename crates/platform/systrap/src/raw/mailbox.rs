//! The Sentry's view of a mailbox.
//!
//! # Soundness
//! See the parent module: volatile, atomic or in assembly, bounds-checked, no references to anything but atomics.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::layout::{MAILBOX_LEN, SLOT};

/// A mailbox: the memfd and its mapping here. Unmapped on drop.
pub(crate) struct Mailbox {
    fd: OwnedFd,
    base: *mut u8,
}

// SAFETY: the mapping is plain shared memory, accessed by volatile loads and stores only; races with the
// guest are expected and every value read is validated.
unsafe impl Send for Mailbox {}
// SAFETY: as above.
unsafe impl Sync for Mailbox {}

impl Mailbox {
    /// A new, empty, sealed one.
    pub(crate) fn new() -> std::io::Result<Self> {
        // SAFETY: the name is a literal.
        let raw =
            unsafe { libc::memfd_create(c"mailbox".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if raw < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the call above made the descriptor and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: plain call on our descriptor.
        if unsafe { libc::ftruncate(raw, MAILBOX_LEN as i64) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: plain call on our descriptor.
        if unsafe { libc::fcntl(raw, libc::F_ADD_SEALS, seals) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAILBOX_LEN as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                raw,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self { fd, base: base.cast() })
    }

    /// Its descriptor.
    pub(crate) fn raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    fn at(&self, slot: usize, offset: usize, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        let at = slot.checked_mul(SLOT as usize)?.checked_add(offset)?;
        if end > SLOT as usize || at.checked_add(len)? > MAILBOX_LEN as usize {
            return None;
        }
        Some(self.base.wrapping_add(at))
    }

    /// Reads bytes of a slot; zeroes where the range is not within it.
    pub(crate) fn read(&self, slot: usize, offset: usize, buf: &mut [u8]) {
        let Some(from) = self.at(slot, offset, buf.len()) else { return buf.fill(0) };
        copy(from, buf.as_mut_ptr(), buf.len());
    }

    /// Writes bytes of a slot; nothing where the range is not within it.
    pub(crate) fn write(&self, slot: usize, offset: usize, bytes: &[u8]) {
        let Some(to) = self.at(slot, offset, bytes.len()) else { return };
        copy(bytes.as_ptr(), to, bytes.len());
    }

    /// Reads a word.
    pub(crate) fn get(&self, slot: usize, offset: usize) -> u64 {
        match self.at(slot, offset, 8) {
            // SAFETY: `at` checked the range; unaligned is allowed for.
            Some(from) => unsafe { from.cast::<u64>().read_unaligned() },
            None => 0,
        }
    }

    /// Waits, for at most `timeout`, until somebody wakes those who wait for the word at `offset`, which holds
    /// zero.
    pub(crate) fn wait_while_zero(&self, slot: usize, offset: usize, timeout: std::time::Duration) {
        let Some(word) = self.at(slot, offset, 4) else { return };
        let limit =
            libc::timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        // SAFETY: FUTEX_WAIT on a word that `at` checked, and a live local.
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, 0, &raw const limit) };
    }

    fn atomic(&self, slot: usize, offset: usize) -> Option<&AtomicU32> {
        let at = self.at(slot, offset, 4)?.cast::<u32>();
        if !at.is_aligned() {
            return None;
        }
        // SAFETY: `at` checked the range, which stays mapped while `self` lives; whoever else accesses it is
        // another process, or does it atomically too.
        Some(unsafe { AtomicU32::from_ptr(at) })
    }

    /// Reads half a word, before whatever follows.
    pub(crate) fn load(&self, slot: usize, offset: usize) -> u32 {
        self.atomic(slot, offset).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Writes half a word, after whatever comes before.
    pub(crate) fn store(&self, slot: usize, offset: usize, value: u32) {
        if let Some(word) = self.atomic(slot, offset) {
            word.store(value, Ordering::Release);
        }
    }

    /// Replaces half a word if it is `old`. Whether it was.
    pub(crate) fn exchange(&self, slot: usize, offset: usize, old: u32, new: u32) -> bool {
        self.atomic(slot, offset)
            .is_some_and(|word| word.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok())
    }

    /// Writes a word.
    pub(crate) fn set(&self, slot: usize, offset: usize, value: u64) {
        if let Some(to) = self.at(slot, offset, 8) {
            // SAFETY: `at` checked the range; unaligned is allowed for.
            unsafe { to.cast::<u64>().write_unaligned(value) };
        }
    }
}

/// Copies between a mailbox and a buffer of ours: in assembly, as the compiler may assume nothing of bytes that a
/// guest changes meanwhile.
fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: called with a buffer of `len` bytes and a range of the mailbox that `at` checked.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // SAFETY: our mapping, and nobody holds a pointer into it.
        unsafe { libc::munmap(self.base.cast(), MAILBOX_LEN as usize) };
    }
}
