//! Two stacks over a link that can be trusted more or less.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{ConnId, Event, Failure, TcpPhase};
use crate::TcpSettings;
use crate::simulate::{Chance, Impairment, Pair, address, config};
use crate::{Stack, VnetHeader};

/// A server on `sides[1]`, and a connection to it from `sides[0]`.
struct Talk {
    pair: Pair,
    server: Option<ConnId>,
    client: ConnId,
}

const PORT: u16 = 80;

fn ends(v6: bool, port: u16) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(address(0, v6), port), SocketAddr::new(address(1, v6), PORT))
}

impl Talk {
    fn new(seed: u64, mtu: u32, v6: bool, impairment: Impairment) -> Self {
        let mut pair = Pair::new(seed, mtu, impairment);
        let now = pair.now;
        let client = pair.sides[0].connect(ends(v6, 4000), &TcpSettings::default(), 0, now).expect("a way");
        Self { pair, server: None, client }
    }

    /// One step, in which the server accepts.
    fn step(&mut self, until: Duration) -> Vec<(usize, Event<u32>)> {
        let events = self.pair.step(until);
        let now = self.pair.now;
        for (side, event) in &events {
            match event {
                Event::Syn(syn) => {
                    self.pair.sides[*side].accept(syn, &TcpSettings::default(), 1, now);
                }
                Event::Established(id, 1) => self.server = Some(*id),
                _ => {}
            }
        }
        events
    }

    fn run(&mut self, time: Duration) {
        let until = self.pair.now + time;
        while self.pair.now < until && !self.pair.is_idle() {
            self.step(until);
        }
    }
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut chance = Chance::new(seed);
    (0..len).map(|_| chance.number() as u8).collect()
}

/// Sends `len` bytes from side `from`, and reads them at the other.
fn transfer(talk: &mut Talk, len: usize) -> Duration {
    let data = pattern(len, 3);
    let (mut sent, mut got) = (0, Vec::new());
    let start = talk.pair.now;
    let limit = start + Duration::from_secs(3600);
    while got.len() < len {
        assert!(talk.pair.now < limit, "stuck after {} of {len} bytes, {sent} sent", got.len());
        talk.step(limit);
        let now = talk.pair.now;
        if let Some(server) = talk.server {
            sent += talk.pair.sides[0].send(talk.client, &data[sent..], now).expect("open");
            got.extend(talk.pair.sides[1].receive_from(server, 100_000, now));
        }
    }
    assert!(got == data, "what came is not what was sent");
    talk.pair.now - start
}

#[test]
fn what_is_sent_arrives() {
    for v6 in [false, true] {
        for mtu in [1500, 9000] {
            let mut talk = Talk::new(
                1,
                mtu,
                v6,
                Impairment { delay: Duration::from_micros(50), ..Impairment::default() },
            );
            transfer(&mut talk, 3_000_000);
            let now = talk.pair.now;
            talk.pair.sides[0].finish(talk.client, now);
            talk.run(Duration::from_secs(1));
            let id = talk.server.expect("a server");
            let [client_side, server_side] = &mut talk.pair.sides;
            let status = server_side.status(id).expect("known");
            assert!(status.ended && status.phase == TcpPhase::CloseWait && status.failure.is_none());
            assert_eq!(client_side.status(talk.client).map(|status| status.phase), Some(TcpPhase::FinWait2));
            let now = talk.pair.now;
            server_side.release(id, false, now);
            talk.run(Duration::from_secs(2));
            let [client_side, server_side] = &mut talk.pair.sides;
            assert_eq!(server_side.connections(), 0);
            assert_eq!(client_side.status(talk.client).map(|status| status.phase), Some(TcpPhase::TimeWait));
            client_side.release(talk.client, false, now);
            assert_eq!(client_side.connections(), 0);
        }
    }
}

#[test]
fn nothing_is_lost_over_links_that_lose() {
    for seed in 1..=12 {
        let impairment =
            Impairment { loss: 20, twice: 20, late: 30, broken: 5, delay: Duration::from_millis(2) };
        let mut talk = Talk::new(seed, 1500, seed % 2 == 0, impairment);
        transfer(&mut talk, 300_000);
    }
}

#[test]
fn nobody_listens() {
    let mut talk = Talk::new(1, 1500, false, Impairment::default());
    let mut refused = false;
    let until = talk.pair.now + Duration::from_secs(1);
    for _ in 0..50 {
        let events = talk.pair.step(until);
        let now = talk.pair.now;
        for (side, event) in events {
            match event {
                Event::Syn(syn) => talk.pair.sides[side].refuse(&syn, now),
                Event::Changed(0) => refused = true,
                _ => {}
            }
        }
    }
    assert!(refused);
    let status = talk.pair.sides[0].status(talk.client).expect("known");
    assert_eq!((status.phase, status.failure), (TcpPhase::Closed, Some(Failure::Refused)));
}

