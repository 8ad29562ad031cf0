//! Behaviour of Unix sockets, each as a native run shows it.

use std::sync::{Arc, Mutex};

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::{MsgFlags, SocketKind, Ucred};
use cred::Credentials;
use guestmem::{IoSink, SliceSource, VecSink};
use vfs::Result;

use super::{Names, UnixSocket};
use crate::{Ancillary, Asker, FileRef, Node, Outgoing, Paths, Received, Shutdown, Socket, Stall, Try};

/// Sockets by path; a path is its place in the list.
#[derive(Default)]
struct Tree(Mutex<Vec<Vec<u8>>>);

impl Paths for Tree {
    fn find(&self, path: &[u8]) -> Result<Node> {
        let at = self.0.lock().expect("not poisoned").iter().position(|known| known == path);
        at.map(|at| Node { dev: 1, ino: at as u64 }).ok_or(Errno::ENOENT)
    }

    fn make(&self, path: &[u8]) -> Result<Node> {
        if self.find(path).is_ok() {
            return Err(Errno::EADDRINUSE);
        }
        self.0.lock().expect("not poisoned").push(path.to_vec());
        self.find(path)
    }
}

/// A namespace, a tree, and somebody in them.
struct World {
    names: Arc<Names>,
    tree: Tree,
    cred: Credentials,
}

const ME: Ucred = Ucred { pid: 7, uid: 1000, gid: 1000 };

impl World {
    fn new() -> Self {
        Self { names: Names::new(), tree: Tree::default(), cred: Credentials::user(1000, 1000) }
    }

    fn asker(&self) -> Asker<'_> {
        Asker { cred: &self.cred, pid: 7, paths: &self.tree }
    }

    fn socket(&self, kind: SocketKind) -> Arc<UnixSocket> {
        UnixSocket::new(kind, &self.names)
    }

    fn pair(&self, kind: SocketKind) -> [Arc<UnixSocket>; 2] {
        UnixSocket::pair(kind, &self.names, &self.asker())
    }

    fn bind(&self, socket: &UnixSocket, name: &str) -> Result<()> {
        socket.bind(&self.asker(), &address(name))
    }

    fn connect(&self, socket: &UnixSocket, name: &str) -> core::result::Result<(), Errno> {
        Ok(socket.connect(&self.asker(), &address(name))?)
    }

    fn send_with(
        &self,
        socket: &UnixSocket,
        bytes: &[u8],
        to: Option<&str>,
        files: Vec<FileRef>,
    ) -> Try<usize> {
        let to = to.map(address);
        let ancillary = Ancillary { files, ..Ancillary::default() };
        let message = Outgoing { flags: MsgFlags::empty(), to: to.as_deref(), ancillary: &ancillary };
        socket.send(&self.asker(), &mut SliceSource(bytes), &message)
    }

    fn send(&self, socket: &UnixSocket, bytes: &[u8]) -> Result<usize> {
        Ok(self.send_with(socket, bytes, None, Vec::new())?)
    }

    fn send_to(&self, socket: &UnixSocket, bytes: &[u8], to: &str) -> Result<usize> {
        Ok(self.send_with(socket, bytes, Some(to), Vec::new())?)
    }
}

/// `@name` is abstract.
fn address(name: &str) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend(name.bytes().map(|byte| if byte == b'@' { 0 } else { byte }));
    bytes
}

fn receive_with(socket: &UnixSocket, limit: usize, flags: MsgFlags) -> Result<(Vec<u8>, Received)> {
    let mut sink = VecSink::new(limit);
    let received = socket.receive(&mut sink, flags)?;
    Ok((sink.bytes, received))
}

fn receive(socket: &UnixSocket, limit: usize) -> Result<Vec<u8>> {
    receive_with(socket, limit, MsgFlags::empty()).map(|(bytes, _)| bytes)
}

const HANG_UP: PollEvents =
    PollEvents::IN.union(PollEvents::OUT).union(PollEvents::HUP).union(PollEvents::RDHUP);

