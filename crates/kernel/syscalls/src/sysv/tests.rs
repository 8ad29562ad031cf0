//! System V IPC as a guest sees it; what it answers is what a native run does.

use abi::Errno;
use abi::syscall::{
    clone, exit_group, msgctl, msgget, msgrcv, msgsnd, semctl, semget, semop, semtimedop, shmat, shmctl,
    shmdt, shmget, wait4,
};

use crate::testkit::{DATA, Guest};

const CREATE: u64 = 0o1600;
const NO_WAIT: u64 = 0o4000;
const OUT: u64 = DATA + 0x8000;

/// Puts operations: number, change, flags.
fn operations(guest: &Guest, all: &[(u16, i16, u16)]) -> (u64, u64) {
    let bytes: Vec<u8> =
        all.iter().flat_map(|op| [op.0, op.1 as u16, op.2]).flat_map(u16::to_ne_bytes).collect();
    (guest.put(DATA, &bytes), all.len() as u64)
}

fn operate(guest: &mut Guest, id: u64, all: &[(u16, i16, u16)]) -> Result<u64, Errno> {
    let (at, count) = operations(guest, all);
    guest.call(semop, [id, at, count])
}

fn word(guest: &Guest, at: u64) -> u64 {
    u64::from_ne_bytes(guest.bytes(at, 8).try_into().expect("eight bytes"))
}

