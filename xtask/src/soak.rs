//! `cargo xtask soak`: one sandbox, busy for a long time, watched from outside.
//!
//! The guest (`tests/soak/soak.c`) makes processes, files, signals and the rest and takes them away again,
//! so a Sentry or a Gofer that grows has lost something. Memory is PSS; descriptors, threads and guest
//! processes are counted. What is compared is the median of the samples of the second tenth to the third
//! one with that of the last fifth: caches have filled by then.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::bench::build_runsc;
use crate::report::note;

/// What one look at a process sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    pss_kib: u64,
    fds: u64,
    threads: u64,
}

impl Look {
    fn at(pid: u32) -> anyhow::Result<Self> {
        let folder = Path::new("/proc").join(pid.to_string());
        let rollup = std::fs::read_to_string(folder.join("smaps_rollup"))?;
        let status = std::fs::read_to_string(folder.join("status"))?;
        Ok(Self {
            pss_kib: field(&rollup, "Pss:").context("no Pss in smaps_rollup")?,
            fds: u64::try_from(std::fs::read_dir(folder.join("fd"))?.count())?,
            threads: field(&status, "Threads:").context("no Threads in status")?,
        })
    }
}

/// The number behind `name` in a file of `/proc`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Children of a process.
fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The child of `pid` that runs as `runsc ROLE`.
fn role(pid: u32, role: &str) -> Option<u32> {
    children(pid).into_iter().find(|child| {
        let words = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == role.as_bytes())
    })
}

/// Runs the guest for `minutes` and says whether the sandbox stayed flat.
///
/// # Errors
/// When something cannot be built, the guest fails, or its sandbox cannot be looked at.
pub(crate) fn run(root: &Path, minutes: u64) -> anyhow::Result<bool> {
    ensure!(minutes > 0, "soak takes at least a minute");
    watch(root, &build_runsc(root)?, minutes * 60, Duration::from_secs(10), 1024)
}

/// The same for half a minute with a `runsc` that is there already: enough to see descriptors and threads that are
/// lost each time. Caches of names and nodes are still filling then (for about four minutes), so memory may grow.
///
/// # Errors
/// As [`run`].
pub(crate) fn short(root: &Path, runsc: &Path) -> anyhow::Result<bool> {
    watch(root, runsc, 30, Duration::from_secs(1), 64 << 10)
}

/// Runs the guest for `seconds`, looking at the sandbox in between; memory may grow by a tenth and `spare_kib`.
fn watch(root: &Path, runsc: &Path, seconds: u64, every: Duration, spare_kib: u64) -> anyhow::Result<bool> {
    let folder = root.join("target/soak");
    std::fs::create_dir_all(&folder)?;
    let guest = folder.join("soak");
    let compiled = Command::new("gcc")
        .args(["-O2", "-static", "-pthread", "-o"])
        .arg(&guest)
        .arg(root.join("tests/soak/soak.c"))
        .status()
        .context("running gcc")?;
    ensure!(compiled.success(), "tests/soak/soak.c does not compile");
    let mut sandbox = Command::new(runsc).arg("do").arg(&guest).arg(seconds.to_string()).spawn()?;
    let begun = Instant::now();
    let mut looks = Vec::new();
    let status = loop {
        std::thread::sleep(every);
        if let Some(status) = sandbox.try_wait()? {
            break status;
        }
        if let (Some(sentry), Some(gofer)) = (role(sandbox.id(), "boot"), role(sandbox.id(), "gofer")) {
            // Either may just have ended.
            if let (Ok(sentry_look), Ok(gofer_look)) = (Look::at(sentry), Look::at(gofer)) {
                looks.push([sentry_look, gofer_look]);
                if looks.len() % 6 == 1 {
                    note(&line(begun.elapsed().as_secs(), &[sentry_look, gofer_look]));
                }
            }
        }
    };
    ensure!(status.success(), "the guest failed: {status}");
    Ok(judge(&looks, spare_kib))
}

fn line(seconds: u64, looks: &[Look; 2]) -> String {
    let mut text = format!("{seconds:>6} s");
    for (name, look) in ["sentry", "gofer"].iter().zip(looks) {
        let _ = write!(
            text,
            "  {name}: {} KiB, {} descriptors, {} threads",
            look.pss_kib, look.fds, look.threads
        );
    }
    text
}

/// The median of one figure over some looks.
fn median(looks: &[[Look; 2]], figure: impl Fn(&[Look; 2]) -> u64) -> u64 {
    let mut all: Vec<u64> = looks.iter().map(figure).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// Compares the early looks with the late ones.
fn judge(looks: &[[Look; 2]], spare_kib: u64) -> bool {
    let tenth = looks.len() / 10;
    let early = looks.get(tenth..(3 * tenth).max(tenth + 1)).unwrap_or_default();
    let late = looks.get(looks.len() - (2 * tenth).max(1).min(looks.len())..).unwrap_or_default();
    let mut flat = !early.is_empty() && !late.is_empty();
    for (index, name) in ["sentry", "gofer"].into_iter().enumerate() {
        let of = |part: &[[Look; 2]], figure: fn(&Look) -> u64| {
            median(part, |look| look.get(index).map_or(0, figure))
        };
        for (what, figure, slack) in [
            // A tenth and some more: what an allocator keeps moves a little.
            (
                "KiB",
                (|look: &Look| look.pss_kib) as fn(&Look) -> u64,
                of(early, |look| look.pss_kib) / 10 + spare_kib,
            ),
            ("descriptors", |look: &Look| look.fds, 8),
            ("threads", |look: &Look| look.threads, 8),
        ] {
            let (before, after) = (of(early, figure), of(late, figure));
            let good = after <= before + slack;
            note(&format!("{name}: {before} {what} early, {after} late{}", if good { "" } else { ": GREW" }));
            flat &= good;
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_seen() {
        let look = |pss_kib, fds| [Look { pss_kib, fds, threads: 4 }, Look::default()];
        assert!(judge(&(0..100).map(|_| look(5000, 20)).collect::<Vec<_>>(), 1024));
        assert!(!judge(&(0..100).map(|n| look(5000 + n * 100, 20)).collect::<Vec<_>>(), 1024));
        assert!(!judge(&(0..100).map(|n| look(5000, 20 + n)).collect::<Vec<_>>(), 1024));
        assert!(!judge(&[], 1024));
    }

    #[test]
    fn fields_of_proc() {
        assert_eq!(field("Name:\tx\nThreads:\t7\n", "Threads:"), Some(7));
        assert_eq!(field("Name:\tx\n", "Threads:"), None);
    }
}
