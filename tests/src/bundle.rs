//! OCI bundles of busybox, and the runtimes that are given the same ones: `runc` is the oracle.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::run::{Output, run};

/// Longest a command of a runtime may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The id of the container that a test makes, one at a time.
pub const CONTAINER: &str = "one";
/// What busybox is called in a root.
const APPLETS: &[&str] = &[
    "cat", "chmod", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ln",
    "ls", "mkdir", "mknod", "ps", "pwd", "readlink", "rm", "sed", "sh", "sleep", "sort", "stat", "touch",
    "tr", "true", "umask", "wc",
];

/// A runtime under test, with a state directory of its own.
pub struct Runtime {
    program: PathBuf,
    flags: Vec<String>,
    state: tempfile::TempDir,
}

impl Runtime {
    /// `program`, given `flags` each time.
    ///
    /// # Errors
    /// When there is no place for its state.
    pub fn new(program: impl Into<PathBuf>, flags: &[&str]) -> io::Result<Self> {
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Ok(Self { program: program.into(), flags, state: tempfile::tempdir()? })
    }

    /// Runs a command of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn call(&self, arguments: &[&str]) -> io::Result<Output> {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.state.path()).args(&self.flags).args(arguments);
        run(&mut command, LIMIT)
    }

    /// The name of its program.
    pub fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Of a test that failed the container may still be there.
        let _ = self.call(&["delete", "--force", CONTAINER]);
    }
}

/// A bundle, with a root that has busybox.
pub struct Bundle {
    dir: tempfile::TempDir,
    /// Its spec, to be changed before [`Bundle::write`].
    pub spec: Value,
}

impl Bundle {
    /// One that runs a shell with `script`, as root with few capabilities.
    ///
    /// # Errors
    /// When it cannot be made; busybox must be installed, a static one.
    pub fn new(script: &str) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "data"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        for name in APPLETS {
            symlink("busybox", root.join("bin").join(name))?;
        }
        fs::write(root.join("etc/kept"), "kept\n")?;
        let bundle = Self { dir, spec: spec(script) };
        bundle.write()?;
        Ok(bundle)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// As an argument.
    pub fn text(&self) -> &str {
        self.dir.path().to_str().unwrap_or_default()
    }

    /// Writes the spec down.
    ///
    /// # Errors
    /// When that fails.
    pub fn write(&self) -> io::Result<()> {
        fs::write(self.dir.path().join("config.json"), self.spec.to_string())
    }
}

fn spec(script: &str) -> Value {
    let few = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_SETUID",
        "CAP_SETGID"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": ["sh", "-c", script],
            "cwd": "/",
            "env": ["PATH=/bin", "TERM=xterm"],
            "user": { "uid": 0, "gid": 0 },
            "capabilities": { "bounding": few, "effective": few, "permitted": few },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "contest",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
        },
    })
}
