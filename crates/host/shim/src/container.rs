//! A container of the shim: its bundle, how to call `runsc` about it, and its processes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cgroup::{Cgroups, Version};
use containerd_shim_protos::shim::shim::CreateTaskRequest;
use serde_json::Value;

use crate::config::Config;
use crate::error::ShimError;
use crate::process::{Made, Process};
use crate::reaper::Reaper;
use crate::runsc::{Detached, Runsc};
use crate::stdio::{self, Paths, Streams};
use crate::terminal::{Console, Terminal};
use crate::{oci_parts, rootfs};

/// Where the root of a bundle is, for containerd.
pub(crate) const ROOTFS: &str = "rootfs";
/// Name of the files of the first process.
pub(crate) const FIRST: &str = "init";

/// One container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) runsc: Runsc,
    pub(crate) first: Arc<Process>,
    pub(crate) cgroups: Option<String>,
    config: Config,
    /// Processes beside the first, by containerd's name.
    others: parking_lot::Mutex<HashMap<String, Arc<Process>>>,
    paused: AtomicBool,
    executed: AtomicU32,
    socket: PathBuf,
}

/// What a container is made from.
pub(crate) struct Origin<'a> {
    pub(crate) request: &'a CreateTaskRequest,
    pub(crate) namespace: &'a str,
    pub(crate) reaper: &'a Arc<Reaper>,
    /// The shim's socket, beside which those for terminals are.
    pub(crate) socket: &'a Path,
}

impl Container {
    /// Mounts its root and has `runsc` create it. Nothing is left when that fails.
    pub(crate) fn create(origin: &Origin<'_>) -> Result<Self, ShimError> {
        let request = origin.request;
        if !request.checkpoint.is_empty() {
            return Err(ShimError::Unimplemented("containers are not restored from checkpoints"));
        }
        let bundle = PathBuf::from(&request.bundle);
        let config = Config::from_options(request.options.as_ref())?;
        config.save(&bundle)?;
        let runsc = Runsc::new(origin.reaper.clone(), &config, origin.namespace);
        let paths = Paths {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let cgroups = oci_parts::cgroups_path(&bundle)?;
        let target = bundle.join(ROOTFS);
        rootfs::mount_all(&request.rootfs, &target)?;
        let words = vec!["--bundle".to_owned(), request.bundle.clone()];
        let how = How { runsc: &runsc, config: &config, bundle: &bundle, socket: origin.socket };
        let made = how.make("create", words, FIRST, &request.id, &paths).inspect_err(|_| {
            if let Err(error) = rootfs::unmount(&target) {
                tracing::warn!(%error, "a root stays mounted");
            }
        })?;
        Ok(Self {
            id: request.id.clone(),
            bundle,
            first: Arc::new(Process::new(String::new(), paths, Vec::new(), made)),
            cgroups,
            config,
            others: parking_lot::Mutex::default(),
            paused: AtomicBool::new(false),
            executed: AtomicU32::new(0),
            socket: origin.socket.into(),
            runsc,
        })
    }

    /// The process with that name of containerd's; the first when it is empty.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>, ShimError> {
        if exec_id.is_empty() {
            return Ok(self.first.clone());
        }
        let found = self.others.lock().get(exec_id).cloned();
        found.ok_or_else(|| ShimError::NotFound { what: "process", id: exec_id.into() })
    }

    /// Takes note of another process, which is not started yet.
    pub(crate) fn add(&self, exec_id: &str, paths: Paths, spec: &[u8]) -> Result<(), ShimError> {
        let invalid = |reason: String| ShimError::Invalid { what: format!("process {exec_id:?}"), reason };
        let mut spec: Value = serde_json::from_slice(spec).map_err(|error| invalid(error.to_string()))?;
        let fields = spec.as_object_mut().ok_or_else(|| invalid("not an object".into()))?;
        fields.insert("terminal".into(), paths.terminal.into());
        let mut others = self.others.lock();
        if exec_id.is_empty() || others.contains_key(exec_id) {
            return Err(ShimError::Exists { what: "process", id: exec_id.into() });
        }
        let process = Process::new(exec_id.into(), paths, spec.to_string().into_bytes(), Made::default());
        others.insert(exec_id.into(), Arc::new(process));
        Ok(())
    }

