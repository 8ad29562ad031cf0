//! The futex operations the host cannot answer for a guest.
#![forbid(unsafe_code)]
