//! The state directory: one directory a container, locked with `flock(2)`, written atomically.
//!
//! The lock is on a file that is never replaced; `state.json` is written beside itself and renamed. A
//! holder that dies releases the lock, and leaves either the old state or the new one.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cgroup::Cgroups;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::runtime::Hook;
use serde::{Deserialize, Serialize};

use crate::identity::{ProcessId, Processes};
use crate::{MemberGofer, SandboxError, hooks};

const STATE: &str = "state.json";
const LOCK: &str = "lock";

/// Where a container is in its life (OCI runtime spec, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made; its program has not started.
    Created,
    /// Its program runs.
    Running,
    /// All its processes are stopped.
    Paused,
    /// Its program has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// What `runsc state` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the OCI runtime spec.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Host pid of the Sentry; 0 when there is none.
    pub pid: i32,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Annotations of the spec.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a container has on the host beside its processes, until it is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belongings {
    /// Its control groups.
    pub cgroups: Cgroups,
    /// Hooks for after its start.
    pub poststart: Vec<Hook>,
    /// Hooks for after its deletion.
    pub poststop: Vec<Hook>,
}

/// What is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    state: State,
    processes: Option<Processes>,
    /// The sandbox it joined, when it did not make one.
    #[serde(default)]
    membership: Option<Membership>,
    /// Processes of the host that stand for some of the guest's.
    #[serde(default)]
    stands: Vec<ProcessId>,
    #[serde(default)]
    belongings: Belongings,
}

/// What a container has that joined a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Membership {
    /// Id of the container that made it.
    sandbox: String,
    gofer: Option<ProcessId>,
    /// A process of the host that ends with the container's first.
    stand: Option<ProcessId>,
}

/// The directory that holds all containers' states.
#[derive(Clone, Debug)]
pub struct StateRoot {
    path: PathBuf,
}

/// A container's state, locked against other `runsc` processes while this lives.
#[derive(Debug)]
pub struct Container {
    dir: PathBuf,
    record: Record,
    _lock: Flock<File>,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SandboxError {
    move |source| SandboxError::Io { path: path.into(), source }
}

/// Only names that are one component of a path and need no quoting anywhere.
fn check_id(id: &str) -> Result<(), SandboxError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let dots = id.bytes().all(|byte| byte == b'.');
    if id.len() <= 255 && id.bytes().all(good) && !dots {
        Ok(())
    } else {
        Err(SandboxError::BadId(id.into()))
    }
}

/// Takes the lock of a container's directory. `None` when the directory is gone, or was replaced while
/// we waited.
fn lock(dir: &Path) -> Result<Option<Flock<File>>, SandboxError> {
    let path = dir.join(LOCK);
    let file = match OpenOptions::new().create(true).append(true).mode(0o600).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(&path)(error)),
    };
    let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io(&path)(errno.into()))?;
    let ours = lock.metadata().map_err(io(&path))?;
    match fs::metadata(&path) {
        Ok(now) if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) => Ok(Some(lock)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(&path)(error)),
    }
}

