//! The part of a packet socket that others reach, and which frames it hears.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use abi::poll::PollEvents;
use abi::socket::AF_PACKET;
use bpf::{Facts, PacketFilter};
use netstack::{VNET_LEN, VnetHeader};
use sync::wait::WaitQueue;
use sync::{Mutex, order};

use super::ring::{Ring, Slot};
use super::{ADDRESS, HEAD, MAC};
use crate::inet::Network;

/// Default and account of frames that wait (`net.core.rmem_default`).
const RECEIVE_BYTES: usize = 212_992;
/// `ETH_P_ALL`.
const EVERYTHING: u16 = 3;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;
/// `PACKET_HOST` and its kin.
const FOR_US: u8 = 0;
const FOR_ALL: u8 = 1;
const FOR_MANY: u8 = 2;
const SENT: u8 = 4;
/// `TP_STATUS_USER`, `TP_STATUS_LOSING`, `TP_STATUS_CSUMNOTREADY`.
pub(super) const STATUS_USER: u32 = 1;
pub(super) const STATUS_LOSING: u32 = 4;
const STATUS_UNFINISHED: u32 = 8;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// It has come.
    In,
    /// It is being sent.
    Out,
}

/// A frame that waits.
#[derive(Clone)]
pub(super) struct Held {
    /// What the socket is given.
    pub(super) data: Vec<u8>,
    /// A `sockaddr_ll`.
    pub(super) address: Vec<u8>,
    status: u32,
    /// Bytes before the head of IP.
    network_at: u16,
}

impl Held {
    /// `struct tpacket_auxdata`.
    pub(super) fn auxiliary(&self) -> Vec<u8> {
        let len = (self.data.len() as u32).to_ne_bytes();
        let status = (STATUS_USER | self.status).to_ne_bytes();
        [&status[..], &len, &len, &[0; 2], &self.network_at.to_ne_bytes(), &[0; 4]].concat()
    }

    fn cost(&self) -> usize {
        256 + (self.data.len() + 348).next_power_of_two()
    }
}

/// A `sockaddr_ll`, whose whole length is told.
pub(super) fn address(protocol: u16, index: u32, hardware: u16, (kind, mac): (u8, Option<&[u8]>)) -> Vec<u8> {
    let mut bytes = AF_PACKET.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&protocol.to_be_bytes());
    bytes.extend_from_slice(&index.to_ne_bytes());
    bytes.extend_from_slice(&hardware.to_ne_bytes());
    bytes.extend_from_slice(&[kind, mac.map_or(0, |mac| mac.len() as u8)]);
    bytes.extend_from_slice(mac.unwrap_or_default());
    bytes.resize(ADDRESS, 0);
    bytes
}

pub(super) struct State {
    /// The protocol it hears, in the machine's order; 0: none.
    pub(super) protocol: u16,
    /// Of which interface; 0: of all.
    pub(super) interface: u32,
    pub(super) queue: VecDeque<Held>,
    used: usize,
    pub(super) limit: usize,
    /// Frames heard and lost since somebody asked (`PACKET_STATISTICS`).
    pub(super) heard: u32,
    pub(super) lost: u32,
    pub(super) filter: Option<Arc<PacketFilter>>,
    pub(super) auxiliary: bool,
    pub(super) ignores_outgoing: bool,
    /// `PACKET_VERSION`, `PACKET_RESERVE`.
    pub(super) version: i32,
    pub(super) reserve: u16,
    pub(super) ring: Option<Ring>,
}

impl State {
    /// Takes the next frame.
    pub(super) fn pop(&mut self) -> Option<Held> {
        let held = self.queue.pop_front()?;
        self.used -= held.cost().min(self.used);
        Some(held)
    }

    /// Keeps a frame, of which `most` bytes are wanted.
    fn keep(&mut self, held: Held, most: usize, at: SystemTime) {
        self.heard = self.heard.wrapping_add(1);
        let found_room = match &mut self.ring {
            Some(ring) => {
                let lossy = if self.lost > 0 { STATUS_LOSING } else { 0 };
                let status = held.status | lossy;
                let slot = Slot { data: &held.data, most, address: &held.address, status, at };
                ring.put(&slot)
            }
            None => {
                let room = self.used <= self.limit;
                if room {
                    let mut held = held;
                    held.data.truncate(most);
                    self.used += held.cost();
                    self.queue.push_back(held);
                }
                room
            }
        };
        if !found_room {
            self.heard = self.heard.wrapping_sub(1);
            self.lost = self.lost.wrapping_add(1);
        }
    }
}

