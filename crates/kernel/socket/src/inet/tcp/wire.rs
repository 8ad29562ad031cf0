//! A connection whose other end is outside the sandbox: segments of the stack of `netstack`.
//!
//! Sizes of buffers are those at the start of a connection. Deliberately absent: urgent data, which goes as
//! ordinary data does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::MsgFlags;
use guestmem::{IoSink, IoSource};
use netstack::{ConnId, Failure, Status, TcpPhase, TcpSettings};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::Result;

use super::settings::Settings;
use super::splice::{Closed, Facts, Sizes};
use super::state::TcpState;
use crate::inet::outside::Outside;
use crate::{Received, Shutdown, Stall, Try};

/// Most bytes that are fetched from a guest, or given to one, at a time.
const CHUNK: usize = 262_144;

struct Half {
    /// Bytes that a guest could not take.
    back: VecDeque<u8>,
    /// Bytes that writers are fetching.
    coming: usize,
    /// Nobody reads here (`SHUT_RD`); nothing more is sent.
    deaf: bool,
    finished: bool,
    /// `SO_RCVLOWAT`.
    lowat: usize,
    sent: u64,
    received: u64,
    last_sent: Instant,
    last_received: Instant,
}

struct Inner {
    outside: Arc<Outside>,
    id: ConnId,
    wait: WaitQueue,
    half: Mutex<order::FileState, Half>,
}

/// An end of such a connection.
#[derive(Clone)]
pub(in crate::inet) struct Wire(Arc<Inner>);

/// What the guest is told.
pub(super) fn errno(failure: Failure) -> Errno {
    match failure {
        Failure::Refused => Errno::ECONNREFUSED,
        Failure::Reset => Errno::ECONNRESET,
        Failure::TimedOut => Errno::ETIMEDOUT,
        Failure::Unreachable => Errno::EHOSTUNREACH,
    }
}

/// How the stack is to behave by the options of a socket.
pub(super) fn stack_settings(settings: &Settings) -> TcpSettings {
    let usual = TcpSettings::default();
    let size = |set: Option<usize>, usual| set.map_or(usual, |bytes: usize| (bytes / 2).clamp(4096, 4 << 20));
    TcpSettings {
        receive: size(settings.receive, usual.receive),
        send: size(settings.send, usual.send),
        nagle: !settings.is_nodelay(),
        keepalive: settings.keepalive_pause(),
        timeout: settings.silence().unwrap_or(usual.timeout),
        hops: settings.ip.hops(),
        ..usual
    }
}

impl Wire {
    pub(super) fn new(outside: &Arc<Outside>, id: ConnId, wait: &WaitQueue, sizes: Sizes) -> Self {
        let now = Instant::now();
        let half = Half {
            back: VecDeque::new(),
            coming: 0,
            deaf: false,
            finished: false,
            lowat: sizes.lowat,
            sent: 0,
            received: 0,
            last_sent: now,
            last_received: now,
        };
        let (outside, wait) = (Arc::clone(outside), wait.clone());
        Self(Arc::new(Inner { outside, id, wait, half: Mutex::new(half) }))
    }

    /// How it stands; `None` when it is no more.
    pub(super) fn status(&self) -> Option<Status> {
        self.0.outside.look(|stack| stack.status(self.0.id))
    }

    /// Takes why it is over.
    pub(super) fn take_error(&self) -> Option<Errno> {
        self.0.outside.with(|stack, _| stack.take_failure(self.0.id)).map(errno)
    }

    /// The options of its socket have changed.
    pub(super) fn configure(&self, settings: &Settings) {
        let settings = stack_settings(settings);
        self.0.outside.with(|stack, now| stack.configure(self.0.id, &settings, now));
    }

    pub(super) fn write(&self, source: &mut dyn IoSource, _urgent: bool) -> Try<usize> {
        let mut done = 0;
        while source.remaining() > 0 || done == 0 {
            match self.write_part(source) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(stall) if done == 0 => return Err(stall),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn write_part(&self, source: &mut dyn IoSource) -> Try<usize> {
        let room = self.reserve(source.remaining())?;
        let mut data = vec![0; room];
        let fetched = source.take_all(&mut data);
        data.truncate(*fetched.as_ref().unwrap_or(&0));
        // The room has been kept for it, unless nothing can be sent any more.
        let sent = if data.is_empty() {
            Some(0)
        } else {
            self.0.outside.with(|stack, now| stack.send(self.0.id, &data, now))
        };
        {
            let mut half = self.0.half.lock();
            half.coming -= room.min(half.coming);
            half.sent += sent.unwrap_or(0) as u64;
            half.last_sent = Instant::now();
        }
        if sent.unwrap_or(0) < room {
            // Another writer may wait for the room that is not used after all.
            self.0.wait.notify(PollEvents::WRITABLE);
        }
        match sent {
            None => Err(self.take_error().unwrap_or(Errno::EPIPE).into()),
            Some(0) => fetched.map_err(Stall::from),
            Some(sent) => Ok(sent),
        }
    }

    /// Room for up to `want` bytes, which is kept for the caller.
    fn reserve(&self, want: usize) -> Try<usize> {
        let mut half = self.0.half.lock();
        let status = self.status();
        let open = status.is_some_and(|status| is_writable(status.phase));
        if half.finished || !open {
            drop(half);
            return Err(self.take_error().unwrap_or(Errno::EPIPE).into());
        }
        let room = status.map_or(0, |status| status.room).saturating_sub(half.coming);
        if room == 0 && want > 0 {
            return Err(Stall::Wait(self.0.wait.clone()));
        }
        let room = room.min(want).min(CHUNK);
        half.coming += room;
        Ok(room)
    }

    pub(super) fn read(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EINVAL);
        }
        let peek = flags.contains(MsgFlags::PEEK);
        let want = sink.remaining().min(CHUNK);
        let data = self.take(want, peek);
        if data.is_empty() {
            return self.read_nothing(want);
        }
        let mut bytes = data.len();
        if !flags.contains(MsgFlags::TRUNC) {
            let put = sink.put_all(&data);
            bytes = *put.as_ref().unwrap_or(&0);
            if bytes < data.len() && !peek {
                let mut half = self.0.half.lock();
                for byte in data.get(bytes..).unwrap_or_default().iter().rev() {
                    half.back.push_front(*byte);
                }
            }
            if bytes == 0 {
                put?;
            }
        }
        if !peek {
            let mut half = self.0.half.lock();
            half.received += bytes as u64;
            half.last_received = Instant::now();
        }
        Ok(Received { bytes, full_len: bytes, ..Received::default() })
    }

