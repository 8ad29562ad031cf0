//! Programs run natively and in a sandbox, with what they show compared: Linux is the oracle.
//!
//! A *guest program* is one C file under `tests/guest/`, which prints `ok NAME` or `not ok NAME` for each
//! thing it asserts. [`build`] compiles it, [`verdict`] reads what it printed. An *app* is a script under
//! `tests/apps/` that uses real programs ([`app`]). [`run`] runs a command under a deadline, [`sandbox`] the
//! same command natively and under `runsc do`. What fails natively is a mistake of the test; what holds
//! natively and fails in the sandbox is a flaw of ours, or in the list of [`known`] ones. [`posture`]
//! looks at a sandbox from the host, [`fuzz`] has the targets of fuzzers, [`bundle`] is for tests of the OCI runtime, [`link`] and [`programs`] are of network
//! tests.
#![forbid(unsafe_code)]

pub mod app;
pub mod build;
pub mod bundle;
pub mod fuzz;
pub mod known;
pub mod leftovers;
pub mod link;
pub mod posture;
pub mod programs;
pub mod run;
pub mod sandbox;
pub mod verdict;
