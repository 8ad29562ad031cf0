//! Two sockets on a loopback, without a guest.

use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::MsgFlags;
use cred::Credentials;
use guestmem::{SliceSource, VecSink};

use super::TcpSocket;
use crate::inet::Network;
use crate::{Ancillary, Asker, NoPaths, Outgoing, Received, Shutdown, Socket, Stall};

fn with_asker<T>(with: impl FnOnce(&Asker<'_>) -> T) -> T {
    let cred = Credentials::root();
    with(&Asker { cred: &cred, pid: 1, paths: &NoPaths })
}

fn address(port: u16) -> Vec<u8> {
    let mut bytes = vec![2, 0];
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

fn send(socket: &dyn Socket, data: &[u8], flags: MsgFlags) -> Result<usize, Errno> {
    let ancillary = Ancillary::default();
    let message = Outgoing { flags, to: None, ancillary: &ancillary };
    with_asker(|asker| socket.send(asker, &mut SliceSource(data), &message).map_err(Errno::from))
}

fn receive(socket: &dyn Socket, limit: usize) -> Result<Vec<u8>, Errno> {
    let mut sink = VecSink::new(limit);
    let Received { bytes, .. } = socket.receive(&mut sink, MsgFlags::empty())?;
    assert_eq!(bytes, sink.bytes.len());
    Ok(sink.bytes)
}

fn connect(socket: &dyn Socket, port: u16) -> Result<(), Errno> {
    with_asker(|asker| match socket.connect(asker, &address(port)) {
        Err(Stall::Underway { otherwise, .. }) => {
            assert_eq!(otherwise, Errno::EINPROGRESS);
            socket.connect(asker, &address(port)).map_err(Errno::from)
        }
        other => other.map_err(Errno::from),
    })
}

fn listener(network: &Arc<Network>, backlog: i32) -> (Arc<TcpSocket>, u16) {
    let socket = TcpSocket::new(false, network);
    with_asker(|asker| {
        socket.bind(asker, &address(0)).expect("a free port");
        socket.listen(asker, backlog).expect("bound");
    });
    let name = socket.name();
    (socket, u16::from_be_bytes([name[2], name[3]]))
}

fn pair(network: &Arc<Network>) -> (Arc<TcpSocket>, Arc<dyn Socket>) {
    let (server, port) = listener(network, 5);
    let client = TcpSocket::new(false, network);
    connect(client.as_ref(), port).expect("somebody listens");
    let accepted = server.accept().expect("a connection");
    assert_eq!((accepted.name(), accepted.peer_name()), (address(port), Ok(client.name())));
    (client, accepted)
}

#[test]
fn bytes_go_both_ways_until_both_have_closed() {
    let network = Network::loopback();
    let (client, server) = pair(&network);
    assert_eq!(receive(client.as_ref(), 9), Err(Errno::EAGAIN));
    assert_eq!(send(client.as_ref(), b"hello", MsgFlags::empty()), Ok(5));
    assert_eq!(receive(server.as_ref(), 3), Ok(b"hel".to_vec()));
    assert_eq!(client.shutdown(Shutdown::Write), Ok(()));
    assert_eq!(receive(server.as_ref(), 9), Ok(b"lo".to_vec()));
    assert_eq!(receive(server.as_ref(), 9), Ok(Vec::new()));
    assert_eq!(send(client.as_ref(), b"x", MsgFlags::empty()), Err(Errno::EPIPE));
    assert_eq!(send(server.as_ref(), b"back", MsgFlags::empty()), Ok(4));
    drop(server);
    assert_eq!(receive(client.as_ref(), 9), Ok(b"back".to_vec()));
    assert_eq!(receive(client.as_ref(), 9), Ok(Vec::new()));
    assert_eq!(client.peer_name(), Err(Errno::ENOTCONN));
    // The client closed first.
    assert_eq!(network.streams(|s| s.connections.remembered(std::time::Instant::now()).len()), 1);
}

#[test]
fn unread_data_and_nobody_to_read_reset() {
    let network = Network::loopback();
    let (client, server) = pair(&network);
    assert_eq!(send(client.as_ref(), b"unread", MsgFlags::empty()), Ok(6));
    assert_eq!(send(server.as_ref(), b"data", MsgFlags::empty()), Ok(4));
    drop(server);
    assert!(client.poll().contains(PollEvents::ERR | PollEvents::HUP));
    assert_eq!(receive(client.as_ref(), 9), Ok(b"data".to_vec()));
    assert_eq!(receive(client.as_ref(), 9), Err(Errno::ECONNRESET));
    assert_eq!(receive(client.as_ref(), 9), Ok(Vec::new()));
    assert_eq!(send(client.as_ref(), b"x", MsgFlags::empty()), Err(Errno::EPIPE));
    let (client, server) = pair(&network);
    drop(server);
    assert_eq!(send(client.as_ref(), b"x", MsgFlags::empty()), Ok(1));
    assert_eq!(send(client.as_ref(), b"x", MsgFlags::empty()), Err(Errno::EPIPE));
    assert_eq!(receive(client.as_ref(), 9), Ok(Vec::new()));
    let (client, server) = pair(&network);
    server.set_linger(Some(0));
    drop(server);
    assert_eq!(send(client.as_ref(), b"x", MsgFlags::empty()), Err(Errno::ECONNRESET));
}

#[test]
fn a_full_backlog_makes_the_late_wait() {
    let network = Network::loopback();
    let (server, port) = listener(&network, 0);
    let (first, second) = (TcpSocket::new(false, &network), TcpSocket::new(false, &network));
    connect(first.as_ref(), port).expect("a place");
    assert_eq!(connect(second.as_ref(), port), Err(Errno::EALREADY));
    assert_eq!(second.poll(), PollEvents::empty());
    drop(server.accept().expect("the first"));
    assert!(second.poll().contains(PollEvents::OUT));
    assert_eq!(connect(second.as_ref(), port), Ok(()));
    let third = TcpSocket::new(false, &network);
    assert_eq!(connect(third.as_ref(), port), Err(Errno::EALREADY));
    drop(server);
    assert_eq!(third.take_error(), Some(Errno::ECONNREFUSED));
    assert_eq!(receive(second.as_ref(), 1), Err(Errno::ECONNRESET));
}

#[test]
fn nobody_listens() {
    let network = Network::loopback();
    let (server, port) = listener(&network, 0);
    drop(server);
    let client = TcpSocket::new(false, &network);
    assert_eq!(connect(client.as_ref(), port), Err(Errno::ECONNREFUSED));
    assert_eq!(client.name(), [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let far = [&address(80)[..4], &[192, 0, 2, 1], &[0; 8]].concat();
    let outcome = with_asker(|asker| client.connect(asker, &far).map_err(Errno::from));
    assert_eq!(outcome, Err(Errno::ENETUNREACH));
}

#[test]
fn buffers_are_bounded_and_urgent_data_is_apart() {
    let network = Network::loopback();
    let (client, server) = pair(&network);
    let big = vec![7; 1 << 20];
    let sent = send(client.as_ref(), &big, MsgFlags::empty()).expect("some fits");
    assert!(sent < 600_000, "{sent}");
    assert_eq!(send(client.as_ref(), &big, MsgFlags::empty()), Err(Errno::EAGAIN));
    assert!(!client.poll().contains(PollEvents::OUT));
    let mut got = 0;
    while let Ok(data) = receive(server.as_ref(), 10_000) {
        got += data.len();
    }
    assert_eq!(got, sent);
    assert!(client.poll().contains(PollEvents::OUT));
    assert_eq!(send(client.as_ref(), b"ab!", MsgFlags::OOB), Ok(3));
    assert!(server.poll().contains(PollEvents::PRI));
    let mut sink = VecSink::new(4);
    server.receive(&mut sink, MsgFlags::OOB).expect("urgent");
    assert_eq!((sink.bytes.as_slice(), receive(server.as_ref(), 9)), (&b"!"[..], Ok(b"ab".to_vec())));
}

/// Claims to have bytes, and faults when asked for them.
struct Faulty(std::sync::Arc<std::sync::atomic::AtomicUsize>, Arc<dyn Socket>);

impl guestmem::IoSource for Faulty {
    fn remaining(&self) -> usize {
        4096
    }

    fn take(&mut self, _: &mut [u8]) -> Result<usize, Errno> {
        // All the room is kept for this write: another has to wait.
        let outcome = send(self.1.as_ref(), b"other", MsgFlags::empty());
        self.0.store(usize::from(outcome == Err(Errno::EAGAIN)), std::sync::atomic::Ordering::SeqCst);
        Err(Errno::EFAULT)
    }
}

#[test]
fn room_that_a_fault_leaves_is_told_to_others() {
    let network = Network::loopback();
    let (client, server) = pair(&network);
    client.set_send_buffer(0);
    server.set_receive_buffer(0);
    let parker = sync::wait::Parker::new();
    let _waiter = client.wait_queue().register(parker.clone(), PollEvents::OUT);
    parker.clear_notification();
    let waited = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut source = Faulty(Arc::clone(&waited), Arc::clone(&client) as Arc<dyn Socket>);
    let ancillary = Ancillary::default();
    let message = Outgoing { flags: MsgFlags::empty(), to: None, ancillary: &ancillary };
    let outcome = with_asker(|asker| client.send(asker, &mut source, &message).map_err(Errno::from));
    assert_eq!((outcome, waited.load(std::sync::atomic::Ordering::SeqCst)), (Err(Errno::EFAULT), 1));
    assert_eq!(parker.park(Some(std::time::Instant::now())), sync::wait::Wake::Notified);
    assert_eq!(send(client.as_ref(), b"other", MsgFlags::empty()), Ok(5));
}
