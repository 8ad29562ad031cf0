//! `/proc/PID` and `/proc/PID/task/TID`.

use std::sync::Arc;

use abi::Errno;
use abi::fs::FileType;
use kernfs::{Content, Directory, Listed, Spec, StaticDir, Text};
use mm::MemoryManager;
use vfs::{FileContext, Result};

use crate::fd::{FdDir, FdInfoDir, MagicLink};
use crate::root::parse_id;
use crate::source::{Facts, ProcConfig, Process, Which};
use crate::status;

/// Namespaces that have a link.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// The directory of a process (`whole`), or of a thread.
pub(crate) fn pid_dir(config: &Arc<ProcConfig>, process: Arc<dyn Process>, whole: bool) -> Spec {
    // What has gone meanwhile belongs to root.
    let owner = process.facts().map(|f| (f.cred.euid, f.cred.egid)).unwrap_or_default();
    let dir = memory_files(files(&process, owner), &process, owner);
    let dir = links(dir, &process, owner);
    let dir = match &config.net {
        Some(net) => dir.with("net", net.clone()),
        None => dir.dir("net", StaticDir::new()),
    };
    let dir = if whole {
        dir.with("task", owned(Spec::dir(0o555, TaskDir::new(config, &process)), owner))
    } else {
        dir
    };
    owned(dir.spec(), owner)
}

fn owned(spec: Spec, owner: (u32, u32)) -> Spec {
    spec.owned(owner.0, owner.1)
}

