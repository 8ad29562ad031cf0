//! Files without a name: pipes, eventfd, epoll, timerfd, inotify.
//!
//! - [`pipe`]: the buffer of pipes and fifos and their ends.
//! - [`mod@eventfd`], counters.
//! - [`epoll`]: sets of files with a ready list filled by wake-ups, never by scanning.
//! - [`timerfd`]: timers as files, over a [`timerfd::TimerSource`] handed in.
//! - [`inotify`]: event queues, and the registry that hooks in the VFS report to.
//! - [`inode`]: the inodes `fstat(2)` and `/proc/PID/fd` see behind them.
//!
//! Elsewhere: signalfd and pidfd are the kernel's, memfd is tmpfs's, sockets are their own crate.
//!
//! Invariant: no lock is held while bytes move from or to a guest, or while anybody is woken.
#![forbid(unsafe_code)]

pub mod epoll;
pub mod eventfd;
pub mod inode;
pub mod inotify;
pub mod pipe;
pub mod timerfd;

pub use epoll::Epoll;
pub use eventfd::EventFd;
pub use inode::{AnonAttr, AnonFs, AnonInode};
pub use inotify::Inotify;
pub use pipe::{Pipe, PipeEnd};
pub use timerfd::TimerFd;
