//! OCI runtime specs: reading, checking, and the plan a sandbox is built from.
#![forbid(unsafe_code)]
