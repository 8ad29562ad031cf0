//! Credentials: ids, capabilities, secure bits and user namespaces.
#![forbid(unsafe_code)]
