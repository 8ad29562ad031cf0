//! Union of a writable upper tree over read-only lower trees, as Linux's overlayfs shows it.
//!
//! A name is looked for in the upper tree, then in the lower ones from the topmost down. What is only
//! below is copied up before it is changed. What is removed leaves a whiteout, a character device 0:0,
//! in the upper tree; a directory that must hide one of the same name below is opaque
//! (`trusted.overlay.opaque`).
//!
//! - [`OverlayFs`] is mounted over [`Layers`]; all of them are [`vfs::Inode`]s of other file systems.
//! - `node`: inodes, and which of them are one; `lookup`: merging names; `listing`: merging listings.
//! - `copy_up`: bringing a file to the upper tree; `change` and `rename`: making, removing and moving
//!   names; `work`: the directory in which things are put together before they appear.
//! - `file`: open files.
//!
//! # As on Linux without index and redirects
//!
//! - Hard links below come apart when one of them is copied up, and the copy gets a number of its own.
//!   Every other file keeps its inode number (`trusted.overlay.origin` remembers it).
//! - Directories that exist below cannot be moved (`EXDEV`): `mv` copies them.
//! - A file that was open when it was copied up shows the copy from then on; a mapping made before goes
//!   on showing what is below.
//! - Reading does not change access times below.
//!
//! # Requirements
//!
//! The lower trees do not change. The upper file system has one object an inode while that is in use, can
//! make unnamed files and exchange names, and its listing positions are small: `tmpfs` is one.
//!
//! # Deliberately absent
//!
//! Metadata-only copies, whole-tree indexes, redirects, NFS export, data-only layers. The guest cannot
//! see or set `trusted.overlay.*`, nor make whiteouts, so overlays do not nest with an upper tree here.
#![forbid(unsafe_code)]

mod change;
mod copy_up;
mod file;
mod fs;
mod listing;
mod lookup;
mod node;
mod rename;
mod work;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use fs::{Layers, OverlayFs};
