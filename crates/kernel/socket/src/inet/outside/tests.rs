//! Two sandboxes joined by a cable.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::MsgFlags;
use cred::Credentials;
use guestmem::{SliceSource, VecSink};
use netstack::{Frame, simulate};
use sync::{Mutex, order};

use super::{Link, Outside};
use crate::inet::{Network, RawSocket, TcpSocket, UdpSocket};
use crate::netlink::{Address, Link as Interface, Links, Loopback};
use crate::{Ancillary, Asker, NoPaths, Outgoing, Shutdown, Socket};

/// Keeps what is sent.
#[derive(Default)]
struct Cable(Mutex<order::Leaf, VecDeque<Vec<u8>>>);

impl Link for Cable {
    fn send(&self, frame: &Frame) {
        self.0.lock().push_back(frame.bytes.clone());
    }

    fn wake(&self) {}
}

struct Side {
    network: Arc<Network>,
    outside: Arc<Outside>,
    cable: Arc<Cable>,
}

fn side(n: usize) -> Side {
    let mut links = Loopback.links();
    let addresses = [(false, 24), (true, 64)];
    let addresses = addresses.map(|(v6, prefix)| Address { ip: simulate::address(n, v6), prefix, scope: 0 });
    let mac = [2, 0, 0, 0, 0, n as u8 + 1];
    let (name, flags) = ("eth0".to_owned(), 0x1_1043);
    links.push(Interface { index: 2, name, hardware: 1, flags, mtu: 1500, mac, addresses: addresses.into() });
    let network = Network::new(links);
    let cable = Arc::<Cable>::default();
    let outside = Outside::new(simulate::config(n, 1500, false), Arc::clone(&cable) as Arc<dyn Link>);
    assert!(network.attach(Arc::clone(&outside)));
    Side { network, outside, cable }
}

/// Carries frames until there are none.
fn carry(sides: &[Side; 2]) {
    loop {
        let mut any = false;
        for n in 0..2 {
            let frames = std::mem::take(&mut *sides[n].cable.0.lock());
            any |= !frames.is_empty();
            let other = &sides[1 - n];
            other.outside.take(&other.network, frames.iter().map(|frame| (2, frame.as_slice())));
        }
        if !any {
            return;
        }
    }
}

