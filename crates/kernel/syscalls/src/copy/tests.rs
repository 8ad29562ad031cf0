//! Copies between descriptors; what they answer is what a native run does.

use abi::Errno;
use abi::syscall::{
    close, copy_file_range, lseek, open, pipe2, pwrite64, read, sendfile, socketpair, splice, tee, vmsplice,
    write,
};

use crate::testkit::{DATA, Guest};

const OUT: u64 = DATA + 0x8000;
const NON_BLOCKING: u64 = 0o4000;

fn file(guest: &mut Guest, name: &str, content: &[u8]) -> u64 {
    let path = guest.path(0, name);
    let fd = guest.call(open, [path, 0o102, 0o600]).expect("a new file");
    let at = guest.put(DATA, content);
    assert_eq!(guest.call(write, [fd, at, content.len() as u64]), Ok(content.len() as u64));
    fd
}

fn pair(guest: &mut Guest, call: u32, args: [u64; 4]) -> (u64, u64) {
    guest.call(call, args).expect("two descriptors");
    let word = |at| u64::from(u32::from_ne_bytes(guest.bytes(at, 4).try_into().expect("four bytes")));
    (word(OUT), word(OUT + 4))
}

fn pipe(guest: &mut Guest) -> (u64, u64) {
    pair(guest, pipe2, [OUT, NON_BLOCKING, 0, 0])
}

fn offset(guest: &Guest, slot: u64, value: i64) -> u64 {
    guest.put(OUT + 0x100 + slot * 8, &value.to_ne_bytes())
}

fn word(guest: &Guest, at: u64) -> i64 {
    i64::from_ne_bytes(guest.bytes(at, 8).try_into().expect("eight bytes"))
}

fn content(guest: &mut Guest, fd: u64) -> Vec<u8> {
    let n = guest.call(read, [fd, OUT + 0x1000, 64]).expect("readable");
    guest.bytes(OUT + 0x1000, n as usize)
}

#[test]
fn sendfile_reads_by_offset() {
    let mut guest = Guest::new();
    let (from, to) = (file(&mut guest, "/from", b"0123456789"), file(&mut guest, "/to", b""));
    let at = offset(&guest, 0, 2);
    assert_eq!(guest.call(sendfile, [to, from, at, 5]), Ok(5));
    assert_eq!((word(&guest, at), guest.call(lseek, [from, 0, 1])), (7, Ok(10)));
    assert_eq!(guest.call(sendfile, [to, from, 0, 5]), Ok(0));
    guest.call(lseek, [from, 8, 0]).expect("seekable");
    assert_eq!(guest.call(sendfile, [to, from, 0, 99]), Ok(2));
    guest.call(lseek, [to, 0, 0]).expect("seekable");
    assert_eq!(content(&mut guest, to), b"2345689");
    let (reader, writer) = pipe(&mut guest);
    assert_eq!(guest.call(sendfile, [writer, from, at, 9]), Ok(3));
    assert_eq!(content(&mut guest, reader), b"789");
    assert_eq!(guest.call(sendfile, [to, reader, 0, 1]), Err(Errno::EINVAL));
    assert_eq!(guest.call(sendfile, [to, reader, at, 1]), Err(Errno::ESPIPE));
    assert_eq!(guest.call(sendfile, [reader, from, 0, 1]), Err(Errno::EBADF));
    assert_eq!(guest.call(sendfile, [to, writer, 0, 1]), Err(Errno::EBADF));
    assert_eq!(guest.call(sendfile, [99, 99, 8, 1]), Err(Errno::EFAULT));
    let at = offset(&guest, 0, -1);
    assert_eq!(guest.call(sendfile, [to, from, at, 1]), Err(Errno::EINVAL));
}