/// A socket without its handle.
pub(super) struct Core {
    pub(super) id: u64,
    /// Frames come with the head of the link (`SOCK_RAW`).
    pub(super) with_head: bool,
    pub(super) network: Arc<Network>,
    pub(super) wait: WaitQueue,
    /// Taken last: frames are heard of by whoever sends, with locks of other sockets held.
    pub(super) state: Mutex<order::Leaf, State>,
}

/// A frame on its way, as far as it is the same for all.
struct Seen<'a> {
    frame: &'a [u8],
    index: u32,
    protocol: u16,
    kind: u8,
    unfinished: bool,
    at: SystemTime,
}

impl Core {
    pub(super) fn new(with_head: bool, protocol: u16, network: &Arc<Network>) -> Arc<Self> {
        let state = State {
            protocol,
            interface: 0,
            queue: VecDeque::new(),
            used: 0,
            limit: RECEIVE_BYTES,
            heard: 0,
            lost: 0,
            filter: None,
            auxiliary: false,
            ignores_outgoing: false,
            version: 0,
            reserve: 0,
            ring: None,
        };
        let core = Arc::new(Self {
            id: network.id(),
            with_head,
            network: Arc::clone(network),
            wait: WaitQueue::new(),
            state: Mutex::new(state),
        });
        network.taps().add(core.id, Arc::downgrade(&core));
        core
    }

    fn hear(&self, seen: &Seen<'_>) {
        {
            let mut state = self.state.lock();
            let of_protocol = match seen.kind {
                // Only who wants everything sees what is sent.
                SENT => state.protocol == EVERYTHING && !state.ignores_outgoing,
                _ => state.protocol == EVERYTHING || state.protocol == seen.protocol && seen.protocol != 0,
            };
            if !of_protocol || (state.interface != 0 && state.interface != seen.index) {
                return;
            }
            let skipped = if self.with_head { 0 } else { HEAD };
            let data = seen.frame.get(skipped..).unwrap_or_default();
            let facts = Facts {
                protocol: seen.protocol,
                kind: seen.kind,
                interface: seen.index,
                hardware: ETHERNET,
                network_at: HEAD - skipped,
            };
            let most = state.filter.as_ref().map_or(u32::MAX, |filter| filter.run(data, &facts)) as usize;
            if most == 0 {
                return;
            }
            let mac = seen.frame.get(MAC..2 * MAC);
            let held = Held {
                data: data.to_vec(),
                address: address(seen.protocol, seen.index, ETHERNET, (seen.kind, mac)),
                status: if seen.unfinished { STATUS_UNFINISHED } else { 0 },
                network_at: (HEAD - skipped) as u16,
            };
            state.keep(held, most, seen.at);
        }
        self.wait.notify(PollEvents::READABLE);
    }
}

/// The packet sockets there are. As many as there are descriptors.
#[derive(Default)]
pub(crate) struct Taps {
    all: Mutex<order::Leaf, Vec<(u64, Weak<Core>)>>,
    any: AtomicBool,
}

impl Taps {
    fn add(&self, id: u64, core: Weak<Core>) {
        let mut all = self.all.lock();
        all.push((id, core));
        self.any.store(true, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, id: u64) {
        let mut all = self.all.lock();
        all.retain(|(other, _)| *other != id);
        self.any.store(!all.is_empty(), Ordering::Relaxed);
    }

    /// Has them hear of a frame, which stands behind its `virtio_net_hdr`. Must be called without any lock.
    pub(crate) fn hear(&self, index: u32, bytes: &[u8], direction: Direction) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let Some((vnet, frame)) = VnetHeader::split(bytes) else { return };
        debug_assert!(bytes.len() >= VNET_LEN);
        let Some(head) = frame.first_chunk::<HEAD>() else { return };
        let kind = match (direction, head[0]) {
            (Direction::Out, _) => SENT,
            (Direction::In, 0xff) if head.starts_with(&[0xff; MAC]) => FOR_ALL,
            (Direction::In, first) if first & 1 != 0 => FOR_MANY,
            (Direction::In, _) => FOR_US,
        };
        let seen = Seen {
            frame,
            index,
            protocol: u16::from_be_bytes([head[12], head[13]]),
            kind,
            unfinished: vnet.is_unfinished(),
            at: SystemTime::now(),
        };
        let all: Vec<_> = self.all.lock().iter().filter_map(|(_, core)| core.upgrade()).collect();
        all.iter().for_each(|core| core.hear(&seen));
    }
}
