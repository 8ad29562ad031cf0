//! Guest addresses as claims, and the bytes behind them.
//!
//! [`UserAddr`] has only checked arithmetic. [`UserPtr<T>`], [`UserSlice`] and [`UserCStr`] say what a
//! guest *claims* lies there and prove nothing: every access goes through [`UserMem`], which copies and
//! can fail. No reference into guest memory exists anywhere; a value is fetched once into a local and
//! never read again.
//!
//! [`IoSource`] and [`IoSink`] are the two directions of file I/O: where a write's bytes come from and
//! where a read's bytes go. A file does not know whether a guest's `iovec`s or a kernel buffer is behind.
#![forbid(unsafe_code)]

mod addr;
mod io;
mod mem;
mod pages;

pub use addr::{UserAddr, UserCStr, UserPtr, UserSlice};
pub use io::{IoSink, IoSource, SliceSink, SliceSource, UserIo, VecSink};
pub use mem::{Fault, MemExt, UserMem};
pub use pages::PageReader;
