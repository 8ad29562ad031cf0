//! Frames in memory that the guest has mapped (`PACKET_RX_RING`, `TPACKET_V2`).
//!
//! A frame has a slot. The guest gives a slot back by setting its status to zero; what else it writes there is never
//! looked at. So the worst a guest can do to its ring is to lose frames of its own.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use abi::Errno;
use abi::mm::Prot;
use memmap::{Backing, MapIdentity, MapRequest, Mappable};
use tmpfs::{MemoryProvider, SharedMemory};
use vfs::Result;

use super::state::STATUS_USER;
use super::{ADDRESS, HEAD};

/// Where rings are kept.
pub type Memory = Arc<dyn MemoryProvider>;

/// Most bytes of a ring.
const MAX_BYTES: u64 = 64 << 20;
/// Slots begin, and addresses stand, at multiples of this.
const ALIGNMENT: u32 = 16;
/// Bytes of a `struct tpacket2_hdr`, and with the address behind it.
const HEADER: u32 = 32;
const HEADERS: u32 = HEADER + ADDRESS as u32;
const PAGE: u32 = 4096;

/// One.
pub(super) struct Ring {
    memory: Arc<dyn SharedMemory>,
    bytes: u64,
    block_size: u32,
    frame_size: u32,
    per_block: u32,
    frames: u32,
    /// The slot that is filled next.
    next: u32,
    /// Where data and the head of IP stand in a slot.
    data_at: u32,
    network_at: u32,
}

/// What is put into one.
pub(super) struct Slot<'a> {
    pub(super) data: &'a [u8],
    /// Bytes of it that are wanted.
    pub(super) most: usize,
    pub(super) address: &'a [u8],
    pub(super) status: u32,
    pub(super) at: SystemTime,
}

impl Ring {
    /// With blocks of a size and how many, and frames of a size and how many. `EINVAL` when these do not go together.
    pub(super) fn new(
        [block_size, blocks, frame_size, frames]: [u32; 4],
        reserve: u16,
        with_head: bool,
        memory: &dyn MemoryProvider,
    ) -> Result<Self> {
        let per_block = block_size.checked_div(frame_size).unwrap_or(0);
        let sound = block_size > 0
            && block_size.is_multiple_of(PAGE)
            && frame_size.is_multiple_of(ALIGNMENT)
            && frame_size >= HEADERS + u32::from(reserve)
            && per_block > 0
            && per_block.checked_mul(blocks) == Some(frames);
        if !sound {
            return Err(Errno::EINVAL);
        }
        let bytes = u64::from(block_size) * u64::from(blocks);
        if bytes > MAX_BYTES {
            return Err(Errno::ENOMEM);
        }
        let head = if with_head { HEAD as u32 } else { 0 };
        let network_at = (HEADERS + head.max(16)).next_multiple_of(ALIGNMENT) + u32::from(reserve);
        let memory = memory.create()?;
        memory.set_len(bytes)?;
        let data_at = network_at - head;
        Ok(Self { memory, bytes, block_size, frame_size, per_block, frames, next: 0, data_at, network_at })
    }

    fn place(&self, slot: u32) -> u64 {
        let (block, within) = (slot / self.per_block, slot % self.per_block);
        u64::from(block) * u64::from(self.block_size) + u64::from(within) * u64::from(self.frame_size)
    }

    /// The guest has not given it back yet. Of what cannot be read, that is believed.
    fn is_taken(&self, slot: u32) -> bool {
        let mut status = [0; 4];
        self.memory.read_at(self.place(slot), &mut status).is_err() || u32::from_ne_bytes(status) != 0
    }

    /// Is there a frame that the guest has not given back?
    pub(super) fn has_frames(&self) -> bool {
        self.is_taken(self.next.checked_sub(1).unwrap_or(self.frames - 1))
    }

    /// Fills the next slot; `false` when it is taken.
    pub(super) fn put(&mut self, slot: &Slot<'_>) -> bool {
        if self.is_taken(self.next) {
            return false;
        }
        let at = self.place(self.next);
        let room = self.frame_size.saturating_sub(self.data_at) as usize;
        let taken = slot.data.len().min(slot.most).min(room);
        let data = slot.data.get(..taken).unwrap_or_default();
        let time = slot.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let words = [0, slot.data.len() as u32, taken as u32];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend_from_slice(&(self.data_at as u16).to_ne_bytes());
        bytes.extend_from_slice(&(self.network_at as u16).to_ne_bytes());
        bytes.extend_from_slice(&(time.as_secs() as u32).to_ne_bytes());
        bytes.extend_from_slice(&time.subsec_nanos().to_ne_bytes());
        bytes.resize(HEADER as usize, 0);
        bytes.extend_from_slice(slot.address);
        bytes.resize(self.data_at as usize, 0);
        bytes.extend_from_slice(data);
        // The status last: with it the slot is the guest's.
        let status = (STATUS_USER | slot.status).to_ne_bytes();
        let rest = bytes.get(4..).unwrap_or_default();
        let written = self.memory.write_at(at + 4, rest).and_then(|()| self.memory.write_at(at, &status));
        if written.is_err() {
            return false;
        }
        self.next = (self.next + 1) % self.frames;
        true
    }

    /// As it is mapped.
    pub(super) fn mapping(&self) -> Arc<dyn Mappable> {
        Arc::new(Mapping { memory: Arc::clone(&self.memory), bytes: self.bytes })
    }
}

/// All of a ring, mapped.
struct Mapping {
    memory: Arc<dyn SharedMemory>,
    bytes: u64,
}

impl Mappable for Mapping {
    fn backing(&self, request: MapRequest) -> Result<Backing> {
        if request.offset != 0 || request.len != self.bytes {
            return Err(Errno::EINVAL);
        }
        let object = self.memory.object().ok_or(Errno::ENODEV)?;
        Ok(Backing::Host { object, offset: 0 })
    }

    fn shared_limit(&self) -> Prot {
        Prot::READ | Prot::WRITE
    }

    fn identity(&self) -> MapIdentity {
        MapIdentity { name: b"socket:".to_vec(), ..MapIdentity::default() }
    }
}
