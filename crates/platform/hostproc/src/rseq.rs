//! Restartable sequences: a clone of ours inherits the calling thread's registration (`rseq(2)`), and the
//! host kills it when it writes there after our memory is gone.

mod raw;

/// The signature by which the C library registers.
pub const SIGNATURE: u64 = 0x5305_3053;
/// `RSEQ_FLAG_UNREGISTER`.
pub const UNREGISTER: u64 = 1;

/// Address of the calling thread's registered area.
pub fn area() -> u64 {
    raw::area()
}

/// Lengths it may have been registered with: 32 for most C libraries, else what the host says.
pub fn lengths() -> [u64; 2] {
    [32, raw::size()]
}
