//! Real network programs over a [`Link`]: servers at one end of it, their usual clients at the other, either of them
//! in a sandbox (`tests/network/apps`).

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::link::{Contents, Link, Running, bundle};

/// What sshd, postgres and the like need, and raw sockets.
const CAPABILITIES: &[&str] = &[
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SYS_CHROOT",
];
/// The servers of serve.sh, and the programs each and its clients are of.
const SERVERS: &[(&str, &[&str])] = &[
    ("nginx", &["nginx", "openssl", "curl", "wget", "wrk", "normalizer"]),
    ("haproxy", &["haproxy"]),
    ("redis", &["redis-server", "redis-cli", "redis-benchmark"]),
    ("memcached", &["memcached"]),
    ("postgres", &["pg_ctlcluster", "psql", "pgbench"]),
    ("ssh", &["sshd", "ssh"]),
    ("dns", &["dnsmasq", "dig"]),
    ("iperf", &["iperf3"]),
    ("go", &["go"]),
    ("node", &["node"]),
    ("asyncio", &["python3"]),
];
/// Longest that the servers may take to end.
const END: Duration = Duration::from_secs(20);

/// What the two ends need to have been made before.
#[derive(Debug)]
pub struct Programs {
    runsc: PathBuf,
    dir: tempfile::TempDir,
}

/// Which end is the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandboxed {
    /// The servers.
    Servers,
    /// The clients.
    Clients,
}

/// The servers that can be started here, and the programs that are missing for the others.
pub fn servers() -> (Vec<&'static str>, Vec<&'static str>) {
    let dirs = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let is_there = |program: &&str| dirs.iter().any(|dir| Path::new(dir).join(program).exists());
    let missing = SERVERS.iter().flat_map(|(_, needs)| *needs).copied().filter(|need| !is_there(need));
    let there = SERVERS.iter().filter(|(_, needs)| needs.iter().all(&is_there));
    (there.map(|(name, _)| *name).collect(), missing.collect())
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("network/apps")
}

fn make(program: &str, arguments: &[&str], variables: &[(&str, &Path)]) -> bool {
    let mut command = Command::new(program);
    let done = command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

impl Programs {
    /// Makes an SSH key, and a program in Go if there is a compiler.
    pub fn new(runsc: PathBuf) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = dir.path().join("key");
        assert!(make("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key.to_string_lossy()], &[]));
        let (program, source) = (dir.path().join("http2"), scripts().join("http2.go"));
        let cache = dir.path().join("cache");
        let arguments = ["build", "-o", &program.to_string_lossy(), &source.to_string_lossy()];
        if servers().0.contains(&"go") {
            assert!(make("go", &arguments, &[("GOCACHE", &cache)]), "the program in Go is built");
        }
        Self { runsc, dir }
    }

    /// A command that runs `script` in a sandbox, in the container's end of `link`.
    fn sandboxed(&self, name: &str, link: &Link, words: &[&str]) -> Command {
        let at = self.dir.path().join(name);
        std::fs::create_dir(&at).expect("a directory");
        let tmpfs = |path: &str| json!({ "destination": path, "type": "tmpfs", "source": "tmpfs" });
        let shared = json!({
            "destination": "/srv", "type": "bind", "source": self.dir.path(), "options": ["bind", "ro"]
        });
        let (dev, pts) =
            (tmpfs("/dev"), json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts" }));
        let mounts = [dev, pts, tmpfs("/dev/shm"), tmpfs("/tmp"), tmpfs("/run"), shared];
        let variables = &["SHARED=/srv", "HOME=/tmp"];
        let contents = Contents { program: words, capabilities: CAPABILITIES, variables, mounts: &mounts };
        bundle(&at, &link.ours, contents);
        let mut command = Command::new(&self.runsc);
        command.arg("--root").arg(at.join("root")).args(["--ignore-cgroups", "--net-raw", "run", "--bundle"]);
        command.arg(&at).arg(name);
        command
    }

    fn outside(&self, link: &Link, words: &[&str]) -> Command {
        let mut command = link.peer("env");
        command.arg(format!("SHARED={}", self.dir.path().display())).args(words);
        command
    }

    /// Has `servers` be used, and more of use.sh, by clients at the other end. What they say, line by line.
    pub fn use_all(&self, name: &str, sandboxed: Sandboxed, servers: &[&str], more: &[&str]) -> Vec<String> {
        let link = Link::new(name, 1500);
        let host = if sandboxed == Sandboxed::Servers { "10.77.0.2" } else { "10.77.0.1" };
        let (serve, client) = (scripts().join("serve.sh"), scripts().join("use.sh"));
        let (serve, client) = (serve.to_string_lossy(), client.to_string_lossy());
        let serve = [&["bash", &*serve, host], servers].concat();
        let client = [&["bash", &*client, host], servers, more].concat();
        let (serve, client) = match sandboxed {
            Sandboxed::Servers => (self.sandboxed(name, &link, &serve), self.outside(&link, &client)),
            Sandboxed::Clients => (self.outside(&link, &serve), self.sandboxed(name, &link, &client)),
        };
        let (mut running, stdin) = begin(serve);
        let mut client = client;
        let said = client.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("the clients start");
        drop(stdin);
        assert!(running.ended_well(END), "the servers end");
        String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect()
    }
}

/// Starts the servers of `serve`, and waits until they are there. They end with their input.
pub fn begin(mut serve: Command) -> (Running, ChildStdin) {
    let mut running =
        Running(serve.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the servers start"));
    let stdin = running.0.stdin.take().expect("a pipe");
    let said = BufReader::new(running.0.stdout.take().expect("a pipe"));
    for line in said.lines() {
        let line = line.expect("a line");
        if line == "ready" {
            return (running, stdin);
        }
        // What did not start will not be there for its client either.
        eprintln!("{line}");
    }
    panic!("the servers ended");
}
