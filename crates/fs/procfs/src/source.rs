//! What `/proc` asks of the kernel.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use abi::Errno;
use abi::limits::Limits;
use abi::signal::SigSet;
use cred::Credentials;
use kernfs::Spec;
use mm::MemoryManager;
use vfs::Result;

/// Everything `/proc` is made of.
pub struct ProcConfig {
    /// The process table.
    pub processes: Arc<dyn Processes>,
    /// The directory `/proc/net`, when there is a network.
    pub net: Option<Spec>,
    /// Kernel release (`uname -r`).
    pub release: String,
    /// Kernel version (`uname -v`).
    pub version: String,
    /// Types for `/proc/filesystems`, those without a device.
    pub filesystems: Vec<&'static str>,
    /// The processors' model.
    pub cpu: CpuModel,
    /// `/proc/sys/kernel/random/boot_id`: 36 characters.
    pub boot_id: String,
    /// `/proc/sys/vm/mmap_min_addr`: the lowest address there is.
    pub min_address: u64,
    /// Numbers below `/proc/sys` that can be changed, by their names with dots.
    pub settings: Vec<(&'static str, Arc<dyn Setting>)>,
}

/// A number below `/proc/sys` that can be changed.
pub trait Setting: Send + Sync {
    /// What it is.
    fn value(&self) -> u64;

    /// Changes it; `EINVAL` for what it cannot be.
    fn set(&self, value: u64) -> Result<()>;
}

/// What `/proc/cpuinfo` says of every processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuModel {
    /// `vendor_id`.
    pub vendor: String,
    /// `cpu family`.
    pub family: u32,
    /// `model`.
    pub model: u32,
    /// `model name`.
    pub name: String,
    /// `stepping`.
    pub stepping: u32,
    /// `cpu MHz`, whole.
    pub mhz: u32,
    /// `cache size` in KiB.
    pub cache_kib: u32,
    /// `flags`, separated by spaces.
    pub flags: String,
}

/// The system as a whole, now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemFacts {
    /// Since the sandbox started.
    pub uptime: Duration,
    /// Start in seconds since the epoch.
    pub boot_time: i64,
    /// Processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Of it free, in bytes.
    pub memory_free: u64,
    /// Tasks that could run.
    pub running: u32,
    /// Tasks in all.
    pub tasks: u32,
    /// The id given out last.
    pub last_pid: i32,
    /// Processes ever started.
    pub forks: u64,
    /// Host name.
    pub hostname: Vec<u8>,
    /// NIS domain name.
    pub domainname: Vec<u8>,
}

/// The process table.
pub trait Processes: Send + Sync {
    /// Process and thread whose system call this OS thread is carrying out, for `/proc/self`.
    fn current(&self) -> Option<(i32, i32)>;

    /// Ids of all processes, ascending.
    fn pids(&self) -> Vec<i32>;

    /// The process with this id, or the process of the thread with it: hidden from listings, as on Linux.
    fn process(&self, pid: i32) -> Option<Arc<dyn Process>>;

    /// The system.
    fn system(&self) -> SystemFacts;
}

/// What a task is doing (`State:`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Runs or could.
    Running,
    /// Waits.
    #[default]
    Sleeping,
    /// Stopped by a signal.
    Stopped,
    /// Stopped by a tracer.
    Traced,
    /// Ended and not waited for.
    Zombie,
}

