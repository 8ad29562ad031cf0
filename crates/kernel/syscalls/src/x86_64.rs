//! The table of x86-64.

use crate::cx::KernelCalls;
use crate::{clone, content, fds, identity, io, ioctl, locks, memory, process, signals, syscall_table};

syscall_table! {
    /// System calls of x86-64 (`arch/x86/entry/syscalls/syscall_64.tbl` numbers). What has no row
    /// answers `ENOSYS` and is counted.
    pub static X86_64: KernelCalls {
        read => full, io::read;
        write => full, io::write;
        close => full, fds::close;
        lseek => full, io::lseek;
        mmap => partial("mappings of files come with the descriptor calls"), memory::mmap;
        mprotect => full, memory::mprotect;
        munmap => full, memory::munmap;
        brk => full, memory::brk;
        rt_sigaction => full, signals::rt_sigaction;
        rt_sigprocmask => full, signals::rt_sigprocmask;
        rt_sigreturn => full, signals::rt_sigreturn;
        ioctl => full, ioctl::ioctl;
        pread64 => full, io::pread64;
        pwrite64 => full, io::pwrite64;
        readv => full, io::readv;
        writev => full, io::writev;
        mremap => full, memory::mremap;
        msync => full, memory::msync;
        mincore => full, memory::mincore;
        madvise => partial("MADV_REMOVE and MADV_HWPOISON are refused"), memory::madvise;
        dup => full, fds::dup;
        dup2 => full, fds::dup2;
        pause => full, signals::pause;
        getpid => full, identity::getpid;
        clone => partial("no pidfds or namespaces yet"), clone::clone;
        fork => full, clone::fork;
        vfork => full, clone::vfork;
        exit => partial("the status of the last thread of several is not kept"), process::exit;
        wait4 => partial("times used are zero"), process::wait4;
        kill => full, signals::kill;
        uname => full, identity::uname;
        fcntl => partial("no signal-driven I/O, leases, seals or deadlock detection"), fds::fcntl;
        flock => full, locks::flock;
        fsync => full, content::fsync;
        fdatasync => full, content::fdatasync;
        ftruncate => full, content::ftruncate;
        getrlimit => full, process::getrlimit;
        getuid => full, identity::getuid;
        getgid => full, identity::getgid;
        geteuid => full, identity::geteuid;
        getegid => full, identity::getegid;
        setpgid => full, process::setpgid;
        getppid => full, process::getppid;
        getpgrp => full, process::getpgrp;
        setsid => full, process::setsid;
        getgroups => full, identity::getgroups;
        getresuid => full, identity::getresuid;
        getresgid => full, identity::getresgid;
        getpgid => full, process::getpgid;
        getsid => full, process::getsid;
        rt_sigpending => full, signals::rt_sigpending;
        rt_sigtimedwait => full, signals::rt_sigtimedwait;
        rt_sigqueueinfo => full, signals::rt_sigqueueinfo;
        rt_sigsuspend => full, signals::rt_sigsuspend;
        sigaltstack => full, signals::sigaltstack;
        uselib => refused(ENOSYS, "obsolete; libraries are mapped by the loader");
        mlock => partial("accounted, not pinned"), memory::mlock;
        munlock => partial("accounted, not pinned"), memory::munlock;
        mlockall => partial("accounted, not pinned"), memory::mlockall;
        munlockall => partial("accounted, not pinned"), memory::munlockall;
        setrlimit => partial("memory limits act from the next program on"), process::setrlimit;
        sethostname => full, identity::sethostname;
        setdomainname => full, identity::setdomainname;
        gettid => full, identity::gettid;
        readahead => full, content::readahead;
        tkill => full, signals::tkill;
        set_tid_address => full, identity::set_tid_address;
        fadvise64 => full, content::fadvise64;
        exit_group => full, process::exit_group;
        tgkill => full, signals::tgkill;
        set_robust_list => full, identity::set_robust_list;
        sync_file_range => partial("writes back the whole file"), content::sync_file_range;
        fallocate => full, content::fallocate;
        dup3 => full, fds::dup3;
        preadv => full, io::preadv;
        pwritev => full, io::pwritev;
        rt_tgsigqueueinfo => full, signals::rt_tgsigqueueinfo;
        syncfs => full, content::syncfs;
        mlock2 => partial("accounted, not pinned"), memory::mlock2;
        preadv2 => partial("RWF_NOWAIT of a regular file may wait for the host"), io::preadv2;
        pwritev2 => partial("no RWF_APPEND"), io::pwritev2;
        clone3 => partial("no pidfds, namespaces, set_tid or cgroup"), clone::clone3;
        close_range => full, fds::close_range;
    }
}
