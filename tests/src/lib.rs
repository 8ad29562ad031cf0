//! Guest programs run natively and in a sandbox, with their assertions compared: Linux is the oracle.
//!
//! A guest program is one C file under `tests/guest/`, which prints `ok NAME` or `not ok NAME` for each
//! thing it asserts. [`build`] compiles it, [`run`] runs it under a deadline, [`verdict`] reads what it
//! printed. The same binary runs natively and under `runsc do`: an assertion that fails natively is a
//! mistake of the test; one that holds natively and fails in the sandbox is a flaw of ours.
#![forbid(unsafe_code)]

pub mod build;
pub mod run;
pub mod sandbox;
pub mod verdict;
