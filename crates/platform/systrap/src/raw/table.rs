//! The pointers and cells of rewritten call sites: one memory object that all guests map, and the Sentry's view.
//!
//! # Soundness
//! The mapping is ours alone to write: guests have it from a seal on that nobody can map it writable any more.
//! A cell is written before anything points at it, and never again. It is never read or run here.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::layout::{CELL, CELLS, CELLS_LEN, POINTERS_LEN, SITES};

const LEN: usize = (POINTERS_LEN + CELLS_LEN) as usize;

/// See the module. Unmapped on drop.
pub(crate) struct Table {
    base: *mut u8,
}

// SAFETY: the mapping is written by whoever holds `&mut`, and not read.
unsafe impl Send for Table {}
// SAFETY: as above: `&Table` does nothing.
unsafe impl Sync for Table {}

impl Table {
    /// A new one with all pointers and no cells, and the descriptor to map it by: pointers first, then cells.
    pub(crate) fn new() -> std::io::Result<(Self, OwnedFd)> {
        // SAFETY: the name is a literal.
        let raw =
            unsafe { libc::memfd_create(c"cells".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if raw < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the call above made the descriptor and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: plain call on our descriptor.
        if unsafe { libc::ftruncate(raw, LEN as i64) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), LEN, prot, libc::MAP_SHARED, raw, 0) };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let mut table = Self { base: base.cast() };
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
        // SAFETY: plain call on our descriptor.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        for index in 0..SITES {
            table.write(index * 8, &(CELLS + index as u64 * CELL).to_le_bytes());
        }
        Ok((table, fd))
    }

    /// Writes a cell; nothing for an index that is none.
    pub(crate) fn set_cell(&mut self, index: usize, code: &[u8; CELL as usize]) {
        if index < SITES {
            self.write(POINTERS_LEN as usize + index * CELL as usize, code);
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        if at.checked_add(bytes.len()).is_none_or(|end| end > LEN) {
            return;
        }
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: the range lies in our mapping, as just checked.
            unsafe { self.base.wrapping_add(at + i).write_volatile(*byte) };
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: our mapping, and nobody holds a pointer into it.
        unsafe { libc::munmap(self.base.cast(), LEN) };
    }
}
