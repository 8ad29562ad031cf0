//! How the processes of a running sandbox stand towards the host, as the host's `/proc` shows it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

/// A host process of a sandbox, or a thread of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(pub i32);

impl Process {
    /// A field of its `status`.
    pub fn status(self, field: &str) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }

    /// One of its capability sets (`CapEff`…).
    pub fn capabilities(self, set: &str) -> Option<u64> {
        u64::from_str_radix(&self.status(set)?, 16).ok()
    }

    /// What its namespace of this kind is called.
    pub fn namespace(self, kind: &str) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/ns/{kind}", self.0)).ok()
    }

    /// Its mounts, a line each.
    pub fn mounts(self) -> Vec<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/mountinfo", self.0)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Names in its root directory; `None` when it cannot be read.
    pub fn root_entries(self) -> Option<usize> {
        Some(std::fs::read_dir(format!("/proc/{}/root/", self.0)).ok()?.count())
    }

    /// What its descriptors are, by number.
    pub fn descriptors(self) -> Vec<(i32, PathBuf)> {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{}/fd", self.0)) else { return Vec::new() };
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, std::fs::read_link(entry.path()).ok()?))
        };
        entries.filter_map(read).collect()
    }

    /// All its threads, as processes: they have a `status` each.
    pub fn threads(self) -> Vec<Process> {
        numbers(&format!("/proc/{}/task", self.0)).collect()
    }

    /// Processes it is the parent of.
    pub fn children(self) -> BTreeSet<Process> {
        let parent = Some(self.0.to_string());
        numbers("/proc").filter(|process| process.status("PPid") == parent).collect()
    }

    /// The arguments it was started with.
    pub fn arguments(self) -> Vec<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        text.split_terminator('\0').map(str::to_owned).collect()
    }
}

fn numbers(folder: &str) -> impl Iterator<Item = Process> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(Process(entry.ok()?.file_name().to_str()?.parse().ok()?)))
}

/// The host processes of a sandbox.
#[derive(Clone, Debug)]
pub struct Sandboxed {
    /// The one that opens host files.
    pub gofer: Process,
    /// The kernel.
    pub sentry: Process,
    /// The Sentry's other children: those that run guest code, and the one they are made from.
    pub others: BTreeSet<Process>,
}

impl Sandboxed {
    /// Finds them, once `guests` of the Sentry's children run guest code and none comes or goes any more;
    /// `None` after `limit`.
    pub fn of(runsc: &Child, guests: usize, limit: Duration) -> Option<Self> {
        let runsc = Process(i32::try_from(runsc.id()).ok()?);
        let deadline = Instant::now() + limit;
        let mut before = BTreeSet::new();
        while Instant::now() < deadline {
            let half = |command: &str| {
                let ends = |child: &Process| child.arguments().last().is_some_and(|last| last == command);
                runsc.children().into_iter().find(ends)
            };
            if let (Some(gofer), Some(sentry)) = (half("gofer"), half("boot")) {
                let found = Self { gofer, sentry, others: sentry.children() };
                let now = found.guests();
                if now.len() >= guests && now == before {
                    return Some(found);
                }
                before = now;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        None
    }

    /// Those that run guest code: their mailbox is mapped.
    pub fn guests(&self) -> BTreeSet<Process> {
        let runs_guest_code = |process: &&Process| {
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", process.0)).unwrap_or_default();
            maps.contains("/memfd:mailbox")
        };
        self.others.iter().filter(runs_guest_code).copied().collect()
    }
}
