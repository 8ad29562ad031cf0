//! Behaviour of Unix sockets, each as a native run shows it.

use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::{MsgFlags, SocketKind, Ucred};
use guestmem::{SliceSource, VecSink};
use vfs::{File, Result};

use super::{Name, Names, UnixSocket};
use crate::{Ancillary, Received, Shutdown, Socket};

const ME: Ucred = Ucred { pid: 7, uid: 1000, gid: 1000 };

fn send(socket: &dyn Socket, bytes: &[u8]) -> Result<usize> {
    socket.send(&mut SliceSource(bytes), MsgFlags::empty(), Ancillary::default())
}

fn receive(socket: &dyn Socket, limit: usize) -> Result<(Vec<u8>, Received)> {
    let mut sink = VecSink::new(limit);
    let received = socket.receive(&mut sink, MsgFlags::empty())?;
    Ok((sink.bytes, received))
}

fn pair(kind: SocketKind) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
    UnixSocket::pair(kind, &Names::new(), ME).expect("a pair")
}

fn name(text: &str) -> Name {
    Name::Abstract(text.as_bytes().to_vec())
}

#[test]
fn stream_bytes_run_together_and_packets_do_not() {
    let (a, b) = pair(SocketKind::Stream);
    assert_eq!(send(&*a, b"one"), Ok(3));
    assert_eq!(send(&*a, b"two"), Ok(3));
    assert_eq!(receive(&*b, 100).expect("data").0, b"onetwo");
    let (a, b) = pair(SocketKind::SeqPacket);
    send(&*a, b"one").expect("sent");
    send(&*a, b"two").expect("sent");
    assert_eq!(receive(&*b, 100).expect("data").0, b"one");
    let (bytes, received) = receive(&*b, 2).expect("data");
    assert_eq!((bytes.as_slice(), received.full_len), (&b"tw"[..], 3));
    assert!(received.flags.contains(MsgFlags::TRUNC));
}

#[test]
fn an_empty_queue_is_eagain_and_a_closed_peer_the_end() {
    let (a, b) = pair(SocketKind::Stream);
    assert_eq!(receive(&*b, 1).err(), Some(Errno::EAGAIN));
    send(&*a, b"x").expect("sent");
    drop(a);
    assert!(b.poll().contains(PollEvents::IN | PollEvents::HUP | PollEvents::RDHUP));
    assert_eq!(receive(&*b, 10).expect("data").0, b"x");
    assert_eq!(receive(&*b, 10).expect("the end").1.bytes, 0);
    assert_eq!(send(&*b, b"y"), Err(Errno::EPIPE));
}

#[test]
fn a_peer_that_dies_with_unread_data_resets_once() {
    let (a, b) = pair(SocketKind::Stream);
    send(&*a, b"unread").expect("sent");
    drop(b);
    assert_eq!(send(&*a, b"more"), Err(Errno::ECONNRESET));
    assert_eq!(send(&*a, b"more"), Err(Errno::EPIPE));
}

#[test]
fn shutdown_is_half_a_close() {
    let (a, b) = pair(SocketKind::Stream);
    a.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(receive(&*b, 10).expect("the end").1.bytes, 0);
    assert_eq!(send(&*b, b"still"), Ok(5));
    assert_eq!(receive(&*a, 10).expect("data").0, b"still");
    assert_eq!(
        UnixSocket::new(SocketKind::Stream, &Names::new()).expect("socket").shutdown(Shutdown::Both),
        Err(Errno::ENOTCONN)
    );
}

#[test]
fn descriptors_stay_with_their_byte() {
    let (a, b) = pair(SocketKind::Stream);
    send(&*a, b"plain").expect("sent");
    let files = Ancillary { files: vec![Arc::new(42u32)], credentials: None };
    a.send(&mut SliceSource(b"with"), MsgFlags::empty(), files).expect("sent");
    let (bytes, first) = receive(&*b, 100).expect("data");
    assert_eq!((bytes.as_slice(), first.ancillary.files.len()), (&b"plain"[..], 0));
    let (bytes, second) = receive(&*b, 100).expect("data");
    assert_eq!((bytes.as_slice(), second.ancillary.files.len()), (&b"with"[..], 1));
}

