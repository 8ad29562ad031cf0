//! Loads ELF programs and scripts: segments, interpreter, stack, auxiliary vector (`execve(2)`,
//! `elf(5)`).
//!
//! An `execve` goes in three steps, so that the kernel can do its own part between them:
//!
//! 1. [`Arguments`] collects argument and environment strings within the limits.
//! 2. [`resolve`] follows `#!` lines to the program that will run; its set-id bits decide the new
//!    credentials.
//! 3. [`load`] maps it, its interpreter, stack and vDSO into a fresh address space and says where it
//!    starts ([`Loaded`]). The old address space is untouched, so that every error can still be returned.
//!
//! The files are seen through [`ExecFile`]; [`OpenedFile`] is one over an open file of the VFS.
//!
//! - `args`, `script`: steps 1 and 2. - `image`: the headers of an ELF file, checked. - `segments`: an
//!   image mapped. - `layout`: where things go, and the randomness in it. - `aux`, `stack`: what a
//!   program finds on its stack.
//!
//! Deliberately absent: 32-bit programs, `a.out`, `binfmt_misc`, `PT_GNU_PROPERTY` (shadow stacks), core
//! dumps. Memory a program's headers claim is bounded by the memory manager's limits alone.
#![forbid(unsafe_code)]
// A test that fails with a panic is a test that fails.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod aux;
mod error;
mod file;
mod image;
mod layout;
mod load;
mod opened;
mod script;
mod segments;
mod stack;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use args::{Arguments, MAX_STRING};
pub use aux::{CpuFacts, Ids};
pub use error::LoadError;
pub use file::{ExecFile, Opener};
pub use layout::Entropy;
pub use load::{LoadRequest, Loaded, load};
pub use opened::OpenedFile;
pub use script::{Program, resolve};
