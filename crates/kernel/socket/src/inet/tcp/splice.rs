//! A connection between two sockets of the sandbox: two queues of bytes, without segments between, with
//! TCP's visible semantics (RFC 9293): half close, reset, and the states `/proc/net/tcp` shows.
//!
//! Both ends are behind one lock, so that what an end does is seen by the other whole or not at all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::MsgFlags;
use guestmem::{IoSink, IoSource};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::Result;

use super::inbox::Inbox;
use super::state::TcpState;
use crate::{Received, Shutdown, Stall, Try};

/// Most bytes that are fetched from a guest at a time.
const CHUNK: usize = 65_536;
/// Room for at least so much, whatever the buffers' sizes.
const LEAST: usize = 4096;

/// One end's part.
struct Half {
    inbox: Inbox,
    /// Bytes that writers at the other end are fetching to put here.
    coming: usize,
    /// `SO_RCVBUF` of this end, `SO_SNDBUF` of it, in bytes of data.
    receive_limit: usize,
    send_limit: usize,
    /// The other end's FIN has arrived, behind all data.
    ended: bool,
    /// This end has sent its own.
    finished: bool,
    /// Nobody reads here (`SHUT_RD`).
    deaf: bool,
    /// The connection is broken: nothing comes or goes.
    broken: bool,
    /// Its socket is gone.
    gone: bool,
    /// To be told once.
    error: Option<Errno>,
    /// A writer of this end waits for room.
    starved: bool,
    /// Urgent bytes stand in the stream (`SO_OOBINLINE`).
    inline: bool,
    /// `SO_RCVLOWAT`.
    lowat: usize,
    /// `SO_REUSEADDR`, for when the end is only remembered.
    reuse: bool,
    /// Bytes sent, and when last; bytes received, and when last.
    sent: u64,
    last_sent: Instant,
    received: u64,
    last_received: Instant,
}

impl Half {
    fn new(sizes: Sizes) -> Self {
        let now = Instant::now();
        Self {
            inbox: Inbox::default(),
            coming: 0,
            receive_limit: sizes.receive,
            send_limit: sizes.send,
            ended: false,
            finished: false,
            deaf: false,
            broken: false,
            gone: false,
            error: None,
            starved: false,
            inline: sizes.inline,
            lowat: sizes.lowat,
            reuse: sizes.reuse,
            sent: 0,
            last_sent: now,
            received: 0,
            last_received: now,
        }
    }

    /// Something a read would return at once?
    fn is_readable(&self) -> bool {
        self.inbox.len() >= self.lowat.min(self.receive_limit).max(1) || self.is_over()
    }

    /// No byte will come any more.
    fn is_over(&self) -> bool {
        self.ended || self.deaf || self.broken
    }
}

/// Sizes and switches an end starts with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Bytes it may have unread.
    pub(super) receive: usize,
    /// Bytes it may have under way beside.
    pub(super) send: usize,
    /// `SO_RCVLOWAT`.
    pub(super) lowat: usize,
    /// `SO_OOBINLINE`.
    pub(super) inline: bool,
    /// `SO_REUSEADDR`.
    pub(super) reuse: bool,
}

struct Both {
    halves: [Half; 2],
    /// Whose FIN was first; taken once both have been sent.
    first: Option<Side>,
}

impl Both {
    /// The part of `side`, and the other's.
    fn of(&mut self, side: Side) -> (&mut Half, &mut Half) {
        let [a, b] = &mut self.halves;
        match side {
            Side::Client => (a, b),
            Side::Server => (b, a),
        }
    }

    /// Breaks the connection; the end `other` hears of it as of a RST.
    fn reset(&mut self, side: Side) {
        let (mine, theirs) = self.of(side);
        if theirs.broken {
            return;
        }
        mine.broken = true;
        if !(theirs.ended && theirs.finished) {
            theirs.error = Some(if theirs.ended { Errno::EPIPE } else { Errno::ECONNRESET });
        }
        theirs.broken = true;
    }

