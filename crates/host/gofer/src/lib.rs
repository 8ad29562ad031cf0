//! The Gofer: the only process of a sandbox that opens host files.
#![forbid(unsafe_code)]
