//! Classic BPF: a checked program type, an interpreter, and an assembler for seccomp filters.
#![forbid(unsafe_code)]
