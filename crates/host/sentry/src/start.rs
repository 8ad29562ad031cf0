//! Puts the kernel together and runs the container's first process.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use abi::limits::{Limits, Resource, Rlimit};
use abi::process::WaitStatus;
use abi::time::Timespec;
use anonfs::inode::{AnonAttr, AnonFs};
use cred::{CapSet, Credentials};
use devfs::Tty;
use kernel::Task;
use kernel::files::SharedFs;
use kernel::kernel::{FirstProcess, Kernel, Parts};
use loader::{Arguments, CpuFacts, ExecFile, Ids, LoadRequest, Loaded, OpenedFile, Opener};
use mm::{Memfds, MmLimits};
use platform::{Platform, Registers};
use platform_systrap::Systrap;
use procfs::CpuModel;
use sync::wait::Parker;
use syscalls::dispatch::X86Calls;
use syscalls::services::Machine;
use vfs::{Access, Caller, FdTable, FileContext, FsContext, OpenFile, VfsPath, WalkFlags};

use crate::boot::{BootConfig, ExitStatus, Process};
use crate::console;
use crate::jobs::Jobs;
use crate::random::HostRandom;
use crate::services::services;
use crate::stdio::{self, HostFile};
use crate::tree::{self, Materials};
use crate::{BootError, Inherited};

/// Most tasks of a container that sets no limit.
const MAX_TASKS: usize = 32_768;

/// What must be gathered while the host's root is still there: call before `pivot_root`.
pub struct Early {
    random: Arc<HostRandom>,
    cpu: CpuFacts,
    model: CpuModel,
    memory: u64,
}

impl Early {
    /// Opens and reads it.
    ///
    /// # Errors
    /// When the host's random generator cannot be opened.
    pub fn gather() -> Result<Self, BootError> {
        let random =
            HostRandom::open().map_err(|source| BootError::Host { doing: "opening /dev/urandom", source })?;
        let model = cpu_model(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
        let memory = memory_of(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default());
        Ok(Self { random: Arc::new(random), cpu: CpuFacts::of_host(), model, memory })
    }
}

/// Runs the container of `config` until its first process ends.
///
/// # Errors
/// Whatever keeps the first process from starting; each names the thing.
pub fn run(config: &BootConfig, inherited: Inherited, early: &Early) -> Result<ExitStatus, BootError> {
    let platform = choose_platform(&config.platform)?;
    let syscalls = X86Calls::new();
    let kernel = Kernel::new(Parts {
        platform: Arc::clone(&platform),
        syscalls: syscalls.clone(),
        max_tasks: MAX_TASKS,
    });
    if let Err(errno) = kernel.uts().set_hostname(config.hostname.as_bytes()) {
        return Err(BootError::Hostname { name: config.hostname.clone(), errno });
    }
    let gofer = tree::gofer_client(inherited.gofer).map_err(BootError::Gofer)?;
    let jobs = Jobs::new(&kernel);
    let (console, stdio) = match inherited.stdio {
        [input, output, _] if config.process.terminal => {
            (Some(console::start(input, output, jobs.clone())?), Vec::new())
        }
        stdio => (None, Vec::from(stdio)),
    };
    let materials = Materials {
        gofer,
        kernel: &kernel,
        jobs,
        console: console.clone(),
        random: early.random.clone(),
        cpu: early.model.clone(),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory: early.memory,
        now: now(),
    };
    let (namespace, mut context) = tree::build(config, &materials)?;
    let machine = Machine { cpus: materials.cpus, memory: materials.memory };
    syscalls.provide(services(namespace, early.random.clone(), early.cpu, machine));
    let cred = Arc::new(credentials(&config.process));
    enter(&mut context, &config.process, &cred)?;
    let limits = limits(&config.process)?;
    let (loaded, exe) = load(&config.process, &context, &cred, &limits, platform.as_ref(), early)?;
    let fds = match &console {
        Some(console) => console_files(console, &cred)?,
        None => standard_files(stdio)?,
    };
    let process = FirstProcess {
        mm: Arc::clone(&loaded.mm),
        registers: Registers::entry(loaded.ip, loaded.sp),
        fds,
        fs: SharedFs::new(context),
        cred: Arc::clone(&cred),
        limits,
        name: loaded.command.clone(),
        exe: Some(exe),
        init: true,
    };
    let parker = Parker::new();
    let _waiter = kernel.ended().register(parker.clone(), abi::poll::PollEvents::IN);
    let ready = |task: &Arc<Task>| {
        // As a login does: the first process leads a session on its terminal.
        let cx = FileContext { cred: &cred, pid: task.tgid(), tid: task.tid() };
        let opened = console.as_ref().map(|console| console.open_slave(&cx, OpenFlags::RDWR));
        if let Some(Err(errno)) = opened {
            tracing::warn!(%errno, "the first process has no controlling terminal");
        }
    };
    let group = kernel.start_process(process, ready).map_err(BootError::Start)?;
    loop {
        if let Some(status) = kernel.reap_orphan(group.tgid()) {
            return Ok(exit_status(status));
        }
        parker.park(None);
    }
}

fn choose_platform(name: &str) -> Result<Arc<dyn Platform>, BootError> {
    match name {
        "systrap" => Ok(Arc::new(Systrap::new()?)),
        _ => Err(BootError::NoPlatform(name.to_owned())),
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status {
        WaitStatus::Exited(code) => ExitStatus::Exited(code),
        WaitStatus::Signaled(signal, _) | WaitStatus::Stopped(signal) => {
            ExitStatus::Signaled(signal.number())
        }
        WaitStatus::Continued => ExitStatus::Exited(0),
    }
}

fn now() -> Timespec {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().into()
}

fn credentials(process: &Process) -> Credentials {
    let caps = CapSet::from_bits_truncate(process.capabilities);
    let mut groups = process.groups.clone();
    groups.sort_unstable();
    Credentials {
        groups: groups.into(),
        permitted: caps,
        effective: caps,
        bounding: caps,
        no_new_privs: process.no_new_privs,
        ..Credentials::user(process.uid, process.gid)
    }
}

fn limits(process: &Process) -> Result<Limits, BootError> {
    let mut limits = Limits::default();
    for limit in &process.rlimits {
        let resource = Resource::from_raw(limit.resource).ok_or(BootError::Rlimit(limit.resource))?;
        limits.set(resource, Rlimit::new(limit.soft, limit.hard));
    }
    Ok(limits)
}

/// Moves to the working directory of the process.
fn enter(context: &mut FsContext, process: &Process, cred: &Credentials) -> Result<(), BootError> {
    let cx = FileContext { cred, pid: 1, tid: 1 };
    let caller = Caller::new(context, cx);
    let cwd = caller.directory(process.cwd.as_bytes());
    context.cwd = cwd.map_err(|errno| BootError::Directory { path: process.cwd.clone(), errno })?;
    Ok(())
}

/// Opens programs as the first process.
struct Programs<'a> {
    context: &'a FsContext,
    cred: &'a Arc<Credentials>,
}

impl Programs<'_> {
    fn locate(&self, path: &[u8]) -> Result<VfsPath, Errno> {
        let cx = FileContext { cred: self.cred, pid: 1, tid: 1 };
        Caller::new(self.context, cx).lookup(path, WalkFlags::FOLLOW)
    }

