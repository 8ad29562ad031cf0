//! System V IPC (`sysvipc(7)`): semaphores, message queues, shared memory.

mod message;
mod segment;
mod semaphore;
#[cfg(test)]
mod tests;

use abi::{Errno, SysResult};
use guestmem::{MemExt, UserAddr, UserPtr};
use ipc::registry::{MAX, Permissions, Registry};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::cx::Cx;

pub(crate) use message::{msgctl, msgget, msgrcv, msgsnd};
pub(crate) use segment::{shmat, shmctl, shmdt, shmget};
pub(crate) use semaphore::{semctl, semget, semop, semtimedop};

/// `IPC_NOWAIT`.
const NO_WAIT: u32 = 0o4000;
/// `IPC_RMID`.
const REMOVE: i32 = 0;
/// `IPC_SET`.
const SET: i32 = 1;
/// `IPC_STAT`.
const STAT: i32 = 2;
/// `IPC_INFO`.
const INFO: i32 = 3;
/// Permission to read, and to alter.
const READ: u32 = 4;
const ALTER: u32 = 2;

/// `struct ipc64_perm` of x86-64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Perm {
    key: i32,
    uid: u32,
    gid: u32,
    cuid: u32,
    cgid: u32,
    mode: u32,
    sequence: u16,
    pad: [u16; 3],
    unused: [u64; 2],
}

impl Perm {
    fn new(id: i32, of: &Permissions) -> Self {
        Self {
            key: of.key,
            uid: of.uid,
            gid: of.gid,
            cuid: of.cuid,
            cgid: of.cgid,
            mode: of.mode,
            sequence: (id as usize / MAX) as u16,
            ..Self::default()
        }
    }

    /// `EINVAL` for an id that is none.
    fn owner(&self) -> SysResult<(u32, u32)> {
        let valid = self.uid != u32::MAX && self.gid != u32::MAX;
        if valid { Ok((self.uid, self.gid)) } else { Err(Errno::EINVAL.into()) }
    }
}

/// Seconds since the epoch.
fn now(cx: &Cx<'_>) -> i64 {
    cx.services.clock.realtime().as_secs() as i64
}

/// What a `*get` call with these flags wants to do with an object that exists.
fn wanted(flags: u32) -> u32 {
    (flags >> 6 | flags >> 3 | flags) & 7
}

/// The object and its id for a `*_STAT` command, which names it by its place in the table.
fn by_index<T>(registry: &Registry<T>, index: i32) -> SysResult<(i32, std::sync::Arc<T>)> {
    let all = registry.list();
    let found = all.into_iter().find(|(id, _)| *id % MAX as i32 == index);
    Ok(found.ok_or(Errno::EINVAL)?)
}

/// The highest place in use, which the `*_INFO` commands return.
fn highest_index<T>(registry: &Registry<T>) -> i32 {
    registry.list().last().map_or(0, |(id, _)| id % MAX as i32)
}

fn store<T: IntoBytes + Immutable>(cx: &Cx<'_>, at: UserAddr, value: &T) -> SysResult<()> {
    Ok(cx.mm().store(UserPtr::new(at), value)?)
}

#[cfg(test)]
const _: () = assert!(size_of::<Perm>() == 48);