#[test]
fn copy_file_range_checks_both_files() {
    let mut guest = Guest::new();
    let (from, to) = (file(&mut guest, "/from", b"0123456789"), file(&mut guest, "/to", b""));
    let (read_at, write_at) = (offset(&guest, 0, 1), offset(&guest, 1, 3));
    assert_eq!(guest.call(copy_file_range, [from, read_at, to, write_at, 4, 0]), Ok(4));
    assert_eq!((word(&guest, read_at), word(&guest, write_at)), (5, 7));
    guest.call(lseek, [to, 0, 0]).expect("seekable");
    assert_eq!(content(&mut guest, to), b"\0\0\x001234");
    assert_eq!(guest.call(copy_file_range, [from, read_at, to, write_at, 4, 1]), Err(Errno::EINVAL));
    let (read_at, write_at) = (offset(&guest, 0, 0), offset(&guest, 1, 4));
    assert_eq!(guest.call(copy_file_range, [from, read_at, from, write_at, 5, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(copy_file_range, [from, read_at, from, write_at, 4, 0]), Ok(4));
    let (reader, _) = pipe(&mut guest);
    assert_eq!(guest.call(copy_file_range, [reader, 0, to, 0, 4, 0]), Err(Errno::EINVAL));
    let root = guest.path(0, "/");
    let root = guest.call(open, [root, 0, 0]).expect("a directory");
    assert_eq!(guest.call(copy_file_range, [root, 0, to, 0, 4, 0]), Err(Errno::EISDIR));
    let past = offset(&guest, 0, 100);
    assert_eq!(guest.call(copy_file_range, [from, past, to, 0, 4, 0]), Ok(0));
}

#[test]
fn splice_needs_a_pipe_and_loses_nothing() {
    let mut guest = Guest::new();
    let from = file(&mut guest, "/from", b"0123456789");
    let to = file(&mut guest, "/to", b"");
    assert_eq!(guest.call(splice, [from, 0, to, 0, 1, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(splice, [99, 0, 99, 0, 0, 99]), Ok(0));
    assert_eq!(guest.call(splice, [from, 0, to, 0, 1, 16]), Err(Errno::EINVAL));
    let (reader, writer) = pipe(&mut guest);
    let (second_reader, second_writer) = pipe(&mut guest);
    assert_eq!(guest.call(splice, [reader, 0, to, 0, 1, 0]), Err(Errno::EAGAIN));
    let at = offset(&guest, 0, 4);
    assert_eq!(guest.call(splice, [from, at, writer, 0, 4, 0]), Ok(4));
    assert_eq!(word(&guest, at), 8);
    assert_eq!(guest.call(splice, [reader, at, to, 0, 1, 0]), Err(Errno::ESPIPE));
    assert_eq!(guest.call(splice, [reader, 0, writer, 0, 1, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(splice, [writer, 0, to, 0, 1, 0]), Err(Errno::EBADF));
    assert_eq!(guest.call(tee, [reader, second_writer, 2, 0]), Ok(2));
    assert_eq!(guest.call(splice, [reader, 0, second_writer, 0, 3, 0]), Ok(3));
    assert_eq!(content(&mut guest, second_reader), b"45456");
    assert_eq!(guest.call(splice, [reader, 0, to, 0, 9, 0]), Ok(1));
    guest.call(lseek, [to, 0, 0]).expect("seekable");
    assert_eq!(content(&mut guest, to), b"7");
    guest.call(close, [writer]).expect("open");
    assert_eq!(guest.call(splice, [reader, 0, to, 0, 9, 0]), Ok(0));
    assert_eq!(guest.call(tee, [from, second_writer, 2, 0]), Err(Errno::EINVAL));
}

#[test]
fn a_full_socket_leaves_the_rest_in_the_pipe() {
    let mut guest = Guest::new();
    let (a, b) = pair(&mut guest, socketpair, [1, 1 | NON_BLOCKING, 0, OUT]);
    let (reader, writer) = pipe(&mut guest);
    let mut moved = 0;
    let mut put = 0;
    loop {
        put += guest.call(write, [writer, DATA, 60_000]).unwrap_or(0);
        match guest.call(splice, [reader, 0, a, 0, 60_000, 0]) {
            Ok(n) => moved += n,
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                break;
            }
        }
    }
    assert!(moved > 200_000 && moved < put);
    let mut got = 0;
    loop {
        while let Ok(n @ 1..) = guest.call(read, [reader, OUT + 0x1000, 1 << 16]) {
            put -= n;
        }
        match guest.call(splice, [b, 0, writer, 0, 1 << 20, 2]) {
            Ok(n) => got += n,
            Err(_) => break,
        }
    }
    assert_eq!((got, put), (moved, 0));
}

#[test]
fn vmsplice_copies_either_way() {
    let mut guest = Guest::new();
    let (reader, writer) = pipe(&mut guest);
    guest.put(DATA, b"abcdef");
    let iov: Vec<u8> = [DATA, 4].into_iter().flat_map(u64::to_ne_bytes).collect();
    let iov = guest.put(DATA + 0x100, &iov);
    assert_eq!(guest.call(vmsplice, [writer, iov, 1, 0]), Ok(4));
    guest.put(DATA, b"......");
    assert_eq!(guest.call(vmsplice, [reader, iov, 1, 2]), Ok(4));
    assert_eq!(guest.bytes(DATA, 6), b"abcd..");
    assert_eq!(guest.call(vmsplice, [reader, iov, 1, 2]), Err(Errno::EAGAIN));
    let plain = file(&mut guest, "/plain", b"");
    assert_eq!(guest.call(vmsplice, [plain, iov, 1, 0]), Err(Errno::EBADF));
    assert_eq!(guest.call(pwrite64, [plain, DATA, 1, 0]), Ok(1));
}
