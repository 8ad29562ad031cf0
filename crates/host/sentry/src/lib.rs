//! The thin runtime: assembles the kernel from its parts, locks itself in, and runs.
#![forbid(unsafe_code)]
