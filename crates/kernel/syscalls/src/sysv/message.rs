//! Message queues: `msgget(2)`, `msgsnd(2)`, `msgrcv(2)`, `msgctl(2)`.

use std::sync::Arc;

use abi::poll::PollEvents;
use abi::{Errno, Restart, SysResult};
use cred::CapSet;
use guestmem::{MemExt, UserAddr, UserMem, UserPtr};
use ipc::msg::{Message, MessageQueue, Select};
use kernel::BlockError;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    ALTER, INFO, NO_WAIT, Perm, READ, REMOVE, SET, STAT, by_index, highest_index, now, store, wanted,
};
use crate::cx::Cx;

/// `MSG_NOERROR`.
const CUT: u32 = 0o10000;
/// `MSG_EXCEPT`.
const EXCEPT: u32 = 0o20000;
/// `MSG_COPY`.
const COPY: u32 = 0o40000;
const STAT_INDEX: i32 = 11;
const MSG_INFO: i32 = 12;
const STAT_ANY: i32 = 13;
/// Most bytes a queue may be given, whoever asks.
const MAX_QUEUE_BYTES: u64 = 1 << 24;

/// `struct msqid64_ds` of x86-64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MsgDs {
    perm: Perm,
    sent: i64,
    received: i64,
    changed: i64,
    bytes: u64,
    messages: u64,
    max_bytes: u64,
    last_sender: i32,
    last_receiver: i32,
    unused: [u64; 2],
}

/// `msgget(2)`.
pub(crate) fn msgget(cx: &mut Cx<'_>, key: i32, flags: u32) -> SysResult<i32> {
    let cred = cx.task.cred();
    let check = |queue: &MessageQueue| queue.permissions().check(&cred, wanted(flags));
    let (queues, most) = (&cx.task.kernel().ipc().queues, cx.task.kernel().ipc().limits.queue());
    Ok(queues
        .get(key, flags, &cred, check, |permissions| Ok(MessageQueue::new(permissions, most, now(cx))))?)
}

/// The queue, when the caller may do `want` with it.
fn find(cx: &Cx<'_>, id: i32, want: u32) -> SysResult<Arc<MessageQueue>> {
    let queue = cx.task.kernel().ipc().queues.find(id)?;
    queue.permissions().check(&cx.task.cred(), want)?;
    Ok(queue)
}

/// Waits for one of `interest`; a signal restarts the call unless a handler runs.
fn wait<T>(
    cx: &Cx<'_>,
    queue: &MessageQueue,
    interest: PollEvents,
    mut attempt: impl FnMut() -> ipc::Result<T>,
) -> SysResult<T> {
    let again = || match attempt() {
        Err(Errno::EAGAIN) => None,
        other => Some(other),
    };
    match cx.task.wait_for(queue.wait_queue(), interest, None, again) {
        Ok(result) => Ok(result?),
        Err(BlockError::Interrupted | BlockError::TimedOut) => Err(Restart::NoHandler.into()),
    }
}

/// `msgsnd(2)`.
pub(crate) fn msgsnd(cx: &mut Cx<'_>, id: i32, at: UserAddr, len: usize, flags: u32) -> SysResult<()> {
    let mm = cx.mm();
    let kind = mm.load(UserPtr::<i64>::new(at))?;
    if len > cx.task.kernel().ipc().limits.message() || id < 0 || kind < 1 {
        return Err(Errno::EINVAL.into());
    }
    let mut text = vec![0; len];
    if len > 0 {
        mm.read(at.checked_add(8).ok_or(Errno::EFAULT)?, &mut text)?;
    }
    let queue = find(cx, id, ALTER)?;
    let (message, pid) = (Message { kind, text }, cx.task.tgid());
    let attempt = || queue.send(message.clone(), pid, now(cx));
    if flags & NO_WAIT != 0 { Ok(attempt()?) } else { wait(cx, &queue, PollEvents::OUT, attempt) }
}

