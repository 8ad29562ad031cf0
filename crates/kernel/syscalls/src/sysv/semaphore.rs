//! Semaphores: `semget(2)`, `semop(2)`, `semctl(2)`.

use std::sync::Arc;
use std::time::Instant;

use abi::poll::PollEvents;
use abi::time::Timespec;
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserAddr, UserPtr};
use ipc::sem::{Blocked, MAX_OPERATIONS, MAX_SEMAPHORES, MAX_VALUE, Operation, SemaphoreSet};
use kernel::BlockError;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    ALTER, INFO, NO_WAIT, Perm, READ, REMOVE, SET, STAT, by_index, highest_index, now, store, wanted,
};
use crate::cx::Cx;

/// `SEM_UNDO`.
const UNDO: u16 = 0x1000;
const GET_PID: i32 = 11;
const GET_VALUE: i32 = 12;
const GET_ALL: i32 = 13;
const GET_WAITING: i32 = 14;
const GET_WAITING_ZERO: i32 = 15;
const SET_VALUE: i32 = 16;
const SET_ALL: i32 = 17;
const STAT_INDEX: i32 = 18;
const SEM_INFO: i32 = 19;
const STAT_ANY: i32 = 20;

/// `struct semid64_ds` of x86-64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SemDs {
    perm: Perm,
    operated: i64,
    unused1: u64,
    changed: i64,
    unused2: u64,
    count: u64,
    unused3: [u64; 2],
}

/// `struct sembuf`.
type SemBuf = [u16; 3];

/// `semget(2)`.
pub(crate) fn semget(cx: &mut Cx<'_>, key: i32, count: i32, flags: u32) -> SysResult<i32> {
    let count = usize::try_from(count).ok().filter(|n| *n <= MAX_SEMAPHORES).ok_or(Errno::EINVAL)?;
    let (cred, space) = (cx.task.cred(), cx.task.kernel().ipc());
    let check = |set: &SemaphoreSet| {
        if count > set.len() { Err(Errno::EINVAL) } else { set.permissions().check(&cred, wanted(flags)) }
    };
    Ok(space.semaphores.get(key, flags, &cred, check, |permissions| {
        let set = SemaphoreSet::new(permissions, count, now(cx))?;
        space.reserve_semaphores(count).map(|()| set)
    })?)
}

/// `semop(2)`.
pub(crate) fn semop(cx: &mut Cx<'_>, id: i32, operations: UserPtr<SemBuf>, count: u32) -> SysResult<()> {
    semtimedop(cx, id, operations, count, UserPtr::new(UserAddr::NULL))
}

/// `semtimedop(2)`. Never restarted after a signal.
pub(crate) fn semtimedop(
    cx: &mut Cx<'_>,
    id: i32,
    operations: UserPtr<SemBuf>,
    count: u32,
    timeout: UserPtr<Timespec>,
) -> SysResult<()> {
    let mm = cx.mm();
    let timeout = timeout.non_null().map(|timeout| mm.load(timeout)).transpose()?;
    let count = count as usize;
    if count < 1 || id < 0 {
        return Err(Errno::EINVAL.into());
    }
    if count > MAX_OPERATIONS {
        return Err(Errno::E2BIG.into());
    }
    let operations: Vec<Operation> = mm.load_array(operations, count)?.into_iter().map(operation).collect();
    let deadline = match timeout {
        None => None,
        Some(time) => Instant::now().checked_add(time.to_duration().ok_or(Errno::EINVAL)?),
    };
    let set = cx.task.kernel().ipc().semaphores.find(id)?;
    if operations.iter().any(|operation| usize::from(operation.number) >= set.len()) {
        return Err(Errno::EFBIG.into());
    }
    let alters = operations.iter().any(|operation| operation.delta != 0);
    set.permissions().check(&cx.task.cred(), if alters { ALTER } else { READ })?;
    if operations.iter().any(|operation| operation.undo) {
        cx.task.kernel().ipc().note_undo();
    }
    perform(cx, &set, &operations, deadline)
}

fn operation([number, delta, flags]: SemBuf) -> Operation {
    let (no_wait, undo) = (u32::from(flags) & NO_WAIT != 0, flags & UNDO != 0);
    Operation { number, delta: delta as i16, no_wait, undo }
}

fn perform(
    cx: &Cx<'_>,
    set: &Arc<SemaphoreSet>,
    operations: &[Operation],
    deadline: Option<Instant>,
) -> SysResult<()> {
    let pid = cx.task.tgid();
    let mut waiting = None;
    let attempt = || match set.operate(operations, pid, now(cx)) {
        Ok(()) => Some(Ok(())),
        Err(Blocked::Errno(errno)) => Some(Err(errno)),
        Err(Blocked::Wait { no_wait: true, .. }) => Some(Err(Errno::EAGAIN)),
        Err(Blocked::Wait { number, for_zero, .. }) => {
            waiting = Some(SemaphoreSet::wait_for(set, number, for_zero));
            None
        }
    };
    let result = match cx.task.wait_for(set.wait_queue(), PollEvents::IN, deadline, attempt) {
        Ok(result) => result,
        Err(BlockError::TimedOut) => Err(Errno::EAGAIN),
        Err(BlockError::Interrupted) => Err(Errno::EINTR),
    };
    drop(waiting);
    Ok(result?)
}

