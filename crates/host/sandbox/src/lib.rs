//! A sandbox from outside: the state directory of its containers.
//!
//! [`StateRoot`] is the directory given by `--root`. It holds a directory a container, with its
//! `state.json` and a lock; [`Container`] is one of them, locked.
//!
//! Deliberately absent as yet: the processes of a sandbox. Nothing here starts a Sentry or a Gofer,
//! makes namespaces or cgroups, or runs hooks.
#![forbid(unsafe_code)]

mod error;
mod store;

pub use error::SandboxError;
pub use store::{Container, State, StateRoot, Status};
