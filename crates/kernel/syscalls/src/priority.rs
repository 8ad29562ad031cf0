//! Priorities of processors and I/O, and the personality (`getpriority(2)`, `ioprio_set(2)`,
//! `personality(2)`). All are kept and told only: see [`kernel::settings`].

use std::sync::Arc;

use abi::limits::Resource;
use abi::{Errno, SysResult};
use cred::CapSet;
use kernel::Task;

use crate::cx::Cx;
use crate::sched::may_schedule;

/// Whom a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    /// A thread.
    Process,
    /// All threads of a process group.
    Group,
    /// All threads of a user.
    User,
}

impl Whom {
    /// `PRIO_*`, and `IOPRIO_WHO_*` less one.
    fn from_raw(which: i32) -> SysResult<Self> {
        match which {
            0 => Ok(Self::Process),
            1 => Ok(Self::Group),
            2 => Ok(Self::User),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// Them; 0 is the caller, its group or its user.
    fn tasks(self, cx: &Cx<'_>, who: u32) -> Vec<Arc<Task>> {
        let kernel = cx.task.kernel();
        let everybody = || kernel.processes().into_iter().flat_map(|pid| kernel.threads(pid));
        match self {
            Self::Process if who == 0 => vec![Arc::clone(cx.task)],
            Self::Process => i32::try_from(who).ok().and_then(|id| cx.task_of(id).ok()).into_iter().collect(),
            Self::Group => {
                let group = match who {
                    0 => kernel.pgrp_of(cx.task.tgid()),
                    who => i32::try_from(who).ok().and_then(|id| cx.id(id).ok()),
                };
                everybody().filter(|task| kernel.pgrp_of(task.tgid()) == group).collect()
            }
            Self::User => {
                let uid = if who == 0 { cx.task.cred().uid } else { who };
                everybody().filter(|task| task.cred().uid == uid).collect()
            }
        }
    }
}

/// May the caller make `target` this nice?
pub(crate) fn may_nice(cx: &Cx<'_>, target: &Task, nice: i32) -> bool {
    let wanted = u64::try_from(20 - nice).unwrap_or(0);
    wanted <= target.group().limit(Resource::Nice).cur || cx.task.cred().capable(CapSet::SYS_NICE)
}

/// `getpriority(2)`: 20 less the lowest nice value, so that it is never negative.
pub(crate) fn getpriority(cx: &mut Cx<'_>, which: i32, who: u32) -> SysResult<i32> {
    let tasks = Whom::from_raw(which)?.tasks(cx, who);
    let lowest = tasks.iter().map(|task| task.settings().scheduling.nice).min();
    lowest.map(|nice| 20 - nice).ok_or(Errno::ESRCH.into())
}

/// `setpriority(2)`: of several tasks some may be changed although the call fails, as on Linux.
pub(crate) fn setpriority(cx: &mut Cx<'_>, which: i32, who: u32, nice: i32) -> SysResult<()> {
    let nice = nice.clamp(-20, 19);
    let mut result = Err(Errno::ESRCH);
    for task in Whom::from_raw(which)?.tasks(cx, who) {
        let was = task.settings().scheduling.nice;
        if !may_schedule(cx, &task) {
            result = Err(Errno::EPERM);
        } else if nice < was && !may_nice(cx, &task, nice) {
            result = Err(Errno::EACCES);
        } else {
            task.change_settings(|settings| settings.scheduling.nice = nice);
            result = match result {
                Err(Errno::ESRCH) => Ok(()),
                other => other,
            };
        }
    }
    Ok(result?)
}

/// Class and level of an I/O priority.
fn check_io(cx: &Cx<'_>, priority: u32) -> SysResult<u16> {
    let (class, level) = (priority >> 13, priority & 0x1fff);
    let cred = cx.task.cred();
    let good = match class {
        1 if !cred.capable(CapSet::SYS_ADMIN) && !cred.capable(CapSet::SYS_NICE) => {
            return Err(Errno::EPERM.into());
        }
        1 | 2 => level < 8,
        3 => true,
        0 => level == 0,
        _ => false,
    };
    u16::try_from(priority).ok().filter(|_| good).ok_or(Errno::EINVAL.into())
}

/// `ioprio_set(2)`.
pub(crate) fn ioprio_set(cx: &mut Cx<'_>, which: i32, who: u32, priority: u32) -> SysResult<()> {
    let priority = check_io(cx, priority)?;
    let mut result = Err(Errno::ESRCH.into());
    for task in Whom::from_raw(which.wrapping_sub(1))?.tasks(cx, who) {
        if !may_schedule(cx, &task) {
            return Err(Errno::EPERM.into());
        }
        task.change_settings(|settings| settings.io_priority = priority);
        result = Ok(());
    }
    result
}

/// `ioprio_get(2)`: of several the most urgent.
pub(crate) fn ioprio_get(cx: &mut Cx<'_>, which: i32, who: u32) -> SysResult<u32> {
    let tasks = Whom::from_raw(which.wrapping_sub(1))?.tasks(cx, who);
    let best = tasks.iter().map(|task| u32::from(task.settings().io_priority)).min();
    best.ok_or(Errno::ESRCH.into())
}

/// `personality(2)`: kept and inherited. Of its bits only `ADDR_NO_RANDOMIZE` does something, at an exec.
pub(crate) fn personality(cx: &mut Cx<'_>, new: u32) -> SysResult<u32> {
    Ok(cx.task.change_settings(|settings| match new {
        u32::MAX => settings.personality,
        new => std::mem::replace(&mut settings.personality, new),
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use abi::Errno;
    use abi::syscall as nr;
    use cred::Credentials;

    use crate::testkit::Guest;

    #[test]
    fn nice_values_are_told_from_forty_down() {
        let mut guest = Guest::new();
        assert_eq!(guest.call(nr::getpriority, [0, 0]), Ok(20));
        assert_eq!(guest.call(nr::setpriority, [0, 0, -5i64 as u64]), Ok(0));
        assert_eq!(guest.call(nr::getpriority, [2, 0]), Ok(25));
        assert_eq!(guest.call(nr::setpriority, [1, 1, 99]), Ok(0));
        assert_eq!(guest.call(nr::getpriority, [1, 0]), Ok(1));
        assert_eq!(guest.call(nr::getpriority, [3, 0]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::getpriority, [0, 99]), Err(Errno::ESRCH));
        guest.task.set_cred(Arc::new(Credentials::user(7, 7)));
        assert_eq!(guest.call(nr::setpriority, [0, 0, 5]), Err(Errno::EACCES));
    }

    #[test]
    fn io_priorities_have_classes() {
        let mut guest = Guest::new();
        assert_eq!(guest.call(nr::ioprio_set, [1, 0, 2 << 13 | 5]), Ok(0));
        assert_eq!(guest.call(nr::ioprio_get, [1, 0]), Ok(2 << 13 | 5));
        assert_eq!(guest.call(nr::ioprio_set, [1, 0, 2 << 13 | 8]), Err(Errno::EINVAL));
        assert_eq!(guest.call(nr::ioprio_set, [0, 0, 0]), Err(Errno::EINVAL));
        guest.task.set_cred(Arc::new(Credentials::user(7, 7)));
        assert_eq!(guest.call(nr::ioprio_set, [1, 0, 1 << 13]), Err(Errno::EPERM));
    }

    #[test]
    fn a_personality_is_kept() {
        let mut guest = Guest::new();
        assert_eq!(guest.call(nr::personality, [0x4_0000]), Ok(0));
        assert_eq!(guest.call(nr::personality, [u64::from(u32::MAX)]), Ok(0x4_0000));
    }
}
