//! From the Sentry's `clone` to the stub's doorbell.
//!
//! # Soundness
//! The child is a copy of a process with many threads: it makes raw system calls only, allocates
//! nothing and takes no lock, until it jumps to the stub and never returns.

use std::io::Error;

use bpf::Insn;

use crate::layout::{INTERRUPT, MAILBOX, MAILBOX_LEN, OFF_STACK, SLOT, STUB, STUB_LEN};

/// Raw system call; the result or `-errno`.
///
/// # Safety
/// As of the call made.
#[inline(always)]
unsafe fn call(nr: i64, a: [u64; 6]) -> i64 {
    let ret: i64;
    // SAFETY: the caller answers for the call; the clobbers are the ABI's.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") nr => ret, in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    ret
}

unsafe extern "C" {
    static __rseq_offset: isize;
}

/// Bytes of the stack the child runs on until it reaches the stub.
const CHILD_STACK: usize = 64 << 10;

#[repr(C)]
struct Fprog {
    len: u16,
    filter: *const Insn,
}

/// What the child needs, made before the `clone`.
pub(crate) struct Plan<'a> {
    /// Filter.
    pub(crate) filter: &'a [Insn],
    /// Mailbox descriptor.
    pub(crate) mailbox: i32,
}

/// What the child works on: nothing of it is on the stack that the call of `clone` leaves behind.
struct Start {
    code: &'static [u8],
    entry: u64,
    fprog: Fprog,
    mailbox: i32,
}

/// Starts a process that ends up parked in the stub. Its id.
///
/// Our own stack may lie where the child's stub and mailbox must go (the host puts stacks anywhere in
/// the top 16 GiB), so the child leaves it at once for one on our heap, which never lies there.
pub(crate) fn start(plan: &Plan<'_>) -> Result<i32, Error> {
    let start = Box::new(Start {
        code: super::stub::code(),
        entry: STUB + super::stub::entry_offset(),
        fprog: Fprog { len: plan.filter.len() as u16, filter: plan.filter.as_ptr() },
        mailbox: plan.mailbox,
    });
    let stack = vec![0u128; CHILD_STACK / 16];
    let top = stack.as_ptr_range().end;
    // SAFETY: fork semantics: the child works on its copy, see the module.
    let pid = unsafe { call(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]) };
    if pid == 0 {
        // SAFETY: we are the child, `top` ends a buffer of its copy, and the function never returns.
        unsafe {
            core::arch::asm!("mov rsp, {top}", "xor ebp, ebp", "call {run}", "ud2",
                top = in(reg) top, run = sym become_stub, in("rdi") &raw const *start, options(noreturn));
        }
    }
    if pid < 0 { Err(Error::from_raw_os_error(-pid as i32)) } else { Ok(pid as i32) }
}

/// # Safety
/// Only in a child that is a copy of the Sentry.
unsafe extern "C" fn become_stub(start: *const Start) -> ! {
    // SAFETY: all calls are the child's own affairs, pointers are to live locals of its copy.
    #[allow(clippy::multiple_unsafe_ops_per_block)]
    unsafe {
        let Start { code, entry, ref fprog, mailbox } = *start;
        let all = u64::MAX;
        call(libc::SYS_rt_sigprocmask, [0, (&raw const all) as u64, 0, 8, 0, 0]);
        let fixed = (libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let mut bad = call(libc::SYS_mmap, [STUB, STUB_LEN, 3, fixed, u64::MAX, 0]) != STUB as i64;
        if !bad {
            core::ptr::copy_nonoverlapping(code.as_ptr(), STUB as *mut u8, code.len());
        }
        bad |= call(libc::SYS_mprotect, [STUB, STUB_LEN, 5, 0, 0, 0]) < 0;
        let shared = (libc::MAP_FIXED | libc::MAP_SHARED) as u64;
        bad |= call(libc::SYS_mmap, [MAILBOX, MAILBOX_LEN, 3, shared, mailbox as u64, 0]) != MAILBOX as i64;
        bad |= call(libc::SYS_madvise, [MAILBOX, MAILBOX_LEN, libc::MADV_DONTFORK as u64, 0, 0, 0]) < 0;
        let stack = [MAILBOX + OFF_STACK as u64, 0, SLOT - OFF_STACK as u64];
        bad |= call(libc::SYS_sigaltstack, [(&raw const stack) as u64, 0, 0, 0, 0, 0]) < 0;
        let flags = (libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART | 0x0400_0000) as u64;
        for signal in 1..=64u64 {
            let ours = matches!(
                signal as i32,
                libc::SIGSYS
                    | libc::SIGSEGV
                    | libc::SIGBUS
                    | libc::SIGILL
                    | libc::SIGFPE
                    | libc::SIGTRAP
                    | INTERRUPT
            );
            let action = [if ours { STUB } else { 0 }, flags, STUB, u64::MAX];
            call(libc::SYS_rt_sigaction, [signal, (&raw const action) as u64, 0, 8, 0, 0]);
        }
        let tp: u64;
        core::arch::asm!("mov {}, fs:0", out(reg) tp);
        let rseq = tp.wrapping_add_signed(__rseq_offset as i64);
        call(libc::SYS_rseq, [rseq, 32, 1, 0x5305_3053, 0, 0]);
        bad |= call(libc::SYS_close_range, [0, u64::from(u32::MAX), 0, 0, 0, 0]) < 0;
        bad |= call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as u64, 1, 0, 0, 0, 0]) < 0;
        if bad {
            call(libc::SYS_exit_group, [1, 0, 0, 0, 0, 0]);
        }
        // NEW_LISTENER | WAIT_KILLABLE_RECV.
        core::arch::asm!("mov rbx, {slot}", "syscall", "jmp {entry}", slot = in(reg) MAILBOX, entry = in(reg) entry,
            in("rax") libc::SYS_seccomp, in("rdi") 1u64, in("rsi") 0x28u64, in("rdx") &raw const *fprog, options(noreturn));
    }
}

#[cfg(test)]
mod tests {
    use platform::Platform;

    use crate::layout::{MAILBOX, STUB};

    /// The Sentry's stack lies there once in some 300 starts.
    #[test]
    fn starts_where_something_of_ours_is_in_the_way() {
        for at in [STUB, MAILBOX + 0x10_0000] {
            // SAFETY: a fresh mapping that replaces none.
            let got = unsafe {
                libc::mmap(
                    std::ptr::without_provenance_mut(at as usize),
                    4096,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                    -1,
                    0,
                )
            };
            // Either it is ours now or the host had put something there by itself: both will do.
            let in_use = std::io::Error::last_os_error().raw_os_error() == Some(libc::EEXIST);
            assert!(got.addr() == at as usize || in_use);
        }
        let platform = crate::Systrap::new().expect("this machine can run systrap");
        platform.new_address_space().expect("a space");
    }
}