impl StateRoot {
    /// The directory at `path`; made when first needed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes a container's directory, in status [`Status::Creating`].
    pub fn create(&self, id: &str, bundle: &Path, oci_version: &str) -> Result<Container, SandboxError> {
        check_id(id)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(true).create(&self.path).map_err(io(&self.path))?;
        let dir = self.path.join(id);
        match builder.recursive(false).create(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(SandboxError::Exists(id.into()));
            }
            other => other.map_err(io(&dir))?,
        }
        let lock = lock(&dir)?.ok_or_else(|| SandboxError::NotFound(id.into()))?;
        let state = State {
            oci_version: oci_version.into(),
            id: id.into(),
            status: Status::Creating,
            pid: 0,
            bundle: bundle.into(),
            annotations: BTreeMap::new(),
        };
        let container = Container {
            dir,
            record: Record {
                state,
                processes: None,
                membership: None,
                stands: Vec::new(),
                belongings: Belongings::default(),
            },
            _lock: lock,
        };
        container.write()?;
        Ok(container)
    }

    /// The directory of a container, which need not be there.
    pub fn dir_of(&self, id: &str) -> Result<PathBuf, SandboxError> {
        check_id(id)?;
        Ok(self.path.join(id))
    }

    /// Opens and locks a container.
    pub fn open(&self, id: &str) -> Result<Container, SandboxError> {
        check_id(id)?;
        let dir = self.path.join(id);
        let lock = lock(&dir)?.ok_or_else(|| SandboxError::NotFound(id.into()))?;
        let path = dir.join(STATE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            // Its creator died before the first write.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(SandboxError::NotFound(id.into()));
            }
            Err(error) => return Err(io(&path)(error)),
        };
        let mut record: Record = serde_json::from_slice(&text)
            .map_err(|source| SandboxError::Damaged { path: path.clone(), source })?;
        record.refresh();
        if record.state.status == Status::Creating {
            // Its creator would hold the lock, so it is dead.
            record.state.status = Status::Stopped;
        }
        Ok(Container { dir, record, _lock: lock })
    }

    /// States of all containers, by id. One that cannot be read is left out.
    pub fn list(&self) -> Result<Vec<State>, SandboxError> {
        Ok(self.records()?.into_iter().map(|record| record.state).collect())
    }

    /// The same of those that have a sandbox of their own, not of others that joined it.
    pub fn sandboxes(&self) -> Result<Vec<State>, SandboxError> {
        let own = self.records()?.into_iter().filter(|record| record.membership.is_none());
        Ok(own.map(|record| record.state).collect())
    }

    fn records(&self) -> Result<Vec<Record>, SandboxError> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(io(&self.path))?,
        };
        let mut ids: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        ids.sort();
        // Without the lock: a rename makes every read whole, and a long `create` must not block a list.
        let read = |id: &String| {
            let text = fs::read(self.path.join(id).join(STATE)).ok()?;
            let mut record: Record = serde_json::from_slice(&text).ok()?;
            record.refresh();
            Some(record)
        };
        Ok(ids.iter().filter_map(read).collect())
    }

    /// Kills and removes whatever there is of a container, readable or not. No error when there is nothing.
    pub fn purge(&self, id: &str) -> Result<(), SandboxError> {
        match self.open(id) {
            Ok(container) => {
                container.kill()?;
                return container.remove();
            }
            Err(SandboxError::NotFound(_) | SandboxError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        check_id(id)?;
        let dir = self.path.join(id);
        match lock(&dir)? {
            None => Ok(()),
            Some(_lock) => fs::remove_dir_all(&dir).map_err(io(&dir)),
        }
    }
}

impl Record {
    /// Notices that the sandbox has ended.
    fn refresh(&mut self) {
        let stand = self.membership.as_ref().and_then(|membership| membership.stand);
        let lives = self.processes.map(|processes| processes.sentry).or(stand).is_some_and(ProcessId::lives);
        if !lives && matches!(self.state.status, Status::Created | Status::Running | Status::Paused) {
            self.state.status = Status::Stopped;
            self.state.pid = 0;
        }
    }
}

impl Container {
    /// Its state.
    pub fn state(&self) -> &State {
        &self.record.state
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes the processes of its sandbox, which is not there yet.
    pub fn launched(&mut self, processes: Processes) -> Result<(), SandboxError> {
        self.record.processes = Some(processes);
        self.write()
    }

    /// Its sandbox is there: the container is created.
    pub fn created(
        &mut self,
        processes: Processes,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), SandboxError> {
        self.record.state.pid = processes.sentry.pid;
        self.record.state.annotations = annotations;
        self.record.processes = Some(processes);
        self.set(Status::Created)
    }

    /// Notes that it is to join a sandbox, with what there is of it on the host.
    pub fn joins(&mut self, sandbox: &str, gofer: Option<&MemberGofer>) -> Result<(), SandboxError> {
        let gofer = gofer.and_then(MemberGofer::id);
        self.record.membership = Some(Membership { sandbox: sandbox.into(), gofer, stand: None });
        self.write()
    }

    /// It has joined: the container is created, and the process with host pid `stand` stands for its first one.
    pub fn joined(&mut self, stand: i32, annotations: BTreeMap<String, String>) -> Result<(), SandboxError> {
        if let Some(membership) = &mut self.record.membership {
            membership.stand = ProcessId::of(stand);
        }
        self.record.state.pid = stand;
        self.record.state.annotations = annotations;
        self.set(Status::Created)
    }

    /// The id of the container whose sandbox it joined.
    pub fn sandbox(&self) -> Option<&str> {
        self.record.membership.as_ref().map(|membership| membership.sandbox.as_str())
    }

    /// Notes a process of the host that stands for one of the guest's.
    pub fn add_stand(&mut self, pid: i32) -> Result<(), SandboxError> {
        self.record.stands.retain(|stand| stand.lives());
        self.record.stands.extend(ProcessId::of(pid));
        self.write()
    }

    /// Pids of the host that stand for the guest's processes, as far as any do: the Sentry's, for the first,
    /// and one a process that was started beside it and left to itself.
    pub fn host_pids(&self) -> Vec<i32> {
        let stands = self.record.stands.iter().filter(|stand| stand.lives()).map(|stand| stand.pid);
        let sentry = self.record.state.pid;
        std::iter::once(sentry).filter(|pid| *pid > 0).chain(stands).collect()
    }

    /// Notes what is to go when it is deleted.
    pub fn owns(&mut self, belongings: Belongings) -> Result<(), SandboxError> {
        self.record.belongings = belongings;
        self.write()
    }

    /// What it has on the host.
    pub fn belongings(&self) -> &Belongings {
        &self.record.belongings
    }

    /// Changes the status.
    pub fn set(&mut self, status: Status) -> Result<(), SandboxError> {
        self.record.state.status = status;
        self.write()
    }

    /// Kills what lives of its sandbox, and waits for the end of that. Of one that joined a sandbox only what is its
    /// own on the host; its processes are the Sentry's to end, before.
    pub fn kill(&self) -> Result<(), SandboxError> {
        if self.record.state.status == Status::Paused {
            // In a group of version 1, what is stopped does not even die.
            self.record.belongings.cgroups.freeze(false)?;
        }
        if let Some(Membership { gofer, stand, .. }) = &self.record.membership {
            for process in [gofer, stand].into_iter().flatten() {
                process.kill().map_err(SandboxError::Wait)?;
            }
        }
        self.record.processes.map_or(Ok(()), Processes::kill)
    }

    /// Fails unless the status is one of `allowed`; `operation` is for the message.
    pub fn require(&self, allowed: &[Status], operation: &'static str) -> Result<(), SandboxError> {
        let State { id, status, .. } = &self.record.state;
        if allowed.contains(status) {
            return Ok(());
        }
        Err(SandboxError::WrongStatus { id: id.clone(), status: *status, operation })
    }

    /// Removes all there is of it; its processes are gone.
    pub fn remove(self) -> Result<(), SandboxError> {
        let Record { state, belongings, .. } = &self.record;
        belongings.cgroups.remove()?;
        fs::remove_dir_all(&self.dir).map_err(io(&self.dir))?;
        hooks::run_or_warn(&belongings.poststop, &State { status: Status::Stopped, pid: 0, ..state.clone() });
        Ok(())
    }

    fn write(&self) -> Result<(), SandboxError> {
        let (path, new) = (self.dir.join(STATE), self.dir.join("state.json.new"));
        let text = serde_json::to_vec_pretty(&self.record)
            .map_err(|source| SandboxError::Damaged { path: path.clone(), source })?;
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).write(true).truncate(true).mode(0o600).open(&new).map_err(io(&new))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(io(&new))?;
        fs::rename(&new, &path).map_err(io(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::{StateRoot, Status};
    use crate::SandboxError;
    use crate::identity::{ProcessId, Processes};
    use std::collections::BTreeMap;
    use std::path::Path;

    fn root() -> (tempfile::TempDir, StateRoot) {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = StateRoot::new(dir.path().join("state"));
        (dir, root)
    }

    #[test]
    fn a_container_lives_and_goes() {
        let (_dir, root) = root();
        let mut made = root.create("one", Path::new("/bundle"), "1.0.2").expect("create");
        assert!(matches!(
            root.create("one", Path::new("/bundle"), "1.0.2"),
            Err(SandboxError::Exists(id)) if id == "one"
        ));
        let us = ProcessId::of(std::process::id() as i32).expect("we live");
        let none = ProcessId { started: us.started + 1, ..us };
        made.created(Processes { sentry: us, gofer: none }, BTreeMap::new()).expect("set");
        drop(made);
        let mut opened = root.open("one").expect("open");
        assert_eq!((opened.state().status, opened.state().pid), (Status::Created, us.pid));
        assert!(opened.require(&[Status::Running], "pause").is_err());
        // The same pid, but another process.
        opened.created(Processes { sentry: none, gofer: none }, BTreeMap::new()).expect("set");
        drop(opened);
        let opened = root.open("one").expect("open");
        assert_eq!((opened.state().status, opened.state().pid), (Status::Stopped, 0));
        opened.kill().expect("nothing to do");
        assert_eq!(root.list().expect("list").len(), 1);
        opened.remove().expect("remove");
        assert!(matches!(root.open("one"), Err(SandboxError::NotFound(_))));
        assert!(root.list().expect("list").is_empty());
    }

    #[test]
    fn ids_stay_inside_the_root() {
        let (_dir, root) = root();
        for id in ["", ".", "..", "a/b", "a b", "\u{e9}", &"x".repeat(256)] {
            assert!(matches!(root.open(id), Err(SandboxError::BadId(_))), "{id:?}");
            assert!(matches!(root.purge(id), Err(SandboxError::BadId(_))), "{id:?}");
        }
    }

    #[test]
    fn the_lock_excludes() {
        let (_dir, root) = root();
        let first = root.create("one", Path::new("/b"), "1.0.2").expect("create");
        let other = root.clone();
        let waiter = std::thread::spawn(move || other.open("one").map(|c| c.state().status));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiter.is_finished());
        let mut first = first;
        first.set(Status::Running).expect("set");
        drop(first);
        assert_eq!(waiter.join().expect("join").expect("open"), Status::Stopped);
    }

    #[test]
    fn damaged_states_can_be_purged() {
        let (dir, root) = root();
        drop(root.create("one", Path::new("/b"), "1.0.2").expect("create"));
        std::fs::write(dir.path().join("state/one/state.json"), b"{").expect("write");
        assert!(matches!(root.open("one"), Err(SandboxError::Damaged { .. })));
        root.purge("one").expect("purge");
        assert!(matches!(root.open("one"), Err(SandboxError::NotFound(_))));
        root.purge("one").expect("purge nothing");
    }
}