    /// Sends the FIN of `side`.
    fn finish(&mut self, side: Side) {
        let (mine, theirs) = self.of(side);
        if !mine.finished && !mine.broken {
            mine.finished = true;
            theirs.ended = true;
            self.first.get_or_insert(side);
        }
    }
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that connected.
    Client,
    /// The one that was accepted.
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

struct Pair {
    both: Mutex<order::FileState, Both>,
    client: WaitQueue,
    server: WaitQueue,
}

/// An end of a connection.
#[derive(Clone)]
pub(super) struct End {
    pair: Arc<Pair>,
    side: Side,
}

/// Numbers that `TCP_INFO` and `/proc/net/tcp` tell of an end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Bytes nobody has read, here and at the other end.
    pub(super) unread: usize,
    pub(super) unsent: usize,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) last_sent: Instant,
    pub(super) last_received: Instant,
    /// Bytes of data of a full segment.
    pub(super) segment: usize,
    /// The way to the other end and back; `None` as long as nobody knows.
    pub(super) round_trip: Option<netstack::RoundTrip>,
}

/// Segment size of the loopback.
const SEGMENT: usize = 65_483;
/// What a segment there would take.
const ROUND_TRIP: netstack::RoundTrip = netstack::RoundTrip {
    smoothed: Duration::from_micros(20),
    variance: Duration::from_micros(10),
    least: Duration::from_micros(10),
};

/// How a connection stands once an end has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// The other end goes on, or nothing is to be remembered.
    Open,
    /// Both have closed in order; the end of this side closed first, and is remembered with its
    /// `SO_REUSEADDR`.
    Waiting(Side, bool),
}