    /// Forgets a process.
    pub(crate) fn forget(&self, exec_id: &str) {
        self.others.lock().remove(exec_id);
    }

    /// All processes beside the first.
    pub(crate) fn others(&self) -> Vec<Arc<Process>> {
        self.others.lock().values().cloned().collect()
    }

    /// Has `runsc` execute a process.
    pub(crate) fn execute(&self, process: &Process) -> Result<Made, ShimError> {
        let name = format!("exec-{}", self.executed.fetch_add(1, Ordering::Relaxed));
        let file = |kind: &str| self.bundle.join(format!("{name}.{kind}"));
        let (spec, inside) = (file("json"), file("inside"));
        std::fs::write(&spec, &process.spec).map_err(ShimError::io(&spec))?;
        let words = [
            "--process",
            &spec.to_string_lossy(),
            "--detach",
            "--internal-pid-file",
            &inside.to_string_lossy(),
        ];
        let words = words.map(str::to_owned).to_vec();
        let how =
            How { runsc: &self.runsc, config: &self.config, bundle: &self.bundle, socket: &self.socket };
        let made = how.make("exec", words, &name, &self.id, &process.paths).and_then(|made| {
            let text = std::fs::read_to_string(&inside).map_err(ShimError::io(&inside))?;
            Ok(Made { inside: text.trim().parse().unwrap_or(0), ..made })
        });
        for kind in ["json", "inside", "pid", "log.json"] {
            // Some are not there when it has failed.
            let _ = std::fs::remove_file(file(kind));
        }
        made
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Stops all of its processes, or lets them go on.
    pub(crate) fn pause(&self, paused: bool) -> Result<(), ShimError> {
        self.runsc.ask(if paused { "pause" } else { "resume" }, &[&self.id], None)?;
        self.paused.store(paused, Ordering::Release);
        Ok(())
    }

    /// Which version of control groups its numbers are those of.
    pub(crate) fn version(&self) -> Version {
        let groups = self.cgroups.as_deref().and_then(|path| Cgroups::find(path).ok());
        groups.and_then(|groups| groups.memory_version()).unwrap_or(Version::Two)
    }

    /// Removes all there is of it.
    pub(crate) fn remove(&self) -> Result<(), ShimError> {
        self.runsc.ask("delete", &["--force", &self.id], None)?;
        rootfs::unmount(&self.bundle.join(ROOTFS))?;
        for process in std::iter::once(self.first.clone()).chain(self.others()) {
            process.give_up();
            process.release();
        }
        Ok(())
    }
}

/// How processes of a container are made.
struct How<'a> {
    runsc: &'a Runsc,
    config: &'a Config,
    bundle: &'a Path,
    socket: &'a Path,
}

impl How<'_> {
    fn make(
        &self,
        command: &'static str,
        words: Vec<String>,
        name: &str,
        id: &str,
        paths: &Paths,
    ) -> Result<Made, ShimError> {
        let process = |streams: Streams, console| {
            self.runsc.detached(Detached { command, words, work: self.bundle, name, id, streams, console })
        };
        if !paths.terminal {
            let (streams, held) = stdio::open(paths, self.config)?;
            return Ok(Made { pid: process(streams, None)?, held, ..Made::default() });
        }
        let console = Console::listen(console_path(self.socket))?;
        let pid = process(Streams::null(), Some(&console.path))?;
        let attached = Terminal::attach(&console, paths).inspect_err(|_| {
            // Nobody else knows of what has just been created. An executed one sees its terminal go.
            if command == "create"
                && let Err(error) = self.runsc.ask("delete", &["--force", id], None)
            {
                tracing::warn!(%error, id, "a container is left");
            }
        });
        let (terminal, held) = attached?;
        Ok(Made { pid, held, terminal: Some(terminal), inside: 0 })
    }
}

/// A path for a socket that is used once; short, as the names of sockets have to be.
fn console_path(socket: &Path) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    socket.with_extension(format!("pty{number}"))
}
