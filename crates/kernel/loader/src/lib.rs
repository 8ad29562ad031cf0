//! Loads ELF programs and scripts: segments, interpreter, stack, auxiliary vector.
#![forbid(unsafe_code)]
