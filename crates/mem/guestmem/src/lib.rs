//! Guest addresses as claims: typed user pointers, the UserMem trait, and byte sources and sinks for I/O.
#![forbid(unsafe_code)]
