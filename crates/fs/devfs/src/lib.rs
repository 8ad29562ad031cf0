//! /dev and /dev/pts: character devices, pseudo-terminals and the line discipline.
//!
//! - [`devices`]: character devices by number, and what every `/dev` has of them.
//! - [`tty`]: a terminal, its two ends, and its `ioctl`s.
//! - [`pts`]: `/dev/pts` and `/dev/ptmx`.
//! - [`job`]: what a terminal wants from the process table, as a trait the kernel implements.
//!
//! Deliberately absent: `TIOCGPTPEER` (it makes a descriptor, which is the kernel's), `TIOCSTI` (refused,
//! as modern kernels do), serial lines, and a file system for `/dev`: that is a tmpfs with nodes in it.
#![forbid(unsafe_code)]

pub mod devices;
pub mod job;
pub mod pts;
pub mod tty;

pub use devices::{Drivers, Randomness};
pub use job::{Job, JobControl};
pub use pts::Devpts;
pub use tty::{MasterFile, SlaveFile, Tty};