#[test]
fn nobody_is_there() {
    let mut pair = Pair::new(1, 1500, Impairment { loss: 1000, ..Impairment::default() });
    let now = pair.now;
    let id = pair.sides[0].connect(ends(false, 1), &TcpSettings::default(), 0, now).expect("a way");
    let to = (SocketAddr::new(address(0, true), 5), SocketAddr::new(address(1, true), 6));
    assert_eq!(pair.sides[0].send_datagram(to, b"?", (64, 0), now), Ok(()));
    let mut lost = false;
    let until = now + Duration::from_secs(5);
    while pair.now < until && !pair.is_idle() {
        for (_, event) in pair.step(until) {
            lost |= matches!(event, Event::Lost { ref data, .. } if data == b"?");
        }
    }
    assert!(lost);
    assert_eq!(pair.sides[0].status(id).and_then(|status| status.failure), Some(Failure::Unreachable));
    let far = (SocketAddr::new(address(0, false), 5), "192.0.2.1:1".parse().expect("one"));
    assert_eq!(pair.sides[0].send_datagram(far, b"?", (64, 0), now), Err(super::SendError::NoRoute));
}

#[test]
fn datagrams_of_any_size_arrive() {
    for v6 in [false, true] {
        let impairment =
            Impairment { late: 300, twice: 100, delay: Duration::from_millis(1), ..Impairment::default() };
        let mut pair = Pair::new(5, 1500, impairment);
        let (from, to) = ends(v6, 9);
        for len in [0, 1, 1472, 1473, 9000, 65_000] {
            let now = pair.now;
            let data = pattern(len, 8);
            assert_eq!(pair.sides[0].send_datagram((from, to), &data, (64, 0), now), Ok(()));
            let until = now + Duration::from_secs(1);
            let mut got = Vec::new();
            while pair.now < until {
                for (_, event) in pair.step(until) {
                    if let Event::Datagram(datagram) = event {
                        assert_eq!((datagram.from, datagram.to), (from, to));
                        got.push(datagram.data().to_vec());
                    }
                }
            }
            assert!(got.contains(&data), "{len} bytes, {} came", got.len());
        }
    }
}

#[test]
fn who_sends_to_a_closed_port_is_told() {
    for v6 in [false, true] {
        let mut pair = Pair::new(5, 1500, Impairment::default());
        let (from, to) = ends(v6, 9);
        let now = pair.now + Duration::from_secs(1);
        pair.now = now;
        assert_eq!(pair.sides[0].send_datagram((from, to), b"hello", (64, 0), now), Ok(()));
        let mut told = false;
        for _ in 0..50 {
            for (side, event) in pair.step(now + Duration::from_secs(1)) {
                match event {
                    Event::Datagram(datagram) => pair.sides[side].reject(&datagram, now),
                    Event::Lost { local, remote, why, data, protocol: 17 } => {
                        assert_eq!((local, remote, why), (from, to, super::Report::no_port(to.ip())));
                        assert!(data.starts_with(b"hello"));
                        told = true;
                    }
                    _ => {}
                }
            }
        }
        assert!(told);
    }
}

/// A frame with `payload` to side 1, from one of many.
fn frame(payload: &[u8], mac: u8) -> Vec<u8> {
    let mut bytes = VnetHeader::default().to_bytes().to_vec();
    bytes.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 9, mac, 8, 0]);
    bytes.extend(payload);
    bytes
}

#[test]
fn a_flood_of_syns_takes_no_more_than_its_share() {
    let mut stack = Stack::<u32>::new(config(1, 1500, true), Duration::from_secs(1));
    let mut other = Stack::<u32>::new(config(0, 1500, true), Duration::from_secs(1));
    let now = Duration::from_secs(2);
    let settings = TcpSettings { receive: 4096, send: 4096, ..TcpSettings::default() };
    let mut most = 0;
    for port in 1..20_000 {
        let id = other.connect(ends(false, port), &settings, 0, now).expect("a way");
        let syn = loop {
            match other.next_frame() {
                Some(frame) => break frame,
                None => {
                    // It wants to know who we are.
                    let reply = [
                        &[0; 10][..],
                        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6],
                        &[
                            0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2, 2, 0, 0, 0, 0, 1, 10, 0,
                            0, 1,
                        ],
                    ];
                    other.receive(2, &reply.concat(), now);
                }
            }
        };
        stack.receive(2, &syn.bytes, now);
        other.release(id, true, now);
        while other.next_frame().is_some() {}
        for event in stack.events() {
            if let Event::Syn(syn) = event {
                stack.accept(&syn, &settings, 1, now);
            }
        }
        while stack.next_frame().is_some() {}
        most = most.max(stack.connections());
    }
    assert!(most > 100 && most <= 513, "{most}");
    stack.poll(now + Duration::from_secs(40));
    assert_eq!(stack.connections(), 0);
}

