//! Where the stub lies in a guest's address space, and what is in it.

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// First byte of the stub's page.
pub(crate) const STUB: u64 = 0x7fff_0000_0000;
/// First address a guest may not map.
pub(crate) const MAX_ADDRESS: u64 = 0x7ffe_0000_0000;
/// Lowest address a guest may map.
pub(crate) const MIN_ADDRESS: u64 = 0x1_0000;
/// End of user space.
pub(crate) const USER_END: u64 = 0x7fff_ffff_f000;
/// First byte of the vsyscall page.
pub(crate) const VSYSCALL: u64 = 0xffff_ffff_ff60_0000;

/// Offset of the `syscall` instruction by which a thread is made to call; a clone finds itself behind it.
pub(crate) const GATE: u64 = 0;
/// Offset of where a thread that nobody traces waits.
pub(crate) const PARK: u64 = 2;
/// Offset behind the call by which it asks to die with the Sentry.
pub(crate) const AFTER_PRCTL: u64 = 0x13;
/// Offset of the compare-exchange; it ends in a breakpoint.
pub(crate) const EXCHANGE: u64 = 0x30;
/// Offset behind that breakpoint.
pub(crate) const AFTER_EXCHANGE: u64 = CODE.len() as u64;

/// The stub: position-independent, never written again. A guest may jump anywhere in it with any registers.
pub(crate) const CODE: &[u8] = &[
    0x0f, 0x05, // gate: syscall
    0xbf, 1, 0, 0, 0, // park: mov edi, PR_SET_PDEATHSIG
    0xbe, 9, 0, 0, 0, // mov esi, SIGKILL
    0xb8, 157, 0, 0, 0, // mov eax, SYS_prctl
    0x0f, 0x05, // syscall
    0xb8, 202, 0, 0, 0, // again: mov eax, SYS_futex
    0x48, 0x8d, 0x3d, 0xe1, 0xff, 0xff, 0xff, // lea rdi, [gate]
    0xbe, 0x80, 0, 0, 0, // mov esi, FUTEX_WAIT_PRIVATE
    0xba, 0x0f, 0x05, 0xbf, 0x01, // mov edx, the word at gate
    0x45, 0x31, 0xd2, // xor r10d, r10d: for ever
    0x0f, 0x05, // syscall
    0xeb, 0xe3, // jmp again
    0x89, 0xf0, // exchange: mov eax, esi
    0xf0, 0x0f, 0xb1, 0x17, // lock cmpxchg [rdi], edx
    0xcc, // int3
];

/// The host signal by which a running thread is stopped.
pub(crate) const INTERRUPT: i32 = libc::SIGUSR2;

/// Flags of a process with a copy of the memory. It ends without a signal. All guest processes share one
/// table of descriptors, which is not the Sentry's.
pub(crate) const CLONE_FORK: u64 = (libc::CLONE_PARENT | libc::CLONE_FILES) as u64;
/// Flags of a process that shares the memory.
pub(crate) const CLONE_SHARED: u64 = CLONE_FORK | libc::CLONE_VM as u64;

#[cfg(test)]
mod tests {
    use super::{AFTER_PRCTL, CODE, EXCHANGE, GATE, PARK};

    #[test]
    fn offsets_are_where_they_say() {
        let at = |offset: u64, bytes: &[u8]| CODE[offset as usize..].starts_with(bytes);
        assert!(at(GATE, &[0x0f, 0x05]) && at(PARK, &[0xbf]));
        assert!(at(AFTER_PRCTL - 2, &[0x0f, 0x05, 0xb8, 202]) && at(EXCHANGE, &[0x89, 0xf0]));
        // The word that a parked thread waits for.
        assert_eq!(CODE[..4], CODE[0x25..0x29]);
    }
}
