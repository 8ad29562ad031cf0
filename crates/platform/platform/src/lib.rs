//! The seam between a kernel and what catches its guests' system calls.
#![forbid(unsafe_code)]