fn with_asker<T>(with: impl FnOnce(&Asker<'_>) -> T) -> T {
    let cred = Credentials::root();
    with(&Asker { cred: &cred, pid: 1, paths: &NoPaths })
}

fn address(ip: IpAddr, port: u16) -> Vec<u8> {
    let [a, b] = port.to_be_bytes();
    let IpAddr::V4(ip) = ip else { return Vec::new() };
    [&[2, 0, a, b][..], &ip.octets(), &[0; 8]].concat()
}

fn send(socket: &dyn Socket, data: &[u8], to: Option<&[u8]>) -> Result<usize, Errno> {
    let ancillary = Ancillary::default();
    let message = Outgoing { flags: MsgFlags::empty(), to, ancillary: &ancillary };
    with_asker(|asker| socket.send(asker, &mut SliceSource(data), &message).map_err(Errno::from))
}

fn receive(socket: &dyn Socket, most: usize) -> Result<Vec<u8>, Errno> {
    let mut sink = VecSink::new(most);
    socket.receive(&mut sink, MsgFlags::empty())?;
    Ok(sink.bytes)
}

fn connect(socket: &dyn Socket, to: &[u8]) -> Result<(), Errno> {
    with_asker(|asker| socket.connect(asker, to).map_err(Errno::from))
}

const PORT: u16 = 7000;

fn listener(side: &Side, backlog: i32) -> Arc<TcpSocket> {
    let server = TcpSocket::new(false, &side.network);
    with_asker(|asker| {
        server.bind(asker, &address(IpAddr::from([0, 0, 0, 0]), PORT)).expect("free");
        server.listen(asker, backlog).expect("listens");
    });
    server
}

#[test]
fn streams_meet_and_part() {
    let sides = [side(0), side(1)];
    let server = listener(&sides[1], 5);
    let client = TcpSocket::new(false, &sides[0].network);
    let to = address(simulate::address(1, false), PORT);
    assert_eq!(connect(client.as_ref(), &to), Err(Errno::EINPROGRESS));
    assert_eq!(client.poll(), PollEvents::empty());
    assert_eq!(connect(client.as_ref(), &to), Err(Errno::EALREADY));
    carry(&sides);
    assert_eq!(connect(client.as_ref(), &to), Ok(()));
    assert_eq!(client.peer_name(), Ok(to));
    assert!(server.poll().contains(PollEvents::READABLE));
    let accepted = server.accept().expect("one");
    assert_eq!(receive(accepted.as_ref(), 9), Err(Errno::EAGAIN));
    let data: Vec<u8> = (0..2_000_000_u32).map(|n| (n.wrapping_mul(n) >> 8) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < data.len() {
        if sent < data.len() {
            sent += send(client.as_ref(), &data[sent..], None).unwrap_or(0);
        }
        carry(&sides);
        got.extend(receive(accepted.as_ref(), 100_000).unwrap_or_default());
        carry(&sides);
    }
    assert!(got == data);
    assert_eq!(send(accepted.as_ref(), b"bye", None), Ok(3));
    accepted.shutdown(Shutdown::Write).expect("connected");
    carry(&sides);
    assert_eq!(receive(client.as_ref(), 9), Ok(b"bye".to_vec()));
    assert_eq!(receive(client.as_ref(), 9), Ok(Vec::new()));
    assert!(client.poll().contains(PollEvents::RDHUP));
    drop(client);
    carry(&sides);
    assert!(accepted.poll().contains(PollEvents::HUP));
    drop(accepted);
    carry(&sides);
    assert_eq!(sides.each_ref().map(|side| side.outside.look(|stack| stack.connections())), [0, 0]);
}

#[test]
fn who_is_not_there_refuses() {
    let sides = [side(0), side(1)];
    let to = address(simulate::address(1, false), PORT);
    let client = TcpSocket::new(false, &sides[0].network);
    assert_eq!(connect(client.as_ref(), &to), Err(Errno::EINPROGRESS));
    carry(&sides);
    assert!(client.poll().contains(PollEvents::ERR));
    assert_eq!(connect(client.as_ref(), &to), Err(Errno::ECONNREFUSED));
    let far = address(IpAddr::from([192, 0, 2, 1]), 80);
    assert_eq!(connect(client.as_ref(), &far), Err(Errno::ENETUNREACH));
    let udp = UdpSocket::new(false, &sides[0].network);
    assert_eq!(connect(udp.as_ref(), &to), Ok(()));
    assert_eq!(send(udp.as_ref(), b"?", None), Ok(1));
    carry(&sides);
    assert_eq!(receive(udp.as_ref(), 1), Err(Errno::ECONNREFUSED));
}

#[test]
fn who_breaks_off_is_heard() {
    let sides = [side(0), side(1)];
    let server = listener(&sides[1], 5);
    let to = address(simulate::address(1, false), PORT);
    let client = TcpSocket::new(false, &sides[0].network);
    assert_eq!(connect(client.as_ref(), &to), Err(Errno::EINPROGRESS));
    carry(&sides);
    let accepted = server.accept().expect("one");
    client.set_linger(Some(0));
    drop(client);
    carry(&sides);
    assert_eq!(receive(accepted.as_ref(), 1), Err(Errno::ECONNRESET));
    assert_eq!(send(accepted.as_ref(), b"x", None), Err(Errno::EPIPE));
    // A listener that goes takes with it what nobody has accepted.
    let client = TcpSocket::new(false, &sides[0].network);
    assert_eq!(connect(client.as_ref(), &to), Err(Errno::EINPROGRESS));
    carry(&sides);
    drop(server);
    carry(&sides);
    assert_eq!(receive(client.as_ref(), 1), Err(Errno::ECONNRESET));
}

#[test]
fn a_backlog_has_an_end() {
    let sides = [side(0), side(1)];
    let server = listener(&sides[1], 1);
    let to = address(simulate::address(1, false), PORT);
    let clients: Vec<_> = (0..8).map(|_| TcpSocket::new(false, &sides[0].network)).collect();
    for client in &clients {
        assert_eq!(connect(client.as_ref(), &to), Err(Errno::EINPROGRESS));
        carry(&sides);
    }
    let connected = || clients.iter().filter(|client| client.peer_name().is_ok()).count();
    assert_eq!(connected(), 2);
    drop(server.accept().expect("one"));
}

#[test]
fn datagrams_go_both_ways() {
    let sides = [side(0), side(1)];
    let server = UdpSocket::new(false, &sides[1].network);
    with_asker(|asker| server.bind(asker, &address(IpAddr::from([0, 0, 0, 0]), PORT))).expect("free");
    let client = UdpSocket::new(false, &sides[0].network);
    let to = address(simulate::address(1, false), PORT);
    for len in [1, 1472, 60_000] {
        let data = vec![7; len];
        assert_eq!(send(client.as_ref(), &data, Some(&to)), Ok(len));
        carry(&sides);
        let mut sink = VecSink::new(70_000);
        let received = server.receive(&mut sink, MsgFlags::empty()).expect("one");
        assert_eq!(sink.bytes, data);
        assert_eq!(send(server.as_ref(), b"pong", received.from.as_deref()), Ok(4));
        carry(&sides);
        assert_eq!(receive(client.as_ref(), 9), Ok(b"pong".to_vec()));
    }
    let far = address(IpAddr::from([192, 0, 2, 1]), 80);
    assert_eq!(send(client.as_ref(), b"?", Some(&far)), Err(Errno::ENETUNREACH));
}

#[test]
fn ways_and_neighbours_are_shown() {
    let sides = [side(0), side(1)];
    let client = UdpSocket::new(false, &sides[0].network);
    let to = address(simulate::address(1, false), PORT);
    assert_eq!(send(client.as_ref(), b"?", Some(&to)), Ok(1));
    carry(&sides);
    let text = |name| {
        let text = crate::inet::show::text(&sides[0].network, name).expect("a file");
        String::from_utf8(text).expect("text")
    };
    assert!(text("route").contains("eth0\t0100000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"));
    assert!(
        text("arp").contains("10.0.0.2         0x1         0x2         02:00:00:00:00:02     *        eth0")
    );
    assert!(text("ipv6_route").starts_with("fd000000000000000000000000000001 40"));
    let dev = text("dev");
    let line = dev.lines().find(|line| line.contains("eth0:")).expect("a line");
    let numbers: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[1] >= 2 && numbers[9] >= 2, "{line}");
    let (far, near) = (IpAddr::from([192, 0, 2, 1]), simulate::address(1, false));
    assert_eq!(sides[0].network.way_to(far), Err(Errno::ENETUNREACH));
    assert_eq!(sides[0].network.way_to(near).map(|(way, local)| (way.link, local)), Ok((2, false)));
    let own = simulate::address(0, false);
    assert_eq!(sides[0].network.way_to(own).map(|(way, local)| (way.link, local)), Ok((1, true)));
}

/// An echo, whose identifier and checksum the socket makes.
fn echo(kind: u8, data: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 1], data].concat()
}

