//! What the C library knows of its registration.
//!
//! # Soundness
//! Reads a register's target, a constant of the C library, and the auxiliary vector.

use core::arch::asm;

unsafe extern "C" {
    /// Of glibc: where in the thread's control block its `rseq` area is.
    static __rseq_offset: isize;
}

/// Address of the calling thread's area.
pub(super) fn area() -> u64 {
    let thread: u64;
    // SAFETY: the first word of the control block is its own address (x86-64 psABI).
    unsafe { asm!("mov {}, fs:0", out(reg) thread, options(nostack, readonly)) };
    // SAFETY: a constant of the C library.
    thread.wrapping_add_signed(unsafe { __rseq_offset } as i64)
}

/// Bytes of the area as newer C libraries register it.
pub(super) fn size() -> u64 {
    // AT_RSEQ_FEATURE_SIZE and AT_RSEQ_ALIGN, zero where the kernel is older.
    let [size, align] = [27, 28].map(|key| {
        // SAFETY: a plain number.
        unsafe { libc::getauxval(key) }
    });
    size.next_multiple_of(align.max(1)).max(32)
}