/// `semctl(2)`.
pub(crate) fn semctl(cx: &mut Cx<'_>, id: i32, number: i32, command: i32, arg: u64) -> SysResult<i32> {
    let (space, cred) = (cx.task.kernel().ipc(), cx.task.cred());
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    match command {
        INFO | SEM_INFO => return info(cx, command == SEM_INFO, UserAddr(arg)),
        STAT_INDEX | STAT_ANY => {
            let (id, set) = by_index(&space.semaphores, id)?;
            if command != STAT_ANY {
                set.permissions().check(&cred, READ)?;
            }
            return stat(cx, id, &set, UserAddr(arg)).map(|()| id);
        }
        STAT => {
            let set = space.semaphores.find(id)?;
            set.permissions().check(&cred, READ)?;
            return stat(cx, id, &set, UserAddr(arg)).map(|()| 0);
        }
        SET => {
            let new = cx.mm().load(UserPtr::<SemDs>::new(UserAddr(arg)))?;
            let set = space.semaphores.find(id)?;
            set.permissions().check_owner(&cred)?;
            let (uid, gid) = new.perm.owner()?;
            set.set_permissions(uid, gid, new.perm.mode, now(cx));
            return Ok(0);
        }
        REMOVE => {
            space.semaphores.find(id)?.permissions().check_owner(&cred)?;
            return Ok(space.remove_semaphores(id).map(|()| 0)?);
        }
        _ => {}
    }
    values(cx, id, number, command, arg)
}

/// Commands on the values of a set.
fn values(cx: &Cx<'_>, id: i32, number: i32, command: i32, arg: u64) -> SysResult<i32> {
    let (cred, pid, mm) = (cx.task.cred(), cx.task.tgid(), cx.mm());
    let find = |want| -> SysResult<Arc<SemaphoreSet>> {
        let set = cx.task.kernel().ipc().semaphores.find(id)?;
        set.permissions().check(&cred, want)?;
        Ok(set)
    };
    // A number that is none is as good as one beyond the end.
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    match command {
        GET_ALL => mm.store_array(UserPtr::new(UserAddr(arg)), &find(READ)?.values())?,
        GET_VALUE => return Ok(find(READ)?.value(number)?),
        GET_PID => return Ok(cx.number(find(READ)?.last_pid(number)?)),
        GET_WAITING | GET_WAITING_ZERO => {
            return Ok(find(READ)?.waiting(number, command == GET_WAITING_ZERO)? as i32);
        }
        SET_VALUE => {
            let value = arg as i32;
            if !(0..=MAX_VALUE).contains(&value) {
                return Err(Errno::ERANGE.into());
            }
            let set = cx.task.kernel().ipc().semaphores.find(id)?;
            set.value(number)?;
            set.permissions().check(&cred, ALTER)?;
            set.set_value(number, value, pid, now(cx))?;
        }
        SET_ALL => {
            let set = find(ALTER)?;
            let values = mm.load_array(UserPtr::new(UserAddr(arg)), set.len())?;
            set.set_values(&values, pid, now(cx))?;
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn stat(cx: &Cx<'_>, id: i32, set: &SemaphoreSet, at: UserAddr) -> SysResult<()> {
    let (operated, changed) = set.times();
    let perm = Perm::new(id, &set.permissions());
    store(cx, at, &SemDs { perm, operated, changed, count: set.len() as u64, ..SemDs::default() })
}

/// `struct seminfo`: limits, or with `SEM_INFO` what is in use in two of its fields.
fn info(cx: &Cx<'_>, in_use: bool, at: UserAddr) -> SysResult<i32> {
    let registry = &cx.task.kernel().ipc().semaphores;
    let all = registry.list();
    let sets = ipc::namespace::MAX_OBJECTS as i32;
    let total = ipc::namespace::MAX_SEMAPHORES as i32;
    let (used, semaphores) = (all.len() as i32, all.iter().map(|(_, set)| set.len() as i32).sum());
    let usz = if in_use { used } else { 20 };
    let aem = if in_use { semaphores } else { MAX_VALUE };
    let most = MAX_OPERATIONS as i32;
    let fields: [i32; 10] =
        [total, sets, total, total, MAX_SEMAPHORES as i32, most, most, usz, MAX_VALUE, aem];
    store(cx, at, &fields)?;
    Ok(highest_index(registry))
}

#[cfg(test)]
const _: () = assert!(size_of::<SemDs>() == 104);
