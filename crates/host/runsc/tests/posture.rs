//! How the two processes of a running sandbox stand towards the host, as the host's `/proc` shows it.

mod kit;

use std::collections::BTreeSet;
use std::path::PathBuf;

use kit::{Root, status};

const NAMESPACES: [&str; 6] = ["user", "mnt", "pid", "ipc", "uts", "net"];
/// CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER and CAP_FSETID.
const FILE_CAPABILITIES: u64 = 0b1_1111;

/// A sandbox whose guest waits for ever.
struct Paused {
    _runsc: kit::Running,
    gofer: i32,
    sentry: i32,
}

impl Paused {
    fn start(root: &Root) -> Self {
        root.assemble("pause", kit::PAUSE);
        let runsc = root.start(&["pause"]);
        let [_, gofer, sentry] = kit::sandbox_of(&runsc, "pause");
        Self { _runsc: runsc, gofer, sentry }
    }
}

fn namespace(pid: &str, name: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("a namespace")
}

fn capabilities(pid: i32, set: &str) -> u64 {
    u64::from_str_radix(&status(pid, set).expect("a set"), 16).expect("a number")
}

/// What the descriptors of a process are.
fn descriptors(pid: i32) -> Vec<(i32, PathBuf)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, std::fs::read_link(entry.path()).ok()?))
    };
    entries.filter_map(read).collect()
}

fn is_directory(pid: i32, fd: i32) -> bool {
    std::fs::metadata(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|data| data.is_dir())
}

#[test]
fn both_processes_are_locked_in() {
    if !nix::unistd::geteuid().is_root() {
        // What is copied of the host's mounts, and what can be seen of the processes, is root's.
        return;
    }
    let root = Root::new();
    let running = Paused::start(&root);
    let mut seen = BTreeSet::new();
    for pid in [running.gofer, running.sentry] {
        for name in NAMESPACES {
            let theirs = namespace(&pid.to_string(), name);
            assert_ne!(theirs, namespace("self", name), "{name} of {pid}");
            assert!(seen.insert(theirs), "{name} is shared by the two");
        }
        let inside = status(pid, "NSpid").expect("pids");
        assert_eq!(inside.split_whitespace().last(), Some("1"), "the first of its namespace");
        for set in ["CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(capabilities(pid, set), 0, "{set} of {pid}");
        }
        assert_eq!(status(pid, "NoNewPrivs").as_deref(), Some("1"));
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads") {
            let task = task.expect("a thread").file_name().into_string().expect("a number");
            let task = task.parse().expect("a number");
            assert_eq!(status(task, "Seccomp").as_deref(), Some("2"), "thread {task} of {pid}");
            assert_eq!(capabilities(task, "CapEff"), capabilities(pid, "CapEff"), "thread {task} of {pid}");
        }
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mounts");
        let fields: Vec<&str> = mounts.split_whitespace().collect();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert_eq!(fields[4], "/");
        assert!(fields[5].split(',').any(|option| option == "ro"), "{mounts}");
        assert_eq!(std::fs::read_dir(format!("/proc/{pid}/root/")).expect("a root").count(), 0);
        assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).expect("an environment"), b"");
        let session = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
        let session = session.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(3));
        assert_eq!(session, Some(pid.to_string().as_str()), "a session of its own");
    }
    // Nobody outside, in all four ids and without groups.
    assert_eq!(status(running.sentry, "Uid").as_deref(), Some("65534\t65534\t65534\t65534"));
    assert_eq!(status(running.sentry, "Gid").as_deref(), Some("65534\t65534\t65534\t65534"));
    assert_eq!(status(running.sentry, "Groups").as_deref(), Some(""));
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(capabilities(running.gofer, set), FILE_CAPABILITIES, "{set} of the gofer");
        assert_eq!(capabilities(running.sentry, set), 0, "{set} of the sentry");
    }
}

