//! Message queues (`msgop(2)`, `msgctl(2)`).

use std::collections::VecDeque;

use abi::Errno;
use abi::poll::PollEvents;
use sync::wait::WaitQueue;
use sync::{Mutex, order};

use crate::Result;
use crate::registry::Permissions;

/// Bytes in a message, unless [`limits`](crate::limits) say otherwise (`MSGMAX`).
pub const MAX_MESSAGE: usize = 8192;
/// Bytes in a queue by default (`MSGMNB`).
pub const DEFAULT_QUEUE_BYTES: usize = 16_384;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type, positive.
    pub kind: i64,
    /// Its text.
    pub text: Vec<u8>,
}

/// Which message `msgrcv(2)` wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The first.
    First,
    /// The first of this type.
    Kind(i64),
    /// The first that is not of this type (`MSG_EXCEPT`).
    Except(i64),
    /// The first of the lowest type that is at most this.
    Lowest(i64),
    /// The one at this position (`MSG_COPY`); it stays in the queue.
    Copy(usize),
}

impl Select {
    /// From the arguments of `msgrcv(2)`.
    pub fn new(kind: i64, except: bool, copy: bool) -> Result<Self> {
        if copy {
            return Ok(Self::Copy(usize::try_from(kind).map_err(|_| Errno::EINVAL)?));
        }
        Ok(match kind {
            0 => Self::First,
            k if k < 0 => Self::Lowest(k.checked_neg().unwrap_or(i64::MAX)),
            k if except => Self::Except(k),
            k => Self::Kind(k),
        })
    }
}

/// Counters of a queue (`struct msqid64_ds`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes in it.
    pub bytes: usize,
    /// Messages in it.
    pub messages: usize,
    /// Bytes it may hold.
    pub max_bytes: usize,
    /// Process of the last send.
    pub last_sender: i32,
    /// Process of the last receive.
    pub last_receiver: i32,
    /// Second of the last send.
    pub sent: i64,
    /// Second of the last receive.
    pub received: i64,
    /// Second of the last change.
    pub changed: i64,
}

struct State {
    permissions: Permissions,
    queue: VecDeque<Message>,
    status: Status,
    removed: bool,
}

/// A message queue.
pub struct MessageQueue {
    state: Mutex<order::FileState, State>,
    wait: WaitQueue,
}

impl MessageQueue {
    /// An empty queue made at `now` (seconds), for so many bytes.
    pub fn new(permissions: Permissions, max_bytes: usize, now: i64) -> Self {
        let status = Status { max_bytes, changed: now, ..Status::default() };
        let state = State { permissions, queue: VecDeque::new(), status, removed: false };
        Self { state: Mutex::new(state), wait: WaitQueue::new() }
    }

    /// Receivers wait here for `IN`, senders for `OUT`.
    pub fn wait_queue(&self) -> &WaitQueue {
        &self.wait
    }

    /// Owner and mode.
    pub fn permissions(&self) -> Permissions {
        self.state.lock().permissions
    }

    /// Its counters.
    pub fn status(&self) -> Status {
        self.state.lock().status
    }

    /// `IPC_SET`: owner, mode and size.
    pub fn set(&self, uid: u32, gid: u32, mode: u32, max_bytes: usize, now: i64) {
        let mut state = self.state.lock();
        state.permissions.set(uid, gid, mode);
        (state.status.max_bytes, state.status.changed) = (max_bytes, now);
        drop(state);
        self.wait.notify(PollEvents::OUT);
    }

