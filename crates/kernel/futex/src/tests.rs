//! Futexes of one word, with real threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use abi::Errno;
use guestmem::{Fault, UserAddr, UserMem};
use sync::wait::Parker;

use crate::{FutexError, Futexes, Key, Name, WakeOp};

const fn key(addr: u64) -> Key {
    Key { name: Name::Private { space: 1, addr }, addr: UserAddr(addr) }
}

const KEY: Key = key(0x1000);
const OTHER: Key = key(0x2000);

/// The same word everywhere.
#[derive(Default)]
struct Word(AtomicU32);

impl UserMem for Word {
    fn read(&self, _: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
        buf.copy_from_slice(&self.0.load(Ordering::SeqCst).to_le_bytes());
        Ok(())
    }

    fn write(&self, _: UserAddr, _: &[u8]) -> Result<(), Fault> {
        Err(Fault { copied: 0 })
    }

    fn compare_exchange_u32(&self, _: UserAddr, old: u32, new: u32) -> Result<u32, Fault> {
        Ok(self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|v| v))
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "nothing happened");
        std::thread::yield_now();
    }
}

#[test]
fn waits_end_by_value_deadline_and_interruption() {
    let (futexes, word, parker) = (Futexes::default(), Word::default(), Parker::new());
    let wait = |expected, deadline| futexes.wait(&word, KEY, expected, u32::MAX, &parker, deadline);
    assert_eq!(wait(1, None), Err(FutexError::Changed));
    assert_eq!(wait(0, Some(Instant::now())), Err(FutexError::TimedOut));
    parker.interrupt();
    assert_eq!(wait(0, None), Err(FutexError::Interrupted));
    assert_eq!(futexes.wake(KEY, 1, u32::MAX), 0);
    assert_eq!(Key::private(1, UserAddr(2)), Err(Errno::EINVAL));
}

#[test]
fn a_shared_word_is_one_wherever_it_is() {
    let name = Name::Shared { dev: 1, ino: 2, offset: 64 };
    let [here, there] = [0x1040, 0x7040].map(|addr| Key::named(name, UserAddr(addr)).expect("aligned"));
    assert!(here == there && here.addr() != there.addr() && here != KEY);
    let (futexes, word) = (Arc::new(Futexes::default()), Arc::new(Word::default()));
    let guest = {
        let (futexes, word) = (Arc::clone(&futexes), Arc::clone(&word));
        std::thread::spawn(move || futexes.wait(word.as_ref(), here, 0, u32::MAX, &Parker::new(), None))
    };
    until(|| futexes.wake(there, 1, u32::MAX) == 1);
    assert_eq!(guest.join().expect("no panic"), Ok(()));
}

#[test]
fn a_requeued_waiter_is_woken_at_its_new_place() {
    let (futexes, word) = (Arc::new(Futexes::default()), Arc::new(Word::default()));
    let guest = {
        let (futexes, word) = (Arc::clone(&futexes), Arc::clone(&word));
        std::thread::spawn(move || futexes.wait(word.as_ref(), KEY, 0, u32::MAX, &Parker::new(), None))
    };
    until(|| futexes.requeue(word.as_ref(), (KEY, OTHER), (0, 1), Some(0)) == Ok(1));
    assert_eq!(futexes.wake(KEY, 1, u32::MAX), 0);
    assert_eq!(futexes.wake(OTHER, 1, u32::MAX), 1);
    assert_eq!(guest.join().expect("no panic"), Ok(()));
}

#[test]
fn an_unlock_hands_the_lock_to_the_waiter() {
    let (futexes, word) = (Arc::new(Futexes::default()), Arc::new(Word::default()));
    assert_eq!(futexes.trylock_pi(word.as_ref(), KEY, 5), Ok(()));
    assert_eq!(futexes.trylock_pi(word.as_ref(), KEY, 5), Err(FutexError::Errno(Errno::EDEADLK)));
    assert_eq!(futexes.trylock_pi(word.as_ref(), KEY, 6), Err(FutexError::Changed));
    assert_eq!(futexes.unlock_pi(word.as_ref(), KEY, 6), Err(FutexError::Errno(Errno::EPERM)));
    let guest = {
        let (futexes, word) = (Arc::clone(&futexes), Arc::clone(&word));
        std::thread::spawn(move || futexes.lock_pi(word.as_ref(), KEY, 6, &Parker::new(), None, &|_| true))
    };
    until(|| word.0.load(Ordering::SeqCst) & crate::pi::WAITERS != 0);
    assert_eq!(futexes.unlock_pi(word.as_ref(), KEY, 5), Ok(()));
    assert_eq!(guest.join().expect("no panic"), Ok(()));
    assert_eq!(word.0.load(Ordering::SeqCst), 6);
    assert_eq!(futexes.unlock_pi(word.as_ref(), KEY, 6), Ok(()));
    assert_eq!(word.0.load(Ordering::SeqCst), 0);
}

#[test]
fn a_dead_owners_lock_goes_to_who_waits() {
    let (futexes, word) = (Arc::new(Futexes::default()), Arc::new(Word::default()));
    assert_eq!(futexes.trylock_pi(word.as_ref(), KEY, 5), Ok(()));
    let waits = |alive: bool| {
        let (futexes, word) = (Arc::clone(&futexes), Arc::clone(&word));
        std::thread::spawn(move || futexes.lock_pi(word.as_ref(), KEY, 6, &Parker::new(), None, &|_| alive))
    };
    assert_eq!(waits(false).join().expect("no panic"), Err(FutexError::Errno(Errno::ESRCH)));
    let guest = waits(true);
    until(|| word.0.load(Ordering::SeqCst) & crate::pi::WAITERS != 0);
    // What the end of the owner does to a robust lock.
    word.0.store(crate::pi::WAITERS | crate::pi::OWNER_DIED, Ordering::SeqCst);
    until(|| futexes.wake(KEY, 1, u32::MAX) == 1);
    assert_eq!(guest.join().expect("no panic"), Ok(()));
    assert_eq!(word.0.load(Ordering::SeqCst) & crate::pi::TID_MASK, 6);
}

#[test]
fn wake_op_changes_one_word_and_wakes_by_what_it_was() {
    let (futexes, word) = (Futexes::default(), Word::default());
    let run = |op: u32, cmp: u32, arg: u32, against: u32| {
        let code = op << 28 | cmp << 24 | arg << 12 | against;
        let op = WakeOp::from_raw(code).expect("an operation");
        (op.apply(&word, OTHER), word.0.load(Ordering::SeqCst))
    };
    assert_eq!(run(0, 0, 7, 0), (Ok(true), 7));
    assert_eq!(run(1, 1, 3, 7), (Ok(false), 10));
    // A negative operand, and a comparison below.
    assert_eq!(run(1, 2, 0xfff, 11), (Ok(true), 9));
    assert_eq!(run(2, 5, 6, 9), (Ok(true), 15));
    assert_eq!(run(3, 4, 1, 15), (Ok(false), 14));
    assert_eq!(run(4, 3, 15, 14), (Ok(true), 1));
    // Shifted operand: or with 1 << 4.
    assert_eq!(run(2 | 8, 0, 4, 1), (Ok(true), 17));
    assert_eq!(WakeOp::from_raw(5 << 28), Err(Errno::ENOSYS));
    assert_eq!(WakeOp::from_raw(6 << 24), Err(Errno::ENOSYS));
    assert_eq!(futexes.wake_op(&word, (KEY, OTHER), (1, 1), 0), Ok(0));
}