#[test]
fn no_descriptor_leads_to_the_host() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let root = Root::new();
    let running = Paused::start(&root);
    let allowed = ["/dev/null", "/dev/urandom", "pipe:", "socket:", "anon_inode:", "/memfd:"];
    let mine: BTreeSet<PathBuf> =
        descriptors(std::process::id() as i32).into_iter().map(|(_, to)| to).collect();
    for (fd, to) in descriptors(running.sentry) {
        if is_directory(running.sentry, fd) {
            leads_nowhere(running.sentry, fd, None);
            continue;
        }
        let text = to.to_string_lossy();
        let program = root.path().join("bin");
        // Standard ones are the test's own; the program was donated by the Gofer.
        let known = mine.contains(&to) || to.starts_with(&program) || text.starts_with("/bin/");
        assert!(known || allowed.iter().any(|prefix| text.starts_with(prefix)), "{to:?} in the sentry");
    }
    let top = identity(root.path());
    for (fd, _) in descriptors(running.gofer) {
        if is_directory(running.gofer, fd) {
            leads_nowhere(running.gofer, fd, Some(top));
        }
    }
}

/// The Sentry keeps the machine it made, and not the device, with which it could make more.
#[test]
fn a_sentry_on_kvm_has_its_machine_and_no_more() {
    let root = Root::new();
    root.assemble("pause", kit::PAUSE);
    let survey = kit::runsc().args(["help", "platforms"]).output().expect("runs");
    let survey = String::from_utf8_lossy(&survey.stdout).into_owned();
    let works = survey.lines().any(|line| line.starts_with("kvm") && line.contains(" yes "));
    if !works {
        assert!(std::env::var_os("CI").is_none(), "{survey}");
        return;
    }
    let mut command = kit::runsc();
    command.args(["--platform", "kvm", "do", "--rootfs"]).arg(root.path()).arg("pause");
    let runsc = kit::Running(command.spawn().expect("starts"));
    let [_, _, sentry] = kit::locked_in(&runsc);
    let threads = || std::fs::read_dir(format!("/proc/{sentry}/task")).expect("threads");
    let guest = kit::until("the guest's thread", || {
        let mut ids = threads().filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
        ids.find(|id| status(*id, "Name").as_deref() == Some("kvm"))
    });
    assert_eq!(status(guest, "Seccomp").as_deref(), Some("2"), "guests run in the Sentry's own threads");
    for task in threads() {
        let task = task.expect("a thread").file_name().into_string().expect("a number");
        let task = task.parse().expect("a number");
        assert_eq!(status(task, "Seccomp").as_deref(), Some("2"), "thread {task}");
        assert_eq!(capabilities(task, "CapEff"), 0, "thread {task}");
    }
    let open: Vec<_> = descriptors(sentry).into_iter().map(|(_, to)| to.display().to_string()).collect();
    let count = |name: &str| open.iter().filter(|to| to.starts_with(name)).count();
    assert_eq!(count("/dev/kvm"), 0, "{open:?}");
    assert_eq!((count("anon_inode:kvm-vm"), count("/memfd:guests")), (1, 1), "{open:?}");
    assert!(count("anon_inode:kvm-vcpu") >= 1, "{open:?}");
    assert_eq!(kit::children(sentry), [0; 0], "no process of the host is the guest's");
}

/// As far up as it goes from a directory that `pid` has open, there is only the top of the tree that is
/// served, or of a procfs that shows the processes of one sandbox.
fn leads_nowhere(pid: i32, fd: i32, top: Option<(u64, u64)>) {
    let up = PathBuf::from(format!("/proc/{pid}/fd/{fd}/{}", "../".repeat(64)));
    assert_ne!(identity(&up), identity("/".as_ref()), "descriptor {fd} of {pid}");
    if Some(identity(&up)) != top {
        let entries = std::fs::read_dir(&up).expect("a directory");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let others: Vec<_> = names
            .filter(|name| !matches!(name.as_str(), "self" | "thread-self") && name.parse::<u32>().is_err())
            .collect();
        assert!(others.is_empty(), "descriptor {fd} of {pid}: {others:?}");
        // Not the host's own, which shows all processes.
        assert_ne!(identity(&up).0, identity("/proc".as_ref()).0, "descriptor {fd} of {pid}");
    }
}

fn identity(path: &std::path::Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let data = std::fs::metadata(path).expect("a directory");
    (data.dev(), data.ino())
}