    /// Appends a message (`msgsnd(2)`), whose length the caller has checked; `EAGAIN` when there is no room, `EIDRM` when it has been removed.
    pub fn send(&self, message: Message, pid: i32, now: i64) -> Result<()> {
        if message.kind < 1 {
            return Err(Errno::EINVAL);
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.removed {
            return Err(Errno::EIDRM);
        }
        // Linux counts messages against the byte limit too, so that empty ones are bounded.
        let status = &mut state.status;
        if status.bytes + message.text.len() > status.max_bytes || status.messages >= status.max_bytes {
            return Err(Errno::EAGAIN);
        }
        status.bytes += message.text.len();
        status.messages += 1;
        (status.last_sender, status.sent) = (pid, now);
        state.queue.push_back(message);
        drop(guard);
        self.wait.notify(PollEvents::IN);
        Ok(())
    }

    /// Takes a message of at most `max` bytes (`msgrcv(2)`): `EAGAIN` when none fits the selection (the
    /// caller waits or says `ENOMSG`), `E2BIG` when it is too long and `truncate` (`MSG_NOERROR`) is not
    /// set; it then stays in the queue.
    pub fn receive(&self, select: Select, max: usize, truncate: bool, pid: i32, now: i64) -> Result<Message> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.removed {
            return Err(Errno::EIDRM);
        }
        let at = select.position(&state.queue).ok_or(Errno::EAGAIN)?;
        let length = state.queue.get(at).map_or(0, |m| m.text.len());
        if length > max && !truncate {
            return Err(Errno::E2BIG);
        }
        let copies = matches!(select, Select::Copy(_));
        let taken = if copies { state.queue.get(at).cloned() } else { state.queue.remove(at) };
        let mut message = taken.ok_or(Errno::EAGAIN)?;
        message.text.truncate(max);
        if !copies {
            state.status.bytes -= length;
            state.status.messages -= 1;
            (state.status.last_receiver, state.status.received) = (pid, now);
            drop(guard);
            self.wait.notify(PollEvents::OUT);
        }
        Ok(message)
    }

    /// The queue has been removed: everybody who waits gets `EIDRM`.
    pub fn mark_removed(&self) {
        let dropped: VecDeque<Message>;
        {
            let mut state = self.state.lock();
            state.removed = true;
            dropped = std::mem::take(&mut state.queue);
        }
        drop(dropped);
        self.wait.notify(PollEvents::IN | PollEvents::OUT | PollEvents::HUP);
    }
}

impl Select {
    fn position(self, queue: &VecDeque<Message>) -> Option<usize> {
        match self {
            Self::First => (!queue.is_empty()).then_some(0),
            Self::Kind(kind) => queue.iter().position(|m| m.kind == kind),
            Self::Except(kind) => queue.iter().position(|m| m.kind != kind),
            Self::Lowest(limit) => {
                let candidates = queue.iter().enumerate().filter(|(_, m)| m.kind <= limit);
                candidates.min_by_key(|(at, m)| (m.kind, *at)).map(|(at, _)| at)
            }
            Self::Copy(at) => (at < queue.len()).then_some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use cred::Credentials;

    use super::{DEFAULT_QUEUE_BYTES, Message, MessageQueue, Select};
    use crate::registry::{IPC_CREAT, Permissions, Registry};

    fn queue() -> MessageQueue {
        let registry: Registry<Permissions> = Registry::new(1);
        let id = registry.get(1, IPC_CREAT | 0o600, &Credentials::root(), |_| Ok(()), Ok).expect("room");
        MessageQueue::new(*registry.find(id).expect("there"), DEFAULT_QUEUE_BYTES, 0)
    }

    fn message(kind: i64, text: &str) -> Message {
        Message { kind, text: text.as_bytes().to_vec() }
    }

    #[test]
    fn selection_follows_the_type_argument() {
        let queue = queue();
        for (kind, text) in [(3, "c"), (1, "a"), (2, "b"), (1, "a2")] {
            queue.send(message(kind, text), 7, 0).expect("room");
        }
        let take = |kind, except| {
            let select = Select::new(kind, except, false)?;
            queue.receive(select, 10, false, 8, 0)
        };
        assert_eq!(take(-2, false), Ok(message(1, "a")));
        assert_eq!(take(3, true), Ok(message(2, "b")));
        assert_eq!(take(0, false), Ok(message(3, "c")));
        assert_eq!(take(9, false), Err(Errno::EAGAIN));
        assert_eq!(take(i64::MIN, false), Ok(message(1, "a2")));
    }

    #[test]
    fn long_messages_stay_unless_cut() {
        let queue = queue();
        queue.send(message(1, "long"), 7, 0).expect("room");
        assert_eq!(queue.receive(Select::First, 2, false, 8, 0), Err(Errno::E2BIG));
        assert_eq!(queue.receive(Select::First, 2, true, 8, 0), Ok(message(1, "lo")));
        assert_eq!(queue.status().bytes, 0);
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_and_messages() {
        let queue = queue();
        for _ in 0..DEFAULT_QUEUE_BYTES {
            queue.send(message(1, ""), 7, 0).expect("room");
        }
        assert_eq!(queue.send(message(1, ""), 7, 0), Err(Errno::EAGAIN));
        assert_eq!(queue.send(message(0, ""), 7, 0), Err(Errno::EINVAL));
        queue.mark_removed();
        assert_eq!(queue.send(message(1, ""), 7, 0), Err(Errno::EIDRM));
    }
}