#[test]
fn semaphores_count_and_refuse() {
    let mut guest = Guest::new();
    assert_eq!(guest.call(semget, [0, 0, CREATE]), Err(Errno::EINVAL));
    assert_eq!(guest.call(semget, [7, 1, 0o600]), Err(Errno::ENOENT));
    let id = guest.call(semget, [7, 2, CREATE]).expect("room");
    assert_eq!(guest.call(semget, [7, 3, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(semget, [7, 2, CREATE | 0o2000]), Err(Errno::EEXIST));
    assert_eq!(operate(&mut guest, id, &[(0, 2, 0)]), Ok(0));
    assert_eq!(operate(&mut guest, id, &[(0, -3, NO_WAIT as u16)]), Err(Errno::EAGAIN));
    assert_eq!(operate(&mut guest, id, &[(2, 1, 0)]), Err(Errno::EFBIG));
    assert_eq!(operate(&mut guest, id, &[]), Err(Errno::EINVAL));
    assert_eq!(guest.call(semop, [id, 8, 1]), Err(Errno::EFAULT));
    assert_eq!(guest.call(semop, [id, DATA, 501]), Err(Errno::E2BIG));
    assert_eq!(guest.call(semctl, [id, 0, 12]), Ok(2));
    assert_eq!(guest.call(semctl, [id, 9, 12]), Err(Errno::EINVAL));
    assert_eq!(guest.call(semctl, [id, 1, 16, 40_000]), Err(Errno::ERANGE));
    assert_eq!(guest.call(semctl, [id, 1, 16, 5]), Ok(0));
    assert_eq!(guest.call(semctl, [id, 0, 13, OUT]), Ok(0));
    assert_eq!(guest.bytes(OUT, 4), [2, 0, 5, 0]);
    assert_eq!(guest.call(semctl, [id, 0, 2, OUT]), Ok(0));
    assert_eq!(word(&guest, OUT + 80), 2);
    let (at, count) = operations(&guest, &[(0, -3, 0)]);
    guest.put(OUT, &[0; 16]);
    assert_eq!(guest.call(semtimedop, [id, at, count, OUT]), Err(Errno::EAGAIN));
    guest.put(OUT, &[255; 16]);
    assert_eq!(guest.call(semtimedop, [id, at, count, OUT]), Err(Errno::EINVAL));
    assert_eq!(guest.call(semctl, [id, 0, 0]), Ok(0));
    assert_eq!(operate(&mut guest, id, &[(0, 1, 0)]), Err(Errno::EINVAL));
}

#[test]
fn the_end_of_a_process_undoes() {
    let mut guest = Guest::new();
    let id = guest.call(semget, [0, 1, CREATE]).expect("room");
    assert_eq!(operate(&mut guest, id, &[(0, 5, 0)]), Ok(0));
    guest.call(clone, [17, 0, 0, 0, 0]).expect("a child");
    let mut child = guest.thread.children.pop().expect("it");
    // The fake backend gives a child empty memory: it needs its operations written.
    let task = guest.kernel.task(2).expect("the child");
    let bytes: Vec<u8> = [0u16, -2i16 as u16, 0x1000].into_iter().flat_map(u16::to_ne_bytes).collect();
    guestmem::UserMem::write(task.mm().as_ref(), guestmem::UserAddr(DATA), &bytes).expect("memory");
    child.call(u64::from(semop), [id, DATA, 1, 0, 0, 0]);
    assert_eq!(guest.call(semctl, [id, 0, 12]), Ok(3));
    child.call(u64::from(exit_group), [0; 6]);
    assert_eq!(guest.call(wait4, [2, 0, 0, 0]), Ok(2));
    assert_eq!(guest.call(semctl, [id, 0, 12]), Ok(5));
}

#[test]
fn a_waiter_is_counted_woken_and_told_of_removal() {
    let mut guest = Guest::new();
    let id = guest.call(semget, [0, 1, CREATE]).expect("room");
    let (at, count) = operations(&guest, &[(0, -1, 0)]);
    for removed in [false, true] {
        guest.call(clone, [0x1_0f00, DATA + 0x40_0000, 0, 0, 0]).expect("a thread");
        let mut other = guest.thread.children.pop().expect("it");
        let waiting = std::thread::spawn(move || other.call(u64::from(semop), [id, at, count, 0, 0, 0]));
        while guest.call(semctl, [id, 0, 14]) != Ok(1) {
            std::thread::yield_now();
        }
        let wake = if removed { [id, 0, 0, 0] } else { [id, 0, 16, 1] };
        assert_eq!(guest.call(semctl, wake), Ok(0));
        let result = waiting.join().expect("it comes back");
        let wanted = if removed { Errno::EIDRM.to_register() } else { 0 };
        assert!(matches!(result, platform::Resume::Return(value) if value == wanted), "{result:?}");
    }
}

#[test]
fn messages_are_picked_by_type() {
    let mut guest = Guest::new();
    let id = guest.call(msgget, [0, CREATE]).expect("room");
    let message = |guest: &Guest, kind: i64, text: &[u8]| {
        guest.put(DATA, &kind.to_ne_bytes());
        guest.put(DATA + 8, text);
        [id, DATA, text.len() as u64, 0]
    };
    let args = message(&guest, 3, b"three");
    assert_eq!(guest.call(msgsnd, args), Ok(0));
    let args = message(&guest, 0, b"");
    assert_eq!(guest.call(msgsnd, args), Err(Errno::EINVAL));
    assert_eq!(guest.call(msgsnd, [id, DATA, 8193, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(msgrcv, [id, OUT, 16, 9, NO_WAIT]), Err(Errno::ENOMSG));
    assert_eq!(guest.call(msgrcv, [id, OUT, 2, 0, 0]), Err(Errno::E2BIG));
    assert_eq!(guest.call(msgrcv, [id, OUT, 16, 0, 0o40000]), Err(Errno::EINVAL));
    assert_eq!(guest.call(msgrcv, [id, OUT, 16, 0, 0o40000 | NO_WAIT]), Ok(5));
    assert_eq!(guest.call(msgctl, [id, 2, OUT + 0x100]), Ok(0));
    assert_eq!((word(&guest, OUT + 0x148), word(&guest, OUT + 0x158)), (5, 16_384));
    assert_eq!(guest.call(msgrcv, [id, OUT, 16, 5u64.wrapping_neg(), 0]), Ok(5));
    assert_eq!(guest.bytes(OUT, 13), [&3u64.to_ne_bytes()[..], b"three"].concat());
    assert_eq!(guest.call(msgctl, [id, 0, 0]), Ok(0));
    assert_eq!(guest.call(msgctl, [id, 0, 0]), Err(Errno::EINVAL));
}

#[test]
fn a_removed_segment_goes_with_its_last_attachment() {
    let mut guest = Guest::new();
    assert_eq!(guest.call(shmget, [9, 0, CREATE]), Err(Errno::EINVAL));
    let id = guest.call(shmget, [9, 5000, CREATE]).expect("room");
    assert_eq!(guest.call(shmget, [9, 5001, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(shmget, [9, 0, 0]), Ok(id));
    let at = guest.call(shmat, [id, 0, 0]).expect("room");
    assert_eq!(guest.call(shmat, [id, at, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(shmat, [id, at + 1, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(shmat, [id, at + 1, 0o20000 | 0o40000]), Ok(at));
    assert_eq!(guest.call(shmat, [id, 0, 0o40000]), Err(Errno::EINVAL));
    assert_eq!(guest.call(shmctl, [id, 2, OUT]), Ok(0));
    assert_eq!((word(&guest, OUT + 48), word(&guest, OUT + 88)), (5000, 1));
    assert_eq!(guest.call(shmctl, [id, 0, 0]), Ok(0));
    assert_eq!(guest.call(shmget, [9, 0, 0]), Err(Errno::ENOENT));
    assert_eq!(guest.call(shmctl, [id, 2, OUT]), Ok(0));
    assert_eq!(guest.bytes(OUT + 20, 4), 0o1600u32.to_ne_bytes());
    assert_eq!(guest.call(shmdt, [at + 4096]), Err(Errno::EINVAL));
    assert_eq!(guest.call(shmdt, [at]), Ok(0));
    assert_eq!(guest.call(shmdt, [at]), Err(Errno::EINVAL));
    assert_eq!(guest.call(shmctl, [id, 2, OUT]), Err(Errno::EINVAL));
}
