//! Everything unsafe of this crate: `ptrace(2)` and `waitid(2)`, and the clone that becomes the first guest
//! process.
//!
//! # Soundness
//! Host calls pass pointers to live locals of the size they expect; what a tracer does to a tracee cannot
//! touch our own memory. The clone runs no code of ours but the stub, see [`launch`].

pub(crate) mod launch;
pub(crate) mod sys;
