//! Mapping operations as host calls.

use std::sync::Arc;

use abi::Errno;
use guestmem::UserAddr;
use memmap::{Backing, HostObject};
use platform::{Advice, MapOp};

/// `CLONE_*` flags of a thread.
pub const CLONE_THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

/// Number and six arguments of a host call.
pub type Call = [u64; 7];

/// The object a guest must have a descriptor of before it can carry out `op`.
pub fn object(op: &MapOp) -> Option<&Arc<HostObject>> {
    match op {
        MapOp::Map { backing: Backing::Host { object, .. }, .. } => Some(object),
        _ => None,
    }
}

/// The call that carries out `op`; `fd` is the guest's descriptor of [`object`], if it has one.
pub fn call(op: &MapOp, fd: u64) -> Call {
    match op {
        MapOp::Map { addr, len, prot, backing, shared, no_reserve, populate } => {
            let mut flags = libc::MAP_FIXED | if *shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
            flags |= if *no_reserve { libc::MAP_NORESERVE } else { 0 };
            flags |= if *populate { libc::MAP_POPULATE } else { 0 };
            let (file, offset) = match backing {
                Backing::Anonymous => {
                    flags |= libc::MAP_ANONYMOUS;
                    (u64::MAX, 0)
                }
                Backing::Host { offset, .. } => (fd, *offset),
            };
            [libc::SYS_mmap as u64, addr.0, *len, u64::from(prot.bits()), flags as u64, file, offset]
        }
        MapOp::Unmap { addr, len } => [libc::SYS_munmap as u64, addr.0, *len, 0, 0, 0, 0],
        MapOp::Protect { addr, len, prot } => {
            [libc::SYS_mprotect as u64, addr.0, *len, u64::from(prot.bits()), 0, 0, 0]
        }
        MapOp::Remap { from, from_len, to, to_len, keep } => {
            // MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP.
            let flags = match (from == to, keep) {
                (true, _) => 0,
                (false, false) => 3,
                (false, true) => 7,
            };
            [libc::SYS_mremap as u64, from.0, *from_len, *to_len, flags, to.0, 0]
        }
        MapOp::Advise { addr, len, advice } => {
            [libc::SYS_madvise as u64, addr.0, *len, advice_number(*advice), 0, 0, 0]
        }
    }
}

/// The call that closes the guest's descriptor `fd`.
pub fn close(fd: u64) -> Call {
    [libc::SYS_close as u64, fd, 0, 0, 0, 0, 0]
}

/// Wakes at most `count` waiters at `addr` (`FUTEX_WAKE_BITSET`, `futex(2)`) by calls that `carry_out` makes in
/// the guest; how many. Private waiters and shared ones hash differently, so each kind takes a call.
///
/// # Errors
/// Outside, that of `carry_out`; within, what the host says.
pub fn wake<E>(
    addr: UserAddr,
    count: u32,
    bitset: u32,
    mut carry_out: impl FnMut(Call) -> Result<i64, E>,
) -> Result<Result<u32, Errno>, E> {
    let mut woken = 0;
    for op in [10 | 128, 10] {
        if woken >= count {
            break;
        }
        let left = u64::from(count - woken);
        let call = [libc::SYS_futex as u64, addr.0, op, left, 0, 0, u64::from(bitset)];
        match outcome(carry_out(call)?) {
            Ok(more) => woken += more as u32,
            Err(errno) => return Ok(Err(errno)),
        }
    }
    Ok(Ok(woken))
}

/// What such a call's result says.
pub fn outcome(result: i64) -> Result<u64, Errno> {
    if (-4095..0).contains(&result) {
        return Err(Errno::from_raw(-result as i32).unwrap_or(Errno::ENOMEM));
    }
    Ok(result as u64)
}

/// Number of an advice (`madvise(2)`).
fn advice_number(advice: Advice) -> u64 {
    match advice {
        Advice::WillNeed => 3,
        Advice::DontNeed => 4,
        Advice::Free => 8,
        Advice::DontFork => 10,
        Advice::DoFork => 11,
        Advice::HugePage => 14,
        Advice::NoHugePage => 15,
        Advice::WipeOnFork => 18,
        Advice::KeepOnFork => 19,
        Advice::PopulateRead => 22,
        Advice::PopulateWrite => 23,
    }
}

#[cfg(test)]
mod tests {
    use super::{call, object, outcome, wake};
    use abi::Errno;
    use guestmem::UserAddr;
    use platform::MapOp;

    #[test]
    fn a_move_says_so() {
        let op = |from, to| MapOp::Remap {
            from: UserAddr(from),
            from_len: 1,
            to: UserAddr(to),
            to_len: 2,
            keep: false,
        };
        assert_eq!(call(&op(1, 5), 0), [libc::SYS_mremap as u64, 1, 1, 2, 3, 5, 0]);
        assert_eq!(call(&op(1, 1), 0)[4], 0);
        assert!(object(&op(1, 1)).is_none());
        let mut asked = Vec::new();
        let woken = wake::<()>(UserAddr(8), 3, u32::MAX, |call| {
            asked.push((call[2], call[3]));
            Ok(2)
        });
        assert_eq!((woken, asked), (Ok(Ok(4)), vec![(138, 3), (10, 1)]));
        assert_eq!((outcome(-12), outcome(7)), (Err(Errno::ENOMEM), Ok(7)));
    }
}
