//! `cargo xtask test`: everything that must hold before a change lands, in one command.
//!
//! Installs what the tests call (Debian, root, and only what is missing), then runs the format
//! check, clippy, `tidy` and all tests. A step that fails does not stop the rest: one run tells
//! everything. The closing line counts tests, plus one for each of the other steps.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use cargo_metadata::MetadataCommand;

use crate::report::note;
use crate::{docs as pages, soak, tidy};

/// A program the tests run, and the Debian package that brings it.
const TOOLS: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("make", "make"),
    ("busybox", "busybox-static"),
    ("runc", "runc"),
    ("git", "git"),
    ("python3", "python3"),
    ("perl", "perl"),
    ("xz", "xz-utils"),
    ("bzip2", "bzip2"),
    ("sqlite3", "sqlite3"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("node", "nodejs"),
    ("javac", "default-jdk-headless"),
    ("go", "golang-go"),
    // A library without a program of its own; this is of one that comes with it.
    ("/usr/bin/normalizer", "python3-requests"),
    ("ss", "iproute2"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("wget", "wget"),
    ("openssl", "openssl"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("nginx", "nginx-light"),
    ("wrk", "wrk"),
    ("haproxy", "haproxy"),
    ("redis-benchmark", "redis-tools"),
    ("memcached", "memcached"),
    ("pg_ctlcluster", "postgresql"),
    ("iperf3", "iperf3"),
    ("dnsmasq", "dnsmasq-base"),
    ("dig", "bind9-dnsutils"),
    ("ping", "iputils-ping"),
    ("traceroute", "traceroute"),
    ("tcpdump", "tcpdump"),
];

/// What clippy refuses; its other warnings are shown, not fatal. The lints that are
/// about soundness (`undocumented_unsafe_blocks`, `todo`…) are `deny` in the workspace manifest.
const REFUSED: &[&str] = &["clippy::correctness", "unused_must_use", "unconditional_recursion"];

/// Tells tests which `runsc` to run.
const RUNSC: &str = "RAMPART_RUNSC";

/// What has been counted so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Counts a step that is not itself a set of tests.
    fn step(&mut self, name: &str, good: bool) {
        note(&format!("== {name}: {}", if good { "ok" } else { "FAILED" }));
        if good { self.passed += 1 } else { self.failed += 1 }
    }

    /// Counts a `test result:` line of libtest; true when it was one.
    fn libtest(&mut self, line: &str) -> bool {
        let Some(rest) = line.strip_prefix("test result: ") else { return false };
        for (count, kind) in rest.split([';', '.']).filter_map(|part| part.trim().split_once(' ')) {
            match (kind, count.parse::<u64>()) {
                ("passed", Ok(n)) => self.passed += n,
                ("failed", Ok(n)) => self.failed += n,
                _ => {}
            }
        }
        true
    }
}

/// Runs every step in the workspace at `root`; true when all of them passed.
///
/// # Errors
/// When a step could not be run at all (no cargo, an unreadable tree).
pub(crate) fn run(root: &Path) -> anyhow::Result<bool> {
    let mut tally = Tally::default();
    install_tools();
    tally.step("cargo fmt --check", cargo(root, &["fmt", "--all", "--check"])?);

    let mut clippy = vec!["clippy", "--workspace", "--all-targets", "--quiet", "--"];
    clippy.extend(REFUSED.iter().flat_map(|lint| ["-D", lint]));
    tally.step("cargo clippy", cargo(root, &clippy)?);

    let findings = tidy::check(root).context("tidy")?;
    findings.iter().for_each(|finding| note(&finding.to_string()));
    tally.step("tidy", findings.is_empty());

    let runsc = build_runsc(root)?;
    tally.step("building the tests and runsc", runsc.is_some());
    if let Some(runsc) = &runsc {
        let stale = pages::stale(root, runsc)?;
        stale.iter().for_each(|page| note(&format!("{page} is not what runsc says: cargo xtask docs")));
        tally.step("docs", stale.is_empty());
    }

    if let Some(runsc) = &runsc {
        let flat = soak::short(root, runsc).unwrap_or_else(|error| {
            note(&format!("soak: {error:#}"));
            false
        });
        tally.step("a short soak", flat);
    }
    tests(root, runsc, &mut tally)?;
    note(&format!("{} passed, {} failed", tally.passed, tally.failed));
    Ok(tally.failed == 0)
}

/// Builds `runsc`, and has it tell what it can in `docs/`.
///
/// # Errors
/// When cargo cannot be run, or a page has no place for what is generated.
pub(crate) fn docs(root: &Path) -> anyhow::Result<bool> {
    let Some(runsc) = build_runsc(root)? else { return Ok(false) };
    pages::run(root, &runsc)?;
    Ok(true)
}

/// Runs the tests that have a list of known failures, and has them rewrite it.
///
/// # Errors
/// When cargo cannot be run.
pub(crate) fn known_failures(root: &Path) -> anyhow::Result<bool> {
    install_tools();
    let Some(runsc) = build_runsc(root)? else { return Ok(false) };
    for test in ["guest", "apps"] {
        let args = ["test", "--quiet", "-p", "rampart-tests", "--test", test];
        let mut command = command(root, &args);
        let status = command.env(RUNSC, &runsc).env("RAMPART_BLESS", "1").status()?;
        if !status.success() {
            return Ok(false);
        }
    }
    note("rewrote tests/known-failures; look at the difference before you commit it");
    Ok(true)
}

/// Feeds each fuzz target for `seconds`.
///
/// # Errors
/// When cargo cannot be run.
pub(crate) fn fuzz(root: &Path, seconds: u64) -> anyhow::Result<bool> {
    install_tools();
    let Some(runsc) = build_runsc(root)? else { return Ok(false) };
    let args = ["test", "--quiet", "-p", "rampart-tests", "--test", "fuzz", "--", "--nocapture"];
    let mut command = command(root, &args);
    command.env(RUNSC, &runsc).env("RAMPART_FUZZ_SECONDS", seconds.to_string());
    Ok(command.status()?.success())
}

/// Runs the scripts in `tests/engines` with a release build. Whether all pass.
///
/// # Errors
/// When one cannot be run.
pub(crate) fn engines(root: &Path) -> anyhow::Result<bool> {
    if !cargo(root, &["build", "--release", "--package", "runsc", "--package", "rampart-shim"])? {
        return Ok(false);
    }
    let metadata = MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec()?;
    let release = metadata.target_directory.into_std_path_buf().join("release");
    let shim = release.join("containerd-shim-runsc-v1");
    let shim = shim.to_str().context("the target directory has no name in UTF-8")?;
    let scripts: [(&str, &[&str]); 4] = [
        ("docker.sh", &[]),
        ("kills.sh", &["500", "100"]),
        ("pods.sh", &["50"]),
        ("shim.sh", &[shim, "50", "100"]),
    ];
    let mut all = true;
    for (script, more) in scripts {
        note(&format!("== tests/engines/{script}"));
        let mut command = Command::new(root.join("tests/engines").join(script));
        command.arg(release.join("runsc")).args(more);
        all &= command.status().with_context(|| script.to_owned())?.success();
    }
    Ok(all)
}

/// Runs cargo with no stdin; true when it succeeded.
fn cargo(root: &Path, args: &[&str]) -> anyhow::Result<bool> {
    note(&format!("== cargo {}", args.join(" ")));
    let status = command(root, args).status().context("running cargo")?;
    Ok(status.success())
}

fn command(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(root).stdin(Stdio::null());
    command
}

/// Builds all tests, and with them `runsc`; its path, for the tests that run it.
///
/// Not `cargo build -p runsc`: in the company of tests some crates have features more, and would be built twice.
fn build_runsc(root: &Path) -> anyhow::Result<Option<PathBuf>> {
    if !cargo(root, &["test", "--quiet", "--workspace", "--no-run"])? {
        return Ok(None);
    }
    let metadata = MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec()?;
    Ok(Some(metadata.target_directory.into_std_path_buf().join("debug/runsc")))
}

/// Runs all tests, passing their output on and adding up their results.
fn tests(root: &Path, runsc: Option<PathBuf>, tally: &mut Tally) -> anyhow::Result<()> {
    let args = ["test", "--workspace", "--no-fail-fast"];
    note(&format!("== cargo {}", args.join(" ")));
    let mut test = command(root, &args);
    if let Some(runsc) = runsc {
        test.env(RUNSC, runsc);
    }
    let mut child = test.stdout(Stdio::piped()).spawn().context("running cargo test")?;
    let stdout = child.stdout.take().context("cargo test has no stdout")?;
    let failed_before = tally.failed;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        tally.libtest(&line);
        // A passing test needs no line of its own in a log; everything else does.
        let passing = line.starts_with("test ") && line.ends_with("... ok");
        if !passing && !line.is_empty() {
            note(&line);
        }
    }
    let good = child.wait()?.success();
    if !good && tally.failed == failed_before {
        tally.step("cargo test (a test target did not build, or died)", false);
    }
    Ok(())
}

/// Installs the missing [`TOOLS`], when this is Debian and we are root. Never fatal: a test that
/// needs a tool says so itself.
fn install_tools() {
    let missing: Vec<&str> =
        TOOLS.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return;
    }
    if !Path::new("/etc/debian_version").exists() || !is_root() {
        note(&format!("not installing {}: that needs root on Debian", missing.join(" ")));
        return;
    }
    note(&format!("== apt-get install {}", missing.join(" ")));
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(missing);
    for args in [&["update", "-qq"][..], &install] {
        let status = Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            note(&format!("apt-get {} failed; going on without", args.join(" ")));
        }
    }
}

/// Whether the shell would find `program`.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Root owns its own `/proc/self`.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn libtest_results_add_up() {
        let mut tally = Tally::default();
        assert!(!tally.libtest("running 3 tests"));
        assert!(tally.libtest(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s"
        ));
        assert!(
            tally.libtest("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out")
        );
        assert_eq!(tally, Tally { passed: 4, failed: 2 });
    }
}
