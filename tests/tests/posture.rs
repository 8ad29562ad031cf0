//! How a running sandbox stands towards the host, and whether a guest that is root gets out of its root.
//!
//! Needs root, and a `runsc` (the variable `RAMPART_RUNSC`, which `cargo xtask test` sets); says so when it has
//! not both. (`runsc`'s own posture test looks at the descriptors of Sentry and Gofer more closely.)

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rampart_tests::build::compile;
use rampart_tests::posture::{Process, Sandboxed};
use rampart_tests::run::run;
use rampart_tests::sandbox::{LIMIT, Sandbox};

const NAMESPACES: &[&str] = &["user", "mnt", "pid", "ipc", "uts", "net"];

/// The sandbox to test, when it can be.
fn sandbox() -> Option<Sandbox> {
    let found = Sandbox::find("systrap").filter(|_| nix::unistd::geteuid().is_root());
    if found.is_none() {
        println!("skipped: needs root and RAMPART_RUNSC");
    }
    found
}

/// `runsc`, which dies with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A sandbox in which a shell and two more processes wait.
fn start(sandbox: &Sandbox) -> (Running, Sandboxed) {
    let mut command = sandbox.command();
    command.args(["--", "/bin/sh", "-c", "sleep 600 & sleep 600 & wait"]);
    let runsc = command.stdin(Stdio::null()).spawn().expect("runsc starts");
    let running = Running(runsc);
    let found = Sandboxed::of(&running.0, 3, Duration::from_secs(60)).expect("three guest processes");
    (running, found)
}

fn has_nothing(process: Process, what: &str) {
    let ours = Process(i32::try_from(std::process::id()).expect("a pid"));
    for kind in NAMESPACES {
        assert_ne!(process.namespace(kind), ours.namespace(kind), "{kind} namespace of {what}");
        assert!(process.namespace(kind).is_some(), "{kind} namespace of {what}");
    }
    assert_eq!(process.mounts().len(), 1, "mounts of {what}");
    assert_eq!(process.root_entries(), Some(0), "the root of {what}");
    for thread in process.threads() {
        assert_eq!(thread.status("NoNewPrivs").as_deref(), Some("1"), "NoNewPrivs of {what}");
        for set in ["CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(thread.capabilities(set), Some(0), "{set} of {what}");
        }
    }
}

#[test]
fn sentry_and_gofer_have_nothing_of_the_host() {
    let Some(sandbox) = sandbox() else { return };
    let (_running, found) = start(&sandbox);
    has_nothing(found.gofer, "the gofer");
    has_nothing(found.sentry, "the sentry");
    assert_eq!(found.sentry.capabilities("CapEff"), Some(0));
    assert_eq!(found.gofer.status("Seccomp").as_deref(), Some("2"));
    for kind in NAMESPACES {
        assert_ne!(found.gofer.namespace(kind), found.sentry.namespace(kind), "{kind}: the two share it");
    }
}

#[test]
fn a_guest_process_has_a_filter_and_no_descriptors() {
    let Some(sandbox) = sandbox() else { return };
    let (_running, found) = start(&sandbox);
    let guests = found.guests();
    assert!(guests.len() >= 3, "{guests:?}");
    for guest in found.others.iter().copied() {
        let what = format!("guest process {}", guest.0);
        has_nothing(guest, &what);
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(guest.capabilities(set), Some(0), "{set} of {what}");
        }
        if !guests.contains(&guest) {
            // The process that guests are made from runs no guest code.
            continue;
        }
        for thread in guest.threads() {
            assert_eq!(thread.status("Seccomp").as_deref(), Some("2"), "{what}");
        }
        assert_eq!(guest.descriptors(), [], "{what}");
    }
}

#[test]
fn the_gofer_may_make_fewer_host_calls_than_gvisors() {
    assert!(gofer::seccomp::RULES.len() < 70);
}

/// What `escape` says of each way out: whether it led somewhere.
fn ways(stdout: &str) -> BTreeMap<String, bool> {
    let way = |line: &str| match line.split_once(' ')? {
        ("reached", name) => Some((name.to_owned(), true)),
        ("refused", name) => Some((name.to_owned(), false)),
        _ => None,
    };
    stdout.lines().filter_map(way).collect()
}

/// What is outside the guest's root, and how to name it.
struct Outside {
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    _listening: (UnixListener, TcpListener),
}

const CONTENT: &str = "for nobody else";

impl Outside {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, format!("{CONTENT}\n")).expect("a file");
        std::fs::create_dir(folder.path().join("root")).expect("a folder");
        let name = folder.path().file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let unix = UnixListener::bind_addr(&address).expect("a socket");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = tcp.local_addr().expect("a port").port();
        let device = std::fs::metadata(&file).expect("a file").dev();
        let arguments = vec![
            file.to_str().expect("a path").to_owned(),
            CONTENT.to_owned(),
            name,
            port.to_string(),
            std::process::id().to_string(),
            device.to_string(),
        ];
        compile(&escape_source(), &folder.path().join("root/escape")).expect("escape.c compiles");
        Self { folder, arguments, _listening: (unix, tcp) }
    }

    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }
}

fn escape_source() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("escape/escape.c")
}

#[test]
fn a_guest_that_is_root_stays_in_its_root() {
    let Some(sandbox) = sandbox() else { return };
    let outside = Outside::new();

    // The control: the same attempts in a chroot do get out. The mount namespace keeps mounts from the host.
    let mut control = Command::new("unshare");
    control.args(["--mount", "--propagation", "private", "chroot"]).arg(outside.root());
    let control = run(control.arg("/escape").args(&outside.arguments), LIMIT).expect("unshare is there");
    let reached = ways(&control.stdout);
    for way in ["a second chroot", "a kept directory", "an abstract socket", "a port", "a signal", "the end"]
    {
        assert_eq!(reached.get(way), Some(&true), "natively: {way}\n{}{}", control.stdout, control.stderr);
    }

    let mut guest = sandbox.command();
    guest.arg("--rootfs").arg(outside.root());
    let guest = run(guest.arg("/escape").args(&outside.arguments), LIMIT).expect("runsc is there");
    let reached = ways(&guest.stdout);
    assert_eq!(reached.get("the end"), Some(&true), "{}{}", guest.stdout, guest.stderr);
    let out: Vec<&String> = reached.iter().filter(|(_, out)| **out).map(|(way, _)| way).collect();
    assert_eq!(out, ["the end"]);
}

#[test]
fn what_a_guest_writes_stays_with_it() {
    let Some(sandbox) = sandbox() else { return };
    let outside = Outside::new();
    let (file, made) = (outside.folder.path().join("file"), outside.folder.path().join("made"));
    let script =
        format!("echo changed >{0}; echo x >{1}; cat {0} {1}; rm {0}", file.display(), made.display());

    // The host's whole tree is the guest's root, but it writes to a copy.
    let output =
        run(sandbox.command().args(["--", "/bin/sh", "-c", &script]), LIMIT).expect("runsc is there");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("changed\nx\n", ""));
    assert_eq!(std::fs::read_to_string(&file).expect("the file is there"), format!("{CONTENT}\n"));
    assert!(!made.exists());

    let control = run(Command::new("/bin/sh").args(["-c", &script]), LIMIT).expect("sh is there");
    assert_eq!(control.stdout, "changed\nx\n");
    assert!(!file.exists() && made.exists(), "the control changes the host");
}