    fn open_path(&self, path: &[u8]) -> Result<Arc<dyn ExecFile>, Errno> {
        let cx = FileContext { cred: self.cred, pid: 1, tid: 1 };
        let caller = Caller::new(self.context, cx);
        let (at, attr) = caller.stat(path, WalkFlags::FOLLOW)?;
        if attr.kind != FileType::Regular {
            return Err(Errno::EACCES);
        }
        vfs::perm::check(&attr, Access::EXECUTE, self.cred)?;
        let file = at.inode().open(&cx, OpenFlags::empty())?;
        Ok(Arc::new(OpenedFile::new(file, at.display(&self.context.root), Arc::clone(self.cred))))
    }
}

impl Opener for Programs<'_> {
    fn open(&self, path: &[u8]) -> Result<Arc<dyn ExecFile>, Errno> {
        self.open_path(path)
    }
}

/// Finds the program as `execvp(3)` does, and loads it.
fn load(
    process: &Process,
    context: &FsContext,
    cred: &Arc<Credentials>,
    limits: &Limits,
    platform: &dyn Platform,
    early: &Early,
) -> Result<(Loaded, VfsPath), BootError> {
    let name = process
        .args
        .first()
        .ok_or_else(|| BootError::Program { name: String::new(), errno: Errno::ENOENT })?;
    let fail = |errno: Errno| BootError::Program { name: name.clone(), errno };
    let programs = Programs { context, cred };
    let (path, file) = find_program(name, &process.env, &programs).map_err(fail)?;
    let mut args = Arguments::new(limits.of(Resource::Stack).cur);
    for arg in &process.args {
        args.push_arg(arg.clone().into_bytes()).map_err(|error| fail(error.into()))?;
    }
    for variable in &process.env {
        args.push_env(variable.clone().into_bytes()).map_err(|error| fail(error.into()))?;
    }
    let program = loader::resolve(file, path, args, &programs).map_err(|error| fail(error.into()))?;
    let features = platform.features();
    let request = LoadRequest {
        space: platform.new_address_space()?,
        features: &features,
        shared_memory: Memfds::new(),
        limits: MmLimits::from_limits(limits),
        opener: &programs,
        ids: Ids::of(cred),
        cpu: early.cpu,
        entropy: early.random.entropy().map_err(fail)?,
    };
    let loaded = loader::load(program, request).map_err(|error| fail(error.into()))?;
    let exe = programs.locate(&loaded.exe.path()).map_err(fail)?;
    Ok((loaded, exe))
}