#[test]
fn stream_bytes_run_together_and_packets_do_not() {
    let world = World::new();
    let [a, b] = world.pair(SocketKind::Stream);
    assert_eq!((world.send(&a, b"one"), world.send(&a, b"two")), (Ok(3), Ok(3)));
    assert_eq!(receive_with(&b, 4, MsgFlags::PEEK).map(|(bytes, _)| bytes), Ok(b"onet".to_vec()));
    assert_eq!(receive(&b, 4), Ok(b"onet".to_vec()));
    assert_eq!(receive(&b, 100), Ok(b"wo".to_vec()));
    let [a, b] = world.pair(SocketKind::SeqPacket);
    assert_eq!((world.send(&a, b"one"), world.send(&a, b"two")), (Ok(3), Ok(3)));
    assert_eq!(receive(&b, 100), Ok(b"one".to_vec()));
    let (bytes, received) = receive_with(&b, 2, MsgFlags::empty()).expect("data");
    assert_eq!((bytes.as_slice(), received.full_len), (&b"tw"[..], 3));
    assert!(received.flags.contains(MsgFlags::TRUNC));
    assert_eq!(receive(&b, 1), Err(Errno::EAGAIN));
}

#[test]
fn a_closed_peer_is_the_end() {
    let world = World::new();
    let [a, b] = world.pair(SocketKind::Stream);
    assert_eq!(receive(&b, 1), Err(Errno::EAGAIN));
    assert_eq!(world.send(&a, b"x"), Ok(1));
    drop(a);
    assert!(b.poll().contains(HANG_UP) && !b.poll().contains(PollEvents::ERR));
    assert_eq!(receive(&b, 10), Ok(b"x".to_vec()));
    assert!(receive_with(&b, 10, MsgFlags::empty()).expect("the end").1.end);
    assert_eq!(world.send(&b, b"y"), Err(Errno::EPIPE));
}

#[test]
fn a_peer_that_dies_with_unread_data_resets_once() {
    let world = World::new();
    let [a, b] = world.pair(SocketKind::Stream);
    assert_eq!((world.send(&a, b"unread"), world.send(&b, b"read")), (Ok(6), Ok(4)));
    drop(b);
    assert!(a.poll().contains(HANG_UP | PollEvents::ERR));
    assert_eq!(world.send(&a, b"more"), Err(Errno::EPIPE));
    // A stream reads on first, a packet socket fails first.
    assert_eq!(receive(&a, 9), Ok(b"read".to_vec()));
    assert_eq!((receive(&a, 9), receive(&a, 9)), (Err(Errno::ECONNRESET), Ok(Vec::new())));
    let [a, b] = world.pair(SocketKind::SeqPacket);
    assert_eq!((world.send(&a, b"unread"), world.send(&b, b"read")), (Ok(6), Ok(4)));
    drop(b);
    assert_eq!((receive(&a, 9), receive(&a, 9)), (Err(Errno::ECONNRESET), Ok(b"read".to_vec())));
}

#[test]
fn shutdown_is_half_a_close() {
    let world = World::new();
    let [a, b] = world.pair(SocketKind::Stream);
    a.shutdown(Shutdown::Write).expect("always");
    assert_eq!(a.poll() & HANG_UP, PollEvents::OUT);
    assert_eq!(b.poll() & HANG_UP, PollEvents::IN | PollEvents::OUT | PollEvents::RDHUP);
    assert_eq!((receive(&b, 10), world.send(&b, b"still")), (Ok(Vec::new()), Ok(5)));
    assert_eq!(receive(&a, 10), Ok(b"still".to_vec()));
    a.shutdown(Shutdown::Read).expect("always");
    assert_eq!((a.poll() & HANG_UP, b.poll() & HANG_UP), (HANG_UP, HANG_UP));
    assert_eq!(world.send(&b, b"x"), Err(Errno::EPIPE));
    assert_eq!(world.socket(SocketKind::Stream).shutdown(Shutdown::Both), Ok(()));
}

