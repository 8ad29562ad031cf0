//! Namespaces (`namespaces(7)`), and the id maps of a user namespace (`user_namespaces(7)`).

use std::fs;

use abi::Errno;
use nix::sched::CloneFlags;

use crate::io_errno;

/// What a child gets of its own.
pub type Namespaces = CloneFlags;

/// Everything a process of a sandbox has of its own: user, mount, pid, IPC, UTS and network namespaces.
pub const ALL: Namespaces = Namespaces::CLONE_NEWUSER
    .union(Namespaces::CLONE_NEWNS)
    .union(Namespaces::CLONE_NEWPID)
    .union(Namespaces::CLONE_NEWIPC)
    .union(Namespaces::CLONE_NEWUTS)
    .union(Namespaces::CLONE_NEWNET);

/// The user and group that own nothing (`uid_map` of `user_namespaces(7)`, `overflowuid`).
const NOBODY: u32 = 65534;

/// What the ids in a user namespace are outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Every id of ours is itself there.
    Same,
    /// There is only one, 0, and outside it is nobody.
    Nobody,
}

/// What a child has to do once its ids are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mapped {
    /// It is what it is to be.
    Already = 1,
    /// It has to become 0.
    BecomeRoot = 2,
}

/// Maps the ids of process `pid`, which has just been made in a user namespace of its own.
///
/// Without privileges neither of [`Ids`] is possible: it then maps only us, to 0, and `setgroups(2)` is
/// denied there (`user_namespaces(7)`).
pub(crate) fn map_ids(pid: i32, ids: Ids) -> Result<Mapped, Errno> {
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/{pid}/{file}"), text).map_err(|error| io_errno(&error))
    };
    let map = |file: &str| match ids {
        Ids::Nobody => write(file, &format!("0 {NOBODY} 1\n")),
        Ids::Same => {
            let ours = fs::read_to_string(format!("/proc/self/{file}")).map_err(|error| io_errno(&error))?;
            write(file, &identity_of(&ours))
        }
    };
    match (map("gid_map"), ids) {
        (Ok(()), Ids::Same) => map("uid_map").map(|()| Mapped::Already),
        (Ok(()), Ids::Nobody) => map("uid_map").map(|()| Mapped::BecomeRoot),
        (Err(Errno::EPERM), _) => {
            write("setgroups", "deny")?;
            write("gid_map", &format!("0 {} 1\n", nix::unistd::getegid()))?;
            write("uid_map", &format!("0 {} 1\n", nix::unistd::geteuid()))?;
            Ok(Mapped::Already)
        }
        (Err(error), _) => Err(error),
    }
}

/// The map that shows, in a child namespace, all ids that `ours` shows in ours, unchanged.
fn identity_of(ours: &str) -> String {
    let ranges = ours.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace();
        let (inside, _outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        Some(format!("{inside} {inside} {count}\n"))
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::identity_of;

    #[test]
    fn a_map_of_ours_is_repeated_as_seen_from_inside() {
        assert_eq!(identity_of("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity_of("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
        assert_eq!(identity_of(""), "");
    }
}
