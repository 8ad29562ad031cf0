//! A container with an Ethernet link, against a peer at the other end of it: streams and datagrams both ways, at two
//! sizes of packets, and an attack from outside, after which the sandbox serves on and its memory is bounded.
//!
//! All of it is in network namespaces of the test's own. Needs root, `ip`, `python3` and a `runsc` (the variable
//! `RAMPART_RUNSC`, which `cargo xtask test` sets); says so when it has not.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rampart_tests::sandbox::RUNSC;
use serde_json::json;

/// Longest that any of it may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Most memory that a Sentry may have had, in KiB.
const MOST_MEMORY: u64 = 400 << 10;

/// Two network namespaces with a link between: the container's, and the peer's.
struct Link {
    ours: String,
    theirs: String,
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).status().expect("ip runs");
    assert!(done.success(), "ip {line}");
}

impl Link {
    fn new(name: &str, mtu: u32) -> Self {
        let id = std::process::id();
        let link = Self { ours: format!("rampart-{name}-a{id}"), theirs: format!("rampart-{name}-b{id}") };
        let Self { ours, theirs } = &link;
        ip(&format!("netns add {ours}"));
        ip(&format!("netns add {theirs}"));
        ip(&format!("-n {ours} link add eth0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {theirs}"));
        for (end, last) in [(ours, 2), (theirs, 1)] {
            ip(&format!("-n {end} addr add 10.77.0.{last}/24 dev eth0"));
            ip(&format!("-n {end} addr add fd77::{last}/64 dev eth0 nodad"));
            ip(&format!("-n {end} link set lo up"));
            ip(&format!("-n {end} link set eth0 up"));
        }
        link
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for end in [&self.ours, &self.theirs] {
            let _ = Command::new("ip").args(["netns", "del", end]).status();
        }
    }
}

/// A process that does not outlive the test.
struct Running(Child);

impl Running {
    /// Waits for its end; whether it was a good one.
    fn ended_well(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("network").join(name)
}

/// A bundle whose program is the guest of this test, in network namespace `namespace`.
fn bundle(dir: &Path, namespace: &str, arguments: &[&str]) {
    let text = std::fs::read_to_string(script("guest.py")).expect("the script");
    let mut program = vec!["python3", "-c", &text];
    program.extend(arguments);
    let capabilities = json!(["CAP_NET_BIND_SERVICE"]);
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": program,
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": "/", "readonly": true },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [
            { "type": "pid" }, { "type": "mount" },
            { "type": "network", "path": format!("/run/netns/{namespace}") },
        ] },
    });
    std::fs::write(dir.join("config.json"), spec.to_string()).expect("written");
}

/// The most memory that a process has had, in KiB.
fn peak(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Runs both ends over a link of `mtu` bytes, until both have seen all of it. What the peer, `runsc` and the guest
/// are told beside.
fn talk(name: &str, mtu: u32, [peer_arguments, flags, guest_arguments]: [&[&str]; 3]) {
    let runsc = std::env::var_os(RUNSC).filter(|_| nix::unistd::geteuid().is_root());
    let Some(runsc) = runsc else {
        println!("skipped: needs root and RAMPART_RUNSC");
        return;
    };
    let link = Link::new(name, mtu);
    let dir = tempfile::tempdir().expect("a directory");
    bundle(dir.path(), &link.ours, guest_arguments);
    let mut peer = Command::new("ip");
    peer.args(["netns", "exec", &link.theirs, "python3"]).arg(script("peer.py")).args(peer_arguments);
    peer.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut peer = Running(peer.spawn().expect("the peer starts"));
    let mut said = BufReader::new(peer.0.stdout.take().expect("a pipe")).lines();
    assert_eq!(said.next().and_then(Result::ok).as_deref(), Some("ready"));
    let mut guest = Command::new(runsc);
    guest.arg("--root").arg(dir.path().join("root")).arg("--ignore-cgroups").args(flags);
    let (pid, log) = (dir.path().join("pid"), dir.path().join("pcap"));
    if flags.is_empty() {
        guest.arg("--pcap-log").arg(&log);
    }
    guest.args(["run", "--bundle"]).arg(dir.path()).arg("--pid-file").arg(&pid).arg(name);
    let mut guest = Running(guest.stdin(Stdio::null()).spawn().expect("runsc starts"));
    let mut most = 0;
    let start = Instant::now();
    while guest.0.try_wait().expect("a child").is_none() && start.elapsed() < LIMIT {
        let known = std::fs::read_to_string(&pid).ok().and_then(|pid| peak(&pid));
        most = most.max(known.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(guest.ended_well(), "the guest failed");
    assert!(peer.ended_well(), "the peer failed after {:?}", said.map_while(Result::ok).collect::<Vec<_>>());
    if flags.is_empty() {
        let bytes = std::fs::read(&log).expect("a log of packets");
        assert!(
            bytes.starts_with(&0xa1b2_3c4d_u32.to_ne_bytes()) && bytes.len() > 1_000_000,
            "{}",
            bytes.len()
        );
    }
    assert!((1..MOST_MEMORY).contains(&most), "the Sentry has had {most} KiB");
}

#[test]
fn small_packets_go_both_ways() {
    talk("small", 1500, [&[], &[], &[]]);
}

#[test]
fn large_packets_go_both_ways() {
    talk("large", 9000, [&[], &[], &[]]);
}

#[test]
fn an_attack_from_outside_is_outlived() {
    talk("attack", 1500, [&["attack"], &[], &[]]);
}

#[test]
fn only_what_is_allowed_is_reached() {
    let rules = "--egress-rules=allow:10.77.0.1@5000-5999,allow:fd77::/64";
    talk("egress", 1500, [&[], &["--egress=deny", rules], &["denied"]]);
}