#[test]
fn echoes_come_back() {
    let sides = [side(0), side(1)];
    let pings = [0, 1].map(|_| RawSocket::ping(false, &sides[0].network));
    let to = address(simulate::address(1, false), 0);
    for ping in &pings {
        assert_eq!(send(ping.as_ref(), &echo(8, b"12"), Some(&to)), Ok(10));
    }
    carry(&sides);
    for ping in &pings {
        let name = ping.name();
        let reply = receive(ping.as_ref(), 99).expect("a reply");
        assert_eq!((&reply[..2], &reply[4..6], &reply[8..]), (&[0, 0][..], &name[2..4], &b"12"[..]));
        assert_eq!(receive(ping.as_ref(), 99), Err(Errno::EAGAIN));
    }
    // What is sent to oneself comes back as well; and nothing but echoes is sent.
    let own = address(simulate::address(0, false), 0);
    assert_eq!(send(pings[0].as_ref(), &echo(8, b""), Some(&own)), Ok(8));
    assert_eq!(receive(pings[0].as_ref(), 99).map(|reply| reply.len()), Ok(8));
    assert_eq!(send(pings[0].as_ref(), &echo(0, b""), Some(&to)), Err(Errno::EINVAL));
    assert_eq!(send(pings[0].as_ref(), &[8, 0], Some(&to)), Err(Errno::EINVAL));
    assert_eq!(send(pings[0].as_ref(), &echo(8, b""), None), Err(Errno::EDESTADDRREQ));
    let far = address(IpAddr::from([192, 0, 2, 1]), 0);
    assert_eq!(send(pings[0].as_ref(), &echo(8, b""), Some(&far)), Err(Errno::ENETUNREACH));
}

