//! Resource limits (`getrlimit(2)`).
