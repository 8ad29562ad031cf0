//! Files, descriptors, names.

use abi::Errno;
use abi::syscall as nr;

use crate::testkit::{DATA, Guest};

const CREAT_RDWR: u64 = 0o102;
const AT_FDCWD: u64 = -100i64 as u64;

/// Opens `path` for reading and writing, making it.
fn make(guest: &mut Guest, path: &str) -> u64 {
    let path = guest.path(0, path);
    guest.call(nr::open, [path, CREAT_RDWR, 0o644]).expect("opens")
}

#[test]
fn what_is_written_is_read_through_either_descriptor() {
    let mut guest = Guest::new();
    let fd = make(&mut guest, "/f");
    guest.put(DATA, b"hello world");
    assert_eq!(guest.call(nr::write, [fd, DATA, 11]), Ok(11));
    let copy = guest.call(nr::dup, [fd]).expect("room");
    assert_eq!(guest.call(nr::lseek, [copy, 6, 0]), Ok(6));
    assert_eq!(guest.call(nr::read, [fd, DATA + 0x100, 100]), Ok(5));
    assert_eq!(guest.bytes(DATA + 0x100, 5), b"world");
    assert_eq!(guest.call(nr::pread64, [fd, DATA + 0x100, 4, 1]), Ok(4));
    assert_eq!(guest.bytes(DATA + 0x100, 4), b"ello");
    assert_eq!(guest.call(nr::close, [fd]), Ok(0));
    assert_eq!(guest.call(nr::read, [fd, DATA, 1]), Err(Errno::EBADF));
    assert_eq!(guest.call(nr::lseek, [copy, 0, 2]), Ok(11));
    assert_eq!(guest.call(nr::lseek, [copy, -12i64 as u64, 2]), Err(Errno::EINVAL));
}

#[test]
fn vectors_are_gathered_and_scattered_and_bounded() {
    let mut guest = Guest::new();
    let fd = make(&mut guest, "/f");
    guest.put(DATA, b"abcdef");
    let iov: Vec<u8> = [DATA, 2, 1, 0, DATA + 2, 4].iter().flat_map(|word| word.to_le_bytes()).collect();
    guest.put(DATA + 0x100, &iov);
    assert_eq!(guest.call(nr::writev, [fd, DATA + 0x100, 3]), Ok(6));
    assert_eq!(guest.call(nr::preadv, [fd, DATA + 0x100, 3, 1]), Ok(5));
    assert_eq!(guest.bytes(DATA, 6), b"bcdeff");
    assert_eq!(guest.call(nr::writev, [fd, DATA + 0x100, 1025]), Err(Errno::EINVAL));
    let negative: Vec<u8> = [DATA, u64::MAX].iter().flat_map(|word| word.to_le_bytes()).collect();
    guest.put(DATA + 0x200, &negative);
    assert_eq!(guest.call(nr::writev, [fd, DATA + 0x200, 1]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::pwritev2, [fd, DATA + 0x100, 1, 0, 0, 64]), Err(Errno::EOPNOTSUPP));
}

#[test]
fn faults_come_late_and_only_without_progress() {
    let mut guest = Guest::new();
    let fd = make(&mut guest, "/f");
    assert_eq!(guest.call(nr::read, [fd, 0, 0]), Ok(0));
    assert_eq!(guest.call(nr::write, [fd, 0, 5]), Err(Errno::EFAULT));
    assert_eq!(guest.call(nr::open, [0, 0, 0]), Err(Errno::EFAULT));
    assert_eq!(guest.call(nr::read, [99, 0, 0]), Err(Errno::EBADF));
}

