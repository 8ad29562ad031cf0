//! What Unix sockets send and receive.

use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use abi::socket::{MsgFlags, SocketKind, Ucred};
use guestmem::{IoSink, IoSource};
use vfs::Result;

use super::flight::InFlight;
use super::state::{Core, Message, Role, Shut, State};
use super::{UnixSocket, address};
use crate::{Ancillary, Asker, FileRef, Outgoing, Received, Stall, Try};

impl UnixSocket {
    /// Sends as much of a stream as fits; control data goes with its first byte.
    pub(super) fn send_stream(
        &self,
        asker: &Asker<'_>,
        source: &mut dyn IoSource,
        message: &Outgoing<'_>,
    ) -> Try<usize> {
        let peer = {
            let state = self.core.state.lock();
            let connected = matches!(state.role, Role::Connected(_));
            if message.to.is_some() {
                return Err(if connected { Errno::EISCONN } else { Errno::EOPNOTSUPP }.into());
            }
            let peer = state.role.peer().ok_or(Errno::ENOTCONN)?;
            if state.shut.contains(Shut::WRITE) {
                return Err(Errno::EPIPE.into());
            }
            peer
        };
        let mut sent = 0;
        while source.remaining() > 0 {
            let files = if sent == 0 { message.ancillary.files.clone() } else { Vec::new() };
            let control = Ancillary { files, credentials: message.ancillary.credentials, other: Vec::new() };
            match self.send_part(asker, source, &peer, control) {
                Ok(0) => break,
                Ok(n) => sent += n,
                Err(stall) if sent == 0 => return Err(stall),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    fn send_part(
        &self,
        asker: &Asker<'_>,
        source: &mut dyn IoSource,
        peer: &Core,
        control: Ancillary,
    ) -> Try<usize> {
        let files = InFlight::new(control.files, &self.names)?;
        let Some((room, charge)) = self.core.buffer.reserve(source.remaining(), false) else {
            return Err(Stall::Wait(self.core.wait.clone()));
        };
        let mut data = vec![0; room];
        let fetched = source.take_all(&mut data)?;
        data.truncate(fetched);
        let sent = data.len();
        if sent == 0 {
            return Ok(0);
        }
        let credentials = control.credentials.unwrap_or_else(|| asker.real());
        let from = self.core.bound_address();
        peer.push(Message { data, read: 0, files, credentials, from, _charge: Some(charge) })?;
        Ok(sent)
    }

    /// Sends one packet.
    pub(super) fn send_packet(
        &self,
        asker: &Asker<'_>,
        source: &mut dyn IoSource,
        message: &Outgoing<'_>,
    ) -> Try<usize> {
        let packets = self.core.kind == SocketKind::SeqPacket;
        let peer = self.packet_peer(packets)?;
        let to = message.to.filter(|_| !packets);
        match to {
            Some(to) => drop(address::parse(to)?),
            None if peer.is_none() => return Err(Errno::ENOTCONN.into()),
            None => {}
        }
        self.bind_if_credentials()?;
        let want = source.remaining();
        if want > self.core.buffer.max_packet() {
            return Err(Errno::EMSGSIZE.into());
        }
        if self.core.state.lock().shut.contains(Shut::WRITE) {
            return Err(Errno::EPIPE.into());
        }
        let files = InFlight::new(message.ancillary.files.clone(), &self.names)?;
        let Some((_, charge)) = self.core.buffer.reserve(want, true) else {
            return Err(Stall::Wait(self.core.wait.clone()));
        };
        let data = source.take_exact(want)?;
        let target = match (to, peer) {
            (Some(to), _) => self.find(asker, to)?,
            (None, Some(peer)) => peer,
            (None, None) => return Err(Errno::ENOTCONN.into()),
        };
        let credentials = message.ancillary.credentials.unwrap_or_else(|| asker.real());
        let from = self.core.bound_address();
        let packet = Message { data, read: 0, files, credentials, from, _charge: Some(charge) };
        if packets {
            target.push(packet)?;
        } else {
            self.deliver(&target, packet)?;
        }
        Ok(want)
    }

    /// The default destination, and errors that come before anything else.
    fn packet_peer(&self, packets: bool) -> Result<Option<Arc<Core>>> {
        let mut state = self.core.state.lock();
        if let Some(errno) = state.error.take() {
            return Err(errno);
        }
        match state.role.peer() {
            None if packets => Err(Errno::ENOTCONN),
            peer => Ok(peer),
        }
    }

    /// Puts a datagram into the queue of `target`.
    fn deliver(&self, target: &Arc<Core>, packet: Message) -> Try<()> {
        target.admits(&self.core)?;
        let crowded = target.is_crowded_for(&self.core);
        {
            let mut state = target.state.lock();
            let refused = if state.dead {
                Some(Stall::Errno(Errno::ECONNREFUSED))
            } else if state.shut.contains(Shut::READ) {
                Some(Stall::Errno(Errno::EPIPE))
            } else if crowded {
                Some(Stall::Wait(target.room.clone()))
            } else {
                None
            };
            match refused {
                None => state.queue.push_back(packet),
                Some(stall) => {
                    let dead = state.dead;
                    drop(state);
                    drop(packet);
                    if dead {
                        self.forget(target);
                    }
                    return Err(stall);
                }
            }
        }
        target.wait.notify(PollEvents::READABLE);
        Ok(())
    }

    /// A destination that has died is one no more.
    fn forget(&self, target: &Core) {
        let mut state = self.core.state.lock();
        if state.role.leads_to(target) {
            let old = std::mem::take(&mut state.role);
            drop(state);
            drop(old);
        }
    }

    /// Takes the next packet; what does not fit is lost.
    pub(super) fn receive_packet(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let peek = flags.contains(MsgFlags::PEEK);
        let (data, files, credentials, from, gone) = {
            let mut state = self.core.state.lock();
            let packets = self.core.kind == SocketKind::SeqPacket;
            if packets && !matches!(state.role, Role::Connected(_)) {
                return Err(Errno::ENOTCONN);
            }
            if let Some(errno) = state.error.take() {
                return Err(errno);
            }
            let ended = state.shut.contains(Shut::READ);
            let passes = state.passes_credentials;
            let Some(first) = state.queue.front_mut() else {
                // A datagram socket that does not wait cannot tell an end from a pause.
                let end = ended && (packets || !flags.contains(MsgFlags::DONTWAIT));
                return if end { Ok(Received { end, ..Received::default() }) } else { Err(Errno::EAGAIN) };
            };
            let credentials = passes.then_some(first.credentials);
            if peek {
                (first.data.clone(), first.files.copies(), credentials, first.from.clone(), None)
            } else {
                let data = std::mem::take(&mut first.data);
                let (files, from) = (first.files.land(), first.from.take());
                (data, files, credentials, from, state.queue.pop_front())
            }
        };
        if gone.is_some() {
            self.core.room.notify(PollEvents::WRITABLE);
        }
        // Gives the sender its buffer back.
        drop(gone);
        let bytes = sink.put_all(&data)?;
        let mut out = MsgFlags::empty();
        out.set(MsgFlags::TRUNC, bytes < data.len());
        let ancillary = Ancillary { files, credentials, other: Vec::new() };
        Ok(Received { bytes, full_len: data.len(), ancillary, from, flags: out, end: false })
    }

    /// Takes as much of the stream as `sink` does, up to a message with descriptors, and with
    /// `SO_PASSCRED` up to another sender's.
    pub(super) fn receive_stream(&self, sink: &mut dyn IoSink, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EINVAL);
        }
        let mut taken = self.take(sink.remaining(), flags.contains(MsgFlags::PEEK))?;
        let mut bytes = 0;
        for index in 0..taken.parts.len() {
            let part = taken.parts.get(index).map(Part::bytes).unwrap_or_default();
            let put = sink.put_all(part);
            bytes += put.unwrap_or(0);
            if put != Ok(part.len()) {
                self.put_back(&mut taken, index, put.unwrap_or(0));
                if bytes == 0 {
                    put?;
                }
                break;
            }
        }
        let Taken { files, credentials, from, end, .. } = taken;
        let ancillary = Ancillary { files, credentials, other: Vec::new() };
        Ok(Received { bytes, full_len: bytes, ancillary, from, flags: MsgFlags::empty(), end })
    }

    /// Takes bytes out of the queue before they are copied to the guest, so that no lock is held then.
    fn take(&self, limit: usize, peek: bool) -> Result<Taken> {
        let mut guard = self.core.state.lock();
        let state = &mut *guard;
        if !matches!(state.role, Role::Connected(_)) {
            return Err(Errno::EINVAL);
        }
        let mut taken = Taken::default();
        if state.queue.is_empty() {
            if let Some(errno) = state.error.take() {
                return Err(errno);
            }
            taken.end = state.shut.contains(Shut::READ);
            return if taken.end { Ok(taken) } else { Err(Errno::EAGAIN) };
        }
        taken.passes = state.passes_credentials;
        if peek {
            taken.copy(state, limit)
        } else {
            taken.remove(state, limit)
        }
        Ok(taken)
    }

    /// Puts back what could not be delivered: of part `index` all but `delivered` bytes, and all behind.
    fn put_back(&self, taken: &mut Taken, index: usize, delivered: usize) {
        let rest = taken.parts.split_off(index);
        let Ok(files) = InFlight::new(Vec::new(), &self.names) else { return };
        if taken.peeked {
            return;
        }
        let mut data = Vec::new();
        for part in &rest {
            data.extend_from_slice(part.bytes());
        }
        let (credentials, from) = (taken.sender.unwrap_or_default(), taken.from.clone());
        let message = Message { data, read: delivered, files, credentials, from, _charge: None };
        self.core.state.lock().queue.push_front(message);
        drop(rest);
    }
}

/// Bytes of a stream on their way to a guest.
enum Part {
    /// A message of which nothing is left; its charge goes when it does.
    Whole(Message),
    Copy(Vec<u8>),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Whole(message) => message.unread(),
            Self::Copy(bytes) => bytes,
        }
    }
}

