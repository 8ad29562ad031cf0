//! Random bytes (`getrandom(2)`).

use abi::{Errno, SysResult};
use bitflags::bitflags;
use guestmem::{UserAddr, UserMem};

use crate::cx::Cx;

bitflags! {
    /// `GRND_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct GetRandom: u32 {
        /// Do not wait for entropy.
        const NONBLOCK = 1;
        /// From the blocking pool.
        const RANDOM = 2;
        /// Before the generator is seeded, too.
        const INSECURE = 4;
    }
}

/// Bytes a step: after each, a signal may end the call.
const STEP: usize = 64 << 10;
/// Most bytes a call (`MAX_RW_COUNT`).
const MAX: usize = 0x7fff_f000;

/// `getrandom(2)`. The host's generator is seeded long before a guest asks, so no flag matters.
pub(crate) fn getrandom(cx: &mut Cx<'_>, buf: UserAddr, len: usize, flags: u32) -> SysResult<usize> {
    let flags = GetRandom::from_bits(flags).ok_or(Errno::EINVAL)?;
    if flags.contains(GetRandom::RANDOM | GetRandom::INSECURE) {
        return Err(Errno::EINVAL.into());
    }
    let mem = cx.task.mm();
    let len = len.min(MAX);
    let mut done = 0;
    let mut step = vec![0; STEP.min(len)];
    while done < len {
        let chunk = step.get_mut(..STEP.min(len - done)).unwrap_or_default();
        cx.services.random.fill(chunk)?;
        let at = buf.checked_add(done as u64).ok_or(Errno::EFAULT);
        let copied = match at.map(|at| mem.write(at, chunk)) {
            Ok(Ok(())) => chunk.len(),
            Ok(Err(fault)) => return partial(done + fault.copied),
            Err(_) => return partial(done),
        };
        done += copied;
        if cx.task.parker().is_interrupted() {
            break;
        }
    }
    Ok(done)
}

fn partial(done: usize) -> SysResult<usize> {
    if done > 0 { Ok(done) } else { Err(Errno::EFAULT.into()) }
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use abi::syscall as nr;

    use crate::testkit::{DATA, Guest};

    #[test]
    fn bytes_come_and_bad_flags_do_not() {
        let mut guest = Guest::new();
        guest.put(DATA, &[1; 70_001]);
        assert_eq!(guest.call(nr::getrandom, [DATA, 70_000, 1]), Ok(70_000));
        assert_eq!(guest.bytes(DATA + 69_999, 2), [0, 1]);
        assert_eq!(guest.call(nr::getrandom, [DATA, 8, 6]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::getrandom, [DATA, 8, 8]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::getrandom, [0, 8, 0]), Err(Errno::EFAULT));
        assert_eq!(guest.call(nr::getrandom, [0, 0, 0]), Ok(0));
    }
}
