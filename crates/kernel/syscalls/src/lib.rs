//! The system-call table: one file a family, the handler's signature is the only declaration.
#![forbid(unsafe_code)]