/// A text of a process's facts.
fn facts(process: &Arc<dyn Process>, text: impl Fn(&Facts) -> Vec<u8> + Send + Sync + 'static) -> Spec {
    let process = Arc::clone(process);
    Spec::text(0o444, move |_: &FileContext<'_>| Ok(text(&process.facts()?)))
}

/// A text the process makes itself.
fn made(
    process: &Arc<dyn Process>,
    mode: u16,
    text: impl Fn(&dyn Process) -> Result<Vec<u8>> + Send + Sync + 'static,
) -> Spec {
    let process = Arc::clone(process);
    Spec::text(mode, move |_: &FileContext<'_>| text(process.as_ref()))
}

fn files(process: &Arc<dyn Process>, owner: (u32, u32)) -> StaticDir {
    let comm = Spec::text(0o644, Comm(Arc::clone(process)));
    let oom = Spec::text(0o644, OomScoreAdj(Arc::clone(process)));
    let with_mm = Arc::clone(process);
    let stat = facts(process, move |f| status::stat(f, with_mm.mm().as_deref()));
    let with_mm = Arc::clone(process);
    let status_file = facts(process, move |f| status::status(f, with_mm.mm().as_deref()));
    let text = |spec: Spec| owned(spec, owner);
    StaticDir::new()
        .with("cgroup", text(made(process, 0o444, |p| p.cgroup())))
        .with("cmdline", text(made(process, 0o444, |p| p.cmdline())))
        .with("comm", text(comm))
        .with("environ", text(made(process, 0o400, |p| p.environ())))
        .with("auxv", text(made(process, 0o400, |p| p.auxv())))
        .with("limits", text(facts(process, |f| status::limits(&f.limits))))
        .with("mountinfo", text(made(process, 0o444, |p| p.mountinfo())))
        .with("mounts", text(made(process, 0o444, |p| p.mounts())))
        .with("oom_score", text(facts(process, |f| format!("{}\n", (f.oom_score_adj + 1000) * 2 / 3).into())))
        .with("oom_score_adj", text(oom))
        .with("personality", text(facts(process, |_| b"00000000\n".to_vec())))
        .with("sessionid", text(facts(process, |_| b"4294967295\n".to_vec())))
        .with("loginuid", text(facts(process, |_| b"4294967295".to_vec())))
        .with("wchan", text(facts(process, |_| b"0".to_vec())))
        .with("setgroups", text(facts(process, |_| b"allow\n".to_vec())))
        .with("uid_map", text(facts(process, |_| status::identity_map())))
        .with("gid_map", text(facts(process, |_| status::identity_map())))
        .with("io", text(facts(process, |_| status::io())))
        .with("stat", text(stat))
        .with("status", text(status_file))
}

fn memory_files(dir: StaticDir, process: &Arc<dyn Process>, owner: (u32, u32)) -> StaticDir {
    let text = |of: fn(&MemoryManager) -> Vec<u8>| {
        // A zombie has no memory, and its texts are empty.
        let spec = made(process, 0o444, move |p| Ok(p.mm().map(|mm| of(&mm)).unwrap_or_default()));
        owned(spec, owner)
    };
    let statm = made(process, 0o444, |p| {
        Ok(p.mm().map_or_else(|| b"0 0 0 0 0 0 0\n".to_vec(), |mm| mm.statm_text()))
    });
    dir.with("maps", text(MemoryManager::maps_text))
        .with("smaps", text(MemoryManager::smaps_text))
        .with("statm", owned(statm, owner))
}

fn links(dir: StaticDir, process: &Arc<dyn Process>, owner: (u32, u32)) -> StaticDir {
    let link = |which| owned(Spec::link(MagicLink::new(process, which)), owner);
    let namespaces = NAMESPACES
        .into_iter()
        .fold(StaticDir::new(), |dir, name| dir.with(name, link(Which::Namespace(name))));
    dir.with("cwd", link(Which::Cwd))
        .with("exe", link(Which::Exe))
        .with("root", link(Which::Root))
        .with("fd", owned(Spec::dir(0o500, FdDir(Arc::clone(process))), owner))
        .with("fdinfo", owned(Spec::dir(0o555, FdInfoDir(Arc::clone(process))), owner))
        .with("ns", owned(Spec::new(0o511, Content::Dir(Arc::new(namespaces))), owner))
}

/// `comm`: the name can be read by all and set by the process itself.
struct Comm(Arc<dyn Process>);

impl Text for Comm {
    fn read(&self, _cx: &FileContext<'_>) -> Result<Vec<u8>> {
        let mut name = self.0.facts()?.name;
        name.push(b'\n');
        Ok(name)
    }

    fn write(&self, cx: &FileContext<'_>, _offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.facts()?;
        if !self.0.is(cx.pid) {
            return Err(Errno::EINVAL);
        }
        let name = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        self.0.set_name(name)
    }
}

struct OomScoreAdj(Arc<dyn Process>);

impl Text for OomScoreAdj {
    fn read(&self, _cx: &FileContext<'_>) -> Result<Vec<u8>> {
        Ok(format!("{}\n", self.0.facts()?.oom_score_adj).into_bytes())
    }

    fn write(&self, cx: &FileContext<'_>, _offset: u64, bytes: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
        let value: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
        if !(-1000..=1000).contains(&value) {
            return Err(Errno::EINVAL);
        }
        if value < self.0.facts()?.oom_score_adj && !cx.cred.capable(cred::CapSet::SYS_RESOURCE) {
            return Err(Errno::EACCES);
        }
        self.0.set_oom_score_adj(value)
    }
}

/// `/proc/PID/task`.
struct TaskDir {
    config: Arc<ProcConfig>,
    process: Arc<dyn Process>,
}

impl TaskDir {
    fn new(config: &Arc<ProcConfig>, process: &Arc<dyn Process>) -> Self {
        Self { config: Arc::clone(config), process: Arc::clone(process) }
    }
}

impl Directory for TaskDir {
    fn lookup(&self, name: &[u8]) -> Result<Spec> {
        let thread = parse_id(name).and_then(|tid| self.process.thread(tid)).ok_or(Errno::ENOENT)?;
        Ok(pid_dir(&self.config, thread, false))
    }

    fn list(&self, from: u64) -> Result<Vec<Listed>> {
        let listed = |tid: i32| Listed {
            key: u64::from(tid.unsigned_abs()),
            name: tid.to_string().into_bytes(),
            kind: FileType::Directory,
        };
        Ok(self.process.threads().into_iter().map(listed).filter(|l| l.key >= from).collect())
    }
}