/// Facts of one task, taken together.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Process.
    pub pid: i32,
    /// Thread.
    pub tid: i32,
    /// Parent process.
    pub ppid: i32,
    /// Process group.
    pub group: i32,
    /// Session.
    pub session: i32,
    /// Process, thread, group and session once more, in each pid namespace below the one shown that the process is
    /// in.
    pub inner: Vec<[i32; 4]>,
    /// Device number of the controlling terminal, or 0.
    pub terminal: u64,
    /// Foreground group of the terminal, or -1.
    pub foreground: i32,
    /// Tracer, or 0.
    pub tracer: i32,
    /// What it does.
    pub state: State,
    /// Short name.
    pub name: Vec<u8>,
    /// Credentials.
    pub cred: Arc<Credentials>,
    /// Threads of the process.
    pub threads: u32,
    /// Processor time in user mode.
    pub user_time: Duration,
    /// Processor time in the kernel.
    pub system_time: Duration,
    /// Of children waited for, user and kernel.
    pub children_time: (Duration, Duration),
    /// Start, since the sandbox's.
    pub start: Duration,
    /// Nice value.
    pub nice: i32,
    /// Pending for the thread.
    pub pending: SigSet,
    /// Pending for the process.
    pub shared_pending: SigSet,
    /// Blocked.
    pub blocked: SigSet,
    /// Ignored.
    pub ignored: SigSet,
    /// Handled.
    pub caught: SigSet,
    /// `umask(2)`.
    pub umask: u32,
    /// Descriptors the table has room for.
    pub fd_size: u32,
    /// Seccomp mode: 0, 1 or 2.
    pub seccomp: u32,
    /// Signal the parent gets at the end.
    pub exit_signal: i32,
    /// Resource limits.
    pub limits: Limits,
    /// `oom_score_adj`.
    pub oom_score_adj: i32,
}

/// A magic link of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The program.
    Exe,
    /// The working directory.
    Cwd,
    /// The root directory.
    Root,
    /// An open file.
    Fd(i32),
    /// A namespace, by the name in `/proc/PID/ns`.
    Namespace(&'static str),
}

/// Where a magic link leads.
#[derive(Clone)]
pub struct LinkFacts {
    /// What `readlink(2)` shows.
    pub path: Vec<u8>,
    /// The object for the walk: a `vfs` path. `None` when it cannot be followed.
    pub object: Option<Arc<dyn Any + Send + Sync>>,
}

/// An open file, as `fdinfo` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdFacts {
    /// Offset.
    pub position: u64,
    /// Status flags, with `O_CLOEXEC` of the descriptor.
    pub flags: u32,
    /// Mount.
    pub mount_id: u64,
    /// Inode number.
    pub ino: u64,
    /// Further lines of the file's kind (epoll, eventfd, timerfd), each with its newline.
    pub extra: Vec<u8>,
}

/// A process, or one of its threads. `ESRCH` once it is gone.
pub trait Process: Send + Sync {
    /// Its facts now.
    fn facts(&self) -> Result<Facts>;

    /// Its memory; `None` for a zombie.
    fn mm(&self) -> Option<Arc<MemoryManager>>;

    /// Ids of its threads, ascending.
    fn threads(&self) -> Vec<i32>;

    /// One of its threads.
    fn thread(&self, tid: i32) -> Option<Arc<dyn Process>>;

    /// Arguments, each with its NUL, read from its memory.
    fn cmdline(&self) -> Result<Vec<u8>>;

    /// Environment, likewise.
    fn environ(&self) -> Result<Vec<u8>>;

    /// Auxiliary vector as it was given.
    fn auxv(&self) -> Result<Vec<u8>>;

    /// Where a link leads; `ENOENT`.
    fn link(&self, which: Which) -> Result<LinkFacts>;

    /// Open descriptors, ascending.
    fn fds(&self) -> Result<Vec<i32>>;

    /// One open file; `ENOENT`.
    fn fd(&self, fd: i32) -> Result<FdFacts>;

    /// `/proc/PID/mounts`.
    fn mounts(&self) -> Result<Vec<u8>>;

    /// `/proc/PID/mountinfo`.
    fn mountinfo(&self) -> Result<Vec<u8>>;

    /// `/proc/PID/cgroup`.
    fn cgroup(&self) -> Result<Vec<u8>> {
        Ok(b"0::/\n".to_vec())
    }

    /// Is it the process with this kernel-wide id?
    fn is(&self, id: i32) -> bool {
        self.facts().is_ok_and(|facts| facts.pid == id)
    }

    /// Sets the short name (`/proc/PID/comm`); only of the caller's own process, which the caller checks.
    fn set_name(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EPERM)
    }

    /// Sets `oom_score_adj`, -1000 to 1000.
    fn set_oom_score_adj(&self, _value: i32) -> Result<()> {
        Err(Errno::EACCES)
    }
}
