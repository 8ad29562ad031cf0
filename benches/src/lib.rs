//! Benchmarks. None yet.
#![forbid(unsafe_code)]
