//! Readiness: `poll(2)` events, shared by `select(2)` and `epoll(7)`.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

bitflags! {
    /// Readiness of a file, with the values of `poll.h`; `epoll` uses the same low bits.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PollEvents: u32 {
        /// Data to read.
        const IN = 0x001;
        /// Urgent data.
        const PRI = 0x002;
        /// Room to write.
        const OUT = 0x004;
        /// Error; always reported.
        const ERR = 0x008;
        /// Hang-up; always reported.
        const HUP = 0x010;
        /// Not an open descriptor (`poll` only).
        const NVAL = 0x020;
        /// Normal data to read.
        const RDNORM = 0x040;
        /// Band data to read.
        const RDBAND = 0x080;
        /// Normal data may be written.
        const WRNORM = 0x100;
        /// Band data may be written.
        const WRBAND = 0x200;
        /// A signal message (unused on Linux).
        const MSG = 0x400;
        /// Peer shut down its writing side.
        const RDHUP = 0x2000;
    }
}

impl PollEvents {
    /// What a plain readable file reports.
    pub const READABLE: Self = Self::IN.union(Self::RDNORM);
    /// What a plain writable file reports.
    pub const WRITABLE: Self = Self::OUT.union(Self::WRNORM);
    /// Reported whether asked for or not.
    pub const ALWAYS: Self = Self::ERR.union(Self::HUP);
}

bitflags! {
    /// How an epoll item reports, in the high bits of its events (`epoll_ctl(2)`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct EpollFlags: u32 {
        /// Wake one of several epolls on the file.
        const EXCLUSIVE = 1 << 28;
        /// Keep the system awake; no effect.
        const WAKEUP = 1 << 29;
        /// Report once, then wait for `EPOLL_CTL_MOD`.
        const ONESHOT = 1 << 30;
        /// Report changes, not levels.
        const ET = 1 << 31;
    }
}

/// `struct epoll_event`, packed on x86-64 (`epoll_event(3type)`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C, packed)]
pub struct EpollEvent {
    /// [`PollEvents`] and [`EpollFlags`].
    pub events: u32,
    /// The guest's own.
    pub data: u64,
}
