//! The base of pseudo file systems: generated directories, text files and links.
//!
//! A pseudo file system is a tree of [`Spec`]s: a [`Directory`] answers lookups with them, statically
//! ([`StaticDir`]) or from the state of the kernel; a [`Text`] makes its bytes when it is read; a [`Link`]
//! leads elsewhere, maybe straight to an object; a [`Opener`] stands behind a device node. [`KernFs`] makes
//! inodes of them, with numbers derived from names, so that a tree that is generated anew with each look
//! still shows the same numbers.
//!
//! Deliberately absent: creating, removing and renaming. What a guest sees here only the kernel makes.
#![forbid(unsafe_code)]

mod dir;
mod fs;
mod node;
mod text;

pub use dir::{Directory, Listed, StaticDir};
pub use fs::{FsInfo, KernFs};
pub use node::{Content, Link, Meta, Node, Opener, Spec};
pub use text::{MAX_TEXT, MAX_WRITE, Text};

#[cfg(test)]
mod tests;
