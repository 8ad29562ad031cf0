//! Frames that are heard, in a queue and in a ring.

use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::{MsgFlags, SocketKind};
use cred::Credentials;
use guestmem::VecSink;
use netstack::VNET_LEN;
use sync::{Mutex, order};
use tmpfs::{MemoryProvider, SharedMemory};

use super::{Direction, RX_RING, SOL_PACKET, STATISTICS, VERSION, socket};
use crate::inet::Network;
use crate::{Asker, NoPaths, Socket};

/// Memory that is not the host's.
#[derive(Default)]
struct Plain(Mutex<order::Leaf, Vec<u8>>);

impl SharedMemory for Plain {
    fn object(&self) -> Option<Arc<memmap::HostObject>> {
        None
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> vfs::Result<()> {
        let bytes = self.0.lock();
        let from = bytes.get(offset as usize..offset as usize + buf.len()).ok_or(Errno::EFAULT)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> vfs::Result<()> {
        let mut bytes = self.0.lock();
        let to = bytes.get_mut(offset as usize..offset as usize + buf.len()).ok_or(Errno::EFAULT)?;
        to.copy_from_slice(buf);
        Ok(())
    }

    fn punch(&self, _: u64, _: u64) -> vfs::Result<()> {
        Ok(())
    }

    fn set_len(&self, size: u64) -> vfs::Result<()> {
        self.0.lock().resize(size as usize, 0);
        Ok(())
    }
}

/// Gives out the one it is.
struct Only(Arc<Plain>);

impl MemoryProvider for Only {
    fn create(&self) -> vfs::Result<Arc<dyn SharedMemory>> {
        Ok(Arc::clone(&self.0) as Arc<dyn SharedMemory>)
    }
}

fn network() -> (Arc<Network>, Arc<Plain>) {
    let network = Network::loopback();
    let memory = Arc::<Plain>::default();
    network.allow_raw(Arc::new(Only(Arc::clone(&memory))));
    (network, memory)
}

const EVERYTHING: i32 = 3 << 8;

fn made(network: &Arc<Network>, kind: SocketKind) -> Arc<dyn Socket> {
    socket(Some(kind), EVERYTHING, network, &Credentials::root()).expect("a socket")
}

/// A frame of IPv4 behind its header.
fn frame(payload: &[u8]) -> Vec<u8> {
    [&[0; VNET_LEN][..], &[0xff; 6], &[2; 6], &[8, 0], payload].concat()
}

fn receive(socket: &dyn Socket) -> Result<(Vec<u8>, Vec<u8>), Errno> {
    let mut sink = VecSink::new(9999);
    let received = socket.receive(&mut sink, MsgFlags::empty())?;
    Ok((sink.bytes, received.from.expect("an address")))
}

#[test]
fn only_the_privileged_hear() {
    let plain = Network::loopback();
    let try_one = |network: &Arc<Network>, cred| socket(Some(SocketKind::Raw), 0, network, &cred).map(drop);
    assert_eq!(try_one(&plain, Credentials::root()), Err(Errno::EPERM));
    let (network, _) = network();
    assert_eq!(try_one(&network, Credentials::user(1, 1)), Err(Errno::EPERM));
    assert_eq!(try_one(&network, Credentials::root()), Ok(()));
    let stream = socket(Some(SocketKind::Stream), 0, &network, &Credentials::root()).map(drop);
    assert_eq!(stream, Err(Errno::ESOCKTNOSUPPORT));
}

#[test]
fn frames_are_heard_with_and_without_their_heads() {
    let (network, _) = network();
    let (raw, cooked) = (made(&network, SocketKind::Raw), made(&network, SocketKind::Datagram));
    let taps = network.taps();
    taps.hear(1, &frame(b"data"), Direction::In);
    let (data, from) = receive(raw.as_ref()).expect("a frame");
    assert_eq!((data.len(), &data[14..]), (18, &b"data"[..]));
    assert_eq!(from, [17, 0, 8, 0, 1, 0, 0, 0, 1, 0, 1, 6, 2, 2, 2, 2, 2, 2, 0, 0]);
    assert_eq!(receive(cooked.as_ref()).map(|(data, _)| data), Ok(b"data".to_vec()));
    taps.hear(1, &frame(b"out"), Direction::Out);
    assert_eq!(receive(raw.as_ref()).map(|(_, from)| from[10]), Ok(4));
    // One that is bound to another interface, and one of another protocol, hear nothing.
    let bind = |socket: &dyn Socket, address: &[u8]| {
        let cred = Credentials::root();
        socket.bind(&Asker { cred: &cred, pid: 1, paths: &NoPaths }, address)
    };
    let mut address = vec![17, 0, 0x86, 0xdd, 1, 0, 0, 0];
    address.resize(20, 0);
    assert_eq!(bind(raw.as_ref(), &address), Ok(()));
    assert_eq!(raw.name().len(), 18);
    taps.hear(1, &frame(b"no"), Direction::In);
    assert_eq!(receive(raw.as_ref()).map(drop), Err(Errno::EAGAIN));
    address[4] = 9;
    assert_eq!(bind(raw.as_ref(), &address), Err(Errno::ENODEV));
    assert_eq!(bind(raw.as_ref(), &address[..12]), Err(Errno::EINVAL));
}

#[test]
fn a_queue_has_an_end() {
    let (network, _) = network();
    let raw = made(&network, SocketKind::Raw);
    raw.set_receive_buffer(2000);
    for _ in 0..10 {
        network.taps().hear(1, &frame(&[0; 1000]), Direction::In);
    }
    let heard = std::iter::from_fn(|| receive(raw.as_ref()).ok()).count() as u32;
    assert_eq!(heard, 1);
    let told = [10u32.to_ne_bytes(), 9u32.to_ne_bytes()].concat();
    assert_eq!(raw.option(SOL_PACKET, STATISTICS), Ok(told));
    assert_eq!(raw.option(SOL_PACKET, STATISTICS), Ok(vec![0; 8]));
}

#[test]
fn a_ring_is_filled_and_given_back() {
    let (network, memory) = network();
    let raw = made(&network, SocketKind::Raw);
    let ring = |shape: [u32; 4]| {
        let bytes: Vec<u8> = shape.iter().flat_map(|word| word.to_ne_bytes()).collect();
        raw.set_option(SOL_PACKET, RX_RING, &bytes)
    };
    assert_eq!(ring([4096, 1, 2048, 2]), Err(Errno::EINVAL));
    raw.set_option(SOL_PACKET, VERSION, &1i32.to_ne_bytes()).expect("the second");
    for wrong in
        [[4095, 1, 2048, 2], [4096, 1, 2047, 2], [4096, 1, 32, 128], [4096, 2, 2048, 2], [4096, 1, 0, 0]]
    {
        assert_eq!(ring(wrong), Err(Errno::EINVAL), "{wrong:?}");
    }
    assert_eq!(ring([1 << 30, 1, 2048, 1 << 19]), Err(Errno::ENOMEM));
    assert_eq!(ring([4096, 1, 2048, 2]), Ok(()));
    assert_eq!(ring([4096, 1, 2048, 2]), Err(Errno::EBUSY));
    assert!(!raw.poll().contains(PollEvents::READABLE));
    for n in 0..3 {
        network.taps().hear(1, &frame(&[n; 3000]), Direction::In);
    }
    assert!(raw.poll().contains(PollEvents::READABLE));
    let word = |at: usize| {
        let bytes = memory.0.lock();
        u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four"))
    };
    // Status, length and what there was room for; where the data stands.
    assert_eq!((word(0), word(4), word(8), word(12)), (1, 3014, 2048 - 66, 66 | 80 << 16));
    let byte = |at: usize| memory.0.lock()[at];
    assert_eq!((byte(80), byte(2048 + 80)), (0, 1));
    let told = [3u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat();
    assert_eq!(raw.option(SOL_PACKET, STATISTICS), Ok(told));
    memory.0.lock()[0] = 0;
    network.taps().hear(1, &frame(&[7; 10]), Direction::In);
    assert_eq!((word(0), byte(80)), (1, 7));
    assert_eq!(ring([0, 0, 0, 0]), Ok(()));
    assert!(raw.mappable().is_none());
}
