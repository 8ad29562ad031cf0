//! The socket calls as a guest makes them; what they answer is what a native run does.

use abi::Errno;
use abi::syscall::{
    accept4, bind, close, connect, fcntl, getpeername, getsockname, getsockopt, listen, read, recvfrom,
    recvmsg, sendmsg, sendto, setsockopt, shutdown, socket, socketpair, stat, write,
};

use crate::testkit::{DATA, Guest};

const UNIX: u64 = 1;
const STREAM: u64 = 1;
const DGRAM: u64 = 2;
const DONTWAIT: u64 = 0x40;
const SOL_SOCKET: u64 = 1;
/// Where results go.
const OUT: u64 = DATA + 0x8000;

/// Two sockets.
fn pair(guest: &mut Guest, kind: u64) -> (u64, u64) {
    guest.call(socketpair, [UNIX, kind, 0, OUT]).expect("a pair");
    let word = |at| u64::from(u32::from_ne_bytes(guest.bytes(at, 4).try_into().expect("four bytes")));
    (word(OUT), word(OUT + 4))
}

fn send(guest: &mut Guest, fd: u64, text: &[u8]) -> Result<u64, Errno> {
    let at = guest.put(DATA, text);
    guest.call(sendto, [fd, at, text.len() as u64, 0x4000, 0, 0])
}

fn receive(guest: &mut Guest, fd: u64, len: u64, flags: u64) -> Result<Vec<u8>, Errno> {
    let n = guest.call(recvfrom, [fd, OUT, len, flags | DONTWAIT, 0, 0])?;
    Ok(guest.bytes(OUT, n as usize))
}

