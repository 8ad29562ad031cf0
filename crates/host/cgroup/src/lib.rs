//! Control groups of the host (`cgroups(7)`), of both versions: what all processes of a sandbox together may
//! use.
//!
//! A sandbox's processes are made inside their groups, because runsc enters these before it starts them and
//! leaves afterwards; moved later, a process that has already been cloned from them would stay behind.
//!
//! [`Cgroups`] are the groups of one sandbox, one in each hierarchy. `limits` makes files of limits, `usage` reads
//! what is used, [`OomWatch`] tells when a process is killed for lack of memory.
//!
//! Deliberately absent: device rules (a sandbox opens no devices), throttles of block I/O, limits of huge pages
//! and networks, and the systemd driver; the name that is meant for it is taken as a path. The limit of tasks
//! is the guest kernel's, not a group's, since a guest's task is not a task of the host.
#![forbid(unsafe_code)]

mod limits;
mod oom;
mod usage;

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use self::limits::{Limit, block_limits, cpu_limits, memory_limits};
pub use self::oom::{OomWatch, Seen};
pub use self::usage::Usage;

/// What can go wrong with groups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of a group, or a group itself.
    #[error("{path:?}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the host said.
        source: Error,
    },
    /// A spec asks for what cannot be.
    #[error("{field}: {reason}")]
    Spec {
        /// Its field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// How long a group may still be in use after its processes were killed.
const EMPTYING: Duration = Duration::from_secs(5);
/// Controllers of version 2 that we set limits with.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "io"];

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// As the group of a process names it: of version 1 the controllers, of version 2 nothing.
    name: String,
    version: Version,
}

/// Version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// Each with controllers of its own.
    One,
    /// One for all.
    Two,
}

/// A group in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    dir: PathBuf,
    controllers: Vec<String>,
    version: Version,
}

/// The groups of a sandbox, one in each hierarchy; maybe none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups(Vec<Group>);

/// We are in the groups while this lives, and then again where we were.
#[derive(Debug)]
pub struct Joined {
    before: Vec<PathBuf>,
}

fn io(path: &Path) -> impl FnOnce(Error) -> CgroupError {
    move |source| CgroupError::Io { path: path.into(), source }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(io(path))
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(io(path))
}

/// The hierarchies in `mountinfo` (`proc_pid_mountinfo(5)`).
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let parse = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, mount) = (place.next()?, PathBuf::from(place.next()?));
        let mut kind = kind.split(' ');
        let version = match kind.next()? {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        let options = kind.nth(1).unwrap_or_default().split(',');
        let name = match version {
            // Options that are not controllers are those of every mount.
            Version::One => options.filter(|option| !matches!(*option, "rw" | "ro" | "xattr")).collect(),
            Version::Two => Vec::new(),
        };
        (root == "/").then(|| Hierarchy { mount, name: name.join(","), version })
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// The path of a group below the mounts. That for systemd, `slice:prefix:name`, becomes its scope's.
fn below(path: &str) -> Result<PathBuf, CgroupError> {
    let bad = CgroupError::Spec { field: "linux.cgroupsPath", reason: "not a path below the root" };
    let path = match path.split(':').collect::<Vec<_>>().as_slice() {
        [slice, prefix, name] => PathBuf::from(format!("{slice}/{prefix}-{name}.scope")),
        _ => PathBuf::from(path),
    };
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => parts.push(name),
            Component::ParentDir | Component::Prefix(_) => return Err(bad),
        }
    }
    if parts.as_os_str().is_empty() { Err(bad) } else { Ok(parts) }
}

/// Makes a group and those above it.
fn make(hierarchy: &Hierarchy, below: &Path) -> Result<Group, CgroupError> {
    let mut dir = hierarchy.mount.clone();
    for part in below {
        if hierarchy.version == Version::Two {
            enable(&dir);
        }
        let parent = dir.clone();
        dir.push(part);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => other.map_err(io(&dir))?,
        }
        if hierarchy.version == Version::One {
            inherit_cpuset(&parent, &dir)?;
        }
    }
    group(hierarchy, dir)
}

