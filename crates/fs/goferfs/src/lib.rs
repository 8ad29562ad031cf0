//! The file system whose inodes live behind a Gofer connection.
#![forbid(unsafe_code)]
