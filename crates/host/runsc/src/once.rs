//! `runsc do`: a program in a sandbox of its own, gone when the program ends.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sandbox::{Attachment, ParentDeath, Plan, Sandbox, Submounts};
use sentry::{BootConfig, InheritedFds, Mount, Process, Resources, Source};

use crate::cli::{Cli, Do, FileAccess, Overlay2, Volume};
use crate::forward::{self, First, Signals};
use crate::logging;
use crate::terminal::Raw;

/// Where programs are looked for when the environment does not say.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long the program has to end when runsc is told to.
const GRACE: Duration = Duration::from_secs(5);

/// Runs `do`. Returns the exit code of the program.
pub(crate) fn run(cli: &Cli, arguments: &Do) -> Result<u8> {
    let rootfs = &arguments.rootfs;
    let rootfs = rootfs.canonicalize().with_context(|| format!("--rootfs {rootfs:?}"))?;
    if !rootfs.is_dir() {
        bail!("--rootfs {rootfs:?}: not a directory");
    }
    let (mounts, attachments) = mounts(cli, arguments, &rootfs)?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let boot = BootConfig {
        devices: Vec::new(),
        made: Vec::new(),
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        sysctls: BTreeMap::new(),
        container_id: format!("do-{}", std::process::id()),
        hostname: hostname.unwrap_or_else(|| "runsc".into()),
        platform: cli.platform.clone(),
        fast_path: !cli.systrap_disable_fast_path,
        mounts,
        seccomp: Vec::new(),
        process: process(arguments, &rootfs, terminal)?,
        resources: Resources::default(),
        net_raw: cli.net_raw,
        debug: cli.debug,
        strace: cli.strace,
        fds: InheritedFds::default(),
    };
    let log = logging::for_sandbox(cli)?;
    let stdio = logging::stdio();
    let (listener, client) = forward::private_control()?;
    let device = device(cli)?;
    let plan = Plan {
        title: String::new(),
        boot,
        attachments,
        stdio: stdio.to_vec(),
        log: log.as_fd(),
        flags: logging::flags(cli),
        control: Some(listener.as_fd()),
        device: device.as_ref().map(AsFd::as_fd),
        parent_death: ParentDeath::Kills,
    };
    let signals = Signals::block()?;
    let mut sandbox = Sandbox::launch(&plan)?;
    sandbox.noted()?;
    // Only the sandbox holds it from now on, so that its end is noticed.
    drop(listener);
    let _raw = terminal.then(|| Raw::enter(stdio[0])).transpose()?;
    signals.run(sandbox, client, First::Start, Some(GRACE))
}

/// The device that the platform works with, opened.
pub(crate) fn device(cli: &Cli) -> Result<Option<OwnedFd>> {
    Ok(sentry::platforms::device(&cli.platform, cli.platform_device_path.as_deref())?)
}

/// Where writes to the root go.
pub(crate) fn overlay(cli: &Cli) -> sentry::Overlay {
    match cli.overlay2 {
        Overlay2::None => sentry::Overlay::None,
        Overlay2::Memory(_) => sentry::Overlay::Memory,
    }
}

/// Options of the file system that takes them.
pub(crate) fn overlay_options(cli: &Cli) -> Vec<String> {
    match &cli.overlay2 {
        Overlay2::None => Vec::new(),
        Overlay2::Memory(size) => size.iter().cloned().collect(),
    }
}

/// A file system of the Sentry's own.
fn kernel(target: &str, name: &str, options: &[&str]) -> Mount {
    Mount {
        target: target.into(),
        source: Source::Kernel(name.into()),
        readonly: options.contains(&"ro"),
        shared: false,
        overlay: sentry::Overlay::None,
        name: None,
        options: options.iter().filter(|option| **option != "ro").map(|&option| option.into()).collect(),
    }
}

