//! The host calls this crate makes once guests run: what a Sentry that locks itself in must leave it.

use hostsys::seccomp::{Rule, check, equals};

use crate::raw::sys::{
    CONT, DETACH, GETREGS, GETREGSET, GETSIGINFO, INTERRUPT_REQUEST, SEIZE, SETREGS, SETREGSET, SYSCALL,
};

/// Bits of `PROT_EXEC` in a protection.
const EXEC: u32 = libc::PROT_EXEC as u32;

/// All of them, with what starting and ending threads takes.
pub static HOST_CALLS: &[Rule] = hostsys::seccomp_rules! {
    SYS_ptrace => "stops, registers and calls of guest threads; no peeking, no attaching with a signal", &[
        &[equals(0, SEIZE)], &[equals(0, INTERRUPT_REQUEST)], &[equals(0, DETACH)],
        &[equals(0, CONT)], &[equals(0, SYSCALL)], &[equals(0, GETREGS)], &[equals(0, SETREGS)],
        &[equals(0, GETREGSET)], &[equals(0, SETREGSET)], &[equals(0, GETSIGINFO)],
    ];
    SYS_waitid => "waits for stops and ends of guest threads";
    SYS_wait4 => "reaps them";
    SYS_process_vm_readv => "guest memory";
    SYS_process_vm_writev => "guest memory";
    SYS_tgkill => "interrupts guest threads", &[&[equals(2, libc::SIGUSR2 as u32)]];
    SYS_kill => "ends guest processes", &[&[equals(1, libc::SIGKILL as u32)]];
    SYS_sendmsg => "asks the guardian for a process or gives it a file";
    SYS_recvmsg => "how the guardian hears";
    SYS_sendto => "how it answers";
    SYS_recvfrom => "its answer";
    SYS_mmap => "stacks of threads", &[&[check(2, EXEC, 0)]];
    SYS_munmap => "the same";
    SYS_mprotect => "the same", &[&[check(2, EXEC, 0)]];
    SYS_madvise => "stacks of ended threads";
    SYS_close => "files of /proc and of guests";
    SYS_fcntl => "the standard library looks at descriptors", &[&[equals(1, libc::F_GETFD as u32)]];
    SYS_openat => "statm, stat, mem and pagemap of guests, below a descriptor of /proc";
    SYS_statx => "sizes of those files, as the standard library asks";
    SYS_lseek => "the same";
    SYS_read => "those files";
    SYS_pread64 => "pagemap";
    SYS_pwrite64 => "mem";
    SYS_clone3 => "tracers";
    SYS_rseq => "start of a thread";
    SYS_set_robust_list => "start of a thread";
    SYS_sigaltstack => "start and end of a thread";
    SYS_rt_sigprocmask => "start and end of a thread";
    SYS_sched_getaffinity => "start of a thread, for the bounds of its stack";
    SYS_prctl => "names of threads", &[&[equals(0, libc::PR_SET_NAME as u32)]];
    SYS_gettid => "start of a thread";
    SYS_exit => "end of a thread";
    SYS_futex => "locks, and the watch's ticks";
    SYS_sched_yield => "locks";
    SYS_exit_group => "the end";
};

#[cfg(test)]
mod tests {
    use hostproc::locked;
    use hostsys::seccomp::Rule;

    use super::HOST_CALLS;
    use crate::Ptrace;

    /// What the test does beyond the suite.
    static OF_THE_TEST: &[Rule] = hostsys::seccomp_rules! {
        SYS_clock_nanosleep => "sleeps";
        SYS_newfstatat => "a folder";
        SYS_getdents64 => "the same";
    };

    /// The program that [`runs_in_a_locked_sentry`] starts; no test by itself.
    #[test]
    fn locked() {
        let new = || Ptrace::new().expect("this machine can run ptrace");
        locked::locked(new, (HOST_CALLS, OF_THE_TEST), |platform| {
            let space = crate::space::Space::fresh(&platform.shared).expect("a space");
            let path = format!("/proc/{}/fd", space.pid());
            assert!(
                std::fs::read_dir(path).is_ok_and(|fds| fds.count() <= 3),
                "a guest has the Sentry's descriptors"
            );
            let pid = space.pid();
            (space, pid)
        });
    }

    #[test]
    fn runs_in_a_locked_sentry() {
        locked::run("calls::tests::locked");
    }
}
