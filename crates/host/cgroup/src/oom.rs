//! Notices when a process of a group is killed for lack of memory.
//!
//! Version 1 rings an eventfd when the limit cannot be kept, before it kills (`Documentation/admin-guide/cgroup-v1/
//! memory.rst`), and once more when the group is removed. Version 2 counts the kills in a file that can be watched
//! with inotify.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{CgroupError, Cgroups, Group, Version, io, write};

/// A watch on the memory of groups. Its descriptor is readable when there is something to look at.
#[derive(Debug)]
pub struct OomWatch {
    file: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    One(EventFd),
    Two { inotify: Inotify, kills: u64 },
}

/// What a watch has seen since it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing to speak of.
    Nothing,
    /// Memory ran out, and a process was killed or is about to be.
    Oom,
    /// The group has been removed: nothing will follow.
    Gone,
}

impl Cgroups {
    /// Begins to watch. `None` when nothing limits memory here.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, CgroupError> {
        let Some(group) = self.with("memory") else { return Ok(None) };
        let (file, kind) = match group.version {
            Version::One => one(group)?,
            Version::Two => two(group)?,
        };
        Ok(Some(OomWatch { file, kind }))
    }
}

fn one(group: &Group) -> Result<(PathBuf, Kind), CgroupError> {
    let path = group.dir.join("memory.oom_control");
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|errno| io(&path)(errno.into()))?;
    let control = File::open(&path).map_err(io(&path))?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    write(&group.dir.join("cgroup.event_control"), &line)?;
    Ok((path, Kind::One(event)))
}

fn two(group: &Group) -> Result<(PathBuf, Kind), CgroupError> {
    let path = group.dir.join("memory.events");
    let host = |errno: nix::Error| io(&path)(errno.into());
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(host)?;
    inotify.add_watch(&path, AddWatchFlags::IN_MODIFY).map_err(host)?;
    // After the watch has begun, so that no kill is missed in between.
    let kills = kills(&path).unwrap_or(0);
    Ok((path, Kind::Two { inotify, kills }))
}

/// The count of kills in `memory.events`.
fn kills(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

impl OomWatch {
    /// What has happened since the last call. Does not wait.
    pub fn look(&mut self) -> Seen {
        match &mut self.kind {
            Kind::One(event) => match event.read() {
                Ok(_) if self.file.exists() => Seen::Oom,
                Ok(_) => Seen::Gone,
                Err(_) => Seen::Nothing,
            },
            Kind::Two { inotify, kills: before } => {
                // Read away: only the numbers count.
                while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
                match kills(&self.file) {
                    None => Seen::Gone,
                    Some(now) if now > std::mem::replace(before, now) => Seen::Oom,
                    Some(_) => Seen::Nothing,
                }
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::One(event) => event.as_fd(),
            Kind::Two { inotify, .. } => inotify.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Seen, two};
    use crate::{Cgroups, Group, OomWatch, Version};
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    fn readable(watch: &OomWatch) -> bool {
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).expect("polls") > 0
    }

    #[test]
    fn version_two_counts_kills() {
        let dir = tempfile::tempdir().expect("a folder");
        let events = dir.path().join("memory.events");
        let write = |text: &str| std::fs::write(&events, text).expect("writes");
        write("oom 1\noom_kill 1\n");
        let group =
            Group { dir: dir.path().into(), controllers: vec!["memory".into()], version: Version::Two };
        let mut watch = Cgroups(vec![group]).watch_oom().expect("watches").expect("there is memory");
        assert!(!readable(&watch));
        assert_eq!(watch.look(), Seen::Nothing);
        write("max 5\noom 2\noom_kill 2\n");
        assert!(readable(&watch));
        assert_eq!(watch.look(), Seen::Oom);
        assert_eq!((watch.look(), readable(&watch)), (Seen::Nothing, false));
        std::fs::remove_file(&events).expect("removes");
        assert_eq!(watch.look(), Seen::Gone);
    }

    #[test]
    fn without_memory_there_is_nothing_to_watch() {
        let group = Group { dir: "/".into(), controllers: vec!["cpu".into()], version: Version::One };
        assert!(Cgroups(vec![group.clone()]).watch_oom().expect("good").is_none());
        assert!(two(&group).is_err());
    }
}
