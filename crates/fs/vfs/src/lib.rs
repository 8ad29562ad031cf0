//! The virtual file system.
//!
//! Path walk, permissions, mounts and the dentry cache live here, once. A file system implements
//! [`FileSystem`] and [`Inode`] (single steps, never walks) and gives [`File`]s; it sees no descriptor,
//! no path with a slash, no working directory and no mount.
//!
//! - [`inode`]: [`Inode`], [`FileSystem`], attributes.
//! - [`file`]: [`File`], what an open file can do; never blocks.
#![forbid(unsafe_code)]

pub mod file;
pub mod inode;

pub use file::{DirEntry, DirSink, File, FileContext, IoctlRequest, SeekFrom};
pub use inode::{Attr, FileSystem, Inode, LinkTarget, NewNode, RenameFlags, SetAttr, SetTime, XattrSet};

/// Results of file operations: what a guest sees.
pub type Result<T> = core::result::Result<T, abi::Errno>;