#[derive(Default)]
struct Taken {
    parts: Vec<Part>,
    files: Vec<FileRef>,
    credentials: Option<Ucred>,
    sender: Option<Ucred>,
    from: Option<Vec<u8>>,
    /// The receiver wants credentials.
    passes: bool,
    /// Everything is still in the queue.
    peeked: bool,
    end: bool,
}

impl Taken {
    /// Moves up to `limit` bytes out of the queue.
    fn remove(&mut self, state: &mut State, limit: usize) {
        let mut room = limit;
        while room > 0 && self.files.is_empty() {
            let Some(message) = state.queue.front_mut().filter(|message| self.follows(message)) else {
                return;
            };
            self.files = message.files.land();
            let len = message.unread().len();
            if len <= room {
                self.parts.extend(state.queue.pop_front().map(Part::Whole));
            } else {
                self.parts.push(Part::Copy(message.unread().get(..room).unwrap_or_default().to_vec()));
                message.read += room;
            }
            room -= len.min(room);
        }
    }

    /// Copies up to `limit` bytes (`MSG_PEEK`).
    fn copy(&mut self, state: &State, limit: usize) {
        self.peeked = true;
        let mut room = limit;
        for message in &state.queue {
            if room == 0 || !self.files.is_empty() || !self.follows(message) {
                return;
            }
            self.files = message.files.copies();
            let part = message.unread().get(..room).unwrap_or(message.unread());
            room -= part.len();
            self.parts.push(Part::Copy(part.to_vec()));
        }
    }

    /// May `message` run together with what has been taken?
    fn follows(&mut self, message: &Message) -> bool {
        if self.sender.is_none() {
            self.sender = Some(message.credentials);
            self.credentials = self.passes.then_some(message.credentials);
            self.from.clone_from(&message.from);
            return true;
        }
        !self.passes || self.sender == Some(message.credentials)
    }
}
