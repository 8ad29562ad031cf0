//! What the tests of this crate share. Not a test itself.
#![allow(dead_code, reason = "no test uses all of it")]

use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

/// A program that waits for ever.
pub(crate) const PAUSE: &str = "again: mov $34,%eax\nsyscall\njmp again\n";

/// A root for a guest, with the places that are mounted over, and `bin`.
pub(crate) struct Root(tempfile::TempDir);

/// `runsc`, without arguments.
pub(crate) fn runsc() -> Command {
    Command::new(env!("CARGO_BIN_EXE_runsc"))
}

impl Root {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["bin", "proc", "dev", "sys", "tmp"] {
            std::fs::create_dir(dir.path().join(name)).expect("a folder");
        }
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Compiles the body of a program to `bin/NAME`.
    pub(crate) fn assemble(&self, name: &str, body: &str) {
        let source = self.path().join(format!("{name}.S"));
        std::fs::write(&source, format!(".globl _start\n_start: {body}")).expect("a folder to write to");
        let to = self.path().join("bin").join(name);
        let status = Command::new("gcc").args(["-nostdlib", "-static", "-o"]).arg(to).arg(&source).status();
        assert!(status.expect("gcc is installed").success(), "{name} must assemble");
    }

    /// `runsc do` on this root.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = runsc();
        command.args(["do", "--rootfs"]).arg(self.path()).args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("runs")
    }

    /// Starts `runsc do` on this root.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running(self.command(arguments).spawn().expect("starts"))
    }
}

/// A `runsc` that does not outlive its test, even one that fails.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bundle, and a state directory of its own.
pub(crate) struct Bundle {
    pub(crate) root: Root,
    dir: tempfile::TempDir,
}

impl Bundle {
    /// Of a container that runs `args`.
    pub(crate) fn new(args: &[&str]) -> Self {
        let (root, dir) = (Root::new(), tempfile::tempdir().expect("a folder"));
        let spec = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": args, "env": ["PATH=/bin"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
            },
            "root": { "path": root.path() },
            "hostname": "test",
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "annotations": { "who": "test" },
        });
        std::fs::write(dir.path().join("config.json"), spec.to_string()).expect("a spec");
        Self { root, dir }
    }

    /// Changes its spec.
    pub(crate) fn change(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.dir.path().join("config.json");
        let text = std::fs::read(&path).expect("a spec");
        let mut spec = serde_json::from_slice(&text).expect("JSON");
        change(&mut spec);
        std::fs::write(&path, spec.to_string()).expect("a spec");
    }

    /// The bundle's directory.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `runsc` with the state directory of this bundle, in its directory.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = runsc();
        command.arg("--root").arg(self.dir.path().join("state")).args(arguments);
        command.current_dir(self.dir.path());
        command
    }

    /// Runs `runsc`; its code, output and errors.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.command(arguments).output().expect("runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Runs `runsc`, which must succeed; its output.
    pub(crate) fn good(&self, arguments: &[&str]) -> String {
        // Not a pipe for what goes to standard error: a detached sandbox keeps that of its creator.
        let output = self.command(arguments).stderr(std::process::Stdio::inherit()).output().expect("runs");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs `runsc`, which must succeed and leaves something that keeps its standard descriptors.
    pub(crate) fn leave(&self, arguments: &[&str]) {
        let null = std::process::Stdio::null;
        let status = self.command(arguments).stdin(null()).stdout(null()).stderr(null()).status();
        assert!(status.expect("runs").success(), "{arguments:?}");
    }

    /// A field of `runsc state ID`.
    pub(crate) fn state(&self, id: &str, field: &str) -> serde_json::Value {
        let text = self.good(&["state", id]);
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")[field].clone()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let list = self.command(&["list", "-q"]).output();
        for id in list
            .into_iter()
            .flat_map(|list| String::from_utf8(list.stdout))
            .flat_map(|ids| ids.lines().map(str::to_owned).collect::<Vec<_>>())
        {
            let _ = self.command(&["delete", "--force", &id]).output();
        }
    }
}

/// A field of `/proc/PID/status`.
pub(crate) fn status(pid: i32, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// Host processes whose parent is `pid`.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("a procfs");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut pids: Vec<i32> = pids.filter(|child| status(*child, "PPid") == Some(pid.to_string())).collect();
    pids.sort_unstable();
    pids
}

/// Waits until `ready` gives something.
pub(crate) fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Host pids of runsc, Gofer and Sentry, once the guest's program `name` runs as a process of the host.
pub(crate) fn sandbox_of(runsc: &Running, name: &str) -> [i32; 3] {
    let found = locked_in(runsc);
    until(name, || {
        // Beside the platform's own helpers.
        children(found[2]).into_iter().find(|guest| status(*guest, "Seccomp").as_deref() == Some("2"))
    });
    found
}

/// Host pids of runsc, Gofer and Sentry, once the Sentry is locked in.
pub(crate) fn locked_in(runsc: &Running) -> [i32; 3] {
    let runsc = runsc.0.id() as i32;
    let half = |command: &str| {
        let line = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ends = format!("\0{command}\0");
        children(runsc).into_iter().find(|pid| line(*pid).ends_with(&ends))
    };
    let gofer = until("the gofer", || half("gofer"));
    let sentry = until("the sentry", || half("boot"));
    // The platform's own helpers have their filters before that.
    until("the sentry's filter", || status(sentry, "Seccomp").filter(|mode| mode == "2"));
    [runsc, gofer, sentry]
}

pub(crate) fn kill(pid: i32, signal: i32) {
    let signal = nix::sys::signal::Signal::try_from(signal).expect("a signal");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it lives");
}

/// Whether `pid` is there and not a zombie.
pub(crate) fn alive(pid: i32) -> bool {
    status(pid, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// Whether `pid` is gone within `time`. A zombie that its parent, not of the test, has not reaped counts.
pub(crate) fn gone(pid: i32, time: Duration) -> bool {
    let end = Instant::now() + time;
    while alive(pid) {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
