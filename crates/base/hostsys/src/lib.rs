//! Safe wrappers for the host system calls that nix lacks: namespaces, seccomp, memfds, fd passing.

pub mod file;
