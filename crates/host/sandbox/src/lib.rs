//! A sandbox from outside: its two processes, and the state directory of its containers.
//!
//! [`Sandbox::launch`] starts Gofer and Sentry from a [`Plan`]: each is this program again
//! (`/proc/self/exe`, as `runsc gofer` and `runsc boot`, see [`inside`]), in user, mount, pid, IPC, UTS and
//! network namespaces of its own, with an empty root and no descriptors but those it needs. The Sentry is
//! the first process of its pid namespace, so that all guest processes end with it. When one of the two
//! ends, so does the other.
//!
//! [`StateRoot`] is the directory given by `--root`. It holds a directory a container, with its
//! `state.json` and a lock; [`Container`] is one of them, locked.
//!
//! [`mod@network`] looks into the container's network namespace.
//!
//! [`hooks`] are what a spec wants run on the host.
#![forbid(unsafe_code)]

mod error;
mod handover;
pub mod hooks;
mod identity;
pub mod inside;
mod launch;
mod member;
pub mod network;
pub mod spec;
mod store;

pub use error::SandboxError;
pub use hostsys::mount::Submounts;
pub use hostsys::spawn::ParentDeath;
pub use identity::Processes;
pub use launch::{Attachment, Event, Plan, Sandbox};
pub use member::MemberGofer;
pub use store::{Belongings, Container, State, StateRoot, Status};
