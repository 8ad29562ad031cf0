//! Datagrams on a loopback, without a guest.

use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::MsgFlags;
use cred::Credentials;
use guestmem::{SliceSource, VecSink};

use super::UdpSocket;
use crate::inet::Network;
use crate::{Ancillary, Asker, NoPaths, Outgoing, Received, Socket};

fn with_asker<T>(with: impl FnOnce(&Asker<'_>) -> T) -> T {
    let cred = Credentials::root();
    with(&Asker { cred: &cred, pid: 1, paths: &NoPaths })
}

fn bound(network: &Arc<Network>) -> (Arc<UdpSocket>, Vec<u8>) {
    let socket = UdpSocket::new(false, network);
    let any = [2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    with_asker(|asker| socket.bind(asker, &any)).expect("a free port");
    let name = socket.name();
    (socket, name)
}

fn send(socket: &UdpSocket, data: &[u8], to: Option<&[u8]>) -> Result<usize, Errno> {
    let ancillary = Ancillary::default();
    let message = Outgoing { flags: MsgFlags::empty(), to, ancillary: &ancillary };
    with_asker(|asker| socket.send(asker, &mut SliceSource(data), &message).map_err(Errno::from))
}

fn receive(socket: &UdpSocket) -> Result<(Vec<u8>, Received), Errno> {
    let mut sink = VecSink::new(100);
    let received = socket.receive(&mut sink, MsgFlags::empty())?;
    Ok((sink.bytes, received))
}

#[test]
fn datagrams_stay_whole_and_name_their_sender() {
    let network = Network::loopback();
    let ((a, _), (b, to)) = (bound(&network), bound(&network));
    assert_eq!(send(&a, b"one", Some(&to)), Ok(3));
    assert_eq!(send(&a, b"", Some(&to)), Ok(0));
    let (data, received) = receive(&b).expect("one");
    assert_eq!((data.as_slice(), received.from), (&b"one"[..], Some(a.name())));
    assert_eq!(receive(&b).expect("an empty one").0, b"");
    assert_eq!(receive(&b).map(|(data, _)| data), Err(Errno::EAGAIN));
    assert_eq!(send(&a, b"x", None), Err(Errno::EDESTADDRREQ));
    assert_eq!(send(&a, &[0; 65_508], Some(&to)), Err(Errno::EMSGSIZE));
}

#[test]
fn a_connected_socket_hears_its_peer_and_that_it_has_gone() {
    let network = Network::loopback();
    let ((a, from), (b, to), (c, _)) = (bound(&network), bound(&network), bound(&network));
    with_asker(|asker| a.connect(asker, &to)).expect("a way");
    assert_eq!(send(&c, b"stranger", Some(&from)), Ok(8));
    assert_eq!(send(&b, b"peer", Some(&from)), Ok(4));
    assert_eq!(receive(&a).map(|(data, _)| data), Ok(b"peer".to_vec()));
    drop(b);
    assert_eq!(send(&a, b"x", None), Ok(1));
    assert!(a.poll().contains(PollEvents::ERR));
    assert_eq!(receive(&a).map(|(data, _)| data), Err(Errno::ECONNREFUSED));
    assert_eq!(receive(&a).map(|(data, _)| data), Err(Errno::EAGAIN));
    assert_eq!(send(&c, b"x", Some(&to)), Ok(1));
    assert_eq!(c.take_error(), None);
}

#[test]
fn a_queue_is_bounded() {
    let network = Network::loopback();
    let ((a, _), (b, to)) = (bound(&network), bound(&network));
    for _ in 0..1000 {
        assert_eq!(send(&a, b"x", Some(&to)), Ok(1));
    }
    let count = std::iter::from_fn(|| receive(&b).ok()).count();
    assert!((200..300).contains(&count), "{count}");
}
