//! The virtual file system.
//!
//! Path walk, permissions, mounts and the dentry cache live here, once. A file system implements
//! [`FileSystem`] and [`Inode`] (single steps, never walks) and gives [`File`]s; it sees no descriptor,
//! no path with a slash, no working directory and no mount.
//!
//! - [`inode`]: [`Inode`], [`FileSystem`], attributes.
//! - [`file`]: [`File`], what an open file can do; never blocks.
//! - [`mount`]: [`VfsPath`], [`Mount`], [`MountNamespace`]; [`dentry`]: the cached tree of names.
//! - [`mod@walk`]: path walk and [`FsContext`]; [`perm`]: permission checks.
//! - [`ops`]: [`Caller`], the operations behind the path system calls.
//! - [`open_file`]: [`OpenFile`]; [`fd_table`]: [`FdTable`]; [`locks`]: advisory locks; [`watch`]: who hears
//!   of changes.
#![forbid(unsafe_code)]

pub mod dentry;
pub mod fd_table;
pub mod file;
pub mod inode;
pub mod locks;
pub mod mount;
pub mod open_file;
pub mod ops;
pub mod perm;
pub mod walk;
pub mod watch;

pub use dentry::Dentry;
pub use fd_table::{Descriptor, FdTable};
pub use mount::{Mount, MountFlags, MountNamespace, VfsPath};
pub use open_file::OpenFile;
pub use ops::{Caller, DeviceOpener, NoDevices, Times};
pub use perm::Access;
pub use walk::{FsContext, Last, LastName, WalkFlags, WalkStart, walk, walk_last};

pub use file::{DirEntry, DirSink, File, FileContext, IoctlRequest, Seals, SeekFrom};
pub use inode::{Attr, FileSystem, Inode, LinkTarget, NewNode, RenameFlags, SetAttr, SetTime, XattrSet};

/// Results of file operations: what a guest sees.
pub type Result<T> = core::result::Result<T, abi::Errno>;
