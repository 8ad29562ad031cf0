//! The command line: an OCI runtime, and `do` for a program in a sandbox of its own.
#![forbid(unsafe_code)]

fn main() {}
