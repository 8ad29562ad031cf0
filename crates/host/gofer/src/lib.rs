//! The Gofer: the only process of a sandbox that opens host files.
//!
//! [`serve`] answers [`gofer_proto`] requests on sockets, one thread a socket, about the trees below
//! the roots in [`Config::attachments`]. Its caller (`runsc gofer`) has made the namespaces, pivoted
//! into a root with only those trees, and opened their roots. [`lock_in`] then takes away what the
//! process can do beyond the table [`seccomp::RULES`].
//!
//! # Invariants
//!
//! - The peer names files only by nodes it was given and by one-component names; nothing here parses a
//!   path.
//! - A node is an `O_PATH` descriptor, found with `openat2(2)` under `RESOLVE_BENEATH`,
//!   `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_MAGICLINKS`: no symbolic link is ever followed.
//! - Only regular files are opened for data, and devices when [`Config::devices`] says so. Never a
//!   directory: a donated directory descriptor would be a way around all of the above.
//! - A read-only attachment refuses every change, and never donates a writable descriptor.
//! - A malformed message ends its connection.
//!
//! Permissions are not checked here: the Gofer has the file capabilities it needs, and the Sentry's
//! `vfs` decides. What the Gofer enforces is what holds even when the Sentry is taken over.
#![forbid(unsafe_code)]

mod attr;
mod config;
mod dirs;
mod host;
mod node;
mod ops;
pub mod seccomp;
mod server;
#[cfg(test)]
mod tests;
mod xattr;

pub use config::{Attach, Config, Confinement, GoferError};
pub use seccomp::lock_in;
pub use server::serve;
