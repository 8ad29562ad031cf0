//! The host calls this crate makes once guests run: what a Sentry that locks itself in must leave it.

use hostsys::seccomp::{Rule, check, equals};

/// Bits of `PROT_EXEC` in a protection.
const EXEC: u32 = libc::PROT_EXEC as u32;

/// Requests of KVM (`linux/kvm.h`).
const RUN: u32 = 0xae80;
const CREATE_VCPU: u32 = 0xae41;
const SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
const GET_SREGS: u32 = 0x8138_ae83;
const SET_SREGS: u32 = 0x4138_ae84;
const SET_MSRS: u32 = 0x4008_ae89;
const SET_CPUID2: u32 = 0x4008_ae90;
const GET_XSAVE: u32 = 0x9000_aea4;
const SET_XSAVE: u32 = 0x5000_aea5;
const SET_XCRS: u32 = 0x4188_aea7;
const SET_DEVICE_ATTR: u32 = 0x4018_aee1;
/// `MADV_POPULATE_WRITE`.
const POPULATE_WRITE: u32 = 23;
/// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`.
const PUNCH: u32 = 3;

/// All of them, with what starting and ending threads takes.
pub static HOST_CALLS: &[Rule] = hostsys::seccomp_rules! {
    SYS_ioctl => "runs guests; makes processors and gives the machine memory as they need it", &[
        &[equals(1, RUN)], &[equals(1, CREATE_VCPU)], &[equals(1, SET_USER_MEMORY_REGION)],
        &[equals(1, GET_SREGS)], &[equals(1, SET_SREGS)], &[equals(1, SET_MSRS)], &[equals(1, SET_CPUID2)],
        &[equals(1, SET_DEVICE_ATTR)], &[equals(1, GET_XSAVE)], &[equals(1, SET_XSAVE)], &[equals(1, SET_XCRS)],
    ];
    SYS_process_vm_readv => "memory of files that guests share, ours only";
    SYS_process_vm_writev => "the same";
    SYS_tgkill => "stops processors", &[&[equals(2, libc::SIGUSR2 as u32)]];
    SYS_rt_sigreturn => "the end of that signal's handler";
    SYS_mmap => "memory of guests, pages of processors, stacks of threads", &[&[check(2, EXEC, 0)]];
    SYS_munmap => "the same";
    SYS_mprotect => "stacks of threads", &[&[check(2, EXEC, 0)]];
    SYS_madvise => "guest memory brought in or taken from the machine, stacks of ended threads", &[
        &[equals(2, libc::MADV_DONTNEED as u32)], &[equals(2, POPULATE_WRITE)],
    ];
    SYS_fallocate => "guest memory given back", &[&[equals(1, PUNCH)]];
    SYS_pread64 => "files that guests map";
    SYS_fstat => "their sizes";
    SYS_newfstatat => "the same, as newer C libraries ask: only by descriptor", &[
        &[check(3, libc::AT_EMPTY_PATH as u32, libc::AT_EMPTY_PATH as u32)],
    ];
    SYS_close => "processors, and files of /proc";
    SYS_fcntl => "copies of a descriptor; the standard library looks at them", &[
        &[equals(1, libc::F_DUPFD_CLOEXEC as u32)], &[equals(1, libc::F_GETFD as u32)],
    ];
    SYS_lseek => "the length of guest memory's file, before a piece of it is mapped";
    SYS_openat => "times of threads, below a descriptor of /proc";
    SYS_statx => "sizes of those files, as the standard library asks";
    SYS_read => "those files";
    SYS_clone3 => "threads";
    SYS_rseq => "start of a thread";
    SYS_set_robust_list => "start of a thread";
    SYS_sigaltstack => "start and end of a thread";
    SYS_rt_sigprocmask => "start and end of a thread";
    SYS_sched_getaffinity => "start of a thread, for the bounds of its stack";
    SYS_prctl => "names of threads", &[&[equals(0, libc::PR_SET_NAME as u32)]];
    SYS_gettid => "start of a thread";
    SYS_exit => "end of a thread";
    SYS_futex => "locks";
    SYS_sched_yield => "locks";
    SYS_exit_group => "the end";
};

#[cfg(test)]
mod tests {
    use hostproc::locked;
    use hostsys::seccomp::Rule;

    use super::HOST_CALLS;
    use crate::Kvm;

    /// What the test does beyond the suite.
    static OF_THE_TEST: &[Rule] = hostsys::seccomp_rules! {
        SYS_clock_nanosleep => "sleeps";
        SYS_ftruncate => "files that shrink";
    };

    /// The program that [`runs_in_a_locked_sentry`] starts; no test by itself.
    #[test]
    fn locked() {
        let new = || Kvm::new().expect("this machine can run kvm");
        // Guests are part of the Sentry, with its filter.
        locked::locked(new, (HOST_CALLS, OF_THE_TEST), |platform| ((), platform.shared.pid));
    }

    #[test]
    fn runs_in_a_locked_sentry() {
        match Kvm::new() {
            Ok(_) => locked::run("calls::tests::locked"),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}