impl End {
    /// A connection between a client that waits on `client` and a server that waits on `server`.
    pub(super) fn pair(client: (&WaitQueue, Sizes), server: (&WaitQueue, Sizes)) -> (Self, Self) {
        let halves = [Half::new(client.1), Half::new(server.1)];
        let both = Mutex::new(Both { halves, first: None });
        let pair = Arc::new(Pair { both, client: client.0.clone(), server: server.0.clone() });
        (Self { pair: Arc::clone(&pair), side: Side::Client }, Self { pair, side: Side::Server })
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    fn queue(&self, side: Side) -> &WaitQueue {
        match side {
            Side::Client => &self.pair.client,
            Side::Server => &self.pair.server,
        }
    }

    /// Runs `change` over this end's part and the other's.
    fn with<T>(&self, change: impl FnOnce(&mut Half, &mut Half) -> T) -> T {
        let mut both = self.pair.both.lock();
        let (mine, theirs) = both.of(self.side);
        change(mine, theirs)
    }

    /// Tells the other end.
    fn tell(&self, events: PollEvents) {
        self.queue(self.side.other()).notify(events);
    }

    /// Sends as much as there is room for; with `urgent`, the last byte so. `EPIPE` when nobody reads.
    pub(super) fn write(&self, source: &mut dyn IoSource, urgent: bool) -> Try<usize> {
        let mut done = 0;
        while source.remaining() > 0 || done == 0 {
            match self.write_part(source, urgent) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(stall) if done == 0 => return Err(stall),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn write_part(&self, source: &mut dyn IoSource, urgent: bool) -> Try<usize> {
        let room = self.reserve(source.remaining())?;
        let mut data = vec![0; room];
        let fetched = source.take_all(&mut data);
        data.truncate(*fetched.as_ref().unwrap_or(&0));
        let sent = data.len();
        // The last byte of the call is the urgent one.
        let last = if urgent && source.remaining() == 0 { data.pop() } else { None };
        if sent < room {
            // Another writer may wait for the room that is not used after all.
            self.with(|_, theirs| theirs.coming -= room - sent);
            self.queue(self.side).notify(PollEvents::WRITABLE);
        }
        if sent == 0 {
            return fetched.map_err(Stall::from);
        }
        let told = {
            let mut both = self.pair.both.lock();
            let (mine, theirs) = both.of(self.side);
            theirs.coming -= sent;
            let now = Instant::now();
            mine.sent += sent as u64;
            mine.last_sent = now;
            // Nobody will ever read it: what TCP answers with a RST.
            let lost = theirs.gone || (theirs.deaf && theirs.finished);
            if lost && !mine.broken {
                let side = self.side.other();
                both.reset(side);
            } else if !mine.broken {
                theirs.received += sent as u64;
                theirs.last_received = now;
                theirs.inbox.push(data);
                if let Some(byte) = last {
                    let inline = theirs.inline;
                    theirs.inbox.push_urgent(byte, inline);
                }
            }
            lost
        };
        if told {
            self.announce();
        } else {
            let urgent = if last.is_some() { PollEvents::PRI } else { PollEvents::empty() };
            self.tell(PollEvents::READABLE | urgent);
        }
        Ok(sent)
    }

    /// Room for up to `want` bytes at the other end, which is kept for the caller.
    fn reserve(&self, want: usize) -> Try<usize> {
        self.with(|mine, theirs| {
            if mine.broken || mine.finished {
                return Err(mine.error.take().unwrap_or(Errno::EPIPE).into());
            }
            let room = room(mine, theirs);
            if room == 0 && want > 0 {
                mine.starved = true;
                return Err(Stall::Wait(self.queue(self.side).clone()));
            }
            if room < want {
                mine.starved = true;
            }
            let room = room.min(want).min(CHUNK);
            theirs.coming += room;
            Ok(room)
        })
    }

    /// Reads what is there; `EAGAIN` when nothing is.
    pub(super) fn read(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return self.read_urgent(sink, flags);
        }
        let peek = flags.contains(MsgFlags::PEEK);
        let want = sink.remaining();
        let mut pieces = self.with(|mine, _| {
            let pieces = if peek { mine.inbox.peek(want) } else { mine.inbox.take(want) };
            if !pieces.is_empty() {
                return Ok(pieces);
            }
            // After the other's FIN there is no error any more to be told of.
            match mine.error.filter(|_| !mine.ended) {
                Some(errno) => {
                    mine.error = None;
                    Err(errno)
                }
                None if mine.is_over() || (want == 0 && mine.inbox.len() > 0) => Ok(pieces),
                None => Err(Errno::EAGAIN),
            }
        })?;
        let end = pieces.is_empty();
        let mut bytes = 0;
        if flags.contains(MsgFlags::TRUNC) {
            // Thrown away, as Linux does for streams.
            bytes = pieces.iter().map(|piece| piece.unread().len()).sum();
        } else {
            for index in 0..pieces.len() {
                let Some(piece) = pieces.get_mut(index) else { break };
                let put = sink.put_all(piece.unread());
                let (n, whole) = (*put.as_ref().unwrap_or(&0), put == Ok(piece.unread().len()));
                bytes += n;
                if !whole {
                    piece.skip += n;
                    let back = pieces.split_off(index);
                    if !peek {
                        self.with(|mine, _| mine.inbox.put_back(back));
                    }
                    if bytes == 0 {
                        put?;
                    }
                    break;
                }
            }
        }
        if !peek && bytes > 0 {
            self.made_room();
        }
        Ok(Received { bytes, full_len: bytes, end, ..Received::default() })
    }

    /// Tells a writer at the other end that it may go on.
    fn made_room(&self) {
        let told = self.with(|mine, theirs| {
            let told = theirs.starved && is_roomy(theirs, mine);
            theirs.starved &= !told;
            told
        });
        if told {
            self.tell(PollEvents::WRITABLE);
        }
    }

    /// `MSG_OOB`: `EINVAL` when there is no urgent byte.
    fn read_urgent(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        let byte = self.with(|mine, _| {
            let urgent = mine.inbox.urgent.as_mut().filter(|_| !mine.inline).ok_or(Errno::EINVAL)?;
            let byte = urgent.byte.ok_or(Errno::EINVAL)?;
            if !flags.contains(MsgFlags::PEEK) {
                urgent.byte = None;
            }
            Ok::<_, Errno>(byte)
        })?;
        let bytes = sink.put_all(&[byte])?;
        let flags = if bytes == 0 { MsgFlags::OOB | MsgFlags::TRUNC } else { MsgFlags::OOB };
        Ok(Received { bytes, full_len: 1, flags, ..Received::default() })
    }

    /// `SIOCATMARK`.
    pub(super) fn is_at_mark(&self) -> bool {
        self.with(|mine, _| mine.inbox.is_at_mark())
    }

    /// `shutdown(2)`; `ENOTCONN` when the connection is over. Says whether both ends have closed by it.
    pub(super) fn shutdown(&self, how: Shutdown) -> Result<Closed> {
        let closed = {
            let mut both = self.pair.both.lock();
            if state(&mut both, self.side) == TcpState::Close {
                return Err(Errno::ENOTCONN);
            }
            if how.reads() {
                both.of(self.side).0.deaf = true;
            }
            if how.writes() {
                both.finish(self.side);
            }
            closed(&mut both)
        };
        self.announce();
        Ok(closed)
    }

    /// The socket of this end goes; `abort` says it with a RST (`SO_LINGER` of 0 seconds), as does data nobody
    /// has read.
    pub(super) fn close(&self, abort: bool) -> Closed {
        let closed = {
            let mut both = self.pair.both.lock();
            let (mine, theirs) = both.of(self.side);
            mine.gone = true;
            let reset = abort || mine.inbox.len() > 0;
            mine.inbox.clear();
            let over = mine.finished && mine.ended && theirs.gone;
            if reset && !over {
                both.reset(self.side);
            } else {
                both.finish(self.side);
            }
            closed(&mut both)
        };
        self.announce();
        closed
    }

    /// Wakes everybody at both ends: how things stand has changed.
    fn announce(&self) {
        let events = PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::RDHUP | PollEvents::ALWAYS;
        self.pair.client.notify(events);
        self.pair.server.notify(events);
    }

    /// Readiness.
    pub(super) fn poll(&self) -> PollEvents {
        self.with(|mine, theirs| {
            let mut events = PollEvents::empty();
            let over = mine.is_over();
            events.set(PollEvents::READABLE, mine.is_readable());
            events.set(PollEvents::RDHUP, over);
            events.set(PollEvents::HUP, mine.broken || (over && mine.finished));
            events.set(PollEvents::ERR, mine.error.is_some());
            events.set(PollEvents::PRI, mine.inbox.urgent.is_some_and(|urgent| urgent.byte.is_some()));
            let writable = mine.broken || mine.finished || is_roomy(mine, theirs);
            events.set(PollEvents::WRITABLE, writable);
            mine.starved |= !writable;
            events
        })
    }

    /// Takes the pending error.
    pub(super) fn take_error(&self) -> Option<Errno> {
        self.with(|mine, _| mine.error.take())
    }

    /// Changes sizes and switches.
    pub(super) fn resize(&self, sizes: Sizes) {
        self.with(|mine, _| {
            (mine.receive_limit, mine.send_limit) = (sizes.receive, sizes.send);
            (mine.lowat, mine.inline, mine.reuse) = (sizes.lowat, sizes.inline, sizes.reuse);
        });
        self.made_room();
        self.queue(self.side).notify(PollEvents::WRITABLE | PollEvents::READABLE);
    }

    /// The state of this end.
    pub(super) fn state(&self) -> TcpState {
        state(&mut self.pair.both.lock(), self.side)
    }

    /// Numbers.
    pub(super) fn facts(&self) -> Facts {
        let mut both = self.pair.both.lock();
        let (mine, theirs) = both.of(self.side);
        Facts {
            unread: mine.inbox.len().min(mine.receive_limit),
            unsent: theirs.inbox.len().saturating_sub(theirs.receive_limit),
            sent: mine.sent,
            received: mine.received,
            last_sent: mine.last_sent,
            last_received: mine.last_received,
            segment: SEGMENT,
            round_trip: Some(ROUND_TRIP),
        }
    }
}

/// Bytes that `mine` may still send to `theirs`: what it may have under way, and what the other may have
/// unread.
fn room(mine: &Half, theirs: &Half) -> usize {
    let limit = mine.send_limit.saturating_add(theirs.receive_limit).max(LEAST);
    limit.saturating_sub(theirs.inbox.len() + theirs.coming)
}

/// Room for a third of it: a writer is woken for more than a byte.
fn is_roomy(mine: &Half, theirs: &Half) -> bool {
    let limit = mine.send_limit.saturating_add(theirs.receive_limit).max(LEAST);
    room(mine, theirs) >= limit / 3
}

fn state(both: &mut Both, side: Side) -> TcpState {
    let (mine, _) = both.of(side);
    match (mine.broken, mine.finished, mine.ended) {
        (true, _, _) => TcpState::Close,
        (false, false, false) => TcpState::Established,
        (false, true, false) => TcpState::FinWait2,
        (false, false, true) => TcpState::CloseWait,
        // The one that closed first is remembered elsewhere; its socket has nothing left, as on Linux.
        (false, true, true) => TcpState::Close,
    }
}

/// Have both ends closed in order? Says so once.
fn closed(both: &mut Both) -> Closed {
    let (client, server) = both.of(Side::Client);
    let orderly = client.finished && server.finished && !client.broken;
    match both.first.take_if(|_| orderly) {
        Some(first) => Closed::Waiting(first, both.of(first).0.reuse),
        None => Closed::Open,
    }
}
