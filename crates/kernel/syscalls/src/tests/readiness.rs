//! Pipes, counters, timers, and waiting for them.

use abi::Errno;
use abi::signal::Signal;
use abi::syscall as nr;

use crate::testkit::{DATA, Guest};

/// The ends of a new pipe.
fn pipe(guest: &mut Guest, flags: u64) -> (u64, u64) {
    assert_eq!(guest.call(nr::pipe2, [DATA, flags]), Ok(0));
    (word(guest, DATA), word(guest, DATA + 4))
}

fn word(guest: &Guest, at: u64) -> u64 {
    u64::from(u32::from_le_bytes(guest.bytes(at, 4).try_into().expect("four")))
}

#[test]
fn a_pipe_moves_bytes_and_its_end_is_seen() {
    let mut guest = Guest::new();
    let (reader, writer) = pipe(&mut guest, 0o4000);
    assert_eq!(guest.call(nr::read, [reader, DATA, 1]), Err(Errno::EAGAIN));
    assert_eq!(guest.call(nr::write, [writer, DATA, 8]), Ok(8));
    assert_eq!(guest.call(nr::ioctl, [reader, 0x541b, DATA + 64]), Ok(0));
    assert_eq!(word(&guest, DATA + 64), 8);
    assert_eq!(guest.call(nr::read, [reader, DATA + 64, 100]), Ok(8));
    assert_eq!(guest.call(nr::lseek, [reader, 0, 0]), Err(Errno::ESPIPE));
    assert_eq!(guest.call(nr::fcntl, [reader, 1032, 0]), Ok(65536));
    assert_eq!(guest.call(nr::close, [writer]), Ok(0));
    assert_eq!(guest.call(nr::read, [reader, DATA, 1]), Ok(0));
}

#[test]
fn a_write_without_a_reader_is_a_signal() {
    let mut guest = Guest::new();
    let (reader, writer) = pipe(&mut guest, 0);
    // The first process has no default action to die by; the signal is taken as pending.
    let set = 1u64 << (Signal::SIGPIPE.number() - 1);
    guest.put(DATA + 64, &set.to_le_bytes());
    assert_eq!(guest.call(nr::rt_sigprocmask, [0, DATA + 64, 0, 8]), Ok(0));
    assert_eq!(guest.call(nr::close, [reader]), Ok(0));
    assert_eq!(guest.call(nr::write, [writer, DATA, 1]), Err(Errno::EPIPE));
    assert_eq!(guest.call(nr::rt_sigpending, [DATA + 64, 8]), Ok(0));
    assert_eq!(guest.bytes(DATA + 64, 8), set.to_le_bytes());
}

#[test]
fn poll_and_select_tell_what_is_ready_and_what_is_not_open() {
    let mut guest = Guest::new();
    let (reader, writer) = pipe(&mut guest, 0);
    let entry =
        |fd: u64, events: u16| [&(fd as u32).to_le_bytes()[..], &events.to_le_bytes(), &[9, 9]].concat();
    let table = [entry(reader, 1), entry(writer, 4), entry(77, 1), entry(u64::MAX, 1)].concat();
    guest.put(DATA, &table);
    assert_eq!(guest.call(nr::poll, [DATA, 4, 1000]), Ok(2));
    let results: Vec<u8> = guest.bytes(DATA, 32).chunks(8).map(|entry| entry[6]).collect();
    assert_eq!(results, [0, 4, 0x20, 0]);
    assert_eq!(guest.call(nr::poll, [DATA, 1, 10]), Ok(0), "the time passes");
    assert_eq!(guest.call(nr::poll, [DATA, 1 << 30, 0]), Err(Errno::EINVAL));

    guest.put(DATA, &(1u64 << reader).to_le_bytes());
    guest.put(DATA + 8, &(1u64 << writer).to_le_bytes());
    guest.put(DATA + 16, &[0; 16]);
    assert_eq!(guest.call(nr::select, [8, DATA, DATA + 8, 0, DATA + 16]), Ok(1));
    assert_eq!(guest.bytes(DATA, 8), [0; 8]);
    assert_eq!(guest.bytes(DATA + 8, 8), (1u64 << writer).to_le_bytes());
    guest.put(DATA, &(1u64 << 60).to_le_bytes());
    assert_eq!(guest.call(nr::select, [64, DATA, 0, 0, DATA + 16]), Err(Errno::EBADF));
    assert_eq!(guest.call(nr::select, [-1i64 as u64, 0, 0, 0, 0]), Err(Errno::EINVAL));
}

