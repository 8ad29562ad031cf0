//! Tasks, thread groups, sessions, namespaces, and the life of a trap.
//!
//! - [`kernel`]: [`Kernel`], given its parts, and the start of the first process.
//! - [`table`]: ids, parents, process groups, sessions: the process tree under one lock.
//! - [`task`]: [`Task`], a guest thread; how it blocks.
//! - [`group`]: [`ThreadGroup`], a process.
//! - [`trap`]: the life of a trap: dispatch, signals, resumption.
//! - [`pidns`]: namespaces of process ids below the first.
//! - [`send`] and [`deliver`]: signals on their way in and out.
//! - [`files`]: the tables of `vfs` behind [`slots`].
//! - [`seccomp`]: the guest's own filters.
//! - [`settings`]: what a task only remembers: scheduling, priorities, personality.
//! - [`timers`]: timers that send signals.
//! - [`clone`](mod@clone), [`exec`], [`exit`], [`wait`], [`job`]: the calls of those names.
//!
//! Not here yet: ptrace, core dumps.
#![forbid(unsafe_code)]

pub mod clone;
pub mod deliver;
pub mod exec;
pub mod exit;
#[cfg(any(test, feature = "fake"))]
#[allow(clippy::expect_used)]
pub mod fake;
pub mod files;
pub mod group;
pub mod job;
pub mod kernel;
pub mod pidns;
mod retarget;
pub mod seccomp;
pub mod send;
pub mod settings;
pub mod slots;
pub mod table;
pub mod task;
#[cfg(test)]
mod tests;
pub mod timers;
pub mod trap;
pub mod uts;
pub mod wait;

pub use clone::CloneRequest;
pub use exec::NewProgram;
pub use files::SharedFs;
pub use group::ThreadGroup;
pub use kernel::{FirstProcess, Kernel, Parts, SyscallTable};
pub use pidns::PidNamespace;
pub use seccomp::{FilterError, FilterScope, SeccompMode};
pub use settings::{Scheduling, Settings};
pub use slots::{FileTable, FsView, Terminal};
pub use task::{BlockError, Task};
pub use timers::{Counted, First, IntervalTimer, TimerNotify, TimerSetting};
pub use wait::{WaitTarget, Waited};
