//! The system-call table: one file a family, the handler's signature is the only declaration.
//!
//! - [`handler`]: functions of typed parameters as handlers.
//! - [`args`]: what a parameter or a result may be.
//! - [`table`]: rows with their support level, and the macro that declares them.
//! - [`cx`]: the context handlers run in.
//! - [`x86_64`]: the table itself; [`dispatch`]: from a trap to a row.
#![forbid(unsafe_code)]

pub mod args;
mod clone;
pub mod cx;
pub mod dispatch;
pub mod handler;
mod identity;
mod memory;
mod process;
mod signals;
pub mod table;
pub mod x86_64;
