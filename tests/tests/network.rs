//! A container with an Ethernet link, against a peer at the other end of it: streams and datagrams both ways, at two
//! sizes of packets, and an attack from outside, after which the sandbox serves on and its memory is bounded. And
//! real programs ([`rampart_tests::programs`]), in either end.
//!
//! All of it is in network namespaces of the test's own. Needs root, `ip`, `python3` and a `runsc` (the variable
//! `RAMPART_RUNSC`, which `cargo xtask test` sets); says so when it has not.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rampart_tests::link::{Contents, Link, Running, bundle};
use rampart_tests::programs::{Programs, Sandboxed};
use rampart_tests::sandbox::RUNSC;
use serde_json::json;

/// Longest that any of it may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Most memory that a Sentry may have had, in KiB.
const MOST_MEMORY: u64 = 400 << 10;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("network").join(name)
}

/// A bundle whose program is the guest of this test, in network namespace `namespace`.
fn guest_bundle(dir: &Path, namespace: &str, arguments: &[&str]) {
    let text = std::fs::read_to_string(script("guest.py")).expect("the script");
    let program = [&["python3", "-c", &text], arguments].concat();
    let capabilities = &["CAP_NET_BIND_SERVICE"];
    bundle(dir, namespace, Contents { program: &program, capabilities, variables: &[], mounts: &[] });
}

/// The `runsc` under test; `None`, and said so, without one or without being root.
fn runsc() -> Option<PathBuf> {
    let runsc = std::env::var_os(RUNSC).filter(|_| nix::unistd::geteuid().is_root());
    if runsc.is_none() {
        println!("skipped: needs root and RAMPART_RUNSC");
    }
    runsc.map(PathBuf::from)
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
    let Some(runsc) = runsc() else { return };
    let link = Link::new(name, mtu);
    let dir = tempfile::tempdir().expect("a directory");
    guest_bundle(dir.path(), &link.ours, guest_arguments);
    let mut peer = link.peer("python3");
    peer.arg(script("peer.py")).args(peer_arguments);
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
    assert!(guest.ended_well(LIMIT), "the guest failed");
    assert!(
        peer.ended_well(LIMIT),
        "the peer failed after {:?}",
        said.map_while(Result::ok).collect::<Vec<_>>()
    );
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

/// Rules about a name: its addresses are learned from the guest's own question, and the rules can be replaced.
#[test]
fn names_are_learned_and_rules_replaced() {
    let Some(runsc) = runsc() else { return };
    if !rampart_tests::programs::servers().0.contains(&"dns") {
        println!("skipped: no dnsmasq here");
        assert!(std::env::var_os("CI").is_none(), "nothing may be skipped");
        return;
    }
    let (link, dir) = (Link::new("names", 1500), tempfile::tempdir().expect("a directory"));
    let mut serve = link.peer("bash");
    serve.arg(script("apps/serve.sh")).args(["10.77.0.1", "dns", "asyncio"]);
    let (_servers, _stdin) = rampart_tests::programs::begin(serve);
    let resolv = dir.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 10.77.0.1\noptions attempts:1 timeout:5\n").expect("written");
    let mounts = [json!({
        "destination": "/etc/resolv.conf", "type": "bind", "source": resolv, "options": ["bind", "ro"]
    })];
    let text = std::fs::read_to_string(script("names.py")).expect("the script");
    let contents =
        Contents { program: &["python3", "-c", &text], capabilities: &[], variables: &[], mounts: &mounts };
    bundle(dir.path(), &link.ours, contents);
    let command = |egress: &[&str]| {
        let mut command = Command::new(&runsc);
        command
            .arg("--root")
            .arg(dir.path().join("root"))
            .args(["--ignore-cgroups", "--egress=deny"])
            .args(egress);
        command
    };
    let rules = ["--egress-rules=allow:peer.test@8003", "--egress-resolvers=10.77.0.1"];
    let mut guest = command(&rules);
    guest.args(["run", "--bundle"]).arg(dir.path()).arg("names").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut guest = Running(guest.spawn().expect("runsc starts"));
    let mut said = BufReader::new(guest.0.stdout.take().expect("a pipe")).lines();
    let mut next = || said.next().and_then(Result::ok).unwrap_or_default();
    assert_eq!(next(), "denied unknown reached reached");
    assert!(command(&[]).args(["egress", "names"]).status().expect("runsc starts").success());
    writeln!(guest.0.stdin.take().expect("a pipe")).expect("it listens");
    assert_eq!(next(), "denied unknown");
    assert!(guest.ended_well(LIMIT), "the guest failed");
}

/// Has real programs serve and be used across a link. Each line of theirs is to be "ok ...".
fn programs(name: &str, sandboxed: Sandboxed, more: &[&str]) {
    let Some(runsc) = runsc() else { return };
    let (servers, missing) = rampart_tests::programs::servers();
    if !missing.is_empty() {
        println!("skipped: {missing:?} are not here");
        assert!(std::env::var_os("CI").is_none(), "nothing may be skipped");
    }
    let said = Programs::new(runsc).use_all(name, sandboxed, &servers, more);
    let bad: Vec<_> = said.iter().filter(|line| !line.starts_with("ok ")).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(said.len() >= 2 * servers.len(), "{said:#?}");
}

#[test]
fn real_programs_use_what_is_outside() {
    programs("clients", Sandboxed::Clients, &["ping", "traceroute", "raw_traceroute", "tcpdump", "look"]);
}

#[test]
fn real_programs_serve_those_outside() {
    programs("servers", Sandboxed::Servers, &["ping", "traceroute", "raw_traceroute"]);
}