#[test]
fn what_makes_no_sense_does_no_harm() {
    let mut chance = Chance::new(11);
    let mut stack = Stack::<u32>::new(config(1, 1500, true), Duration::from_secs(1));
    let head = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    for n in 0..30_000_u64 {
        let now = Duration::from_millis(1000 + n);
        let mut payload: Vec<u8> = (0..chance.number() % 120).map(|_| chance.number() as u8).collect();
        if n % 2 == 0 {
            let len = payload.len() as u8 + 20;
            let mut ip = head;
            (ip[3], ip[9]) = (len, [1, 6, 17, 58][(n / 2 % 4) as usize]);
            if n % 8 == 0 {
                (ip[6], ip[7]) = (chance.number() as u8 & 0x3f, chance.number() as u8);
            }
            let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
            let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
            [ip[10], ip[11]] = folded.to_be_bytes();
            payload.splice(..0, ip);
        }
        let mut bytes = frame(&payload, n as u8);
        // Half of them are vouched for, and so looked at more closely.
        bytes[0] = (n % 4 / 2) as u8;
        bytes[23] = [0, 6, 0xdd][(n % 3) as usize];
        if n % 3 == 2 {
            bytes[22] = 0x86;
        }
        stack.receive(2, &bytes, now);
        for event in stack.events() {
            match event {
                Event::Syn(syn) => {
                    stack.accept(
                        &syn,
                        &TcpSettings { receive: 4096, send: 4096, ..TcpSettings::default() },
                        1,
                        now,
                    );
                }
                Event::Datagram(datagram) => stack.reject(&datagram, now),
                _ => {}
            }
        }
        stack.poll(now);
        while stack.next_frame().is_some() {}
        assert!(stack.connections() <= 600);
    }
    assert!(stack.counters(2).bad > 1000);
}

#[test]
fn who_may_not_be_reached_is_not() {
    let mut config = config(0, 1500, false);
    config.egress.denies = true;
    let mut stack = Stack::<u32>::new(config, Duration::from_secs(1));
    let now = Duration::from_secs(2);
    let settings = TcpSettings { receive: 4096, send: 4096, ..TcpSettings::default() };
    let refused = stack.connect(ends(false, 1), &settings, 0, now);
    assert_eq!(refused, Err(super::ConnectError::Denied));
    assert_eq!(stack.send_datagram(ends(false, 1), b"?", (64, 0), now), Err(super::SendError::Denied));
    assert_eq!((stack.denied(), stack.connections()), (2, 0));
    assert!(stack.next_frame().is_none());
}

/// What a router says of a packet that is too large for what lies behind it.
fn too_large(packet: &[u8], mtu: u16) -> Vec<u8> {
    let (router, own) = (IpAddr::from([10, 0, 0, 9]), address(0, false));
    let quoted = &packet[..packet.len().min(28)];
    let [a, b] = mtu.to_be_bytes();
    let mut message = [&[3, 4, 0, 0, 0, 0, a, b], quoted].concat();
    let sum = crate::checksum(None, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let whole = crate::ip_packet((router, own), 1, &message, (64, 0)).expect("a packet");
    let head = [&[0; crate::VNET_LEN][..], &[2, 0, 0, 0, 0, 1], &[2, 0, 0, 0, 0, 9], &[8, 0]].concat();
    [head, whole].concat()
}

#[test]
fn a_narrow_way_is_learned() {
    let mut talk = Talk::new(3, 1500, false, Impairment::default());
    talk.run(Duration::from_secs(1));
    let (side, client) = (&mut talk.pair.sides[0], talk.client);
    let now = talk.pair.now;
    side.send(client, &pattern(100_000, 1), now);
    let first = side.next_frame().expect("a segment");
    let packet = &first.bytes[crate::VNET_LEN + 14..];
    assert_eq!(packet.len(), 1500);
    let answer = too_large(packet, 1400);
    // One about a connection that there is not changes nothing.
    let mut other = packet.to_vec();
    other[20] ^= 0x40;
    let wrong = too_large(&other, 600);
    side.receive(2, &wrong, now);
    side.receive(2, &answer, now);
    while side.next_frame().is_some() {}
    // What was lost is sent again, smaller; and so is what follows.
    talk.pair.now += Duration::from_secs(3);
    let (side, now) = (&mut talk.pair.sides[0], talk.pair.now);
    side.poll(now);
    let again = side.next_frame().expect("a segment");
    assert_eq!(again.bytes.len() - crate::VNET_LEN - 14, 1400);
    // The answer to what was not lost does not come, but all arrives in the end.
    talk.pair.sides[0].poll(now);
    talk.run(Duration::from_secs(60));
    let server = talk.server.expect("a connection");
    assert_eq!(talk.pair.sides[1].status(server).map(|status| status.unread), Some(100_000));
}
