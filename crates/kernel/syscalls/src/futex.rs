//! `futex(2)`.
//!
//! A backend with native futexes answers most operations on the host, without a trap; what arrives here is
//! priority inheritance, and everything on a backend without. The two do not see each other's waiters, but
//! a wake-up here reaches both.
//!
//! Absent: requeueing to a lock with priority inheritance (`ENOSYS`: C libraries stopped using it), and
//! `futex_waitv(2)`.

use std::time::Instant;

use abi::time::Timespec;
use abi::{Errno, SysError, SysResult};
use futex::{FutexError, Futexes, Key};
use guestmem::{MemExt, UserAddr, UserPtr};
use kernel::task::Sharing;
use sync::wait::deadline_after;

use crate::cx::Cx;
use crate::restart::later;

const WAIT: u32 = 0;
const WAKE: u32 = 1;
const REQUEUE: u32 = 3;
const CMP_REQUEUE: u32 = 4;
const WAKE_OP: u32 = 5;
const LOCK_PI: u32 = 6;
const UNLOCK_PI: u32 = 7;
const TRYLOCK_PI: u32 = 8;
const WAIT_BITSET: u32 = 9;
const WAKE_BITSET: u32 = 10;
const LOCK_PI2: u32 = 13;
/// `FUTEX_PRIVATE_FLAG`: no other process uses the word.
const PRIVATE: u32 = 0x80;
/// `FUTEX_CLOCK_REALTIME`.
const REALTIME: u32 = 0x100;
/// Bits that match any waiter.
const ANY: u32 = u32::MAX;

