//! The file system whose inodes live behind a connection to a Gofer.
//!
//! Metadata goes by [`gofer_proto`] requests over a [`Client`]; data does not: opening a file brings a
//! host descriptor, which is read, written and mapped directly.
//!
//! Neighbours: `vfs` walks and caches dentries; `gofer` is the other end; `memmap` takes the donated
//! descriptors to the platform.
//!
//! # What is cached
//!
//! Dentries are `vfs`'s, where the mount is [exclusive](MountOptions::exclusive). Attributes are kept
//! here on exclusive mounts, until anything is changed through the mount ([`GoferFs`] counts changes)
//! or the file is opened; those of an open file are the host's, asked by `fstat(2)`, not by message. Whoever
//! looks at the entries of a directory that was just listed finds them asked for already, some at a time.
//!
//! # Host system calls
//!
//! `sendmsg`, `recvmsg` and `close`; on donated descriptors `pread64`, `pwrite64`, `pwritev2`, `fstat`,
//! `lseek`, `fsync`, `fdatasync` and `fallocate`. The Sentry's filter must let these through.
//!
//! # Deliberately absent, or missing
//!
//! - The batched walk of the protocol: `vfs` asks for one name at a time.
//! - Which path a mapped file has: `vfs` knows it.
//! - Extended attributes outside `user.`: the Gofer has none.
//! - `--directfs`: the Sentry holds no directory descriptor.
#![forbid(unsafe_code)]

mod ahead;
mod client;
mod convert;
mod file;
mod fs;
mod host;
mod inode;
#[cfg(test)]
mod tests;

pub use client::{Client, SocketTransport, Transport};
pub use fs::{GoferFs, MountOptions};