/// Puts a `sockaddr_un`; returns address and length.
fn address(guest: &Guest, name: &[u8]) -> (u64, u64) {
    guest.put(DATA + 0x100, &[1, 0]);
    guest.put(DATA + 0x102, name);
    (DATA + 0x100, name.len() as u64 + 2)
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// Puts a `msghdr` of one segment at `OUT` and control data of `room` bytes.
fn message(guest: &Guest, len: u64, control: &[u8], room: u64) -> u64 {
    let iov = guest.put(DATA + 0x200, &words(&[DATA, len]));
    let control = guest.put(DATA + 0x300, control);
    guest.put(DATA + 0x400, &words(&[0, 0, iov, 1, control, room, 0]))
}

#[test]
fn arguments_are_checked_in_the_order_of_linux() {
    let mut guest = Guest::new();
    let mut open = |family, kind, protocol| guest.call(socket, [family, kind, protocol]).map(drop);
    assert_eq!(open(999, 99, 0), Err(Errno::EINVAL));
    assert_eq!(open(999, STREAM, 0), Err(Errno::EAFNOSUPPORT));
    assert_eq!(open(3, STREAM, 0), Err(Errno::EAFNOSUPPORT));
    assert_eq!(open(UNIX, 11, 0), Err(Errno::EINVAL));
    assert_eq!(open(UNIX, STREAM, 99), Err(Errno::EPROTONOSUPPORT));
    assert_eq!(open(UNIX, 4, 0), Err(Errno::ESOCKTNOSUPPORT));
    assert_eq!(open(UNIX, 3, 1), Ok(()));
    assert_eq!(guest.call(listen, [77, 1]), Err(Errno::EBADF));
    let (a, _) = pair(&mut guest, STREAM);
    assert_eq!(guest.call(shutdown, [a, 9]), Err(Errno::EINVAL));
    assert_eq!(guest.call(accept4, [a, 0, 0, 1]), Err(Errno::EINVAL));
    assert_eq!(guest.call(bind, [a, DATA, 129]), Err(Errno::EINVAL));
    assert_eq!(guest.call(sendto, [a, DATA, 1, 0, 8, 4]), Err(Errno::EFAULT));
    assert_eq!(guest.call(socketpair, [UNIX, STREAM, 0, 8]), Err(Errno::EFAULT));
    assert_eq!(guest.call(getsockname, [a, OUT, 0]), Err(Errno::EFAULT));
    guest.put(OUT + 0x100, &(-1i32).to_ne_bytes());
    assert_eq!(guest.call(getsockname, [a, OUT, OUT + 0x100]), Err(Errno::EINVAL));
}

#[test]
fn data_goes_through_a_pair() {
    let mut guest = Guest::new();
    let (a, b) = pair(&mut guest, STREAM);
    assert_eq!(send(&mut guest, a, b"abc"), Ok(3));
    assert_eq!(receive(&mut guest, b, 9, 2), Ok(b"abc".to_vec()));
    assert_eq!(receive(&mut guest, b, 2, 0), Ok(b"ab".to_vec()));
    assert_eq!(guest.call(read, [b, OUT, 9]), Ok(1));
    assert_eq!(receive(&mut guest, b, 9, 0), Err(Errno::EAGAIN));
    assert_eq!(guest.call(write, [a, DATA, 2]), Ok(2));
    assert_eq!(guest.call(shutdown, [a, 1]), Ok(0));
    assert_eq!(receive(&mut guest, b, 9, 0x100), Ok(b"ab".to_vec()));
    assert_eq!(receive(&mut guest, b, 9, 0), Ok(Vec::new()));
    assert_eq!(guest.call(close, [a]), Ok(0));
    assert_eq!(send(&mut guest, b, b"x"), Err(Errno::EPIPE));
    let (a, b) = pair(&mut guest, DGRAM);
    assert_eq!(send(&mut guest, a, b"datagram"), Ok(8));
    assert_eq!(guest.call(recvfrom, [b, OUT, 4, 0x20, 0, 0]), Ok(8));
}

#[test]
fn paths_name_sockets() {
    let mut guest = Guest::new();
    let server = guest.call(socket, [UNIX, STREAM, 0]).expect("a socket");
    let client = guest.call(socket, [UNIX, STREAM | 0o4000, 0]).expect("a socket");
    let (at, len) = address(&guest, b"/socket\0");
    assert_eq!(guest.call(connect, [client, at, len]), Err(Errno::ENOENT));
    assert_eq!(guest.call(bind, [server, at, len]), Ok(0));
    let path = guest.path(0, "/socket");
    assert_eq!(guest.call(stat, [path, OUT]), Ok(0));
    let mode = u32::from_ne_bytes(guest.bytes(OUT + 24, 4).try_into().expect("four bytes"));
    assert_eq!(mode, 0o140_755);
    assert_eq!(guest.call(bind, [client, at, len]), Err(Errno::EADDRINUSE));
    assert_eq!(guest.call(connect, [client, at, len]), Err(Errno::ECONNREFUSED));
    assert_eq!(guest.call(listen, [server, 0]), Ok(0));
    assert_eq!(guest.call(connect, [client, at, len]), Ok(0));
    let late = guest.call(socket, [UNIX, STREAM | 0o4000, 0]).expect("a socket");
    assert_eq!(guest.call(connect, [late, at, len]), Err(Errno::EAGAIN));
    guest.put(OUT + 0x100, &16i32.to_ne_bytes());
    let accepted = guest.call(accept4, [server, OUT, OUT + 0x100, 0o2000000]).expect("a connection");
    assert_eq!(guest.bytes(OUT + 0x100, 4), 2i32.to_ne_bytes());
    assert_eq!(guest.call(fcntl, [accepted, 1]), Ok(1));
    guest.put(OUT + 0x100, &5i32.to_ne_bytes());
    assert_eq!(guest.call(getpeername, [client, OUT, OUT + 0x100]), Ok(0));
    assert_eq!(
        (guest.bytes(OUT, 6), guest.bytes(OUT + 0x100, 4)),
        (b"\x01\0/so\0".to_vec(), vec![10, 0, 0, 0])
    );
    assert_eq!(send(&mut guest, client, b"hi"), Ok(2));
    assert_eq!(receive(&mut guest, accepted, 9, 0), Ok(b"hi".to_vec()));
}

#[test]
fn descriptors_travel() {
    let mut guest = Guest::new();
    let (a, b) = pair(&mut guest, STREAM);
    let (sent, other) = pair(&mut guest, STREAM);
    guest.put(DATA, b"f");
    let mut control = words(&[20, 1 | 1 << 32]);
    control.extend_from_slice(&(sent as i32).to_ne_bytes());
    let at = message(&guest, 1, &control, 24);
    assert_eq!(guest.call(sendmsg, [a, at, 0]), Ok(1));
    assert_eq!(guest.call(close, [sent]), Ok(0));
    let at = message(&guest, 1, &[], 24);
    assert_eq!(guest.call(recvmsg, [b, at, 0x4000_0000]), Ok(1));
    assert_eq!(guest.bytes(at + 40, 8), 24u64.to_ne_bytes());
    let fd = i32::from_ne_bytes(guest.bytes(DATA + 0x310, 4).try_into().expect("four bytes"));
    assert_eq!(guest.call(fcntl, [fd as u64, 1]), Ok(1));
    assert_eq!(send(&mut guest, fd as u64, b"via"), Ok(3));
    assert_eq!(receive(&mut guest, other, 9, 0), Ok(b"via".to_vec()));
}

#[test]
fn control_data_is_checked_and_cut() {
    let mut guest = Guest::new();
    let (a, b) = pair(&mut guest, STREAM);
    let mut send_control = |len: u64, level: u64, kind: u64, data: &[i32]| {
        let mut control = words(&[len, level | kind << 32]);
        control.extend(data.iter().flat_map(|word| word.to_ne_bytes()));
        let at = message(&guest, 1, &control, control.len() as u64);
        guest.call(sendmsg, [a, at, 0])
    };
    assert_eq!(send_control(8, 1, 1, &[0]), Err(Errno::EINVAL));
    assert_eq!(send_control(20, 1, 1, &[99]), Err(Errno::EBADF));
    assert_eq!(send_control(20, 1, 77, &[0]), Err(Errno::EINVAL));
    assert_eq!(send_control(32, 1, 2, &[0, 0, 0, 0]), Err(Errno::EINVAL));
    assert_eq!(send_control(28, 1, 2, &[99, 0, 0]), Err(Errno::ESRCH));
    assert_eq!(send_control(20, 6, 1, &[99]), Ok(1));
    guest.put(OUT, &1i32.to_ne_bytes());
    assert_eq!(guest.call(setsockopt, [b, SOL_SOCKET, 16, OUT, 4]), Ok(0));
    let at = message(&guest, 1, &[], 20);
    assert_eq!(guest.call(recvmsg, [b, at, 0]), Ok(1));
    assert_eq!((guest.bytes(at + 40, 8), guest.bytes(at + 48, 4)), (words(&[20]), vec![8, 0, 0, 0]));
    assert_eq!(guest.bytes(DATA + 0x310, 4), 1i32.to_ne_bytes());
}

#[test]
fn options_are_cut_to_what_there_is_room_for() {
    let mut guest = Guest::new();
    let (a, _) = pair(&mut guest, STREAM);
    guest.put(OUT, &12i32.to_ne_bytes());
    assert_eq!(guest.call(getsockopt, [a, SOL_SOCKET, 17, OUT + 16, OUT]), Ok(0));
    assert_eq!(guest.bytes(OUT + 16, 12), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    guest.put(OUT, &2i32.to_ne_bytes());
    assert_eq!(guest.call(getsockopt, [a, SOL_SOCKET, 3, OUT + 16, OUT]), Ok(0));
    assert_eq!(guest.bytes(OUT, 4), 2i32.to_ne_bytes());
    assert_eq!(guest.call(getsockopt, [a, SOL_SOCKET, 999, OUT + 16, OUT]), Err(Errno::ENOPROTOOPT));
    assert_eq!(guest.call(getsockopt, [a, 6, 1, OUT + 16, OUT]), Err(Errno::EOPNOTSUPP));
    assert_eq!(guest.call(setsockopt, [a, SOL_SOCKET, 2, OUT, 3]), Err(Errno::EINVAL));
}

#[test]
fn a_timeout_ends_a_wait() {
    let mut guest = Guest::new();
    let (a, _) = pair(&mut guest, STREAM);
    guest.put(OUT, &words(&[0, 1000]));
    for option in [20, 21] {
        assert_eq!(guest.call(setsockopt, [a, SOL_SOCKET, option, OUT, 16]), Ok(0));
    }
    assert_eq!(guest.call(recvfrom, [a, DATA, 1, 0, 0, 0]), Err(Errno::EAGAIN));
    assert_eq!(guest.call(read, [a, DATA, 1]), Err(Errno::EAGAIN));
    let sent = guest.call(sendto, [a, DATA, 1 << 20, 0, 0, 0]).expect("some of it");
    assert!(sent > 200_000 && sent < 1 << 20);
    assert_eq!(guest.call(write, [a, DATA, 1]), Err(Errno::EAGAIN));
}

#[test]
fn a_receive_waits_for_data() {
    let mut guest = Guest::new();
    let (a, b) = pair(&mut guest, STREAM);
    // A thread: shares memory, files and signal actions.
    guest.call(abi::syscall::clone, [0x1_0f00, DATA + 0x40_0000, 0, 0, 0]).expect("a thread");
    let mut other = guest.thread.children.pop().expect("it");
    let waiting = std::thread::spawn(move || {
        // MSG_WAITALL
        let resume = other.call(u64::from(recvfrom), [b, OUT, 6, 0x100, 0, 0]);
        assert!(matches!(resume, platform::Resume::Return(6)), "{resume:?}");
    });
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(send(&mut guest, a, b"abc"), Ok(3));
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(send(&mut guest, a, b"def"), Ok(3));
    waiting.join().expect("received");
    assert_eq!(guest.bytes(OUT, 6), b"abcdef");
}