/// `futex(2)`. The fourth argument is a time for who waits, and a number for who moves waiters.
pub(crate) fn futex(
    cx: &mut Cx<'_>,
    word: UserAddr,
    op: u32,
    value: u32,
    fourth: u64,
    other: UserAddr,
    third: u32,
) -> SysResult<u64> {
    let command = op & !(PRIVATE | REALTIME);
    if op & REALTIME != 0 && !matches!(command, WAIT_BITSET | LOCK_PI2) {
        return Err(Errno::ENOSYS.into());
    }
    let time = UserPtr::<Timespec>::new(UserAddr(fourth));
    let moves = fourth as i32;
    let sharing = if op & PRIVATE != 0 { Sharing::None } else { Sharing::Any };
    let (word, other) = (Word { at: word, sharing }, Word { at: other, sharing });
    match command {
        WAIT => wait(cx, word, value, ANY, deadline(cx, time, Told::FromNow)?),
        WAIT_BITSET => wait(cx, word, value, third, deadline(cx, time, told(op))?),
        WAKE => wake(cx, word, value, ANY),
        WAKE_BITSET => wake(cx, word, value, third),
        REQUEUE => requeue(cx, (word, other), (value as i32, moves), None),
        CMP_REQUEUE => requeue(cx, (word, other), (value as i32, moves), Some(third)),
        WAKE_OP => wake_op(cx, (word, other), (value, moves as u32), third),
        LOCK_PI => lock(cx, word, deadline(cx, time, Told::Realtime)?),
        LOCK_PI2 => lock(cx, word, deadline(cx, time, told(op))?),
        TRYLOCK_PI => with_lock(cx, word, |futexes, mem, key, tid| futexes.trylock_pi(mem, key, tid)),
        UNLOCK_PI => with_lock(cx, word, |futexes, mem, key, tid| futexes.unlock_pi(mem, key, tid)),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// A word, and who may use it.
#[derive(Clone, Copy, Debug)]
struct Word {
    at: UserAddr,
    sharing: Sharing,
}

impl Word {
    fn key(self, cx: &Cx<'_>) -> Result<Key, Errno> {
        cx.task.futex_key(self.at, self.sharing)
    }
}

/// How a time is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// From now on.
    FromNow,
    /// On `CLOCK_MONOTONIC`.
    Monotonic,
    /// On `CLOCK_REALTIME`.
    Realtime,
}

fn told(op: u32) -> Told {
    if op & REALTIME != 0 { Told::Realtime } else { Told::Monotonic }
}

/// `None` waits for ever.
fn deadline(cx: &Cx<'_>, time: UserPtr<Timespec>, told: Told) -> SysResult<Option<Instant>> {
    let Some(time) = time.non_null() else { return Ok(None) };
    let time = cx.task.mm().load(time)?.to_duration().ok_or(Errno::EINVAL)?;
    let clock = &cx.services.clock;
    Ok(deadline_after(match told {
        Told::FromNow => time,
        Told::Monotonic => time.saturating_sub(clock.monotonic()),
        Told::Realtime => time.saturating_sub(clock.realtime()),
    }))
}

fn wait(cx: &Cx<'_>, word: Word, expected: u32, bitset: u32, deadline: Option<Instant>) -> SysResult<u64> {
    let (task, mem) = (cx.task, cx.task.mm());
    let key = word.key(cx)?;
    match task.kernel().futexes().wait(mem.as_ref(), key, expected, bitset, task.parker(), deadline) {
        Ok(()) => Ok(0),
        // With its deadline, not with the whole time again.
        Err(FutexError::Interrupted) if deadline.is_some() => {
            Err(later(cx, move |cx| wait(cx, word, expected, bitset, deadline)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Waiters here first, then the host's.
fn wake(cx: &Cx<'_>, word: Word, count: u32, bitset: u32) -> SysResult<u64> {
    if bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let key = word.key(cx)?;
    // Linux wakes one before it counts.
    let count = (count as i32).max(1) as u32;
    Ok(wake_both(cx, key, count, bitset).into())
}

fn wake_both(cx: &Cx<'_>, key: Key, count: u32, bitset: u32) -> u32 {
    let kernel = cx.task.kernel();
    let woken = kernel.futexes().wake(key, count, bitset);
    if woken >= count || !kernel.platform().features().native_futex {
        return woken;
    }
    // A bad address has no waiters.
    let native = cx.task.mm().space().futex_wake(key.addr(), count - woken, bitset);
    woken.saturating_add(native.unwrap_or(0))
}

fn requeue(
    cx: &Cx<'_>,
    (from, to): (Word, Word),
    (wake, moves): (i32, i32),
    expected: Option<u32>,
) -> SysResult<u64> {
    let count = |count: i32| u32::try_from(count).map_err(|_| Errno::EINVAL);
    let counts = (count(wake)?, count(moves)?);
    let keys = (from.key(cx)?, to.key(cx)?);
    let mem = cx.task.mm();
    Ok(cx.task.kernel().futexes().requeue(mem.as_ref(), keys, counts, expected)?.into())
}

fn wake_op(cx: &Cx<'_>, (one, two): (Word, Word), counts: (u32, u32), code: u32) -> SysResult<u64> {
    let keys = (one.key(cx)?, two.key(cx)?);
    let mem = cx.task.mm();
    Ok(cx.task.kernel().futexes().wake_op(mem.as_ref(), keys, counts, code)?.into())
}

/// A signal restarts it whole, with its deadline: no handler's `SA_RESTART` is asked (`ERESTARTNOINTR`).
fn lock(cx: &Cx<'_>, word: Word, deadline: Option<Instant>) -> SysResult<u64> {
    let alive = |tid: u32| i32::try_from(tid).is_ok_and(|tid| cx.task_of(tid).is_ok());
    let parker = cx.task.parker();
    let locked = with_lock(cx, word, |futexes, mem, key, tid| {
        futexes.lock_pi(mem, key, tid, parker, deadline, &alive)
    });
    match locked {
        Err(SysError::Restart(_)) => Err(SysError::Restart(abi::Restart::Always)),
        other => other,
    }
}

fn with_lock(
    cx: &Cx<'_>,
    word: Word,
    operate: impl FnOnce(&Futexes, &dyn guestmem::UserMem, Key, u32) -> Result<(), FutexError>,
) -> SysResult<u64> {
    let key = word.key(cx)?;
    let mem = cx.task.mm();
    operate(cx.task.kernel().futexes(), mem.as_ref(), key, cx.task.number() as u32)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use abi::Errno;
    use abi::syscall as nr;
    use abi::time::Timespec;
    use platform::Resume;
    use zerocopy::IntoBytes;

    use crate::testkit::{DATA, Guest};

    const TIME: u64 = DATA + 64;

    #[test]
    fn waits_end_by_value_and_time() {
        let mut guest = Guest::new();
        guest.put(DATA, &[5, 0, 0, 0]);
        assert_eq!(guest.call(nr::futex, [DATA, 0, 6, 0]), Err(Errno::EAGAIN));
        assert_eq!(guest.call(nr::futex, [DATA + 1, 0, 6, 0]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::futex, [8, 0, 6, 0]), Err(Errno::EFAULT));
        guest.put(TIME, Timespec { sec: 0, nsec: 20_000_000 }.as_bytes());
        let start = Instant::now();
        assert_eq!(guest.call(nr::futex, [DATA, 0x80, 5, TIME]), Err(Errno::ETIMEDOUT));
        assert!(start.elapsed() >= Duration::from_millis(20));
        // An absolute time, long past on either clock.
        assert_eq!(guest.call(nr::futex, [DATA, 9, 5, TIME, 0, 1]), Err(Errno::ETIMEDOUT));
        assert_eq!(guest.call(nr::futex, [DATA, 0x109, 5, TIME, 0, 1]), Err(Errno::ETIMEDOUT));
        assert_eq!(guest.call(nr::futex, [DATA, 9, 5, TIME, 0, 0]), Err(Errno::EINVAL));
        guest.put(TIME + 8, &[0xff; 8]);
        assert_eq!(guest.call(nr::futex, [DATA, 0, 5, TIME]), Err(Errno::EINVAL));
    }

    #[test]
    fn an_interrupted_wait_goes_on_with_its_deadline() {
        let mut guest = Guest::new();
        guest.put(TIME, Timespec { sec: 0, nsec: 50_000_000 }.as_bytes());
        let start = Instant::now();
        guest.task.parker().interrupt();
        assert_eq!(guest.thread.call(nr::futex.into(), [DATA, 0, 0, TIME, 0, 0]), Resume::Continue);
        assert_eq!(guest.thread.registers.rax, u64::from(nr::restart_syscall));
        assert_eq!(guest.call(nr::restart_syscall, []), Err(Errno::ETIMEDOUT));
        assert!(start.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn nobody_is_woken_moved_or_unlocked_for() {
        let mut guest = Guest::new();
        assert_eq!(guest.call(nr::futex, [DATA, 1, 1]), Ok(0));
        assert_eq!(guest.call(nr::futex, [DATA, 10, 1, 0, 0, 0]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::futex, [DATA, 4, 1, 1, DATA + 8, 9]), Err(Errno::EAGAIN));
        assert_eq!(guest.call(nr::futex, [DATA, 3, 1, u64::MAX, DATA + 8]), Err(Errno::EINVAL));
        // Add 3 to the second word.
        assert_eq!(guest.call(nr::futex, [DATA, 5, 1, 1, DATA + 8, 1 << 28 | 3 << 12]), Ok(0));
        assert_eq!(guest.bytes(DATA + 8, 4), [3, 0, 0, 0]);
        assert_eq!(guest.call(nr::futex, [DATA, 7, 0]), Err(Errno::EPERM));
        for op in [2, 11, 12, 14, 0x101] {
            assert_eq!(guest.call(nr::futex, [DATA, op, 0]), Err(Errno::ENOSYS), "operation {op}");
        }
    }

    #[test]
    fn a_lock_is_taken_and_given_back() {
        let mut guest = Guest::new();
        assert_eq!(guest.call(nr::futex, [DATA, 6, 0, 0]), Ok(0));
        assert_eq!(guest.bytes(DATA, 4), [1, 0, 0, 0]);
        assert_eq!(guest.call(nr::futex, [DATA, 8, 0, 0]), Err(Errno::EDEADLK));
        assert_eq!(guest.call(nr::futex, [DATA, 7, 0, 0]), Ok(0));
        assert_eq!(guest.bytes(DATA, 4), [0, 0, 0, 0]);
        guest.put(DATA, &[99, 0, 0, 0]);
        assert_eq!(guest.call(nr::futex, [DATA, 13, 0, 0]), Err(Errno::ESRCH));
        assert_eq!(guest.call(nr::futex, [DATA, 8, 0, 0]), Err(Errno::EAGAIN));
    }
}
