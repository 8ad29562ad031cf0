//! Observability: named counters, and stubs that count branches which are not implemented.
//!
//! A [`Counter`] is a `static` beside the code that it counts, and a [`Tally`] one for frequent events of several
//! kinds; a [`stub!`] marks a branch that Linux has and we do not, with its reason, and counts how often a guest
//! takes it. All enter the
//! [`registry`] the first time they are hit, so there is no list to keep and nothing a guest can
//! grow: the registry holds at most one entry for each `static` in the program.
//!
//! Deliberately absent: histograms, and an exporter. Whoever serves metrics reads
//! [`registry::snapshot`].
#![forbid(unsafe_code)]

pub mod counter;
pub mod registry;
pub mod stub;
pub mod tally;

pub use counter::Counter;
pub use registry::{Reading, snapshot};
pub use stub::Stub;
pub use tally::Tally;
