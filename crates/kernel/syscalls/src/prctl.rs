//! `prctl(2)`.
//!
//! What has no branch answers `EINVAL`, as a kernel built without it: checkpoints (`PR_SET_MM`), pointer
//! authentication, speculation control, core scheduling, memory-deny-write-execute.

use abi::raw::prctl as raw;
use abi::signal::Signal;
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserAddr, UserCStr, UserMem, UserPtr};

use crate::caps;
use crate::cx::Cx;
use crate::seccomp;

/// Bytes of a task's name, with its NUL (`TASK_COMM_LEN`).
const NAME_LEN: usize = 16;
/// `PR_SET_VMA_ANON_NAME`.
const VMA_ANON_NAME: u64 = 0;
/// Longest name of a mapping, with its NUL.
const VMA_NAME_MAX: usize = 80;

/// `prctl(2)`.
pub(crate) fn prctl(cx: &mut Cx<'_>, option: u32, a: u64, b: u64, c: u64, d: u64) -> SysResult<u64> {
    match option {
        raw::PR_SET_NAME => set_name(cx, a),
        raw::PR_GET_NAME => name(cx, a),
        raw::PR_SET_PDEATHSIG => set_death_signal(cx, a),
        raw::PR_GET_PDEATHSIG => put(cx, a, cx.task.death_signal()),
        raw::PR_GET_DUMPABLE => Ok(cx.task.group().is_dumpable().into()),
        raw::PR_SET_DUMPABLE => set_dumpable(cx, a),
        raw::PR_SET_CHILD_SUBREAPER => {
            cx.task.set_subreaper(a != 0);
            Ok(0)
        }
        raw::PR_GET_CHILD_SUBREAPER => put(cx, a, cx.task.is_subreaper().into()),
        raw::PR_GET_TIMERSLACK => Ok(cx.task.settings().timer_slack),
        raw::PR_SET_TIMERSLACK => set_timer_slack(cx, a),
        raw::PR_SET_VMA => name_mapping(cx, [a, b, c, d]),
        raw::PR_GET_TSC => put(cx, a, raw::PR_TSC_ENABLE as i32),
        // The time stamp counter cannot be taken away; the host's rules for machine checks stay.
        raw::PR_SET_TSC if a == u64::from(raw::PR_TSC_ENABLE) => Ok(0),
        raw::PR_MCE_KILL_GET if [a, b, c, d] == [0; 4] => Ok(raw::PR_MCE_KILL_DEFAULT.into()),
        raw::PR_GET_TIMING => Ok(raw::PR_TIMING_STATISTICAL.into()),
        raw::PR_SET_TIMING if a == u64::from(raw::PR_TIMING_STATISTICAL) => Ok(0),
        // Nothing is counted.
        raw::PR_TASK_PERF_EVENTS_DISABLE | raw::PR_TASK_PERF_EVENTS_ENABLE => Ok(0),
        raw::PR_SET_THP_DISABLE if [b, c, d] == [0; 3] => {
            cx.task.group().set_huge_pages(a == 0);
            Ok(0)
        }
        raw::PR_GET_THP_DISABLE if [a, b, c, d] == [0; 4] => Ok((!cx.task.group().huge_pages()).into()),
        raw::PR_GET_SECCOMP => Ok(cx.task.seccomp_mode() as u64),
        raw::PR_SET_SECCOMP => seccomp::set_mode(cx, a, UserAddr(b)),
        _ => privileges(cx, option, [a, b, c, d]),
    }
}