/// A group that is there.
fn group(hierarchy: &Hierarchy, dir: PathBuf) -> Result<Group, CgroupError> {
    let controllers = match hierarchy.version {
        Version::One => hierarchy.name.split(',').map(str::to_owned).collect(),
        Version::Two => {
            read(&dir.join("cgroup.controllers"))?.split_whitespace().map(str::to_owned).collect()
        }
    };
    Ok(Group { dir, controllers, version: hierarchy.version })
}

/// Lets groups below `dir` have controllers. One that is not to be had is noticed when a limit is set.
fn enable(dir: &Path) {
    for controller in CONTROLLERS {
        if let Err(error) = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
            tracing::debug!(%error, controller, ?dir, "a controller is not enabled");
        }
    }
}

/// A new group of version 1 has no processors and memory nodes, and so takes no process in.
fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<(), CgroupError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = dir.join(file);
        if path.exists() && read(&path)?.trim().is_empty() {
            write(&path, read(&parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

impl Cgroups {
    /// The groups of `path` before they are made: to be noted, so that they are found and removed even when
    /// whoever makes them is killed.
    pub fn plan(path: &str) -> Result<Self, CgroupError> {
        let below = below(path)?;
        let group = |hierarchy: Hierarchy| Group {
            dir: hierarchy.mount.join(&below),
            controllers: Vec::new(),
            version: hierarchy.version,
        };
        Ok(Self(hierarchies(&read("/proc/self/mountinfo".as_ref())?).into_iter().map(group).collect()))
    }

    /// Those of the groups of `path` that are there.
    pub fn find(path: &str) -> Result<Self, CgroupError> {
        let below = below(path)?;
        let mut groups = Self::default();
        for hierarchy in hierarchies(&read("/proc/self/mountinfo".as_ref())?) {
            let dir = hierarchy.mount.join(&below);
            if dir.is_dir() {
                groups.0.push(group(&hierarchy, dir)?);
            }
        }
        Ok(groups)
    }

    /// Which version counts and limits memory; `None` when nothing does.
    pub fn memory_version(&self) -> Option<Version> {
        self.with("memory").map(|group| group.version)
    }

    /// Makes the groups of `path` with their limits.
    pub fn create(path: &str, resources: Option<&LinuxResources>) -> Result<Self, CgroupError> {
        let below = below(path)?;
        let mut groups = Self::default();
        for hierarchy in hierarchies(&read("/proc/self/mountinfo".as_ref())?) {
            match make(&hierarchy, &below) {
                Ok(group) => groups.0.push(group),
                Err(error) => {
                    groups.remove_or_warn();
                    return Err(error);
                }
            }
        }
        if let Some(resources) = resources
            && let Err(error) = groups.limit(resources)
        {
            groups.remove_or_warn();
            return Err(error);
        }
        Ok(groups)
    }

    fn remove_or_warn(&self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "a control group is left");
        }
    }

    /// The group that has a controller.
    fn with(&self, controller: &str) -> Option<&Group> {
        self.0.iter().find(|group| group.controllers.iter().any(|name| name == controller))
    }

    /// Sets limits.
    pub fn limit(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        if let Some(memory) = resources.memory() {
            let mut limits = memory_limits(memory);
            if self.set("memory", &limits).is_err() {
                // The one of both must not be below the first at any time.
                limits.reverse();
                self.set("memory", &limits)?;
            }
        }
        if let Some(block) = resources.block_io() {
            let name = if self.with("io").is_some() { "io" } else { "blkio" };
            self.set(name, &block_limits(block))?;
        }
        if let Some(cpu) = resources.cpu() {
            let (cpu, set) = cpu_limits(cpu);
            self.set("cpu", &cpu)?;
            self.set("cpuset", &set)?;
        }
        Ok(())
    }

    fn set(&self, controller: &'static str, limits: &[Limit]) -> Result<(), CgroupError> {
        if limits.is_empty() {
            return Ok(());
        }
        let none =
            CgroupError::Spec { field: "linux.resources", reason: "the host lacks a controller for it" };
        let group = match self.with(controller) {
            None if limits.iter().all(|limit| limit.optional) => return Ok(()),
            group => group.ok_or(none)?,
        };
        for limit in limits {
            let (file, value) = match group.version {
                Version::One => (limit.one.0, &limit.one.1),
                Version::Two => (limit.two.0, &limit.two.1),
            };
            let path = group.dir.join(file);
            if !file.is_empty() && (!limit.optional || path.exists()) {
                write(&path, value)?;
            }
        }
        Ok(())
    }

    /// Enters the groups.
    pub fn join(&self) -> Result<Joined, CgroupError> {
        let now = read("/proc/self/cgroup".as_ref())?;
        let before = hierarchies(&read("/proc/self/mountinfo".as_ref())?)
            .iter()
            .filter(|hierarchy| self.0.iter().any(|group| group.dir.starts_with(&hierarchy.mount)))
            .filter_map(|hierarchy| Some(hierarchy.mount.join(place(&now, hierarchy)?)))
            .collect();
        let joined = Joined { before };
        for group in &self.0 {
            enter(&group.dir)?;
        }
        Ok(joined)
    }

    /// Stops all processes, or lets them go on. An error when the host cannot.
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        let none = CgroupError::Spec { field: "linux.cgroupsPath", reason: "the host has no freezer for it" };
        if let Some(group) = self.0.iter().find(|group| group.dir.join("cgroup.freeze").exists()) {
            return write(&group.dir.join("cgroup.freeze"), if frozen { "1" } else { "0" });
        }
        let group = self.with("freezer").ok_or(none)?;
        write(&group.dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes the groups, once their processes are gone.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let end = Instant::now() + EMPTYING;
        for Group { dir, .. } in &self.0 {
            loop {
                match fs::remove_dir(dir) {
                    Ok(()) => break,
                    Err(error) if error.kind() == ErrorKind::NotFound => break,
                    Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < end => {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    Err(error) => return Err(io(dir)(error)),
                }
            }
        }
        Ok(())
    }
}

/// Moves this process into a group.
fn enter(dir: &Path) -> Result<(), CgroupError> {
    write(&dir.join("cgroup.procs"), "0")
}

/// Where a process is in a hierarchy, below its mount, by its `/proc/PID/cgroup`.
fn place(text: &str, hierarchy: &Hierarchy) -> Option<PathBuf> {
    let mut lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    let found = lines.find(|(id, name, _)| match hierarchy.version {
        Version::One => *id != "0" && *name == hierarchy.name,
        Version::Two => *id == "0",
    });
    found.map(|(_, _, path)| PathBuf::from(path.trim_start_matches('/')))
}

impl Drop for Joined {
    fn drop(&mut self) {
        for dir in &self.before {
            if let Err(error) = enter(dir) {
                tracing::warn!(%error, "cannot go back to a control group");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cgroups, Version, below, hierarchies, place};
    use std::path::{Path, PathBuf};

    const MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
42 31 0:39 /part /elsewhere rw - cgroup cgroup rw,memory
nonsense
";

    #[test]
    fn hierarchies_are_found_and_places_in_them() {
        let found = hierarchies(MOUNTS);
        let names: Vec<_> = found.iter().map(|h| (h.name.as_str(), h.version)).collect();
        let want = [("cpu,cpuacct", Version::One), ("name=systemd", Version::One), ("", Version::Two)];
        assert_eq!(names, want);
        let text = "2:cpu,cpuacct:/a/b\n1:name=systemd:/\n0::/c:d\n";
        let places: Vec<_> = found.iter().filter_map(|hierarchy| place(text, hierarchy)).collect();
        assert_eq!(places, ["a/b", "", "c:d"].map(PathBuf::from));
    }

    #[test]
    fn a_plan_names_groups_that_need_not_be_there() {
        let plan = Cgroups::plan("/rampart-no-such/group").expect("good");
        assert!(
            plan.0.iter().all(|group| group.dir.ends_with("rampart-no-such/group") && !group.dir.exists())
        );
        plan.remove().expect("nothing to do");
        assert!(Cgroups::plan("..").is_err());
    }

    #[test]
    fn paths_stay_below() {
        assert_eq!(below("/docker/x").expect("good"), Path::new("docker/x"));
        assert_eq!(below("user.slice:run:x").expect("good"), Path::new("user.slice/run-x.scope"));
        for bad in ["", "/", "/a/../../b", ".."] {
            assert!(below(bad).is_err(), "{bad:?}");
        }
    }
}
