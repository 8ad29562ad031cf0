//! Classic BPF: a checked program type, an interpreter, and an assembler for seccomp filters.
//!
//! [`Program`] is a filter that has passed the checks the kernel makes of a seccomp filter
//! (`seccomp(2)`); holding one proves that it terminates and reads nothing but [`SeccompData`].
//! [`Program::run`] interprets it, for filters that a guest installs. [`Assembler`] builds one from
//! labels and 64-bit comparisons, for filters that we install on the host.
//!
//! [`PacketFilter`] is one over the bytes of a packet, as sockets take it (`SO_ATTACH_FILTER`).
#![forbid(unsafe_code)]

pub mod action;
pub mod asm;
pub mod data;
pub mod insn;
pub mod packet;
pub mod program;

pub use action::Action;
pub use asm::{AsmError, Assembler, Label, Target};
pub use data::{Arg, Field, SeccompData};
pub use insn::Insn;
pub use packet::{Facts, PacketFilter};
pub use program::{MAX_INSNS, Program, ProgramError};