fn find_program(
    name: &str,
    env: &[String],
    programs: &Programs<'_>,
) -> Result<(Vec<u8>, Arc<dyn ExecFile>), Errno> {
    if name.contains('/') {
        return Ok((name.as_bytes().to_vec(), programs.open_path(name.as_bytes())?));
    }
    let path = env.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or("/usr/bin:/bin");
    let mut denied = None;
    for folder in path.split(':') {
        let candidate = format!("{}/{name}", if folder.is_empty() { "." } else { folder }).into_bytes();
        match programs.open_path(&candidate) {
            Ok(file) => return Ok((candidate, file)),
            Err(Errno::EACCES) => denied = Some(Errno::EACCES),
            Err(_) => {}
        }
    }
    Err(denied.unwrap_or(Errno::ENOENT))
}

/// Descriptors 0, 1 and 2.
fn standard_files(stdio: Vec<OwnedFd>) -> Result<Arc<FdTable>, BootError> {
    let host = |source| BootError::Host { doing: "taking over standard input and output", source };
    let anonymous = AnonFs::anon_inodefs(abi::fs::make_dev(0, 9));
    let table = FdTable::new();
    let mut watched = Vec::new();
    for fd in stdio {
        let file = HostFile::new(fd).map_err(host)?;
        let attr = AnonAttr { kind: file.kind(), uid: 0, gid: 0, now: now() };
        let inode = anonymous.inode(Some("host"), attr);
        let name = inode.name();
        let flags = file.flags();
        watched.push(Arc::clone(&file));
        let position = file.position();
        let open = OpenFile::anonymous(inode, &name, file, flags);
        // What has no offset refuses, and needs none.
        let _ = open.seek(vfs::SeekFrom::Start(position));
        table.insert(open, false, 0, 3).map_err(BootError::Start)?;
    }
    stdio::watch(watched).map_err(host)?;
    Ok(Arc::new(table))
}

/// Descriptors 0, 1 and 2 on the console.
fn console_files(console: &Arc<Tty>, cred: &Credentials) -> Result<Arc<FdTable>, BootError> {
    let anonymous = AnonFs::anon_inodefs(abi::fs::make_dev(0, 9));
    let attr = AnonAttr { kind: FileType::CharDevice, uid: cred.uid, gid: cred.gid, now: now() };
    let inode = anonymous.inode(Some("console"), attr);
    // Opened by the Sentry: the first process takes the terminal with TIOCSCTTY or its first open.
    let cx = FileContext { cred, pid: 0, tid: 0 };
    let slave = console.open_slave(&cx, OpenFlags::RDWR | OpenFlags::NOCTTY).map_err(BootError::Start)?;
    let open = OpenFile::anonymous(inode, b"/dev/console", Arc::new(slave), OpenFlags::RDWR);
    let table = FdTable::new();
    for _ in 0..3 {
        table.insert(Arc::clone(&open), false, 0, 3).map_err(BootError::Start)?;
    }
    Ok(Arc::new(table))
}

/// The model of the first processor in `/proc/cpuinfo`.
fn cpu_model(text: &str) -> CpuModel {
    let field = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
        values.next().unwrap_or_default().to_owned()
    };
    let number = |name: &str| field(name).split(['.', ' ']).next().and_then(|n| n.parse().ok()).unwrap_or(0);
    CpuModel {
        vendor: field("vendor_id"),
        family: number("cpu family"),
        model: number("model"),
        name: field("model name"),
        stepping: number("stepping"),
        mhz: number("cpu MHz"),
        cache_kib: number("cache size"),
        flags: field("flags"),
    }
}

/// Bytes of memory, from `/proc/meminfo`.
fn memory_of(text: &str) -> u64 {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(1 << 20).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{cpu_model, memory_of};

    #[test]
    fn the_hosts_texts_are_understood() {
        let model = cpu_model(
            "processor\t: 0\nvendor_id\t: X\ncpu family\t: 25\ncpu MHz\t\t: 2400.5\ncache size : 512 KB\n",
        );
        assert_eq!((model.vendor.as_str(), model.family, model.mhz, model.cache_kib), ("X", 25, 2400, 512));
        assert_eq!(memory_of("MemTotal:       1024 kB\n"), 1 << 20);
    }
}
