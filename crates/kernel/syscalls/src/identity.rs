//! Ids of processes, users and groups that are only read, and what the system calls itself
//! (`getpid(2)`, `getuid(2)`, `uname(2)`).

use abi::{Errno, SysResult};
use cred::CapSet;
use guestmem::{MemExt, UserAddr, UserMem, UserPtr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::cx::Cx;
use crate::inspect::may_inspect;

/// `getpid(2)`.
pub(crate) fn getpid(cx: &mut Cx<'_>) -> SysResult<i32> {
    Ok(cx.task.group().number())
}

/// `gettid(2)`.
pub(crate) fn gettid(cx: &mut Cx<'_>) -> SysResult<i32> {
    Ok(cx.task.number())
}

/// `set_tid_address(2)`.
pub(crate) fn set_tid_address(cx: &mut Cx<'_>, word: UserPtr<i32>) -> SysResult<i32> {
    Ok(cx.task.set_tid_address(word.addr().0))
}

/// `set_robust_list(2)`.
pub(crate) fn set_robust_list(cx: &mut Cx<'_>, head: UserPtr<[u64; 3]>, len: usize) -> SysResult<()> {
    if len != size_of::<[u64; 3]>() {
        return Err(Errno::EINVAL.into());
    }
    cx.task.set_robust_list(head.addr().0);
    Ok(())
}

/// `get_robust_list(2)`: of another task only where it could be traced (`EPERM`).
pub(crate) fn get_robust_list(
    cx: &mut Cx<'_>,
    tid: i32,
    head: UserPtr<u64>,
    len: UserPtr<u64>,
) -> SysResult<()> {
    let found = match tid {
        0 => cx.task.robust_list(),
        tid => {
            let target = cx.task_of(tid)?;
            if !may_inspect(cx.task, &target) {
                return Err(Errno::EPERM.into());
            }
            target.robust_list()
        }
    };
    let mem = cx.task.mm();
    mem.store(len, &(size_of::<[u64; 3]>() as u64))?;
    Ok(mem.store(head, &found)?)
}

/// `getuid(2)`.
pub(crate) fn getuid(cx: &mut Cx<'_>) -> SysResult<u32> {
    Ok(cx.task.cred().uid)
}

/// `geteuid(2)`.
pub(crate) fn geteuid(cx: &mut Cx<'_>) -> SysResult<u32> {
    Ok(cx.task.cred().euid)
}

/// `getgid(2)`.
pub(crate) fn getgid(cx: &mut Cx<'_>) -> SysResult<u32> {
    Ok(cx.task.cred().gid)
}

/// `getegid(2)`.
pub(crate) fn getegid(cx: &mut Cx<'_>) -> SysResult<u32> {
    Ok(cx.task.cred().egid)
}

/// `getresuid(2)`.
pub(crate) fn getresuid(
    cx: &mut Cx<'_>,
    real: UserPtr<u32>,
    effective: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> SysResult<()> {
    let cred = cx.task.cred();
    store_three(cx, [(real, cred.uid), (effective, cred.euid), (saved, cred.suid)])
}

/// `getresgid(2)`.
pub(crate) fn getresgid(
    cx: &mut Cx<'_>,
    real: UserPtr<u32>,
    effective: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> SysResult<()> {
    let cred = cx.task.cred();
    store_three(cx, [(real, cred.gid), (effective, cred.egid), (saved, cred.sgid)])
}

fn store_three(cx: &Cx<'_>, words: [(UserPtr<u32>, u32); 3]) -> SysResult<()> {
    let mem = cx.task.mm();
    for (to, id) in words {
        mem.store(to, &id)?;
    }
    Ok(())
}

/// `getgroups(2)`: the number of groups; `EINVAL` when `size` is too small for them, or negative.
pub(crate) fn getgroups(cx: &mut Cx<'_>, size: i32, list: UserPtr<u32>) -> SysResult<usize> {
    let cred = cx.task.cred();
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size == 0 {
        return Ok(cred.groups.len());
    }
    if size < cred.groups.len() {
        return Err(Errno::EINVAL.into());
    }
    cx.task.mm().store_array(list, &cred.groups)?;
    Ok(cred.groups.len())
}

/// Release of the kernel the guest sees (`uname -r`).
pub const RELEASE: &str = "6.1.0-rampart";

/// `struct new_utsname`: six fields of 65 bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct UtsName {
    fields: [[u8; 65]; 6],
}

/// `uname(2)`. The release is the oldest whose calls we aim to have; programs look for a minimum.
pub(crate) fn uname(cx: &mut Cx<'_>, out: UserPtr<UtsName>) -> SysResult<()> {
    let uts = cx.task.kernel().uts();
    let (host, domain) = (uts.hostname(), uts.domainname());
    let texts: [&[u8]; 6] = [b"Linux", &host, RELEASE.as_bytes(), b"#1 SMP", b"x86_64", &domain];
    let mut name = UtsName { fields: [[0; 65]; 6] };
    for (field, text) in name.fields.iter_mut().zip(texts) {
        for (to, from) in field.iter_mut().zip(text.iter().copied()) {
            *to = from;
        }
    }
    Ok(cx.task.mm().store(out, &name)?)
}

/// `sethostname(2)`.
pub(crate) fn sethostname(cx: &mut Cx<'_>, name: UserAddr, len: i32) -> SysResult<()> {
    let name = load_name(cx, name, len)?;
    Ok(cx.task.kernel().uts().set_hostname(&name)?)
}

/// `setdomainname(2)`.
pub(crate) fn setdomainname(cx: &mut Cx<'_>, name: UserAddr, len: i32) -> SysResult<()> {
    let name = load_name(cx, name, len)?;
    Ok(cx.task.kernel().uts().set_domainname(&name)?)
}

fn load_name(cx: &Cx<'_>, name: UserAddr, len: i32) -> SysResult<Vec<u8>> {
    if !cx.task.cred().capable(CapSet::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    let len = usize::try_from(len).ok().filter(|len| *len <= kernel::uts::NAME_MAX).ok_or(Errno::EINVAL)?;
    let mut bytes = vec![0; len];
    cx.task.mm().read(name, &mut bytes)?;
    Ok(bytes)
}
