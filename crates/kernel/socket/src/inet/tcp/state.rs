//! The part of a TCP socket that others reach.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use sync::wait::WaitQueue;
use sync::{Mutex, order};

use super::TcpSocket;
use super::end::End;
use super::settings::Settings;
use super::wire::Wire;
use crate::inet::Network;
use crate::inet::ports::Claim;

/// States of `/proc/net/tcp` and `TCP_INFO` (`enum` of `netinet/tcp.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum TcpState {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
}

/// A listener's.
#[derive(Default)]
pub(super) struct Backlog {
    /// Most connections that wait to be accepted, less one.
    pub(super) limit: usize,
    /// Those.
    pub(super) ready: VecDeque<Arc<TcpSocket>>,
    /// Clients that found no place; in TCP's words, whose SYN is sent again.
    pub(super) late: VecDeque<Weak<Core>>,
}

impl Backlog {
    pub(super) fn is_full(&self) -> bool {
        self.ready.len() > self.limit
    }
}

/// What a socket is.
#[derive(Default)]
pub(super) enum Role {
    /// Neither connected nor listening.
    #[default]
    Idle,
    Listening(Backlog),
    /// Waits for a place in the backlog of a listener.
    Calling,
    /// Waits for an answer from outside.
    Dialing(Wire),
    Connected(End),
}

#[derive(Default)]
pub(super) struct State {
    /// Its address, once it has a port.
    pub(super) local: Option<SocketAddr>,
    /// The port was asked for by `bind`, and stays when a connection ends.
    pub(super) bound: bool,
    /// The other end's.
    pub(super) remote: Option<SocketAddr>,
    pub(super) role: Role,
    /// A connect was begun whose end nobody has been told of (`SS_CONNECTING`).
    pub(super) connecting: bool,
    /// Its last connection failed: it hangs up until the next.
    pub(super) failed: bool,
    /// To be told once, when not connected.
    pub(super) error: Option<Errno>,
    pub(super) settings: Settings,
}

/// A socket without its handle.
pub(in crate::inet) struct Core {
    pub(in crate::inet) id: u64,
    /// Of `AF_INET6`.
    pub(in crate::inet) v6: bool,
    pub(super) network: Arc<Network>,
    pub(super) wait: WaitQueue,
    pub(super) state: Mutex<order::FileState, State>,
    /// Inode, and its owner.
    ino: AtomicU64,
    uid: AtomicU32,
}

impl Core {
    pub(super) fn new(v6: bool, network: &Arc<Network>, state: State) -> Arc<Self> {
        Arc::new(Self {
            id: network.id(),
            v6,
            network: Arc::clone(network),
            wait: WaitQueue::new(),
            state: Mutex::new(state),
            ino: AtomicU64::new(0),
            uid: AtomicU32::new(0),
        })
    }

    pub(super) fn attached(&self, ino: u64, uid: u32) {
        self.ino.store(ino, Ordering::Relaxed);
        self.uid.store(uid, Ordering::Relaxed);
    }

    pub(in crate::inet) fn ino(&self) -> u64 {
        self.ino.load(Ordering::Relaxed)
    }

    pub(in crate::inet) fn uid(&self) -> u32 {
        self.uid.load(Ordering::Relaxed)
    }

    /// The claim of this socket on `local`.
    pub(super) fn claim(self: &Arc<Self>, local: SocketAddr, settings: &Settings) -> Claim<Self> {
        Claim {
            ip: local.ip(),
            only: settings.ip.v6only,
            reuse: settings.reuse,
            share: settings.share,
            uid: self.uid(),
            listening: false,
            waiting: false,
            connected: false,
            socket: Arc::downgrade(self),
        }
    }
}

impl State {
    /// The end of a connection it has.
    pub(super) fn end(&self) -> Option<&End> {
        match &self.role {
            Role::Connected(end) => Some(end),
            Role::Idle | Role::Listening(_) | Role::Calling | Role::Dialing(_) => None,
        }
    }

    pub(super) fn tcp_state(&self) -> TcpState {
        match &self.role {
            Role::Idle => TcpState::Close,
            Role::Listening(_) => TcpState::Listen,
            Role::Calling | Role::Dialing(_) => TcpState::SynSent,
            Role::Connected(end) => end.state(),
        }
    }
}
