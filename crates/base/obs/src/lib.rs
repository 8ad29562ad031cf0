//! Observability: named counters, unimplemented-branch stubs and their report.
#![forbid(unsafe_code)]