/// The guest's mounts, and what the Gofer serves for them. Under an overlay nobody writes to the host's tree.
fn mounts(cli: &Cli, arguments: &Do, rootfs: &Path) -> Result<(Vec<Mount>, Vec<Attachment>)> {
    let overlay = overlay(cli);
    let readonly = overlay == sentry::Overlay::Memory;
    let shared = cli.file_access == FileAccess::Shared;
    let submounts = if rootfs == Path::new("/") { Submounts::LeftOut } else { Submounts::Copied };
    let mut attachments = vec![Attachment { path: rootfs.into(), readonly, submounts }];
    let root = Mount {
        target: "/".into(),
        source: Source::Gofer(0),
        readonly: false,
        shared,
        overlay,
        name: None,
        options: overlay_options(cli),
    };
    let mut mounts = vec![root];
    let ours: [(&str, &str, &[&str]); 7] = [
        ("/proc", "proc", &["nosuid", "nodev", "noexec"]),
        ("/sys", "sysfs", &["nosuid", "nodev", "noexec", "ro"]),
        ("/dev", "devtmpfs", &["nosuid", "noexec"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec"]),
        ("/dev/shm", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
        ("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
    ];
    for (target, name, options) in ours {
        // The host's /tmp is part of the host's tree, where the program may well be.
        let wanted = target != "/tmp" || rootfs != Path::new("/");
        // What lies in /dev lies in the tree mounted there.
        let place = if target.starts_with("/dev") { "dev" } else { &target[1..] };
        if wanted && rootfs.join(place).is_dir() {
            mounts.push(kernel(target, name, options));
        }
    }
    if rootfs == Path::new("/") {
        mounts_of_host(overlay, shared, &mut mounts, &mut attachments)?;
    }
    for volume in &arguments.volume {
        let Volume { host, guest, readonly } = volume;
        let path = host.canonicalize().with_context(|| format!("--volume {host:?}"))?;
        let target = guest.to_str().with_context(|| format!("--volume {guest:?}: not UTF-8"))?.to_owned();
        let source = Source::Gofer(u32::try_from(attachments.len())?);
        attachments.push(Attachment { path, readonly: *readonly, submounts: Submounts::Copied });
        let shared = cli.file_access_mounts == FileAccess::Shared;
        let overlay = sentry::Overlay::None;
        mounts.push(Mount {
            target,
            source,
            readonly: *readonly,
            shared,
            overlay,
            name: None,
            options: Vec::new(),
        });
    }
    Ok((mounts, attachments))
}

/// File systems of the host that hold no files of its users, and places that the guest has its own of.
const PSEUDO: [&str; 18] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "securityfs",
    "sysfs",
];
const OURS: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Most of the host's mounts that are shown.
const MAX_MOUNTS: usize = 64;

/// What is mounted in the host's tree, one by one, so that the host's `/proc` and the like are not even
/// below. What lies over the root lies over each of them that can be written to; a file is read-only then.
fn mounts_of_host(
    overlay: sentry::Overlay,
    shared: bool,
    mounts: &mut Vec<Mount>,
    attachments: &mut Vec<Attachment>,
) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    for (target, readonly) in table.lines().filter_map(place_of_mount).take(MAX_MOUNTS) {
        // One that is covered by another, or out of our reach, is not shown.
        if mounts.iter().any(|mount| mount.target == target) || !Path::new(&target).exists() {
            continue;
        }
        let source = Source::Gofer(u32::try_from(attachments.len())?);
        let overlaid = overlay == sentry::Overlay::Memory;
        let covered = overlaid && !readonly && Path::new(&target).is_dir();
        let readonly = readonly || (overlaid && !covered);
        let overlay = if covered { sentry::Overlay::Memory } else { sentry::Overlay::None };
        attachments.push(Attachment {
            path: (&target).into(),
            readonly: readonly || covered,
            submounts: Submounts::LeftOut,
        });
        mounts.push(Mount { target, source, readonly, shared, overlay, name: None, options: Vec::new() });
    }
    Ok(())
}

/// Where a line of `mountinfo` (`proc_pid_mountinfo(5)`) says that files of users are mounted, and whether
/// nobody can write to them.
fn place_of_mount(line: &str) -> Option<(String, bool)> {
    let mut fields = line.split(' ').skip(4);
    let (target, options) = (fields.next()?, fields.next()?);
    let mut kind = line.split_once(" - ")?.1.split(' ');
    let (kind, of_all) = (kind.next()?, kind.nth(1)?);
    let path = Path::new(target);
    let ours = OURS.iter().any(|ours| path.starts_with(ours));
    // A name with a character that is written as an escape is left out: none of a system's own has one.
    let plain = !target.contains('\\');
    let readonly = [options, of_all].iter().any(|options| options.split(',').any(|option| option == "ro"));
    (target != "/" && plain && !ours && !PSEUDO.contains(&kind)).then(|| (target.to_owned(), readonly))
}

fn process(arguments: &Do, rootfs: &Path, terminal: bool) -> Result<Process> {
    let of_host = rootfs == Path::new("/");
    let cwd = match &arguments.cwd {
        Some(cwd) => cwd.clone(),
        None if of_host => std::env::current_dir()
            .context("the working directory")?
            .into_os_string()
            .into_string()
            .map_err(|cwd| anyhow::anyhow!("the working directory {cwd:?} is not UTF-8"))?,
        None => "/".into(),
    };
    if !cwd.starts_with('/') {
        bail!("--cwd {cwd:?}: not an absolute path");
    }
    Ok(Process {
        args: arguments.command.clone(),
        env: with(environment(of_host), &arguments.env)?,
        cwd,
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        capabilities: u64::MAX,
        inheritable: 0,
        ambient: 0,
        umask: 0o022,
        rlimits: Vec::new(),
        terminal,
        no_new_privs: false,
        oom_score_adj: None,
    })
}

/// The guest's environment: ours when it sees our files, else only what a program cannot do without.
fn environment(of_host: bool) -> Vec<String> {
    let mut all = Vec::new();
    if of_host {
        let ours = std::env::vars_os().map(|(name, value)| (name.into_string(), value.into_string()));
        all.extend(ours.filter_map(|(name, value)| Some(format!("{}={}", name.ok()?, value.ok()?))));
    }
    if !all.iter().any(|variable| variable.starts_with("PATH=")) {
        all.push(PATH.into());
    }
    if !all.iter().any(|variable| variable.starts_with("HOME=")) {
        all.push("HOME=/root".into());
    }
    all
}

/// An environment with what was asked for on the command line.
pub(crate) fn with(mut all: Vec<String>, wanted: &[String]) -> Result<Vec<String>> {
    for variable in wanted {
        let full = match variable.split_once('=') {
            Some(("", _)) => bail!("--env {variable:?}: no name"),
            Some(_) => variable.clone(),
            None => {
                format!(
                    "{variable}={}",
                    std::env::var(variable).with_context(|| format!("--env {variable}"))?
                )
            }
        };
        let name = full.split_inclusive('=').next().unwrap_or_default().to_owned();
        all.retain(|other| !other.starts_with(&name));
        all.push(full);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::{environment, place_of_mount, with};

    #[test]
    fn only_files_of_users_are_shown() {
        let line = |target: &str, kind: &str| {
            format!("36 35 98:0 / {target} rw,noatime shared:1 - {kind} /dev/x rw")
        };
        assert_eq!(place_of_mount(&line("/home", "ext4")), Some(("/home".to_owned(), false)));
        for rw in ["rw,noatime", "/dev/x rw"] {
            let line = line("/home", "ext4").replace(rw, &rw.replace("rw", "ro"));
            assert_eq!(place_of_mount(&line), Some(("/home".to_owned(), true)));
        }
        for (target, kind) in [("/", "ext4"), ("/dev/shm", "tmpfs"), ("/x", "proc"), ("/a\\040b", "ext4")] {
            assert_eq!(place_of_mount(&line(target, kind)), None, "{target}");
        }
        assert_eq!(place_of_mount("nonsense"), None);
    }

    #[test]
    fn what_is_asked_for_replaces() {
        let wanted = ["HOME=/x".into(), "A=1".into(), "A=2=3".into()];
        let all = with(environment(false), &wanted).expect("good");
        assert_eq!(all.iter().filter(|variable| variable.starts_with("HOME=")).count(), 1);
        assert_eq!(all.last().map(String::as_str), Some("A=2=3"));
        assert_eq!(all.len(), 3);
        assert!(with(Vec::new(), &["=x".into()]).is_err());
        assert!(with(Vec::new(), &["SURELY_NOT_SET".into()]).is_err());
    }
}
