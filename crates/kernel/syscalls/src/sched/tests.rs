//! Policies and masks of one task.

use abi::Errno;
use abi::syscall as nr;
use cred::Credentials;
use std::sync::Arc;

use super::{BATCH, DEADLINE, FIFO, IDLE};
use crate::testkit::{DATA, Guest};

#[test]
fn masks_are_of_the_machine() {
    let mut guest = Guest::new();
    assert_eq!(guest.call(nr::sched_getaffinity, [0, 128, DATA]), Ok(8));
    assert_eq!(guest.bytes(DATA, 8), [0xf, 0, 0, 0, 0, 0, 0, 0]);
    guest.put(DATA, &[0xf2]);
    assert_eq!(guest.call(nr::sched_setaffinity, [0, 1, DATA]), Ok(0));
    assert_eq!(guest.call(nr::sched_getaffinity, [1, 8, DATA]), Ok(8));
    assert_eq!(guest.bytes(DATA, 1), [2]);
    guest.put(DATA, &[0xf0]);
    assert_eq!(guest.call(nr::sched_setaffinity, [0, 1, DATA]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::sched_getaffinity, [0, 4, DATA]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::sched_getaffinity, [99, 8, DATA]), Err(Errno::ESRCH));
}

#[test]
fn policies_want_their_priorities() {
    let mut guest = Guest::new();
    let set = |guest: &mut Guest, policy: u32, priority: u8| {
        guest.put(DATA, &[priority, 0, 0, 0]);
        guest.call(nr::sched_setscheduler, [0, u64::from(policy), DATA])
    };
    assert_eq!(set(&mut guest, FIFO, 0), Err(Errno::EINVAL));
    assert_eq!(set(&mut guest, BATCH, 1), Err(Errno::EINVAL));
    assert_eq!(set(&mut guest, 4, 0), Err(Errno::EINVAL));
    assert_eq!(set(&mut guest, DEADLINE, 0), Err(Errno::EBUSY));
    assert_eq!(set(&mut guest, FIFO, 10), Ok(0));
    assert_eq!(guest.call(nr::sched_getscheduler, [0]), Ok(u64::from(FIFO)));
    assert_eq!(guest.call(nr::sched_getparam, [0, DATA + 8]), Ok(0));
    assert_eq!(guest.bytes(DATA + 8, 4), [10, 0, 0, 0]);
    assert_eq!(guest.call(nr::sched_getparam, [0, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::sched_get_priority_max, [1]), Ok(99));
    assert_eq!(guest.call(nr::sched_get_priority_min, [0]), Ok(0));
    assert_eq!(guest.call(nr::sched_get_priority_min, [4]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::sched_yield, []), Ok(0));
}

#[test]
fn a_user_may_only_give_way() {
    let mut guest = Guest::new();
    guest.task.set_cred(Arc::new(Credentials::user(7, 7)));
    guest.put(DATA, &[1, 0, 0, 0]);
    assert_eq!(guest.call(nr::sched_setscheduler, [0, u64::from(FIFO), DATA]), Err(Errno::EPERM));
    guest.put(DATA, &[0; 4]);
    assert_eq!(guest.call(nr::sched_setscheduler, [0, u64::from(IDLE), DATA]), Ok(0));
    assert_eq!(guest.call(nr::sched_setscheduler, [0, 0, DATA]), Err(Errno::EPERM));
}

#[test]
fn attributes_grow() {
    let mut guest = Guest::new();
    guest.put(DATA, &[0; 64]);
    guest.put(DATA, &[48, 0, 0, 0, BATCH as u8]);
    guest.put(DATA + 16, &[5]);
    assert_eq!(guest.call(nr::sched_setattr, [0, DATA, 0]), Ok(0));
    assert_eq!(guest.call(nr::sched_getattr, [0, DATA + 128, 4096, 0]), Ok(0));
    assert_eq!(guest.bytes(DATA + 128, 5), [56, 0, 0, 0, BATCH as u8]);
    assert_eq!(guest.bytes(DATA + 144, 1), [5]);
    guest.put(DATA, &[64]);
    guest.put(DATA + 60, &[1]);
    assert_eq!(guest.call(nr::sched_setattr, [0, DATA, 0]), Err(Errno::E2BIG));
    assert_eq!(guest.bytes(DATA, 1), [56]);
    assert_eq!(guest.call(nr::sched_getattr, [0, DATA, 40, 0]), Err(Errno::EINVAL));
}
