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
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use hostsys::seccomp::{Filter, Rule};
    use platform::{Platform, conformance};

    use super::HOST_CALLS;

    /// Set for the program that locks itself in.
    const LOCKED: &str = "RAMPART_TEST_LOCKED";

    /// What the suite and its harness do themselves: look into files, map a program, say where they are.
    static OF_THE_TEST: &[Rule] = hostsys::seccomp_rules! {
        SYS_write => "messages";
        SYS_clock_nanosleep => "sleeps";
        SYS_newfstatat => "a folder";
        SYS_getdents64 => "the same";
        SYS_fstat => "files";
        SYS_brk => "memory";
        SYS_mremap => "memory";
        SYS_getpid => "names";
        SYS_getrandom => "hash maps";
    };

    fn lock_in() {
        let rules: Vec<_> = HOST_CALLS.iter().chain(OF_THE_TEST).copied().collect();
        let filter = Filter::compile(&rules).expect("it compiles");
        filter.install_on_all_threads().expect("it is installed");
    }

    /// How many filters a process has.
    fn filters(pid: i32) -> String {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        let line = status.lines().find(|line| line.starts_with("Seccomp_filters:"));
        line.unwrap_or_default().split_whitespace().nth(1).unwrap_or_default().to_owned()
    }

    /// The program that [`runs_in_a_locked_sentry`] starts; no test by itself.
    #[test]
    #[allow(clippy::print_stderr)]
    fn locked() {
        if std::env::var_os(LOCKED).is_none() {
            return;
        }
        let platform = crate::Ptrace::new().expect("this machine can run ptrace");
        lock_in();
        conformance::run(&platform);
        let space = crate::space::Space::fresh(&platform.shared).expect("a space");
        assert_eq!(filters(space.pid()), "1", "a guest has its own filter only");
        let path = format!("/proc/{}/fd", space.pid());
        assert!(
            std::fs::read_dir(path).is_ok_and(|fds| fds.count() <= 3),
            "a guest has the Sentry's descriptors"
        );
        assert!(platform.new_address_space().is_ok_and(|space| space.memory_use().resident > 0));
        eprintln!("all of it passed");
    }

    #[test]
    fn runs_in_a_locked_sentry() {
        let output = Command::new(std::env::current_exe().expect("our own path"))
            .args(["--exact", "calls::tests::locked", "--nocapture"])
            .env(LOCKED, "1")
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "signal {:?}: {said}", output.status.signal());
        assert!(said.contains("all of it passed"), "{said}");
    }
}