#[test]
fn epoll_reports_counters_and_timers() {
    let mut guest = Guest::new();
    let set = guest.call(nr::epoll_create1, [0]).expect("room");
    let counter = guest.call(nr::eventfd2, [0, 0o4000]).expect("room");
    let timer = guest.call(nr::timerfd_create, [1, 0o4000]).expect("room");
    for (fd, data) in [(counter, 5u64), (timer, 6)] {
        guest.put(DATA, &[&1u32.to_le_bytes()[..], &data.to_le_bytes()].concat());
        assert_eq!(guest.call(nr::epoll_ctl, [set, 1, fd, DATA]), Ok(0));
    }
    assert_eq!(guest.call(nr::epoll_ctl, [set, 1, counter, DATA]), Err(Errno::EEXIST));
    assert_eq!(guest.call(nr::epoll_ctl, [set, 1, set, DATA]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::epoll_wait, [set, DATA, 4, 0]), Ok(0));
    guest.put(DATA, &3u64.to_le_bytes());
    assert_eq!(guest.call(nr::write, [counter, DATA, 8]), Ok(8));
    assert_eq!(guest.call(nr::epoll_wait, [set, DATA, 4, -1i64 as u64]), Ok(1));
    assert_eq!(guest.bytes(DATA, 12), [1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(guest.call(nr::read, [counter, DATA, 8]), Ok(8));
    // A millisecond, once.
    let spec: Vec<u8> = [0u64, 0, 0, 1_000_000].iter().flat_map(|word| word.to_le_bytes()).collect();
    guest.put(DATA, &spec);
    assert_eq!(guest.call(nr::timerfd_settime, [timer, 0, DATA, 0]), Ok(0));
    assert_eq!(guest.call(nr::epoll_wait, [set, DATA, 4, 10_000]), Ok(1));
    assert_eq!(guest.bytes(DATA + 4, 1), [6]);
    assert_eq!(guest.call(nr::read, [timer, DATA, 8]), Ok(8));
    assert_eq!(guest.call(nr::epoll_wait, [set, DATA, 0, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::epoll_wait, [counter, DATA, 1, 0]), Err(Errno::EINVAL));
}

#[test]
fn pending_signals_are_read_as_records() {
    let mut guest = Guest::new();
    let set = (1u64 << 9).to_le_bytes();
    guest.put(DATA, &set);
    assert_eq!(guest.call(nr::rt_sigprocmask, [0, DATA, 0, 8]), Ok(0));
    let fd = guest.call(nr::signalfd4, [u64::from(u32::MAX), DATA, 8, 0o4000]).expect("room");
    assert_eq!(guest.call(nr::read, [fd, DATA, 128]), Err(Errno::EAGAIN));
    assert_eq!(guest.call(nr::kill, [1, 10]), Ok(0));
    assert_eq!(guest.call(nr::read, [fd, DATA, 127]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::read, [fd, DATA, 256]), Ok(128));
    assert_eq!(word(&guest, DATA), 10);
    assert_eq!(word(&guest, DATA + 12), 1);
}

#[test]
fn a_fifo_has_two_ends_by_its_name() {
    let mut guest = Guest::new();
    let path = guest.path(0, "/fifo");
    assert_eq!(guest.call(nr::mknod, [path, 0o010600, 0]), Ok(0));
    assert_eq!(guest.call(nr::open, [path, 0o4001, 0]), Err(Errno::ENXIO));
    let reader = guest.call(nr::open, [path, 0o4000, 0]).expect("does not wait");
    let writer = guest.call(nr::open, [path, 1, 0]).expect("the reader is there");
    assert_eq!(guest.call(nr::write, [writer, DATA, 3]), Ok(3));
    assert_eq!(guest.call(nr::read, [reader, DATA, 9]), Ok(3));
}

#[test]
fn memory_files_have_no_name_and_a_size() {
    let mut guest = Guest::new();
    let name = guest.path(0, "x");
    let fd = guest.call(nr::memfd_create, [name, 1]).expect("room");
    assert_eq!(guest.call(nr::write, [fd, DATA, 10]), Ok(10));
    assert_eq!(guest.call(nr::ftruncate, [fd, 4]), Ok(0));
    assert_eq!(guest.call(nr::lseek, [fd, 0, 2]), Ok(4));
    assert_eq!(guest.call(nr::memfd_create, [name, 1 << 9]), Err(Errno::EINVAL));
}

#[test]
fn bytes_go_from_file_to_pipe_to_file_and_none_is_lost() {
    let mut guest = Guest::new();
    let path = guest.path(0, "/f");
    let file = guest.call(nr::open, [path, 0o102, 0o600]).expect("room");
    guest.put(DATA, &[7; 200]);
    for _ in 0..500 {
        assert_eq!(guest.call(nr::write, [file, DATA, 200]), Ok(200));
    }
    let (reader, writer) = pipe(&mut guest, 0o4000);
    assert_eq!(guest.call(nr::lseek, [file, 0, 0]), Ok(0));
    // As much as the pipe holds; the offset moves by that.
    assert_eq!(guest.call(nr::sendfile, [writer, file, 0, 100_000]), Ok(65536));
    assert_eq!(guest.call(nr::lseek, [file, 0, 1]), Ok(65536));
    assert_eq!(guest.call(nr::sendfile, [writer, file, 0, 1]), Err(Errno::EAGAIN));
    assert_eq!(guest.call(nr::sendfile, [file, reader, 0, 1]), Err(Errno::EINVAL));
    let other = guest.path(1, "/g");
    let copy = guest.call(nr::open, [other, 0o102, 0o600]).expect("room");
    guest.put(DATA, &3u64.to_le_bytes());
    assert_eq!(guest.call(nr::splice, [reader, 0, copy, DATA, 1000, 0]), Ok(1000));
    assert_eq!(guest.bytes(DATA, 8), 1003u64.to_le_bytes());
    assert_eq!(guest.call(nr::lseek, [copy, 0, 1]), Ok(0));
    assert_eq!(guest.call(nr::ioctl, [reader, 0x541b, DATA]), Ok(0));
    assert_eq!(word(&guest, DATA), 64536);
    assert_eq!(guest.call(nr::splice, [reader, DATA, copy, 0, 1, 0]), Err(Errno::ESPIPE));
    assert_eq!(guest.call(nr::splice, [file, 0, copy, 0, 1, 0]), Err(Errno::EINVAL));
    let (second, into) = pipe(&mut guest, 0o4000);
    assert_eq!(guest.call(nr::tee, [reader, into, 100, 0]), Ok(100));
    assert_eq!(guest.call(nr::ioctl, [reader, 0x541b, DATA]), Ok(0));
    assert_eq!(word(&guest, DATA), 64536, "a tee takes nothing away");
    assert_eq!(guest.call(nr::read, [second, DATA, 200]), Ok(100));
}

#[test]
fn ranges_of_one_file_may_not_overlap() {
    let mut guest = Guest::new();
    let path = guest.path(0, "/f");
    let file = guest.call(nr::open, [path, 0o102, 0o600]).expect("room");
    guest.put(DATA, b"0123456789");
    assert_eq!(guest.call(nr::write, [file, DATA, 10]), Ok(10));
    guest.put(DATA, &[&0u64.to_le_bytes()[..], &5u64.to_le_bytes()].concat());
    assert_eq!(guest.call(nr::copy_file_range, [file, DATA, file, DATA + 8, 6, 0]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::copy_file_range, [file, DATA, file, DATA + 8, 5, 0]), Ok(5));
    assert_eq!(guest.bytes(DATA, 16), [&5u64.to_le_bytes()[..], &10u64.to_le_bytes()].concat());
    assert_eq!(guest.call(nr::pread64, [file, DATA, 10, 0]), Ok(10));
    assert_eq!(guest.bytes(DATA, 10), b"0123401234");
}

#[test]
fn a_process_is_a_file_that_takes_signals() {
    let mut guest = Guest::new();
    let fd = guest.call(nr::pidfd_open, [1, 0]).expect("it is ours");
    assert_eq!(guest.call(nr::fcntl, [fd, 1, 0]), Ok(1));
    assert_eq!(guest.call(nr::pidfd_open, [99, 0]), Err(Errno::ESRCH));
    assert_eq!(guest.call(nr::pidfd_send_signal, [fd, 0, 0, 0]), Ok(0));
    assert_eq!(guest.call(nr::pidfd_send_signal, [fd, 65, 0, 0]), Err(Errno::EINVAL));
    guest.put(DATA, &[&(fd as u32).to_le_bytes()[..], &[1, 0, 0, 0]].concat());
    assert_eq!(guest.call(nr::poll, [DATA, 1, 0]), Ok(0), "it lives");
    assert_eq!(guest.call(nr::pidfd_getfd, [fd, fd, 0]), Ok(1));
    assert_eq!(guest.call(nr::waitid, [0, 0, 0, 4, 0]), Err(Errno::ECHILD));
    assert_eq!(guest.call(nr::waitid, [0, 0, 0, 1, 0]), Err(Errno::EINVAL));
}

#[test]
fn an_owner_is_told_of_what_happens_to_a_file() {
    let mut guest = Guest::new();
    let (reader, writer) = pipe(&mut guest, 0);
    let blocked = 1u64 << (Signal::SIGIO.number() - 1) | 1 << 39;
    guest.put(DATA, &blocked.to_le_bytes());
    assert_eq!(guest.call(nr::rt_sigprocmask, [0, DATA, 0, 8]), Ok(0));
    assert_eq!(guest.call(nr::fcntl, [reader, 8, 99]), Err(Errno::ESRCH));
    assert_eq!(guest.call(nr::fcntl, [reader, 8, 1]), Ok(0));
    assert_eq!(guest.call(nr::fcntl, [reader, 9, 0]), Ok(1));
    assert_eq!(guest.call(nr::fcntl, [reader, 10, 65]), Err(Errno::EINVAL));
    let pending = |guest: &mut Guest| {
        assert_eq!(guest.call(nr::rt_sigpending, [DATA, 8]), Ok(0));
        u64::from_le_bytes(guest.bytes(DATA, 8).try_into().expect("eight"))
    };
    assert_eq!(guest.call(nr::write, [writer, DATA, 1]), Ok(1));
    assert_eq!(pending(&mut guest), 0, "not asynchronous yet");
    assert_eq!(guest.call(nr::fcntl, [reader, 4, 0o20000]), Ok(0));
    assert_eq!(guest.call(nr::fcntl, [reader, 10, 40]), Ok(0));
    assert_eq!(guest.call(nr::write, [writer, DATA, 1]), Ok(1));
    assert_eq!(pending(&mut guest), 1 << 39);
    assert_eq!(guest.call(nr::fcntl, [reader, 10, 0]), Ok(0));
    assert_eq!(guest.call(nr::write, [writer, DATA, 1]), Ok(1));
    assert_eq!(pending(&mut guest), blocked);
    assert_eq!(guest.call(nr::fcntl, [reader, 16, DATA]), Ok(0));
    assert_eq!((word(&guest, DATA), word(&guest, DATA + 4)), (1, 1));
}
