//! Processes: clone flags, wait status, `prctl` options, `rusage` (`clone(2)`, `wait(2)`).

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::signal::Signal;
use crate::time::Timeval;

bitflags! {
    /// What a new task shares with its creator (`CLONE_*`, without the exit signal in the low byte).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CloneFlags: u64 {
        /// Share the address space.
        const VM = 0x100;
        /// Share root, working directory and umask.
        const FS = 0x200;
        /// Share the descriptor table.
        const FILES = 0x400;
        /// Share signal actions.
        const SIGHAND = 0x800;
        /// Put a pidfd of the child at `parent_tid` (`clone`) or `pidfd` (`clone3`).
        const PIDFD = 0x1000;
        /// The child is traced when the parent is.
        const PTRACE = 0x2000;
        /// The parent waits until the child executes a program or ends.
        const VFORK = 0x4000;
        /// The child gets the creator's parent.
        const PARENT = 0x8000;
        /// Same thread group.
        const THREAD = 0x1_0000;
        /// New mount namespace.
        const NEWNS = 0x2_0000;
        /// Share System V undo lists.
        const SYSVSEM = 0x4_0000;
        /// Set the child's thread-local storage.
        const SETTLS = 0x8_0000;
        /// Store the child's id in the parent.
        const PARENT_SETTID = 0x10_0000;
        /// Clear the child's id in its memory when it ends.
        const CHILD_CLEARTID = 0x20_0000;
        /// Without effect.
        const DETACHED = 0x40_0000;
        /// A tracer cannot force `CLONE_PTRACE`.
        const UNTRACED = 0x80_0000;
        /// Store the child's id in the child.
        const CHILD_SETTID = 0x100_0000;
        /// New cgroup namespace.
        const NEWCGROUP = 0x200_0000;
        /// New UTS namespace.
        const NEWUTS = 0x400_0000;
        /// New IPC namespace.
        const NEWIPC = 0x800_0000;
        /// New user namespace.
        const NEWUSER = 0x1000_0000;
        /// New pid namespace.
        const NEWPID = 0x2000_0000;
        /// New network namespace.
        const NEWNET = 0x4000_0000;
        /// Share I/O context; without effect.
        const IO = 0x8000_0000;
        /// Reset caught signals to default (`clone3`).
        const CLEAR_SIGHAND = 0x1_0000_0000;
        /// Place in a cgroup (`clone3`).
        const INTO_CGROUP = 0x2_0000_0000;
    }
}

impl CloneFlags {
    /// All flags that ask for a new namespace.
    pub const NAMESPACES: Self = Self::NEWNS
        .union(Self::NEWCGROUP)
        .union(Self::NEWUTS)
        .union(Self::NEWIPC)
        .union(Self::NEWUSER)
        .union(Self::NEWPID)
        .union(Self::NEWNET);
}

/// `struct clone_args` (`clone3(2)`), version 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CloneArgs {
    /// `CLONE_*`.
    pub flags: u64,
    /// Where the pidfd goes.
    pub pidfd: u64,
    /// Where the id goes in the child.
    pub child_tid: u64,
    /// Where the id goes in the parent.
    pub parent_tid: u64,
    /// Signal to the parent at the end.
    pub exit_signal: u64,
    /// Lowest byte of the stack.
    pub stack: u64,
    /// Bytes of the stack.
    pub stack_size: u64,
    /// Thread-local storage.
    pub tls: u64,
    /// Ids wanted, outermost namespace last.
    pub set_tid: u64,
    /// How many.
    pub set_tid_size: u64,
    /// Cgroup descriptor.
    pub cgroup: u64,
}

bitflags! {
    /// Options of `wait4(2)` and `waitid(2)`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct WaitOptions: u32 {
        /// Do not block.
        const NOHANG = 1;
        /// Stopped children (`WSTOPPED` of `waitid`).
        const UNTRACED = 2;
        /// Ended children.
        const EXITED = 4;
        /// Continued children.
        const CONTINUED = 8;
        /// Leave the child waitable.
        const NOWAIT = 0x0100_0000;
        /// Not the children of other threads.
        const NOTHREAD = 0x2000_0000;
        /// Children of any exit signal.
        const ALL = 0x4000_0000;
        /// Only children that do not end with `SIGCHLD`.
        const CLONE = 0x8000_0000;
    }
}

/// How a process ended, stopped or went on; what `wait(2)` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStatus {
    /// By `exit` with this code.
    Exited(u8),
    /// By a signal; `true` with a core dump.
    Signaled(Signal, bool),
    /// Stopped by a signal.
    Stopped(Signal),
    /// Continued by `SIGCONT`.
    Continued,
}

impl WaitStatus {
    /// The status word of `wait4(2)`.
    pub const fn word(self) -> i32 {
        match self {
            Self::Exited(code) => (code as i32) << 8,
            Self::Signaled(signal, core) => signal.number() as i32 | if core { 0x80 } else { 0 },
            Self::Stopped(signal) => ((signal.number() as i32) << 8) | 0x7f,
            Self::Continued => 0xffff,
        }
    }

    /// `si_code` (`CLD_*`) and `si_status` of the `SIGCHLD` and of `waitid(2)`.
    pub const fn child_code(self) -> (i32, i32) {
        match self {
            Self::Exited(code) => (1, code as i32),
            Self::Signaled(signal, core) => (if core { 3 } else { 2 }, signal.number() as i32),
            Self::Stopped(signal) => (5, signal.number() as i32),
            Self::Continued => (6, Signal::SIGCONT.number() as i32),
        }
    }
}

/// `struct rusage` (`getrusage(2)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rusage {
    /// User time.
    pub utime: Timeval,
    /// System time.
    pub stime: Timeval,
    /// Peak resident set, KiB.
    pub maxrss: i64,
    /// Unused: shared text, data, stack.
    pub unused: [i64; 3],
    /// Page faults without and with I/O.
    pub faults: [i64; 2],
    /// Swaps; block input and output.
    pub io: [i64; 3],
    /// Messages sent and received, signals.
    pub ipc: [i64; 3],
    /// Voluntary and involuntary switches.
    pub switches: [i64; 2],
}

#[cfg(test)]
mod tests {
    use super::{CloneArgs, Rusage, WaitStatus};
    use crate::signal::Signal;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<CloneArgs>(), 88);
        assert_eq!(size_of::<Rusage>(), 144);
    }

    #[test]
    fn status_words_are_what_the_macros_of_wait_take_apart() {
        assert_eq!(WaitStatus::Exited(3).word(), 0x300);
        assert_eq!(WaitStatus::Signaled(Signal::SIGSEGV, true).word(), 0x8b);
        assert_eq!(WaitStatus::Stopped(Signal::SIGSTOP).word(), 0x137f);
        assert_eq!(WaitStatus::Continued.word(), 0xffff);
    }
}
