//! Ids, clocks, limits and the machine.

use abi::Errno;
use abi::syscall as nr;

use crate::testkit::{DATA, Guest};

fn words(guest: &Guest, at: u64, count: usize) -> Vec<u64> {
    let bytes = guest.bytes(at, count * 8);
    bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight"))).collect()
}

#[test]
fn limits_are_set_checked_and_told() {
    let mut guest = Guest::new();
    guest.put(DATA, &[10u64, 20].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
    assert_eq!(guest.call(nr::prlimit64, [0, 7, DATA, DATA + 16]), Ok(0));
    assert_eq!(words(&guest, DATA + 16, 2), [1024, 4096]);
    let path = guest.path(0, "/");
    for expected in 0..10 {
        assert_eq!(guest.call(nr::open, [path, 0, 0]), Ok(expected));
    }
    assert_eq!(guest.call(nr::open, [path, 0, 0]), Err(Errno::EMFILE));
    assert_eq!(guest.call(nr::prlimit64, [0, 16, 0, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::prlimit64, [99, 7, 0, 0]), Err(Errno::ESRCH));
}

#[test]
fn a_file_does_not_grow_beyond_its_limit() {
    let mut guest = Guest::new();
    guest.put(DATA, &[5u64, 5].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
    assert_eq!(guest.call(nr::setrlimit, [1, DATA]), Ok(0));
    let path = guest.path(0, "/f");
    let fd = guest.call(nr::creat, [path, 0o600]).expect("room");
    assert_eq!(guest.call(nr::write, [fd, DATA, 8]), Ok(5));
    assert_eq!(guest.call(nr::write, [fd, DATA, 8]), Err(Errno::EFBIG));
    assert_eq!(guest.call(nr::ftruncate, [fd, 6]), Err(Errno::EFBIG));
}
