//! Capability sets (`capget(2)`, `capset(2)`) and the `prctl(2)` options on credentials.

use abi::raw::prctl::{
    PR_CAP_AMBIENT_CLEAR_ALL, PR_CAP_AMBIENT_IS_SET, PR_CAP_AMBIENT_LOWER, PR_CAP_AMBIENT_RAISE,
};
use abi::{Errno, SysResult};
use cred::change::SECBIT_KEEP_CAPS;
use cred::{CapSet, Credentials};
use guestmem::{MemExt, UserPtr};

use crate::cx::Cx;
use crate::setid::change;

/// `_LINUX_CAPABILITY_VERSION_1`, with 32 capabilities.
const VERSION_1: u32 = 0x1998_0330;
/// `_LINUX_CAPABILITY_VERSION_2`, with 64, and the same under its later name.
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`: version and process.
type Header = [u32; 2];

/// Effective, permitted and inheritable: `struct __user_cap_data_struct`.
type Data = [u32; 3];

/// Structures of data a version has. An unknown version: the one wanted is stored, `EINVAL`.
fn words(cx: &Cx<'_>, header: UserPtr<Header>) -> SysResult<(usize, i32)> {
    let mem = cx.task.mm();
    let [version, pid] = mem.load(header)?;
    match version {
        VERSION_1 => Ok((1, pid as i32)),
        VERSION_2 | VERSION_3 => Ok((2, pid as i32)),
        _ => {
            mem.store(UserPtr::new(header.addr()), &VERSION_3)?;
            Err(Errno::EINVAL.into())
        }
    }
}

/// `capget(2)`. Without `data` an unknown version is no error: that is how a library asks for ours.
pub(crate) fn capget(cx: &mut Cx<'_>, header: UserPtr<Header>, data: UserPtr<Data>) -> SysResult<()> {
    let (words, pid) = match words(cx, header) {
        Err(abi::SysError::Errno(Errno::EINVAL)) if data.is_null() => return Ok(()),
        other => other?,
    };
    let Some(data) = data.non_null() else { return Ok(()) };
    let cred = match pid {
        0 => cx.task.cred(),
        pid if pid < 0 => return Err(Errno::EINVAL.into()),
        pid => cx.task_of(pid)?.cred(),
    };
    let sets = [cred.effective, cred.permitted, cred.inheritable];
    let out = [sets.map(|set| set.bits() as u32), sets.map(|set| (set.bits() >> 32) as u32)];
    Ok(cx.task.mm().store_array(data, out.get(..words).unwrap_or_default())?)
}

/// `capset(2)`: only one's own.
pub(crate) fn capset(cx: &mut Cx<'_>, header: UserPtr<Header>, data: UserPtr<Data>) -> SysResult<()> {
    let (words, pid) = words(cx, header)?;
    if pid != 0 && pid != cx.task.number() {
        return Err(Errno::EPERM.into());
    }
    let data: Vec<Data> = cx.task.mm().load_array(data, words)?;
    let low = data.first().copied().unwrap_or_default();
    let high = data.get(1).copied().unwrap_or_default();
    let set = |low: u32, high: u32| CapSet::from_bits_truncate(u64::from(high) << 32 | u64::from(low));
    let [effective, permitted, inheritable] =
        [0, 1, 2].map(|at: usize| set(low.get(at).copied().unwrap_or(0), high.get(at).copied().unwrap_or(0)));
    change(cx, |cred| cred.set_caps(effective, permitted, inheritable))
}

/// A capability by number.
fn by_number(number: u64) -> SysResult<CapSet> {
    let bit = u32::try_from(number).ok().and_then(|n| 1u64.checked_shl(n)).unwrap_or(0);
    CapSet::from_bits(bit).filter(|cap| !cap.is_empty()).ok_or(Errno::EINVAL.into())
}

/// `PR_CAPBSET_READ`.
pub(crate) fn bounding(cx: &Cx<'_>, number: u64) -> SysResult<u64> {
    Ok(cx.task.cred().bounding.contains(by_number(number)?).into())
}

/// `PR_CAPBSET_DROP`.
pub(crate) fn drop_bounding(cx: &Cx<'_>, number: u64) -> SysResult<u64> {
    if !cx.task.cred().capable(CapSet::SETPCAP) {
        return Err(Errno::EPERM.into());
    }
    let cap = by_number(number)?;
    change(cx, |cred| cred.drop_bounding(cap))?;
    Ok(0)
}

/// `PR_CAP_AMBIENT`.
pub(crate) fn ambient(cx: &Cx<'_>, operation: u64, number: u64, rest: [u64; 2]) -> SysResult<u64> {
    let operation = u32::try_from(operation).map_err(|_| Errno::EINVAL)?;
    if rest != [0; 2] || (operation == PR_CAP_AMBIENT_CLEAR_ALL && number != 0) {
        return Err(Errno::EINVAL.into());
    }
    if operation == PR_CAP_AMBIENT_CLEAR_ALL {
        change(cx, |cred| Ok(Credentials { ambient: CapSet::empty(), ..cred.clone() }))?;
        return Ok(0);
    }
    let cap = by_number(number)?;
    match operation {
        PR_CAP_AMBIENT_IS_SET => return Ok(cx.task.cred().ambient.contains(cap).into()),
        PR_CAP_AMBIENT_RAISE => change(cx, |cred| cred.raise_ambient(cap))?,
        PR_CAP_AMBIENT_LOWER => {
            change(cx, |cred| Ok(Credentials { ambient: cred.ambient - cap, ..cred.clone() }))?;
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// `PR_SET_SECUREBITS`.
pub(crate) fn set_securebits(cx: &Cx<'_>, bits: u64) -> SysResult<u64> {
    let bits = u32::try_from(bits).map_err(|_| Errno::EPERM)?;
    change(cx, |cred| cred.set_securebits(bits))?;
    Ok(0)
}

/// `PR_GET_KEEPCAPS`.
pub(crate) fn keep_caps(cx: &Cx<'_>) -> u64 {
    u64::from(cx.task.cred().securebits & SECBIT_KEEP_CAPS != 0)
}

/// `PR_SET_KEEPCAPS`.
pub(crate) fn set_keep_caps(cx: &Cx<'_>, keep: u64) -> SysResult<u64> {
    if keep > 1 {
        return Err(Errno::EINVAL.into());
    }
    change(cx, |cred| cred.set_keep_caps(keep == 1))?;
    Ok(0)
}

/// `PR_SET_NO_NEW_PRIVS`: for ever.
pub(crate) fn set_no_new_privs(cx: &Cx<'_>) -> SysResult<u64> {
    change(cx, |cred| Ok(Credentials { no_new_privs: true, ..cred.clone() }))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use abi::syscall as nr;
    use cred::CapSet;

    use super::{VERSION_1, VERSION_3};
    use crate::testkit::{DATA, Guest};

    fn words(guest: &Guest, at: u64, words: &[u32]) -> u64 {
        guest.put(at, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn sets_are_read_and_reduced() {
        let mut guest = Guest::new();
        let header = words(&guest, DATA, &[VERSION_3, 0]);
        assert_eq!(guest.call(nr::capget, [header, DATA + 64]), Ok(0));
        assert_eq!(guest.bytes(DATA + 64, 4), [0xff; 4]);
        assert_eq!(guest.bytes(DATA + 76, 4), [0xff, 1, 0, 0]);
        let kill = CapSet::KILL.bits() as u32;
        let data = words(&guest, DATA + 64, &[kill, kill, 0, 0, 0, 0]);
        assert_eq!(guest.call(nr::capset, [header, data]), Ok(0));
        assert_eq!(guest.task.cred().permitted, CapSet::KILL);
        words(&guest, DATA + 64, &[u32::MAX; 6]);
        assert_eq!(guest.call(nr::capset, [header, data]), Err(Errno::EPERM));
    }

    #[test]
    fn versions_are_negotiated() {
        let mut guest = Guest::new();
        let header = words(&guest, DATA, &[5, 0]);
        assert_eq!(guest.call(nr::capget, [header, 0]), Ok(0));
        assert_eq!(guest.bytes(header, 4), VERSION_3.to_le_bytes());
        words(&guest, DATA, &[5, 0]);
        assert_eq!(guest.call(nr::capget, [header, DATA + 64]), Err(Errno::EINVAL));
        words(&guest, DATA, &[VERSION_1, 99]);
        assert_eq!(guest.call(nr::capget, [header, DATA + 64]), Err(Errno::ESRCH));
        assert_eq!(guest.call(nr::capset, [header, DATA + 64]), Err(Errno::EPERM));
    }
}
