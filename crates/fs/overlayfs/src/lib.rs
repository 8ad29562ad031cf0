//! Union of a writable upper tree over read-only lower trees.
#![forbid(unsafe_code)]