    /// Bytes that have come, at most `want`.
    fn take(&self, want: usize, peek: bool) -> Vec<u8> {
        let mut half = self.0.half.lock();
        let n = half.back.len().min(want);
        let mut data: Vec<u8> =
            if peek { half.back.iter().take(n).copied().collect() } else { half.back.drain(..n).collect() };
        drop(half);
        let rest = want - data.len();
        let outside = &self.0.outside;
        if rest > 0 && peek {
            data.extend(outside.with(|stack, _| stack.peek(self.0.id, rest)));
        } else if rest > 0 {
            let more = outside.with(|stack, now| stack.receive_from(self.0.id, rest, now));
            data = if data.is_empty() { more } else { [data, more].concat() };
        }
        data
    }

    /// There is nothing to be read: the end, an error, or something to wait for.
    fn read_nothing(&self, want: usize) -> Result<Received> {
        let (deaf, back) = {
            let half = self.0.half.lock();
            (half.deaf, half.back.len())
        };
        let status = self.status();
        let some = back > 0 || status.is_some_and(|status| status.unread > 0);
        if want == 0 && some {
            return Ok(Received::default());
        }
        if let Some(errno) = self.take_error() {
            return Err(errno);
        }
        let ended = status.is_none_or(|status| status.ended);
        if deaf || (ended && !some) {
            return Ok(Received { end: true, ..Received::default() });
        }
        Err(Errno::EAGAIN)
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> Result<Closed> {
        let status =
            self.status().filter(|status| status.phase != TcpPhase::Closed).ok_or(Errno::ENOTCONN)?;
        {
            let mut half = self.0.half.lock();
            half.deaf |= how.reads();
            half.finished |= how.writes();
        }
        if how.writes() && is_writable(status.phase) {
            self.0.outside.with(|stack, now| stack.finish(self.0.id, now));
        }
        self.0
            .wait
            .notify(PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::RDHUP | PollEvents::ALWAYS);
        Ok(Closed::Open)
    }

    pub(super) fn close(&self, abort: bool) -> Closed {
        let unread = !self.0.half.lock().back.is_empty();
        self.0.outside.with(|stack, now| stack.release(self.0.id, abort || unread, now));
        Closed::Open
    }

    pub(super) fn poll(&self) -> PollEvents {
        let (back, deaf, finished, lowat, coming) = {
            let half = self.0.half.lock();
            (half.back.len(), half.deaf, half.finished, half.lowat, half.coming)
        };
        let mut events = PollEvents::empty();
        let Some(status) = self.status() else {
            return PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::RDHUP | PollEvents::HUP;
        };
        let closed = matches!(status.phase, TcpPhase::Closed | TcpPhase::TimeWait);
        let over = status.ended || deaf;
        events.set(PollEvents::READABLE, over || status.unread + back >= lowat.max(1));
        events.set(PollEvents::RDHUP, over);
        events.set(PollEvents::HUP, closed || (over && finished));
        events.set(PollEvents::ERR, status.failure.is_some());
        let roomy = status.room.saturating_sub(coming) >= status.capacity / 3;
        events.set(PollEvents::WRITABLE, roomy || finished || !is_writable(status.phase));
        events
    }

    pub(super) fn resize(&self, sizes: Sizes) {
        self.0.half.lock().lowat = sizes.lowat;
        self.0.wait.notify(PollEvents::READABLE);
    }

    pub(super) fn state(&self) -> TcpState {
        match self.status().map_or(TcpPhase::Closed, |status| status.phase) {
            TcpPhase::SynSent => TcpState::SynSent,
            TcpPhase::SynReceived => TcpState::SynReceived,
            TcpPhase::Established => TcpState::Established,
            TcpPhase::FinWait1 => TcpState::FinWait1,
            TcpPhase::FinWait2 => TcpState::FinWait2,
            TcpPhase::CloseWait => TcpState::CloseWait,
            TcpPhase::Closing => TcpState::Closing,
            TcpPhase::LastAck => TcpState::LastAck,
            TcpPhase::TimeWait => TcpState::TimeWait,
            TcpPhase::Closed => TcpState::Close,
        }
    }

    pub(super) fn facts(&self) -> Facts {
        let status = self.status();
        let half = self.0.half.lock();
        Facts {
            unread: status.map_or(0, |status| status.unread) + half.back.len(),
            unsent: status.map_or(0, |status| status.unacknowledged),
            sent: half.sent,
            received: half.received,
            last_sent: half.last_sent,
            last_received: half.last_received,
            segment: status.map_or(0, |status| status.segment),
            round_trip: status.and_then(|status| status.round_trip),
        }
    }
}

fn is_writable(phase: TcpPhase) -> bool {
    matches!(phase, TcpPhase::Established | TcpPhase::CloseWait)
}
