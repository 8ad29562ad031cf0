//! The host calls this crate makes once guests run: what a Sentry that locks itself in must leave it.

use hostsys::seccomp::{Rule, check, equals};

/// Bits of `PROT_EXEC` in a protection.
const EXEC: u32 = libc::PROT_EXEC as u32;

/// All of them, with what starting and ending threads takes.
pub static HOST_CALLS: &[Rule] = hostsys::seccomp_rules! {
    SYS_ioctl => "receives and answers notifications, and puts descriptors in guests", &[
        &[equals(1, 0xc050_2100)],
        &[equals(1, 0xc018_2101)],
        &[equals(1, 0x4018_2103)],
        &[equals(1, 0x4008_2104)],
    ];
    SYS_poll => "whether a listener has a notification or nobody behind it";
    SYS_process_vm_readv => "guest memory";
    SYS_process_vm_writev => "guest memory";
    SYS_tgkill => "interrupts guest threads and ends guest processes", &[
        &[equals(2, libc::SIGUSR2 as u32)],
        &[equals(2, libc::SIGKILL as u32)],
    ];
    SYS_kill => "ends a process that no guest should have made", &[&[equals(1, libc::SIGKILL as u32)]];
    SYS_waitid => "the guardian waits for guest processes";
    SYS_wait4 => "and reaps them";
    SYS_sendmsg => "asks the zygote for a process";
    SYS_recvfrom => "its answer";
    SYS_pidfd_open => "to fetch a new process's listener";
    SYS_pidfd_getfd => "fetches it";
    SYS_memfd_create => "mailboxes";
    SYS_ftruncate => "their size";
    SYS_fcntl => "their seals; the standard library looks at descriptors", &[
        &[equals(1, libc::F_ADD_SEALS as u32)],
        &[equals(1, libc::F_GETFD as u32)],
    ];
    SYS_mmap => "mailboxes, and stacks of threads", &[&[check(2, EXEC, 0)]];
    SYS_munmap => "the same";
    SYS_mprotect => "stacks of threads", &[&[check(2, EXEC, 0)]];
    SYS_madvise => "stacks of ended threads";
    SYS_close => "mailboxes, listeners and files of /proc";
    SYS_openat => "statm, stat, mem and pagemap of guests, below a descriptor of /proc";
    SYS_statx => "sizes of those files, as the standard library asks";
    SYS_lseek => "the same";
    SYS_read => "those files";
    SYS_pread64 => "pagemap";
    SYS_pwrite64 => "mem";
    SYS_clone3 => "threads that serve";
    SYS_rseq => "start of a thread";
    SYS_set_robust_list => "start of a thread";
    SYS_sigaltstack => "start and end of a thread";
    SYS_rt_sigprocmask => "start and end of a thread";
    SYS_sched_getaffinity => "start of a thread, for the bounds of its stack";
    SYS_prctl => "names of threads", &[&[equals(0, libc::PR_SET_NAME as u32)]];
    SYS_gettid => "start of a thread";
    SYS_exit => "end of a thread";
    SYS_futex => "locks, and the start of a process";
    SYS_sched_yield => "locks";
    SYS_getrusage => "whether another wanted the spinner's processor", &[&[equals(0, libc::RUSAGE_THREAD as u32)]];
    SYS_clock_nanosleep => "the watch's ticks";
    SYS_exit_group => "the end";
};

#[cfg(test)]
mod tests {
    use hostproc::locked;

    use super::HOST_CALLS;
    use crate::Systrap;

    /// The program that [`runs_in_a_locked_sentry`] starts; no test by itself.
    #[test]
    fn locked() {
        let new = || Systrap::new().expect("this machine can run systrap");
        locked::locked(new, (HOST_CALLS, &[]), |platform| {
            let space = crate::space::Space::fresh(&platform.shared).expect("a space");
            let pid = space.pid();
            (space, pid)
        });
    }

    #[test]
    fn runs_in_a_locked_sentry() {
        locked::run("calls::tests::locked");
    }
}
