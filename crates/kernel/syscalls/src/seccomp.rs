//! Installing filters of system calls (`seccomp(2)`). How they judge is in [`kernel::seccomp`].

use abi::{Errno, SysResult};
use bitflags::bitflags;
use bpf::{Action, Insn, MAX_INSNS, Program};
use cred::CapSet;
use guestmem::{MemExt, UserAddr, UserPtr};
use kernel::{FilterError, FilterScope};

use crate::cx::Cx;

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;

bitflags! {
    /// `SECCOMP_FILTER_FLAG_*`, without those of listeners, which there are none of.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct FilterFlags: u32 {
        /// All threads of the process.
        const TSYNC = 1;
        /// Log what is not allowed.
        const LOG = 2;
        /// Without mitigations against speculation.
        const SPEC_ALLOW = 4;
        /// `ESRCH`, not the thread's id, when a thread has other filters.
        const TSYNC_ESRCH = 16;
    }
}

/// `seccomp(2)`.
pub(crate) fn seccomp(cx: &mut Cx<'_>, operation: u32, flags: u32, args: UserAddr) -> SysResult<i32> {
    match operation {
        SET_MODE_STRICT if flags == 0 && args.0 == 0 => {
            cx.task.set_seccomp_strict().map_err(Errno::from)?;
            Ok(0)
        }
        SET_MODE_FILTER => add_filter(cx, FilterFlags::from_bits(flags).ok_or(Errno::EINVAL)?, args),
        GET_ACTION_AVAIL if flags == 0 => {
            let raw = cx.task.mm().load(UserPtr::<u32>::new(args))?;
            let action = Action::from_raw(raw);
            let known = action.to_raw() == raw && action != Action::UserNotif;
            if known { Ok(0) } else { Err(Errno::EOPNOTSUPP.into()) }
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `PR_SET_SECCOMP`.
pub(crate) fn set_mode(cx: &Cx<'_>, mode: u64, filter: UserAddr) -> SysResult<u64> {
    match mode {
        // Whatever the other arguments are.
        1 => cx.task.set_seccomp_strict().map_err(Errno::from)?,
        2 => {
            add_filter(cx, FilterFlags::empty(), filter)?;
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// Zero, or the id of a thread with other filters.
fn add_filter(cx: &Cx<'_>, flags: FilterFlags, from: UserAddr) -> SysResult<i32> {
    let program = load(cx, from)?;
    let scope = if flags.contains(FilterFlags::TSYNC) { FilterScope::Process } else { FilterScope::Thread };
    match cx.task.add_seccomp_filter(program, scope) {
        Ok(()) => Ok(0),
        Err(FilterError::Diverged(tid)) if !flags.contains(FilterFlags::TSYNC_ESRCH) => Ok(tid),
        Err(error) => Err(Errno::from(error).into()),
    }
}

/// Reads a `struct sock_fprog` and the instructions it names. `EACCES` unless the program could gain
/// nothing by an exec, or its user may administer.
fn load(cx: &Cx<'_>, from: UserAddr) -> SysResult<Program> {
    let mem = cx.task.mm();
    let [head, list] = mem.load(UserPtr::<[u64; 2]>::new(from))?;
    let count = usize::from(head as u16);
    if count == 0 || count > MAX_INSNS {
        return Err(Errno::EINVAL.into());
    }
    let cred = cx.task.cred();
    if !cred.no_new_privs && !cred.capable(CapSet::SYS_ADMIN) {
        return Err(Errno::EACCES.into());
    }
    if list == 0 {
        return Err(Errno::EINVAL.into());
    }
    let raw: Vec<[u8; Insn::SIZE]> = mem.load_array(UserPtr::new(UserAddr(list)), count)?;
    let insns: Vec<Insn> = raw.into_iter().map(Insn::from_bytes).collect();
    Program::new(insns).map_err(|error| {
        tracing::debug!(%error, "a guest's filter is refused");
        Errno::EINVAL.into()
    })
}

#[cfg(test)]
mod tests;
