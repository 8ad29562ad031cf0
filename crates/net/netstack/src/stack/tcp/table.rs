//! The connections there are: by name, by addresses, and by when something is due.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};

use super::timing::Timing;
use super::{ConnId, Failure};
use crate::packet::Outgoing;

/// Most connections, of them such as have not come about, such as nobody here knows any more, and ended ones
/// that are remembered. The buffers of a connection are two mappings, of which the host gives a process 65,530.
const MAX_CONNECTIONS: usize = 16_384;
const MAX_HALF_OPEN: usize = 512;
const MAX_ORPHANS: usize = 1024;
const MAX_PAST: usize = 16_384;
/// How long one that was closed here is remembered (`TIME-WAIT`).
const PAST_TIME: Duration = Duration::from_secs(60);
/// How long one that was begun elsewhere has to come about.
const HALF_OPEN_TIME: Duration = Duration::from_secs(30);

/// Both ends: here, and there.
pub(super) type Tuple = (SocketAddr, SocketAddr);
/// What its owner was told of a connection.
pub(super) type Shown = (State, usize, usize);

/// What a connection is to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not yet one.
    HalfOpen,
    /// One.
    Open,
    /// Over: only what has come can be read.
    Over,
    /// Nobody knows it any more.
    Orphan,
}

/// A connection.
pub(super) struct Connection<H> {
    pub(super) set: SocketSet<'static>,
    handle: SocketHandle,
    /// Its interface.
    pub(super) at: usize,
    pub(super) tuple: Tuple,
    pub(super) owner: H,
    pub(super) phase: Phase,
    pub(super) failure: Option<Failure>,
    pub(super) told: Shown,
    /// The last small packet it has sent, which is sent again when it is only remembered.
    pub(super) last: Option<Outgoing>,
    /// When it is given up.
    pub(super) until: Option<Duration>,
    due: Option<Duration>,
    /// How far away the other end is.
    pub(super) round_trip: Timing,
}

impl<H> Connection<H> {
    pub(super) fn socket(&self) -> &Socket<'static> {
        self.set.get(self.handle)
    }

    pub(super) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }
}

/// One that is remembered.
struct Past {
    until: Duration,
    answer: Option<Outgoing>,
}

/// All of them.
pub(crate) struct Connections<H> {
    all: HashMap<ConnId, Connection<H>>,
    by_tuple: HashMap<Tuple, ConnId>,
    due: BTreeSet<(Duration, ConnId)>,
    half_open: VecDeque<ConnId>,
    half_open_count: usize,
    orphans: usize,
    past: HashMap<Tuple, Past>,
    past_order: VecDeque<(Duration, Tuple)>,
    next: u64,
}

impl<H> Default for Connections<H> {
    fn default() -> Self {
        Self {
            all: HashMap::new(),
            by_tuple: HashMap::new(),
            due: BTreeSet::new(),
            half_open: VecDeque::new(),
            half_open_count: 0,
            orphans: 0,
            past: HashMap::new(),
            past_order: VecDeque::new(),
            next: 1,
        }
    }
}