#[test]
fn raw_sockets_hear_a_protocol() {
    let sides = [side(0), side(1)];
    let to = address(simulate::address(1, false), 0);
    let (ours, theirs) =
        (RawSocket::raw(false, 200, &sides[0].network), RawSocket::raw(false, 200, &sides[1].network));
    assert_eq!(send(ours.as_ref(), b"hello", Some(&to)), Ok(5));
    carry(&sides);
    let packet = receive(theirs.as_ref(), 99).expect("a packet");
    assert_eq!((packet.len(), packet[9], &packet[20..]), (25, 200, &b"hello"[..]));
    // With a head of one's own, in which zeroes are filled in.
    ours.set_option(0, 3, &1i32.to_ne_bytes()).expect("IP_HDRINCL");
    let mut whole = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 9, 200, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
    whole.extend_from_slice(b"again");
    assert_eq!(send(ours.as_ref(), &whole, Some(&to)), Ok(25));
    carry(&sides);
    let packet = receive(theirs.as_ref(), 99).expect("a packet");
    assert_eq!((packet[8], &packet[12..16], &packet[20..]), (9, &[10, 0, 0, 1][..], &b"again"[..]));
    assert_eq!(send(ours.as_ref(), &[0x4f; 20], Some(&to)), Err(Errno::EINVAL));
    // Nobody speaks it any more: who has asked to hear of errors does.
    drop(theirs);
    ours.set_option(0, 3, &0i32.to_ne_bytes()).expect("IP_HDRINCL");
    ours.set_option(0, 11, &1i32.to_ne_bytes()).expect("IP_RECVERR");
    assert_eq!(send(ours.as_ref(), b"?", Some(&to)), Ok(1));
    carry(&sides);
    assert_eq!(receive(ours.as_ref(), 99), Err(Errno::ENOPROTOOPT));
    let mut sink = VecSink::new(99);
    let error = ours.receive(&mut sink, MsgFlags::ERRQUEUE).expect("an error");
    assert_eq!((sink.bytes, &error.ancillary.other[0].data[4..8]), (b"?".to_vec(), &[2, 3, 2, 0][..]));
}

#[test]
fn raw_sockets_choose_what_they_hear() {
    let sides = [side(0), side(1)];
    let raw = RawSocket::raw(false, 1, &sides[1].network);
    let ping = RawSocket::ping(false, &sides[0].network);
    let to = address(simulate::address(1, false), 0);
    let ask = || {
        assert_eq!(send(ping.as_ref(), &echo(8, b"data"), Some(&to)), Ok(12));
        carry(&sides);
        receive(raw.as_ref(), 99).map(|packet| packet.len())
    };
    assert_eq!(ask(), Ok(32));
    raw.set_option(255, 1, &(1i32 << 8).to_ne_bytes()).expect("ICMP_FILTER");
    assert_eq!(ask(), Err(Errno::EAGAIN));
    raw.set_option(255, 1, &0i32.to_ne_bytes()).expect("ICMP_FILTER");
    let take = |bytes| bpf::PacketFilter::new(vec![bpf::Insn::stmt(6, bytes)]).expect("a filter");
    raw.attach_filter(take(24)).expect("raw");
    assert_eq!(ask(), Ok(24));
    raw.attach_filter(take(0)).expect("raw");
    assert_eq!(ask(), Err(Errno::EAGAIN));
    raw.set_option(1, 27, &[0; 4]).expect("SO_DETACH_FILTER");
    assert_eq!(ask(), Ok(32));
}