#[test]
fn a_dup_onto_itself_checks_and_another_closes() {
    let mut guest = Guest::new();
    let fd = make(&mut guest, "/f");
    assert_eq!(guest.call(nr::dup2, [fd, fd]), Ok(fd));
    assert_eq!(guest.call(nr::dup3, [fd, fd, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::dup3, [fd, 7, 0o2000000]), Ok(7));
    assert_eq!(guest.call(nr::fcntl, [7, 1, 0]), Ok(1));
    assert_eq!(guest.call(nr::fcntl, [fd, 1, 0]), Ok(0));
    assert_eq!(guest.call(nr::fcntl, [fd, 0, 5]), Ok(5));
    assert_eq!(guest.call(nr::fcntl, [fd, 3, 0]), Ok(0o100002));
    assert_eq!(guest.call(nr::dup2, [fd, 1 << 20]), Err(Errno::EBADF));
    assert_eq!(guest.call(nr::close_range, [5, u64::from(u32::MAX), 0]), Ok(0));
    assert_eq!(guest.call(nr::fcntl, [7, 1, 0]), Err(Errno::EBADF));
    assert_eq!(guest.call(nr::fcntl, [fd, 1, 0]), Ok(0));
}

#[test]
fn record_locks_go_with_any_descriptor_of_the_file() {
    let mut guest = Guest::new();
    let fd = make(&mut guest, "/f");
    let other = make(&mut guest, "/f");
    // A write lock on everything, once for the process and once for a description.
    let lock = |kind: u8| [&[kind, 0, 0, 0][..], &[0; 28]].concat();
    guest.put(DATA, &lock(1));
    assert_eq!(guest.call(nr::fcntl, [fd, 6, DATA]), Ok(0));
    assert_eq!(guest.call(nr::fcntl, [other, 6, DATA]), Ok(0));
    assert_eq!(guest.call(nr::fcntl, [other, 37, DATA]), Err(Errno::EAGAIN));
    assert_eq!(guest.call(nr::fcntl, [other, 36, DATA]), Ok(0));
    assert_eq!(guest.bytes(DATA + 24, 4), [1, 0, 0, 0]);
    assert_eq!(guest.call(nr::close, [other]), Ok(0));
    let third = make(&mut guest, "/f");
    guest.put(DATA, &lock(1));
    assert_eq!(guest.call(nr::fcntl, [third, 37, DATA]), Ok(0));
    assert_eq!(guest.call(nr::flock, [third, 2]), Ok(0));
    assert_eq!(guest.call(nr::flock, [fd, 6]), Err(Errno::EAGAIN));
}

#[test]
fn names_are_made_listed_moved_and_removed() {
    let mut guest = Guest::new();
    let (dir, file, link) = (guest.path(1, "/d"), guest.path(2, "/d/f"), guest.path(3, "l"));
    assert_eq!(guest.call(nr::mkdir, [dir, 0o755]), Ok(0));
    assert_eq!(guest.call(nr::mkdir, [dir, 0o755]), Err(Errno::EEXIST));
    assert_eq!(guest.call(nr::mknod, [file, 0o100600, 0]), Ok(0));
    assert_eq!(guest.call(nr::chdir, [dir]), Ok(0));
    assert_eq!(guest.call(nr::getcwd, [DATA, 2]), Err(Errno::ERANGE));
    assert_eq!(guest.call(nr::getcwd, [DATA, 3]), Ok(3));
    assert_eq!(guest.call(nr::symlink, [file, link]), Ok(0));
    assert_eq!(guest.call(nr::readlink, [link, DATA, 3]), Ok(3));
    assert_eq!(guest.bytes(DATA, 3), b"/d/");
    let fd = guest.call(nr::openat, [AT_FDCWD, dir, 0o200000, 0]).expect("a directory");
    assert_eq!(guest.call(nr::getdents64, [fd, DATA, 8]), Err(Errno::EINVAL));
    // `.`, `..`, `f` and `l` of 24 bytes each.
    assert_eq!(guest.call(nr::getdents64, [fd, DATA, 4096]), Ok(96));
    assert_eq!(guest.call(nr::getdents64, [fd, DATA, 4096]), Ok(0));
    assert_eq!(guest.call(nr::rmdir, [dir]), Err(Errno::ENOTEMPTY));
    let moved = guest.path(4, "/moved");
    assert_eq!(guest.call(nr::renameat2, [AT_FDCWD, file, AT_FDCWD, moved, 0]), Ok(0));
    assert_eq!(guest.call(nr::access, [file, 0]), Err(Errno::ENOENT));
    assert_eq!(guest.call(nr::access, [moved, 1]), Err(Errno::EACCES));
    assert_eq!(guest.call(nr::unlinkat, [fd, link, 0]), Ok(0));
    assert_eq!(guest.call(nr::unlink, [dir]), Err(Errno::EISDIR));
    assert_eq!(guest.call(nr::rmdir, [dir]), Ok(0));
    assert_eq!(guest.call(nr::getcwd, [DATA, 100]), Err(Errno::ENOENT));
}

#[test]
fn attributes_are_changed_and_shown() {
    let mut guest = Guest::new();
    let fd = make(&mut guest, "/f");
    let path = guest.path(1, "/f");
    assert_eq!(guest.call(nr::ftruncate, [fd, 5000]), Ok(0));
    assert_eq!(guest.call(nr::chmod, [path, 0o4750]), Ok(0));
    assert_eq!(guest.call(nr::chown, [path, 3, u64::from(u32::MAX)]), Ok(0));
    guest.put(DATA, &[&7u64.to_le_bytes()[..], &9u64.to_le_bytes()].concat());
    assert_eq!(guest.call(nr::utime, [path, DATA]), Ok(0));
    assert_eq!(guest.call(nr::fstat, [fd, DATA]), Ok(0));
    let word = |at: usize| u64::from_le_bytes(guest.bytes(DATA + at as u64, 8).try_into().expect("eight"));
    assert_eq!(word(24) & 0xffff_ffff, 0o100750, "chown takes set-id bits away");
    assert_eq!(word(28) & 0xffff_ffff, 3);
    assert_eq!((word(48), word(72), word(88)), (5000, 7, 9));
    let empty = guest.path(2, "");
    assert_eq!(guest.call(nr::newfstatat, [fd, empty, DATA, 0]), Err(Errno::ENOENT));
    assert_eq!(guest.call(nr::newfstatat, [fd, empty, DATA, 0x1000]), Ok(0));
    assert_eq!(guest.call(nr::newfstatat, [fd, empty, DATA, 1]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::statx, [fd, empty, 0x1000, 0xfff, DATA]), Ok(0));
    assert_eq!(guest.call(nr::ftruncate, [fd, u64::MAX]), Err(Errno::EINVAL));
}

#[test]
fn extended_attributes_are_sized_before_they_are_copied() {
    let mut guest = Guest::new();
    let path = guest.path(1, "/f");
    make(&mut guest, "/f");
    let name = guest.path(2, "user.a");
    guest.put(DATA, b"value");
    assert_eq!(guest.call(nr::setxattr, [path, name, DATA, 5, 2]), Err(Errno::ENODATA));
    assert_eq!(guest.call(nr::setxattr, [path, name, DATA, 5, 1]), Ok(0));
    assert_eq!(guest.call(nr::getxattr, [path, name, 0, 0]), Ok(5));
    assert_eq!(guest.call(nr::getxattr, [path, name, DATA, 4]), Err(Errno::ERANGE));
    assert_eq!(guest.call(nr::listxattr, [path, DATA, 100]), Ok(7));
    assert_eq!(guest.call(nr::removexattr, [path, name]), Ok(0));
    assert_eq!(guest.call(nr::getxattr, [path, name, 0, 0]), Err(Errno::ENODATA));
}

#[test]
fn openat2_refuses_what_it_does_not_know() {
    let mut guest = Guest::new();
    let path = guest.path(1, "/f");
    let how = |flags: u64, mode: u64, resolve: u64| {
        [flags, mode, resolve, 0].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()
    };
    guest.put(DATA, &how(CREAT_RDWR, 0o600, 0));
    assert_eq!(guest.call(nr::openat2, [AT_FDCWD, path, DATA, 16]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::openat2, [AT_FDCWD, path, DATA, 32]), Ok(0));
    guest.put(DATA, &how(1 << 40, 0, 0));
    assert_eq!(guest.call(nr::openat2, [AT_FDCWD, path, DATA, 24]), Err(Errno::EINVAL));
    guest.put(DATA, &how(0, 0, 8));
    assert_eq!(guest.call(nr::openat2, [AT_FDCWD, path, DATA, 24]), Err(Errno::EXDEV));
    guest.put(DATA, &how(0, 0, 16));
    assert_eq!(guest.call(nr::openat2, [AT_FDCWD, path, DATA, 24]), Ok(1));
}
