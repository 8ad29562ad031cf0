//! Link to Sentry: frames from whoever is at the other end of the wire.

use std::net::SocketAddr;
use std::time::Duration;

use netstack::simulate::{address, config};
use netstack::{Event, Stack, TcpSettings, VNET_LEN};

/// Sizes that make the most of few bytes.
const SETTINGS: usize = 4096;
/// Most connections there can be however many frames an input holds.
const MOST: usize = 600;

/// Frames, each behind a byte for its length and one for the time that passes before it: they are acted on as the
/// socket layer does. Nothing grows beyond its bounds.
pub fn frames(data: &[u8]) {
    let mut now = Duration::from_secs(1);
    let mut stack = Stack::<u8>::new(config(1, 1500, true), now);
    // Some inputs meet a stack whose packets are heard whole.
    stack.hear_packets(data.len() % 2 == 1);
    let settings = TcpSettings { receive: SETTINGS, send: SETTINGS, ..TcpSettings::default() };
    let ends = (SocketAddr::new(address(1, false), 9), SocketAddr::new(address(0, false), 9));
    let _ = stack.connect(ends, &settings, 0, now);
    let mut rest = data;
    while let Some(([len, pause], more)) = rest.split_first_chunk() {
        now += Duration::from_millis(u64::from(*pause) * 20);
        let (frame, more) = more.split_at_checked(usize::from(*len)).unwrap_or((more, &[]));
        rest = more;
        stack.receive(2, frame, now);
        stack.poll(now);
        for event in stack.events() {
            match event {
                Event::Syn(syn) if syn.to.port() % 4 == 0 => stack.refuse(&syn, now),
                Event::Syn(syn) => drop(stack.accept(&syn, &settings, 1, now)),
                Event::Established(id, _) => {
                    stack.send(id, b"hello", now);
                    drop(stack.receive_from(id, 10, now));
                    stack.finish(id, now);
                }
                Event::Datagram(datagram) => {
                    assert!(datagram.data().len() <= usize::from(u16::MAX));
                    stack.reject(&datagram, now);
                }
                Event::Packet(packet) => {
                    let _ = stack.send_whole(packet.whole(), now);
                    stack.reject_packet(&packet, now);
                }
                Event::Abandoned(_) | Event::Changed(_) | Event::Lost { .. } => {}
            }
        }
        while stack.next_frame().is_some() {}
        assert!(stack.connections() <= MOST, "{} connections", stack.connections());
    }
}

/// `packet` of kind `ethertype` in a frame whose checksum somebody has vouched for, as [`frames`] reads it.
fn framed(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; VNET_LEN];
    frame[0] = 1;
    frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    let mut bytes = vec![u8::try_from(frame.len()).unwrap_or(u8::MAX), 1];
    bytes.extend(frame);
    bytes
}

/// A head of IPv4 with its checksum, from the other end to this, and `payload`.
fn packet4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let [a, b] = (payload.len() as u16 + 20).to_be_bytes();
    let [c, d] = fragment.to_be_bytes();
    let mut head = [0x45, 0, a, b, 0, 1, c, d, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let sum: u32 = head.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = !((sum & 0xffff) + (sum >> 16)) as u16;
    [head[10], head[11]] = folded.to_be_bytes();
    [&head, payload].concat()
}

/// A handshake's first segment, datagrams whole and in pieces, errors, ARP, neighbour discovery.
pub fn seeds() -> Vec<Vec<u8>> {
    let syn = [0, 7, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];
    let answer = [0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0];
    let datagram = [0, 7, 0, 80, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
    let (from, to) = (
        [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    );
    let six = |next: u8, payload: &[u8]| {
        [&[0x60, 0, 0, 0, 0, payload.len() as u8, next, 255][..], &from, &to, payload].concat()
    };
    let unreachable = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &packet4(17, 0, &datagram)].concat();
    vec![
        framed(0x806, &arp),
        [framed(0x806, &arp), framed(0x800, &packet4(6, 0, &syn)), framed(0x800, &packet4(6, 0, &answer))]
            .concat(),
        framed(0x800, &packet4(17, 0, &datagram)),
        [framed(0x800, &packet4(17, 0x2000, &datagram)), framed(0x800, &packet4(17, 2, &datagram))].concat(),
        framed(0x800, &packet4(1, 0, &unreachable)),
        framed(0x86dd, &six(17, &datagram)),
        framed(0x86dd, &six(44, &[&[17, 0, 0, 1, 0, 0, 0, 9][..], &datagram].concat())),
        framed(0x86dd, &six(58, &[&[135, 0, 0, 0, 0, 0, 0, 0][..], &to, &[1, 1, 2, 0, 0, 0, 0, 1]].concat())),
    ]
}