#[test]
fn listen_connect_accept() {
    let names = Names::new();
    let server = UnixSocket::new(SocketKind::Stream, &names).expect("socket");
    assert_eq!(server.listen(1, ME), Err(Errno::EINVAL));
    server.bind(name("srv"), b"\0srv".to_vec()).expect("free");
    server.listen(0, ME).expect("bound");
    let client = UnixSocket::new(SocketKind::Stream, &names).expect("socket");
    assert_eq!(client.connect(&name("none"), ME), Err(Errno::ECONNREFUSED));
    client.connect(&name("srv"), Ucred { pid: 9, ..ME }).expect("listening");
    assert_eq!(client.connect(&name("srv"), ME), Err(Errno::EISCONN));
    let late = UnixSocket::new(SocketKind::Stream, &names).expect("socket");
    assert_eq!(late.connect(&name("srv"), ME), Err(Errno::EAGAIN));
    assert!(server.poll().contains(PollEvents::IN));
    let accepted = server.accept().expect("pending");
    assert_eq!(send(&*client, b"hello"), Ok(5));
    assert_eq!(receive(&*accepted, 9).expect("data").0, b"hello");
    assert_eq!(client.peer_name(), Ok(Some(b"\0srv".to_vec())));
    assert_eq!(server.accept().err(), Some(Errno::EAGAIN));
}

#[test]
fn names_are_given_back() {
    let names = Names::new();
    let one = UnixSocket::new(SocketKind::Datagram, &names).expect("socket");
    one.bind(name("n"), b"\0n".to_vec()).expect("free");
    let two = UnixSocket::new(SocketKind::Datagram, &names).expect("socket");
    assert_eq!(two.bind(name("n"), b"\0n".to_vec()), Err(Errno::EADDRINUSE));
    drop(one);
    two.bind(name("n"), b"\0n".to_vec()).expect("given back");
    assert_eq!(two.bind(name("m"), b"\0m".to_vec()), Err(Errno::EINVAL));
}

#[test]
fn datagrams_carry_their_sender() {
    let names = Names::new();
    let (a, b) = (
        UnixSocket::new(SocketKind::Datagram, &names).expect("socket"),
        UnixSocket::new(SocketKind::Datagram, &names).expect("socket"),
    );
    a.bind(name("a"), b"\0a".to_vec()).expect("free");
    b.bind(name("b"), b"\0b".to_vec()).expect("free");
    a.send_to(&name("b"), &mut SliceSource(b"hi"), Ancillary::default(), Some(ME)).expect("sent");
    let (bytes, received) = receive(&*b, 10).expect("data");
    assert_eq!((bytes.as_slice(), received.from.as_deref()), (&b"hi"[..], Some(&b"\0a"[..])));
    assert_eq!(received.ancillary.credentials, Some(ME));
    drop(b);
    assert_eq!(
        a.send_to(&name("b"), &mut SliceSource(b"hi"), Ancillary::default(), None),
        Err(Errno::ECONNREFUSED)
    );
}

#[test]
fn a_full_stream_takes_what_fits_then_says_eagain() {
    let (a, b) = pair(SocketKind::Stream);
    let block = vec![1u8; 65_536];
    let mut sent = 0;
    loop {
        match send(&*a, &block) {
            Ok(n) => sent += n,
            Err(errno) => {
                assert_eq!(errno, Errno::EAGAIN);
                break;
            }
        }
    }
    assert_eq!(sent, super::channel::DEFAULT_CAPACITY);
    assert!(!a.poll().contains(PollEvents::OUT));
    let mut got = 0;
    while let Ok((bytes, _)) = receive(&*b, 50_000) {
        got += bytes.len();
    }
    assert_eq!(got, sent);
    assert!(a.poll().contains(PollEvents::OUT));
}
