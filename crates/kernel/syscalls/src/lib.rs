//! The system-call table: one file a family, the handler's signature is the only declaration.
//!
//! - [`handler`]: functions of typed parameters as handlers.
//! - [`args`]: what a parameter or a result may be.
//! - [`table`]: rows with their support level, and the macro that declares them.
#![forbid(unsafe_code)]

pub mod args;
pub mod handler;
pub mod table;
