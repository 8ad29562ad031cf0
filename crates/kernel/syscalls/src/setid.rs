//! Changing ids (`setuid(2)`, `setresgid(2)`, `setgroups(2)`). The rules are in [`cred::change`].

use abi::{Errno, SysResult};
use cred::change::Changed;
use cred::{CapSet, Credentials};
use guestmem::{MemExt, UserPtr};

use crate::cx::Cx;
use crate::process::memory_limits;

/// Most supplementary groups (`NGROUPS_MAX`).
const MAX_GROUPS: i32 = 65_536;

/// Makes the caller's credentials what `change` says.
pub(crate) fn change(cx: &Cx<'_>, change: impl FnOnce(&Credentials) -> Changed) -> SysResult<()> {
    let (old, new) = cx.task.change_cred(change)?;
    let ids = |c: &Credentials| [c.euid, c.egid, c.fsuid, c.fsgid];
    // Who changes who it is, or gains something, is no longer open to the user it was.
    if ids(&old) != ids(&new) || !old.permitted.contains(new.permitted) {
        cx.task.group().set_dumpable(false);
        cx.task.set_death_signal(0);
    }
    if old.capable(CapSet::IPC_LOCK) != new.capable(CapSet::IPC_LOCK) {
        cx.task.mm().set_limits(memory_limits(cx.task.group(), &new));
    }
    Ok(())
}

/// `setuid(2)`.
pub(crate) fn setuid(cx: &mut Cx<'_>, uid: u32) -> SysResult<()> {
    change(cx, |cred| cred.set_uid(uid))
}

/// `setreuid(2)`.
pub(crate) fn setreuid(cx: &mut Cx<'_>, real: u32, effective: u32) -> SysResult<()> {
    change(cx, |cred| cred.set_reuid(real, effective))
}

/// `setresuid(2)`.
pub(crate) fn setresuid(cx: &mut Cx<'_>, real: u32, effective: u32, saved: u32) -> SysResult<()> {
    change(cx, |cred| cred.set_resuid(real, effective, saved))
}

/// `setfsuid(2)`: the old id, whether it changed or not.
pub(crate) fn setfsuid(cx: &mut Cx<'_>, uid: u32) -> SysResult<u32> {
    let old = cx.task.cred().fsuid;
    let _ = change(cx, |cred| cred.set_fsuid(uid));
    Ok(old)
}

/// `setgid(2)`.
pub(crate) fn setgid(cx: &mut Cx<'_>, gid: u32) -> SysResult<()> {
    change(cx, |cred| cred.set_gid(gid))
}

/// `setregid(2)`.
pub(crate) fn setregid(cx: &mut Cx<'_>, real: u32, effective: u32) -> SysResult<()> {
    change(cx, |cred| cred.set_regid(real, effective))
}

/// `setresgid(2)`.
pub(crate) fn setresgid(cx: &mut Cx<'_>, real: u32, effective: u32, saved: u32) -> SysResult<()> {
    change(cx, |cred| cred.set_resgid(real, effective, saved))
}

/// `setfsgid(2)`: the old id, whether it changed or not.
pub(crate) fn setfsgid(cx: &mut Cx<'_>, gid: u32) -> SysResult<u32> {
    let old = cx.task.cred().fsgid;
    let _ = change(cx, |cred| cred.set_fsgid(gid));
    Ok(old)
}

/// `setgroups(2)`.
pub(crate) fn setgroups(cx: &mut Cx<'_>, count: i32, list: UserPtr<u32>) -> SysResult<()> {
    if !cx.task.cred().capable(CapSet::SETGID) {
        return Err(Errno::EPERM.into());
    }
    let count = usize::try_from(count).ok().filter(|_| count <= MAX_GROUPS).ok_or(Errno::EINVAL)?;
    // Without groups there is nothing to read, wherever the list is.
    let groups = if count == 0 { Vec::new() } else { cx.task.mm().load_array(list, count)? };
    change(cx, |cred| cred.set_groups(groups))
}

#[cfg(test)]
mod tests {
    use abi::Errno;
    use abi::syscall as nr;

    use crate::testkit::{DATA, Guest};

    #[test]
    fn groups_then_group_then_user_as_a_login_does() {
        let mut guest = Guest::new();
        guest.put(DATA, &[9, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(guest.call(nr::setgroups, [2, DATA]), Ok(0));
        assert_eq!(guest.call(nr::setgid, [7]), Ok(0));
        assert_eq!(guest.call(nr::setuid, [7]), Ok(0));
        let cred = guest.task.cred();
        assert_eq!((cred.uid, cred.egid, cred.groups.as_ref()), (7, 7, [4, 9].as_slice()));
        assert!(!guest.task.group().is_dumpable());
        assert_eq!(guest.call(nr::setgroups, [0, 0]), Err(Errno::EPERM));
        assert_eq!(guest.call(nr::setuid, [0]), Err(Errno::EPERM));
        assert_eq!(guest.call(nr::setfsuid, [0]), Ok(7));
        assert_eq!(guest.call(nr::setfsuid, [u64::MAX]), Ok(7));
    }

    #[test]
    fn groups_are_checked_in_order() {
        let mut guest = Guest::new();
        assert_eq!(guest.call(nr::setgroups, [65_537, 0]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::setgroups, [u64::MAX, 0]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::setgroups, [1, 0]), Err(Errno::EFAULT));
        assert_eq!(guest.call(nr::setgroups, [0, 0]), Ok(0));
    }
}
