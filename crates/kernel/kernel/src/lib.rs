//! Tasks, thread groups, sessions, namespaces, and the life of a trap.
#![forbid(unsafe_code)]
