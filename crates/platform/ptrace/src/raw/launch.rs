//! The clone of the Sentry that becomes the master of all guest processes.
//!
//! # Soundness
//! Between the `clone` and the jump into the stub the child touches registers only. Its memory is a copy, and
//! the stub uses none of it.

use core::arch::asm;
use std::io::Error;

use crate::layout::{CODE, PAGE, PARK};

/// A page of ours with the stub in it, which a clone waits in.
pub(crate) struct Perch(*mut u8);

impl Perch {
    /// Maps it, away from where guests' stubs lie.
    pub(crate) fn new() -> Result<Self, Error> {
        let hint = std::ptr::without_provenance_mut(0x2000_0000_0000);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping where the kernel likes.
        let base =
            unsafe { libc::mmap(hint, PAGE as usize, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let perch = Self(base.cast());
        for (i, byte) in CODE.iter().enumerate() {
            // SAFETY: the code is shorter than the page.
            unsafe { perch.0.wrapping_add(i).write(*byte) };
        }
        // SAFETY: the page of our mapping.
        if unsafe { libc::mprotect(base, PAGE as usize, libc::PROT_READ | libc::PROT_EXEC) } < 0 {
            return Err(Error::last_os_error());
        }
        Ok(perch)
    }

    /// Its address.
    pub(crate) fn address(&self) -> u64 {
        self.0.addr() as u64
    }

    /// Clones this process, all but its table of descriptors, which is shared. The clone waits parked; it is a
    /// child of the calling thread and ends without a signal.
    pub(crate) fn launch(&self) -> Result<i32, Error> {
        let pid: i64;
        let flags = libc::CLONE_FILES as u64;
        let park = self.address() + PARK;
        // SAFETY: fork semantics. The parent comes back with all but `rax`, `rcx` and `r11` as they were; the
        // child goes on in the stub, with registers only, and never returns here.
        unsafe {
            asm!("syscall", "test rax, rax", "jnz 2f", "jmp {park}", "2:", park = in(reg) park,
                inlateout("rax") libc::SYS_clone => pid, in("rdi") flags, in("rsi") 0u64, in("rdx") 0u64,
                in("r10") 0u64, in("r8") 0u64, out("rcx") _, out("r11") _, options(nostack));
        }
        if pid < 0 { Err(Error::from_raw_os_error(-pid as i32)) } else { Ok(pid as i32) }
    }
}

impl Drop for Perch {
    fn drop(&mut self) {
        // SAFETY: our mapping, and nothing points into it.
        unsafe { libc::munmap(self.0.cast(), PAGE as usize) };
    }
}
