//! The virtual file system: inodes, dentries, mounts, path walk, open files, fd tables, readiness, locks.
#![forbid(unsafe_code)]
