//! What backends share whose guests are host processes with memory of their own.
//!
//! - [`HostView`]: the host's `/proc`, and where our vDSO is; taken before they go.
//! - [`Vdso`]: where the host's vDSO is kept for guests.
//! - [`locked`]: a test of theirs, under the host calls that a Sentry leaves itself.
//! - [`memory`]: bytes of another process.
//! - [`ops`]: a [`MapOp`](platform::MapOp) as the host call that carries it out.
//! - [`rseq`]: what a clone of ours must undo before it drops our memory.
//!
//! Deliberately absent: how a guest is caught, and who makes the calls in it; that is what backends differ in.

pub mod locked;
pub mod memory;
pub mod ops;
pub mod rseq;
mod vdso;
mod view;

pub use vdso::{PLACES, Vdso};
pub use view::HostView;