/// `msgrcv(2)`.
pub(crate) fn msgrcv(
    cx: &mut Cx<'_>,
    id: i32,
    at: UserAddr,
    len: usize,
    kind: i64,
    flags: u32,
) -> SysResult<usize> {
    if id < 0 || (len as i64) < 0 {
        return Err(Errno::EINVAL.into());
    }
    let copy = flags & COPY != 0;
    if copy && (flags & EXCEPT != 0 || flags & NO_WAIT == 0) {
        return Err(Errno::EINVAL.into());
    }
    let queue = find(cx, id, READ)?;
    let select = match Select::new(kind, flags & EXCEPT != 0, copy) {
        Err(_) => return Err(Errno::ENOMSG.into()),
        Ok(select) => select,
    };
    let pid = cx.task.tgid();
    let attempt = || queue.receive(select, len, flags & CUT != 0, pid, now(cx));
    let message = if flags & NO_WAIT == 0 {
        wait(cx, &queue, PollEvents::IN, attempt)?
    } else {
        let taken = attempt();
        taken.map_err(|errno| if errno == Errno::EAGAIN { Errno::ENOMSG } else { errno })?
    };
    store(cx, at, &message.kind)?;
    if !message.text.is_empty() {
        cx.mm().write(at.checked_add(8).ok_or(Errno::EFAULT)?, &message.text)?;
    }
    Ok(message.text.len())
}

/// `msgctl(2)`.
pub(crate) fn msgctl(cx: &mut Cx<'_>, id: i32, command: i32, at: UserAddr) -> SysResult<i32> {
    let (queues, cred) = (&cx.task.kernel().ipc().queues, cx.task.cred());
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL.into());
    }
    match command {
        INFO | MSG_INFO => return info(cx, command == MSG_INFO, at),
        STAT => stat(cx, id, &*find(cx, id, READ)?, at)?,
        STAT_INDEX | STAT_ANY => {
            let (id, queue) = by_index(queues, id)?;
            if command == STAT_INDEX {
                queue.permissions().check(&cred, READ)?;
            }
            return stat(cx, id, &queue, at).map(|()| id);
        }
        SET => {
            let new = cx.mm().load(UserPtr::<MsgDs>::new(at))?;
            let queue = queues.find(id)?;
            queue.permissions().check_owner(&cred)?;
            if new.max_bytes > cx.task.kernel().ipc().limits.queue() as u64
                && !cred.capable(CapSet::SYS_RESOURCE)
            {
                return Err(Errno::EPERM.into());
            }
            let (uid, gid) = new.perm.owner()?;
            queue.set(uid, gid, new.perm.mode, new.max_bytes.min(MAX_QUEUE_BYTES) as usize, now(cx));
        }
        REMOVE => {
            queues.find(id)?.permissions().check_owner(&cred)?;
            queues.remove(id)?.mark_removed();
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn stat(cx: &Cx<'_>, id: i32, queue: &MessageQueue, at: UserAddr) -> SysResult<()> {
    let status = queue.status();
    let shown = MsgDs {
        perm: Perm::new(id, &queue.permissions()),
        sent: status.sent,
        received: status.received,
        changed: status.changed,
        bytes: status.bytes as u64,
        messages: status.messages as u64,
        max_bytes: status.max_bytes as u64,
        last_sender: cx.number(status.last_sender),
        last_receiver: cx.number(status.last_receiver),
        unused: [0; 2],
    };
    store(cx, at, &shown)
}

/// `struct msginfo`: limits, or with `MSG_INFO` what is in use in three of its fields.
fn info(cx: &Cx<'_>, in_use: bool, at: UserAddr) -> SysResult<i32> {
    let queues = &cx.task.kernel().ipc().queues;
    let all = queues.list();
    let statuses = || all.iter().map(|(_, queue)| queue.status());
    let messages = statuses().map(|status| status.messages as i32).sum();
    let bytes = statuses().fold(0i32, |sum, status| sum.saturating_add(status.bytes as i32));
    let most = ipc::namespace::MAX_OBJECTS as i32;
    let limits = &cx.task.kernel().ipc().limits;
    let max_bytes = limits.queue() as i32;
    let (pool, map, tql) = if in_use {
        (all.len() as i32, messages, bytes)
    } else {
        ((i64::from(most) * i64::from(max_bytes) / 1024) as i32, max_bytes, max_bytes)
    };
    // The last is a short of 0xffff segments, and padding.
    let fields: [i32; 8] = [pool, map, limits.message() as i32, max_bytes, most, 16, tql, 0xffff];
    store(cx, at, &fields)?;
    Ok(highest_index(queues))
}

#[cfg(test)]
const _: () = assert!(size_of::<MsgDs>() == 120);
