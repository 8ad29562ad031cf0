//! What a locked-in Gofer may do: capabilities, and the table of host system calls.

use caps::{CapSet, Capability, CapsHashSet};
use hostsys::seccomp::{Filter, Rule, check};

use crate::GoferError;

const NO_EXEC: u32 = libc::PROT_EXEC as u32;
const ANONYMOUS: u32 = libc::MAP_ANONYMOUS as u32;
const TYPE: u32 = libc::S_IFMT;

/// Everything else kills the process.
pub static RULES: &[Rule] = hostsys::seccomp_rules! {
    SYS_recvmsg => "requests";
    SYS_sendmsg => "replies, with donated descriptors";
    SYS_openat2 => "every lookup, creation and reopening; the only call of ours that opens";
    SYS_openat => "glibc reads overcommit_memory before it shrinks a heap; gives nothing openat2 does not",
        &[&[check(2, u32::MAX, (libc::O_RDONLY | libc::O_CLOEXEC) as u32)]];
    SYS_read => "glibc reads overcommit_memory before it shrinks a heap";
    SYS_close => "nodes and files after donation";
    SYS_fcntl => "duplicating a node's descriptor; the check of an owned one in debug builds", &[
        &[check(1, u32::MAX, libc::F_DUPFD_CLOEXEC as u32)],
        &[check(1, u32::MAX, libc::F_GETFD as u32)],
    ];
    SYS_fstat => "attributes";
    SYS_newfstatat => "attributes, as newer C libraries ask for them";
    SYS_fstatfs => "StatFs";
    SYS_getdents64 => "Readdir";
    SYS_lseek => "Readdir going on at a cookie";
    SYS_readlinkat => "Readlink";
    SYS_fchownat => "owner of a node or a new file";
    SYS_fchmodat => "mode of a node";
    SYS_ftruncate => "size of a node";
    SYS_utimensat => "times of a node";
    SYS_fsync => "Fsync";
    SYS_syncfs => "SyncFs";
    SYS_mkdirat => "Mkdir";
    SYS_mknodat => "Mknod, never of a device", &[
        &[check(2, TYPE, libc::S_IFIFO)],
        &[check(2, TYPE, libc::S_IFSOCK)],
    ];
    SYS_symlinkat => "Symlink";
    SYS_linkat => "Link";
    SYS_unlinkat => "Unlink";
    SYS_renameat2 => "Rename";
    SYS_fgetxattr => "GetXattr";
    SYS_fsetxattr => "SetXattr";
    SYS_flistxattr => "ListXattr";
    SYS_fremovexattr => "RemoveXattr";
    SYS_futex => "locks, and joining threads";
    SYS_brk => "heap";
    SYS_mmap => "heap; anonymous memory, never executable", &[
        &[check(2, NO_EXEC, 0), check(3, ANONYMOUS, ANONYMOUS)],
    ];
    SYS_mprotect => "heap growth; never executable", &[&[check(2, NO_EXEC, 0)]];
    SYS_mremap => "large blocks of the heap growing";
    SYS_munmap => "heap, and stacks of ended threads";
    SYS_madvise => "heap, and stacks of ended threads";
    SYS_write => "the log, on a descriptor inherited open";
    SYS_clock_gettime => "time stamps of the log where the vDSO falls back";
    SYS_rt_sigreturn => "return from a handler inherited from the runtime";
    SYS_rt_sigprocmask => "a thread's end";
    SYS_sigaltstack => "a thread's end";
    SYS_exit => "a thread's end";
    SYS_exit_group => "the process's end";
};

/// Takes privileges away from the calling thread, for good: capabilities beyond those for owning and
/// overriding permissions of files, gaining new ones by `execve(2)`, and every system call not in
/// [`RULES`]. [`serve`](crate::serve) calls it on each of its threads.
pub fn lock_in() -> Result<(), GoferError> {
    // Built first: compiling needs nothing that is taken away, but may use more memory calls.
    let filter = Filter::compile(RULES)?;
    drop_capabilities()?;
    nix::sys::prctl::set_no_new_privs().map_err(|error| GoferError::NoNewPrivs(crate::host::errno(error)))?;
    Ok(filter.install()?)
}

/// `CAP_MKNOD` is deliberately absent: a FIFO and a socket need none.
fn drop_capabilities() -> Result<(), GoferError> {
    let wanted = CapsHashSet::from([
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_DAC_READ_SEARCH,
        Capability::CAP_FOWNER,
        Capability::CAP_FSETID,
    ]);
    let held = caps::read(None, CapSet::Permitted)?;
    let kept = held.intersection(&wanted).copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{RULES, lock_in};
    use std::collections::BTreeSet;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    const CHILD: &str = "GOFER_SECCOMP_CHILD";

    #[test]
    fn every_row_has_a_reason_and_there_are_few() {
        let numbers: BTreeSet<_> = RULES.iter().map(|rule| rule.nr).collect();
        assert_eq!(numbers.len(), RULES.len());
        assert!(RULES.iter().all(|rule| !rule.reason.is_empty()));
        assert!(RULES.len() < 70, "gVisor's Gofer has 70");
        for never in [libc::SYS_execve, libc::SYS_socket, libc::SYS_clone3, libc::SYS_ptrace] {
            assert!(!numbers.contains(&never));
        }
    }

    /// Runs this test binary again, with one of the bodies below.
    fn outcome(body: &str) -> std::process::ExitStatus {
        Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "seccomp::tests::child", "--nocapture", "--test-threads=1"])
            .env(CHILD, body)
            .output()
            .expect("runs")
            .status
    }

    /// The body of a child process; passes when it is not one.
    #[test]
    fn child() {
        let Ok(body) = std::env::var(CHILD) else { return };
        lock_in().expect("locks in");
        match body.as_str() {
            "allowed" => drop(nix::sys::stat::fstat(std::io::stderr())),
            "socket" => drop(std::os::unix::net::UnixDatagram::unbound()),
            "openat" => drop(std::fs::OpenOptions::new().write(true).open("/dev/null")),
            "exec" => drop(Command::new("/bin/true").status()),
            _ => {}
        }
        nix::unistd::write(std::io::stderr(), b"alive").expect("writes");
        std::process::exit(0);
    }

    #[test]
    fn what_is_not_in_the_table_kills() {
        assert_eq!(outcome("allowed").code(), Some(0));
        for body in ["socket", "openat", "exec"] {
            assert_eq!(outcome(body).signal(), Some(libc::SIGSYS), "{body}");
        }
    }
}
