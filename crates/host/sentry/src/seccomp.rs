//! What a locked-in Sentry may ask of the host: its own rows, and the platform's.
//!
//! gVisor's Sentry is allowed 96 host calls in its default configuration; a test keeps ours below that.

use hostsys::seccomp::{Filter, Rule, SeccompError, check, equals};

/// Bits of `PROT_EXEC` in a protection.
const EXEC: u32 = libc::PROT_EXEC as u32;

/// Calls of the Sentry itself, beside the platform's.
pub static RULES: &[Rule] = hostsys::seccomp_rules! {
    SYS_recvmsg => "replies of the Gofer, requests of runsc";
    SYS_sendmsg => "requests to the Gofer, answers to runsc";
    SYS_recvfrom => "requests of runsc";
    SYS_recvmmsg => "frames of the links, as many as there are";
    SYS_sendto => "answers to runsc, frames";
    SYS_accept4 => "connections of runsc, on a socket inherited listening";
    SYS_getsockopt => "who the other end of such a connection is";
    SYS_shutdown => "the end of such a connection";
    SYS_read => "standard input, random bytes";
    SYS_write => "standard output and error, the log";
    SYS_poll => "whether a transfer on them would wait";
    SYS_epoll_create1 => "the watch over them";
    SYS_epoll_ctl => "the same";
    SYS_epoll_wait => "the same";
    SYS_ioctl => "the window of the host's terminal", &[&[equals(1, libc::TIOCGWINSZ as u32)]];
    SYS_pread64 => "files the Gofer donated, memory of tmpfs";
    SYS_pwrite64 => "the same";
    SYS_pwritev2 => "appending to files the Gofer donated";
    SYS_fstat => "sizes of files the Gofer donated";
    SYS_newfstatat => "the same, as newer C libraries ask: only by descriptor", &[
        &[check(3, libc::AT_EMPTY_PATH as u32, libc::AT_EMPTY_PATH as u32)],
    ];
    SYS_statx => "the same, as the standard library asks";
    SYS_lseek => "offsets of standard files; data and holes of donated ones";
    SYS_fsync => "files the Gofer donated";
    SYS_fdatasync => "the same";
    SYS_fallocate => "the same, and memory of tmpfs given back";
    SYS_ftruncate => "memory of tmpfs and of shared mappings";
    SYS_memfd_create => "the same";
    SYS_fcntl => "seals of such memory, copies and modes of descriptors", &[
        &[equals(1, libc::F_ADD_SEALS as u32)],
        &[equals(1, libc::F_DUPFD_CLOEXEC as u32)],
        &[equals(1, libc::F_GETFL as u32)],
        &[equals(1, libc::F_GETFD as u32)],
    ];
    SYS_close => "all of them";
    SYS_brk => "the heap";
    SYS_mmap => "the heap and stacks of threads; nothing executable", &[&[check(2, EXEC, 0)]];
    SYS_mprotect => "the same", &[&[check(2, EXEC, 0)]];
    SYS_mremap => "the heap";
    SYS_munmap => "the heap and stacks of threads";
    SYS_madvise => "the same";
    SYS_futex => "locks and wake-ups";
    SYS_sched_yield => "locks";
    SYS_getrandom => "hash maps and random bytes";
    SYS_clock_gettime => "time, where the vDSO falls back";
    SYS_clock_nanosleep => "retries of a wait that lasts less than a timer";
    SYS_nanosleep => "the same";
    SYS_getpid => "the log";
    SYS_gettid => "start of a thread";
    SYS_clone3 => "threads";
    SYS_rseq => "start of a thread";
    SYS_set_robust_list => "start of a thread";
    SYS_prctl => "names of threads", &[&[equals(0, libc::PR_SET_NAME as u32)]];
    SYS_sched_getaffinity => "start of a thread, for the bounds of its stack";
    SYS_sigaltstack => "start and end of a thread";
    SYS_rt_sigprocmask => "the same";
    SYS_rt_sigreturn => "handlers of the standard library";
    SYS_exit => "end of a thread";
    SYS_exit_group => "the end";
    SYS_restart_syscall => "a wait that was stopped and goes on";
};

/// The whole table, for a Sentry on a platform that makes `host_calls`.
fn rules(host_calls: &[Rule]) -> Vec<Rule> {
    RULES.iter().chain(host_calls).copied().collect()
}

/// Locks every thread of this process in, for good. Guests must be made by something that is not part of
/// the process (as systrap's zygote), as they would inherit the filter.
pub(crate) fn lock_in(host_calls: &[Rule]) -> Result<(), SeccompError> {
    Filter::compile(&rules(host_calls))?.install_on_all_threads()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::rules;
    use crate::platforms::tables;

    #[test]
    fn every_row_has_a_reason_and_there_are_fewer_than_gvisors() {
        for (platform, host_calls) in tables() {
            let rules = rules(host_calls);
            assert!(rules.iter().all(|rule| !rule.reason.is_empty()));
            let numbers: BTreeSet<_> = rules.iter().map(|rule| rule.nr).collect();
            assert!(numbers.len() < 96, "{} host calls on {platform}", numbers.len());
            for never in [libc::SYS_execve, libc::SYS_execveat, libc::SYS_socket, libc::SYS_mount] {
                assert!(!numbers.contains(&never));
            }
            assert_eq!(numbers.contains(&libc::SYS_ptrace), platform == "ptrace");
        }
    }
}