impl<H> Connections<H> {
    pub(in crate::stack) fn find(&self, tuple: Tuple) -> Option<ConnId> {
        self.by_tuple.get(&tuple).copied()
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&Connection<H>> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection<H>> {
        self.all.get_mut(&id)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Is there room for another?
    pub(super) fn has_room(&self) -> bool {
        self.all.len() < MAX_CONNECTIONS
    }

    /// May there be one more that nobody knows any more?
    pub(super) fn may_orphan(&self) -> bool {
        self.orphans < MAX_ORPHANS
    }

    /// Enters one; of those begun elsewhere, `until` is when it must have come about. The oldest of those is
    /// given up when there are too many, and returned.
    pub(super) fn add(
        &mut self,
        (at, tuple): (usize, Tuple),
        socket: Socket<'static>,
        owner: H,
        half_open: Option<Duration>,
    ) -> (ConnId, Option<ConnId>) {
        let id = ConnId(self.next);
        self.next += 1;
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let told = (socket.state(), 0, 0);
        let handle = set.add(socket);
        let phase = if half_open.is_some() { Phase::HalfOpen } else { Phase::Open };
        let until = half_open.map(|now| now + HALF_OPEN_TIME);
        let connection = Connection {
            set,
            handle,
            at,
            tuple,
            owner,
            phase,
            failure: None,
            told,
            last: None,
            until,
            due: None,
            round_trip: Timing::default(),
        };
        self.past.remove(&tuple);
        self.by_tuple.insert(tuple, id);
        self.all.insert(id, connection);
        let mut oldest = None;
        if half_open.is_some() {
            self.half_open.push_back(id);
            self.half_open_count += 1;
            if self.half_open_count > MAX_HALF_OPEN {
                oldest = self.oldest_half_open();
            }
        }
        (id, oldest)
    }

    fn oldest_half_open(&mut self) -> Option<ConnId> {
        while let Some(id) = self.half_open.pop_front() {
            if self.all.get(&id).is_some_and(|one| one.phase == Phase::HalfOpen) {
                return Some(id);
            }
        }
        None
    }

    /// One has come about.
    pub(super) fn half_open_done(&mut self, id: ConnId) {
        self.half_open_count = self.half_open_count.saturating_sub(1);
        if let Some(connection) = self.all.get_mut(&id) {
            connection.until = None;
        }
        if self.half_open.len() > 4 * MAX_HALF_OPEN {
            let all = &self.all;
            self.half_open.retain(|id| all.get(id).is_some_and(|one| one.phase == Phase::HalfOpen));
        }
    }

    /// Nobody here knows it any more.
    pub(super) fn orphan(&mut self, id: ConnId) {
        if let Some(connection) = self.all.get_mut(&id)
            && connection.phase != Phase::Orphan
        {
            connection.phase = Phase::Orphan;
            self.orphans += 1;
        }
    }

    /// Its addresses may be used again.
    pub(super) fn forget_tuple(&mut self, id: ConnId) {
        if let Some(connection) = self.all.get(&id)
            && self.by_tuple.get(&connection.tuple) == Some(&id)
        {
            self.by_tuple.remove(&connection.tuple);
        }
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Connection<H>> {
        self.set_due(id, None);
        self.forget_tuple(id);
        let gone = self.all.remove(&id)?;
        match gone.phase {
            Phase::HalfOpen => {
                // Counted, and forgotten here at the latest when there are many.
                self.half_open_count = self.half_open_count.saturating_sub(1);
                if self.half_open.len() > 4 * MAX_HALF_OPEN {
                    let all = &self.all;
                    self.half_open.retain(|id| all.contains_key(id));
                }
            }
            Phase::Orphan => self.orphans = self.orphans.saturating_sub(1),
            Phase::Open | Phase::Over => {}
        }
        Some(gone)
    }

    /// Both ends have closed one, this one first: it is remembered, and gone unless its owner knows it.
    pub(super) fn remember(&mut self, id: ConnId, now: Duration) {
        self.set_due(id, None);
        self.forget_tuple(id);
        let Some(connection) = self.all.get_mut(&id) else { return };
        let (tuple, answer) = (connection.tuple, connection.last.take());
        if connection.phase == Phase::Open {
            connection.phase = Phase::Over;
        } else {
            self.remove(id);
        }
        let until = now + PAST_TIME;
        self.past.insert(tuple, Past { until, answer });
        self.past_order.push_back((until, tuple));
        self.expire(now);
    }

    fn expire(&mut self, now: Duration) {
        while let Some((until, tuple)) = self.past_order.front().copied() {
            if until > now && self.past_order.len() <= MAX_PAST {
                break;
            }
            self.past_order.pop_front();
            if self.past.get(&tuple).is_some_and(|past| past.until == until) {
                self.past.remove(&tuple);
            }
        }
    }

    /// What is answered for one that is remembered.
    pub(super) fn past(&mut self, tuple: Tuple, now: Duration) -> Option<Outgoing> {
        self.expire(now);
        self.past.get(&tuple).and_then(|past| past.answer.clone())
    }

    pub(super) fn set_due(&mut self, id: ConnId, due: Option<Duration>) {
        let Some(connection) = self.all.get_mut(&id) else { return };
        if connection.due == due {
            return;
        }
        if let Some(old) = connection.due {
            self.due.remove(&(old, id));
        }
        connection.due = due;
        if let Some(due) = due {
            self.due.insert((due, id));
        }
    }

    /// When the next has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// One whose time has come.
    pub(super) fn next_due(&self, now: Duration) -> Option<ConnId> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, id)| *id)
    }
}
