//! /proc: the kernel's state as files.
#![forbid(unsafe_code)]
