//! A link between two network namespaces of a test's own: a container's, and its peer's.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Two network namespaces with a link between. Gone when dropped.
#[derive(Debug)]
pub struct Link {
    /// The container's: 10.77.0.2 and fd77::2.
    pub ours: String,
    /// The peer's: 10.77.0.1 and fd77::1.
    pub theirs: String,
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split(' ')).status().expect("ip runs");
    assert!(done.success(), "ip {line}");
}

impl Link {
    /// With packets of `mtu` bytes. `name` tells those of one process apart.
    pub fn new(name: &str, mtu: u32) -> Self {
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

    /// A command at the peer's end.
    pub fn peer(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.theirs, program]);
        command
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
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    /// Waits for its end, at most `limit`; whether it was a good one.
    pub fn ended_well(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < limit {
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

/// What a container of [`bundle`] is.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Its program and arguments.
    pub program: &'a [&'a str],
    /// Its capabilities.
    pub capabilities: &'a [&'a str],
    /// Variables, with their values.
    pub variables: &'a [&'a str],
    /// Mounts beside `/proc`.
    pub mounts: &'a [Value],
}

/// Writes a bundle into `dir`, on the host's own root, in network namespace `namespace`.
pub fn bundle(dir: &Path, namespace: &str, contents: Contents<'_>) {
    let capabilities = contents.capabilities;
    let mut mounts = vec![json!({ "destination": "/proc", "type": "proc", "source": "proc" })];
    mounts.extend_from_slice(contents.mounts);
    let mut variables = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
    variables.extend_from_slice(contents.variables);
    let spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": contents.program, "env": variables,
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": "/", "readonly": true },
        "mounts": mounts,
        "linux": { "namespaces": [
            { "type": "pid" }, { "type": "mount" },
            { "type": "network", "path": format!("/run/netns/{namespace}") },
        ] },
    });
    std::fs::write(dir.join("config.json"), spec.to_string()).expect("written");
}