/// Options on credentials.
fn privileges(cx: &Cx<'_>, option: u32, [a, b, c, d]: [u64; 4]) -> SysResult<u64> {
    match option {
        raw::PR_CAPBSET_READ => caps::bounding(cx, a),
        raw::PR_CAPBSET_DROP => caps::drop_bounding(cx, a),
        raw::PR_CAP_AMBIENT => caps::ambient(cx, a, b, [c, d]),
        raw::PR_GET_SECUREBITS => Ok(cx.task.cred().securebits.into()),
        raw::PR_SET_SECUREBITS => caps::set_securebits(cx, a),
        raw::PR_GET_KEEPCAPS => Ok(caps::keep_caps(cx)),
        raw::PR_SET_KEEPCAPS => caps::set_keep_caps(cx, a),
        raw::PR_SET_NO_NEW_PRIVS if [a, b, c, d] == [1, 0, 0, 0] => caps::set_no_new_privs(cx),
        raw::PR_GET_NO_NEW_PRIVS if [a, b, c, d] == [0; 4] => Ok(cx.task.cred().no_new_privs.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn put(cx: &Cx<'_>, to: u64, value: i32) -> SysResult<u64> {
    cx.task.mm().store(UserPtr::new(UserAddr(to)), &value)?;
    Ok(0)
}

fn set_name(cx: &Cx<'_>, from: u64) -> SysResult<u64> {
    let mem = cx.task.mm();
    let mut name = [0; NAME_LEN - 1];
    // What is behind the NUL, or behind 15 bytes, need not be readable.
    let first = (abi::PAGE_SIZE - from % abi::PAGE_SIZE).min(name.len() as u64);
    let (head, tail) = name.split_at_mut(first as usize);
    mem.read(UserAddr(from), head)?;
    if !head.contains(&0) {
        mem.read(UserAddr(from).checked_add(first).ok_or(Errno::EFAULT)?, tail)?;
    }
    cx.task.set_name(&name);
    Ok(0)
}

fn name(cx: &Cx<'_>, to: u64) -> SysResult<u64> {
    let mut name = cx.task.name();
    name.resize(NAME_LEN, 0);
    cx.task.mm().write(UserAddr(to), &name)?;
    Ok(0)
}

fn set_death_signal(cx: &Cx<'_>, signal: u64) -> SysResult<u64> {
    if signal > u64::from(Signal::MAX) {
        return Err(Errno::EINVAL.into());
    }
    cx.task.set_death_signal(signal as i32);
    Ok(0)
}

fn set_dumpable(cx: &Cx<'_>, dumpable: u64) -> SysResult<u64> {
    if dumpable > 1 {
        return Err(Errno::EINVAL.into());
    }
    cx.task.group().set_dumpable(dumpable == 1);
    Ok(0)
}

/// Kept and told; the Sentry's own timers are as exact as the host makes them.
fn set_timer_slack(cx: &Cx<'_>, slack: u64) -> SysResult<u64> {
    cx.task.change_settings(|settings| {
        let default = settings.default_slack;
        settings.timer_slack = if (slack as i64) <= 0 { default } else { slack };
    });
    Ok(0)
}

/// Names of mappings are checked and not kept.
fn name_mapping(cx: &Cx<'_>, [what, addr, len, name]: [u64; 4]) -> SysResult<u64> {
    if what != VMA_ANON_NAME {
        return Err(Errno::EINVAL.into());
    }
    if name != 0 {
        let name = match cx.task.mm().load_cstr(UserCStr(UserAddr(name)), VMA_NAME_MAX) {
            Err(Errno::ENAMETOOLONG) => return Err(Errno::EINVAL.into()),
            other => other?,
        };
        let allowed = |byte: &u8| (b' '..=b'~').contains(byte) && !br"\`$[]".contains(byte);
        if !name.iter().all(allowed) {
            return Err(Errno::EINVAL.into());
        }
    }
    if !addr.is_multiple_of(abi::PAGE_SIZE)
        || abi::page_up(len).is_none_or(|len| addr.checked_add(len).is_none())
    {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use abi::raw::prctl as raw;
    use abi::syscall as nr;

    use crate::testkit::{DATA, Guest};

    fn prctl<const N: usize>(guest: &mut Guest, option: u32, rest: [u64; N]) -> Result<u64, Errno> {
        let mut args = [0; 5];
        args[0] = u64::from(option);
        args[1..=N].copy_from_slice(&rest);
        guest.call(nr::prctl, args)
    }

    #[test]
    fn names_are_cut() {
        let mut guest = Guest::new();
        let at = guest.path(0, "a name of many letters");
        assert_eq!(prctl(&mut guest, raw::PR_SET_NAME, [at]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_GET_NAME, [DATA]), Ok(0));
        assert_eq!(guest.bytes(DATA, 16), b"a name of many \0");
        assert_eq!(prctl(&mut guest, raw::PR_SET_NAME, [0]), Err(Errno::EFAULT));
    }

    #[test]
    fn what_is_set_is_read() {
        let mut guest = Guest::new();
        assert_eq!(prctl(&mut guest, raw::PR_SET_PDEATHSIG, [9]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_GET_PDEATHSIG, [DATA]), Ok(0));
        assert_eq!(guest.bytes(DATA, 4), [9, 0, 0, 0]);
        assert_eq!(prctl(&mut guest, raw::PR_SET_PDEATHSIG, [65]), Err(Errno::EINVAL));
        assert_eq!(prctl(&mut guest, raw::PR_SET_DUMPABLE, [0]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_GET_DUMPABLE, []), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_SET_DUMPABLE, [2]), Err(Errno::EINVAL));
        assert_eq!(prctl(&mut guest, raw::PR_SET_TIMERSLACK, [7]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_GET_TIMERSLACK, []), Ok(7));
        assert_eq!(prctl(&mut guest, raw::PR_SET_TIMERSLACK, [0]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_GET_TIMERSLACK, []), Ok(50_000));
        assert_eq!(prctl(&mut guest, raw::PR_SET_CHILD_SUBREAPER, [1]), Ok(0));
        assert!(guest.task.is_subreaper());
        assert_eq!(prctl(&mut guest, raw::PR_SET_THP_DISABLE, [1]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_GET_THP_DISABLE, []), Ok(1));
        assert_eq!(prctl(&mut guest, 9999, []), Err(Errno::EINVAL));
    }

    #[test]
    fn privileges_go_one_way() {
        let mut guest = Guest::new();
        assert_eq!(prctl(&mut guest, raw::PR_CAPBSET_READ, [5]), Ok(1));
        assert_eq!(prctl(&mut guest, raw::PR_CAPBSET_DROP, [5]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_CAPBSET_READ, [5]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_CAPBSET_READ, [41]), Err(Errno::EINVAL));
        assert_eq!(prctl(&mut guest, raw::PR_CAPBSET_READ, [64]), Err(Errno::EINVAL));
        assert_eq!(prctl(&mut guest, raw::PR_SET_NO_NEW_PRIVS, [1, 1]), Err(Errno::EINVAL));
        assert_eq!(prctl(&mut guest, raw::PR_SET_NO_NEW_PRIVS, [1]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_GET_NO_NEW_PRIVS, []), Ok(1));
        let raise = u64::from(raw::PR_CAP_AMBIENT_RAISE);
        assert_eq!(prctl(&mut guest, raw::PR_CAP_AMBIENT, [raise, 5]), Err(Errno::EPERM));
        let clear = u64::from(raw::PR_CAP_AMBIENT_CLEAR_ALL);
        assert_eq!(prctl(&mut guest, raw::PR_CAP_AMBIENT, [clear]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_CAP_AMBIENT, [clear, 1]), Err(Errno::EINVAL));
        assert_eq!(prctl(&mut guest, raw::PR_SET_KEEPCAPS, [1]), Ok(0));
        assert_eq!(prctl(&mut guest, raw::PR_GET_KEEPCAPS, []), Ok(1));
        assert_eq!(prctl(&mut guest, raw::PR_GET_SECUREBITS, []), Ok(16));
    }

    #[test]
    fn mappings_are_named_to_nobody() {
        let mut guest = Guest::new();
        let at = guest.path(0, "heap: arena");
        assert_eq!(prctl(&mut guest, raw::PR_SET_VMA, [0, 0x1000, 64, at]), Ok(0));
        let at = guest.path(0, "heap[0]");
        assert_eq!(prctl(&mut guest, raw::PR_SET_VMA, [0, 0x1000, 64, at]), Err(Errno::EINVAL));
        assert_eq!(prctl(&mut guest, raw::PR_SET_VMA, [1, 0x1000, 64, at]), Err(Errno::EINVAL));
    }
}
