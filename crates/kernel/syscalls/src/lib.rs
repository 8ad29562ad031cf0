//! The system-call table: one file a family, the handler's signature is the only declaration.
//!
//! - [`handler`]: functions of typed parameters as handlers.
//! - [`args`]: what a parameter or a result may be.
//! - [`table`]: rows with their support level, and the macro that declares them.
//! - [`cx`]: the context handlers run in.
//! - [`services`]: what calls need beside the kernel, handed in.
//! - [`x86_64`]: the table itself; [`dispatch`]: from a trap to a row.
#![forbid(unsafe_code)]

mod anon;
mod arch;
pub mod args;
mod at;
mod attrs;
mod blocking;
mod caps;
mod clocks;
mod clone;
mod content;
mod copy;
pub mod cx;
mod dirents;
pub mod dispatch;
mod epolls;
mod exec;
mod fds;
mod fifos;
mod futex;
pub mod handler;
mod identity;
mod inspect;
mod io;
mod ioctl;
mod locks;
mod memory;
mod mounts;
mod names;
pub mod nsfiles;
mod open;
mod pidfds;
mod poll;
mod prctl;
mod priority;
mod privileges;
mod process;
mod random;
mod restart;
mod sched;
mod seccomp;
pub mod services;
mod setid;
mod sigio;
mod signalfds;
mod signals;
mod sleep;
mod sockets;
mod stat;
mod sysv;
pub mod table;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;
mod timerfds;
mod timers;
mod unshare;
mod usage;
mod watches;
pub mod x86_64;
mod xattrs;

pub use identity::RELEASE;