#[test]
fn descriptors_end_what_runs_together() {
    let world = World::new();
    let [a, b] = world.pair(SocketKind::Stream);
    assert_eq!(world.send(&a, b"plain"), Ok(5));
    world.send_with(&a, b"with", None, vec![Arc::new(42u32)]).expect("sent");
    assert_eq!(world.send(&a, b"after"), Ok(5));
    let (bytes, peeked) = receive_with(&b, 100, MsgFlags::PEEK).expect("data");
    assert_eq!((bytes.as_slice(), peeked.ancillary.files.len()), (&b"plainwith"[..], 1));
    let (bytes, first) = receive_with(&b, 100, MsgFlags::empty()).expect("data");
    assert_eq!((bytes.as_slice(), first.ancillary.files.len()), (&b"plainwith"[..], 1));
    assert_eq!(receive(&b, 100), Ok(b"after".to_vec()));
    assert_eq!(world.names.in_flight.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn a_long_chain_of_sockets_in_flight_closes_flat() {
    let world = World::new();
    let mut inner: FileRef = Arc::new(0u32);
    for _ in 0..30_000 {
        let [a, b] = world.pair(SocketKind::Datagram);
        world.send_with(&a, b"x", None, vec![inner]).expect("sent");
        inner = b;
    }
    drop(inner);
    assert_eq!(world.names.in_flight.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn listen_connect_accept() {
    let world = World::new();
    let server = world.socket(SocketKind::Stream);
    assert_eq!(server.listen(&world.asker(), 1), Err(Errno::EINVAL));
    world.bind(&server, "/srv").expect("free");
    let client = world.socket(SocketKind::Stream);
    assert_eq!(world.connect(&client, "/srv"), Err(Errno::ECONNREFUSED));
    server.listen(&world.asker(), 0).expect("bound");
    assert_eq!(server.poll(), PollEvents::empty());
    assert_eq!(world.connect(&client, "/none"), Err(Errno::ENOENT));
    assert_eq!(world.connect(&client, "@none"), Err(Errno::ECONNREFUSED));
    world.connect(&client, "/srv").expect("listening");
    assert!(server.poll().contains(PollEvents::IN));
    let late = world.socket(SocketKind::Stream);
    let full = late.connect(&world.asker(), &address("/srv"));
    assert!(matches!(full, Err(Stall::Wait(_))));
    let accepted = server.next_pending().expect("pending");
    assert_eq!(world.send(&client, b"hello"), Ok(5));
    assert_eq!(receive(&accepted, 9), Ok(b"hello".to_vec()));
    assert_eq!(client.peer_name(), Ok(address("/srv@")));
    assert_eq!((accepted.name(), accepted.peer_name()), (address("/srv@"), Ok(vec![1, 0])));
    assert_eq!(accepted.peer_identity().map(|(cred, _)| cred), Some(ME));
    assert_eq!(server.next_pending().err(), Some(Errno::EAGAIN));
    assert_eq!(world.connect(&client, "/srv"), Err(Errno::EISCONN));
    world.connect(&late, "/srv").expect("there is room");
    drop(server);
    assert_eq!(receive(&late, 1), Err(Errno::ECONNRESET));
    assert_eq!(world.connect(&world.socket(SocketKind::Stream), "/srv"), Err(Errno::ECONNREFUSED));
}

#[test]
fn names_are_given_back_and_each_type_has_its_own() {
    let world = World::new();
    let (one, two) = (world.socket(SocketKind::Datagram), world.socket(SocketKind::Datagram));
    world.bind(&one, "@n").expect("free");
    world.bind(&world.socket(SocketKind::Stream), "@n").expect("another type");
    assert_eq!(world.bind(&two, "@n"), Err(Errno::EADDRINUSE));
    drop(one);
    world.bind(&two, "@n").expect("given back");
    assert_eq!(world.bind(&two, "@m"), Err(Errno::EINVAL));
    assert_eq!(world.bind(&two, "/m"), Err(Errno::EINVAL));
    let three = world.socket(SocketKind::Datagram);
    world.bind(&three, "/m").expect("free");
    assert_eq!(world.bind(&two, "/m"), Err(Errno::EADDRINUSE));
    assert_eq!(world.connect(&world.socket(SocketKind::Stream), "/m"), Err(Errno::EPROTOTYPE));
    let auto = world.socket(SocketKind::Stream);
    auto.bind(&world.asker(), &[1, 0]).expect("a free name");
    assert_eq!(auto.name().len(), 8);
}

#[test]
fn datagrams_carry_their_sender() {
    let world = World::new();
    let (a, b) = (world.socket(SocketKind::Datagram), world.socket(SocketKind::Datagram));
    world.bind(&a, "@a").expect("free");
    world.bind(&b, "@b").expect("free");
    b.set_passes_credentials(true).expect("Unix");
    assert_eq!(world.send(&a, b"x"), Err(Errno::ENOTCONN));
    assert_eq!(world.send_to(&a, b"hi", "@b"), Ok(2));
    let (bytes, received) = receive_with(&b, 10, MsgFlags::empty()).expect("data");
    assert_eq!((bytes.as_slice(), received.from), (&b"hi"[..], Some(address("@a"))));
    assert_eq!(received.ancillary.credentials, Some(ME));
    world.connect(&b, "@b").expect("itself");
    assert_eq!(world.send_to(&a, b"hi", "@b"), Err(Errno::EPERM));
    drop(b);
    assert_eq!(world.send_to(&a, b"hi", "@b"), Err(Errno::ECONNREFUSED));
}

#[test]
fn a_destination_that_died_is_forgotten() {
    let world = World::new();
    let [a, b] = world.pair(SocketKind::Datagram);
    assert_eq!(world.send(&a, b"unread"), Ok(6));
    drop(b);
    assert_eq!(receive(&a, 1), Err(Errno::EAGAIN));
    assert_eq!(
        (world.send(&a, b"x"), world.send(&a, b"x")),
        (Err(Errno::ECONNREFUSED), Err(Errno::ENOTCONN))
    );
}

#[test]
fn datagrams_of_strangers_are_few() {
    let world = World::new();
    let (to, from) = (world.socket(SocketKind::Datagram), world.socket(SocketKind::Datagram));
    world.bind(&to, "@to").expect("free");
    world.connect(&from, "@to").expect("there");
    for _ in 0..11 {
        assert_eq!(world.send(&from, b"x"), Ok(1));
    }
    assert!(matches!(world.send_with(&from, b"x", None, Vec::new()), Err(Stall::Wait(_))));
    assert!(!from.poll().contains(PollEvents::OUT));
    assert_eq!(receive(&to, 1), Ok(b"x".to_vec()));
    assert!(from.poll().contains(PollEvents::OUT));
    let [a, b] = world.pair(SocketKind::Datagram);
    let sent = (0..).take_while(|_| world.send(&a, b"x").is_ok()).count();
    assert_eq!(sent, 278);
    assert!(!a.poll().contains(PollEvents::OUT) && receive(&b, 1).is_ok());
    let largest = vec![0; 212_960];
    assert_eq!(world.send(&b, &largest), Ok(212_960));
    assert_eq!(world.send(&b, &[0; 212_961]), Err(Errno::EMSGSIZE));
}

#[test]
fn a_full_stream_takes_what_fits_then_waits() {
    let world = World::new();
    let [a, b] = world.pair(SocketKind::Stream);
    let sent = world.send(&a, &vec![1; 1 << 20]).expect("some of it");
    assert!((200_000..260_000).contains(&sent), "{sent}");
    assert_eq!(world.send(&a, b"x"), Err(Errno::EAGAIN));
    assert!(!a.poll().contains(PollEvents::OUT));
    let mut got = 0;
    while let Ok(bytes) = receive(&b, 50_000) {
        got += bytes.len();
    }
    assert_eq!(got, sent);
    assert!(a.poll().contains(PollEvents::OUT));
}

/// Takes a few bytes and then faults.
struct Short(usize);

impl IoSink for Short {
    fn remaining(&self) -> usize {
        100
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize> {
        let n = bytes.len().min(self.0);
        self.0 -= n;
        if n == 0 { Err(Errno::EFAULT) } else { Ok(n) }
    }
}

#[test]
fn a_fault_loses_no_byte_of_a_stream() {
    let world = World::new();
    let [a, b] = world.pair(SocketKind::Stream);
    assert_eq!((world.send(&a, b"abc"), world.send(&a, b"def")), (Ok(3), Ok(3)));
    assert_eq!(b.receive(&mut Short(0), MsgFlags::empty()).err(), Some(Errno::EFAULT));
    assert_eq!(b.receive(&mut Short(4), MsgFlags::empty()).expect("some").bytes, 4);
    assert_eq!(receive(&b, 9), Ok(b"ef".to_vec()));
}
