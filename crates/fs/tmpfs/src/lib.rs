//! An in-memory file system whose data can be mapped.
#![forbid(unsafe_code)]
