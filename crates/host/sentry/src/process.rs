//! Getting a process ready to run, the container's first or one that joins: credentials, files, program.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use abi::limits::{Limits, Resource, Rlimit};
use abi::process::WaitStatus;
use abi::signal::Signal;
use anonfs::inode::{AnonAttr, AnonFs};
use bpf::{Insn, Program};
use cred::{CapSet, Credentials};
use devfs::{Devpts, Tty};
use guestmem::VecSink;
use kernel::FilterScope;
use kernel::files::SharedFs;
use kernel::group::ThreadGroup;
use kernel::kernel::{FirstProcess, Kernel};
use kernel::{PidNamespace, Task};
use loader::{Arguments, CpuFacts, ExecFile, Ids, LoadRequest, Loaded, OpenedFile, Opener};
use mm::{Memfds, MmLimits};
use platform::Registers;
use vfs::{Access, Caller, FdTable, FileContext, FsContext, MountNamespace, OpenFile, VfsPath, WalkFlags};

use crate::boot::Process;
use crate::random::HostRandom;
use crate::start::now;
use crate::stdio::HostFile;
use crate::watch::Watcher;
use crate::{BootError, console};

/// What processes are made from.
pub(crate) struct Starter {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) namespace: Arc<MountNamespace>,
    pub(crate) pid_ns: Arc<PidNamespace>,
    pub(crate) devpts: Arc<Devpts>,
    pub(crate) random: Arc<HostRandom>,
    pub(crate) cpu: CpuFacts,
    pub(crate) watcher: Arc<Watcher>,
    /// What its processes may not call.
    pub(crate) profile: Option<Program>,
}

/// The filter that a configuration has.
pub(crate) fn profile(words: &[u64]) -> Result<Option<Program>, BootError> {
    let insns: Vec<Insn> = words.iter().copied().map(Insn::from_word).collect();
    if insns.is_empty() { Ok(None) } else { Ok(Some(Program::new(insns)?)) }
}

/// Where the standard descriptors of a process lead.
pub(crate) enum Standard {
    /// To a terminal of the guest; those after the third to descriptors of the host.
    Console(Arc<Tty>, Vec<OwnedFd>),
    /// To descriptors of the host.
    Host(Vec<OwnedFd>),
}

impl Standard {
    /// What `process` asks for; a console carries bytes from now on.
    pub(crate) fn new(process: &Process, fds: Vec<OwnedFd>, devpts: &Devpts) -> Result<Self, BootError> {
        if !process.terminal {
            return Ok(Self::Host(fds));
        }
        let mut fds = fds.into_iter();
        let (Some(input), Some(output)) = (fds.next(), fds.next()) else {
            return Err(BootError::Start(Errno::EBADF));
        };
        Ok(Self::Console(
            console::start(input, output, devpts, &credentials(process))?,
            fds.skip(1).collect(),
        ))
    }

    /// The terminal, if it is one.
    pub(crate) fn console(&self) -> Option<Arc<Tty>> {
        match self {
            Self::Console(console, _) => Some(Arc::clone(console)),
            Self::Host(_) => None,
        }
    }
}

/// A process that has only to be started.
pub(crate) struct Prepared {
    first: FirstProcess,
    console: Option<Arc<Tty>>,
    oom_score_adj: Option<i32>,
}

impl Starter {
    /// Does everything that can fail for reasons a caller can mend.
    pub(crate) fn prepare(&self, process: &Process, standard: Standard) -> Result<Prepared, BootError> {
        let mut context = FsContext::new(&self.namespace);
        context.umask = process.umask;
        let cred = Arc::new(credentials(process));
        enter(&mut context, process, &cred)?;
        let limits = limits(process)?;
        let env = with_home(process, &context, &cred);
        let (loaded, exe) = self.load(&Process { env, ..process.clone() }, &context, &cred, &limits)?;
        let console = standard.console();
        let fds = match standard {
            Standard::Console(console, more) => {
                let table = console_files(&console, &context, &cred)?;
                host_files(&table, more, &self.watcher)?;
                Arc::new(table)
            }
            Standard::Host(fds) => {
                let table = FdTable::new();
                host_files(&table, fds, &self.watcher)?;
                Arc::new(table)
            }
        };
        let first = FirstProcess {
            mm: Arc::clone(&loaded.mm),
            registers: Registers::entry(loaded.ip, loaded.sp),
            fds,
            fs: SharedFs::new(context),
            cred,
            limits,
            name: loaded.command.clone(),
            exe: Some(exe),
            pid_ns: Arc::clone(&self.pid_ns),
        };
        Ok(Prepared { first, console, oom_score_adj: process.oom_score_adj })
    }

    /// Starts it.
    pub(crate) fn start(&self, prepared: Prepared) -> Result<Arc<ThreadGroup>, BootError> {
        let Prepared { first, console, oom_score_adj } = prepared;
        let cred = Arc::clone(&first.cred);
        let ready = |task: &Arc<Task>| {
            if let Some(value) = oom_score_adj {
                task.group().set_oom_score_adj(value);
            }
            if let Some(profile) = self.profile.clone()
                && let Err(error) = task.add_seccomp_filter(profile, FilterScope::Thread)
            {
                // Cannot be: the task has no filter yet, and a profile is shorter than all of them may be.
                tracing::error!(%error, "the profile is not set; the process is ended");
                self.kernel.end_group(task.group(), WaitStatus::Signaled(Signal::SIGKILL, false));
            }
            // As a login does: the first process leads a session on its terminal.
            let cx = FileContext { cred: &cred, pid: task.tgid(), tid: task.tid() };
            let opened = console.as_ref().map(|console| console.open_slave(&cx, OpenFlags::RDWR));
            if let Some(Err(errno)) = opened {
                tracing::warn!(%errno, "the first process has no controlling terminal");
            }
        };
        self.kernel.start_process(first, ready).map_err(BootError::Start)
    }

    /// Finds the program as `execvp(3)` does, and loads it.
    fn load(
        &self,
        process: &Process,
        context: &FsContext,
        cred: &Arc<Credentials>,
        limits: &Limits,
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
        let platform = self.kernel.platform();
        let features = platform.features();
        let request = LoadRequest {
            space: platform.new_address_space()?,
            features: &features,
            shared_memory: Memfds::new(),
            limits: MmLimits::from_limits(limits),
            opener: &programs,
            ids: Ids::of(cred),
            cpu: self.cpu,
            entropy: self.random.entropy().map_err(fail)?,
        };
        let loaded = loader::load(program, request).map_err(|error| fail(error.into()))?;
        let exe = programs.locate(&loaded.exe.path()).map_err(fail)?;
        Ok((loaded, exe))
    }
}

/// What a process has once it has executed a program with the sets of the spec (`capabilities(7)`).
fn credentials(process: &Process) -> Credentials {
    let set = CapSet::from_bits_truncate;
    let (bounding, inheritable) = (set(process.capabilities), set(process.inheritable));
    let ambient = set(process.ambient) & inheritable & bounding;
    let all = if process.uid == 0 { inheritable | bounding } else { ambient };
    let mut groups = process.groups.clone();
    groups.sort_unstable();
    Credentials {
        groups: groups.into(),
        permitted: all,
        effective: all,
        inheritable,
        bounding,
        ambient,
        no_new_privs: process.no_new_privs,
        ..Credentials::user(process.uid, process.gid)
    }
}

/// Most bytes of a file of users that are looked at.
const MAX_USERS: usize = 1 << 20;

/// Adds the home directory of the user, when the environment has none, as other runtimes do.
fn with_home(process: &Process, context: &FsContext, cred: &Credentials) -> Vec<String> {
    let mut env = process.env.clone();
    // An empty one counts as none.
    if !env.iter().any(|variable| variable.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        env.retain(|variable| variable != "HOME=");
        let home =
            users(context, cred).as_deref().and_then(|text| home_of(text, process.uid).map(str::to_owned));
        env.push(format!("HOME={}", home.as_deref().unwrap_or("/")));
    }
    env
}

fn users(context: &FsContext, cred: &Credentials) -> Option<String> {
    let cx = FileContext { cred, pid: 1, tid: 1 };
    let found = Caller::new(context, cx).lookup(b"/etc/passwd", WalkFlags::FOLLOW).ok()?;
    if found.inode().attr().ok()?.kind != FileType::Regular {
        return None;
    }
    let file = found.inode().open(&cx, OpenFlags::empty()).ok()?;
    let mut sink = VecSink::new(MAX_USERS);
    loop {
        let at = sink.bytes.len() as u64;
        if file.read(&cx, at, &mut sink).ok()? == 0 {
            return Some(String::from_utf8_lossy(&sink.bytes).into_owned());
        }
    }
}

/// The home directory of a user in a text like `/etc/passwd` (`passwd(5)`).
fn home_of(text: &str, uid: u32) -> Option<&str> {
    fn home(line: &str, uid: u32) -> Option<&str> {
        let mut fields = line.split(':').skip(2);
        let number: u32 = fields.next()?.parse().ok()?;
        if number == uid { fields.nth(2) } else { None }
    }
    text.lines().find_map(|line| home(line, uid)).filter(|home| !home.is_empty())
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

/// Most descriptors that a process starts with.
const MAX_FILES: u64 = 64;

/// Descriptors of the host, at the first numbers that are free.
fn host_files(table: &FdTable, fds: Vec<OwnedFd>, watcher: &Arc<Watcher>) -> Result<(), BootError> {
    let host = |source| BootError::Host { doing: "taking over standard input and output", source };
    let anonymous = AnonFs::anon_inodefs(abi::fs::make_dev(0, 9));
    let mut taken: Vec<(Arc<HostFile>, Arc<OpenFile>)> = Vec::new();
    for fd in fds {
        let file = HostFile::new(fd, watcher).map_err(host)?;
        // Output and errors into one file must not write over each other.
        if let Some((_, open)) = taken.iter().find(|(other, _)| other.shares_offset(&file)) {
            table.insert(Arc::clone(open), false, 0, MAX_FILES).map_err(BootError::Start)?;
            continue;
        }
        let attr = AnonAttr { kind: file.kind(), uid: 0, gid: 0, now: now() };
        let inode = anonymous.inode(Some("host"), attr);
        let name = inode.name();
        let flags = file.flags();
        let position = file.position();
        let open = OpenFile::anonymous(inode, &name, file.clone(), flags);
        // What has no offset refuses, and needs none.
        let _ = open.seek(vfs::SeekFrom::Start(position));
        taken.push((file, Arc::clone(&open)));
        table.insert(open, false, 0, MAX_FILES).map_err(BootError::Start)?;
    }
    Ok(())
}

/// Descriptors 0, 1 and 2 on the console: by its name in `/dev/pts`, where that is mounted.
fn console_files(console: &Arc<Tty>, context: &FsContext, cred: &Credentials) -> Result<FdTable, BootError> {
    // Opened by the Sentry: the first process takes the terminal with TIOCSCTTY or its first open.
    let cx = FileContext { cred, pid: 0, tid: 0 };
    let name = format!("/dev/pts/{}", console.index());
    let found = Caller::new(context, cx).lookup(name.as_bytes(), WalkFlags::FOLLOW);
    let found = found.ok().filter(|found| found.inode().attr().is_ok_and(|attr| attr.rdev == console.rdev()));
    let slave = console.open_slave(&cx, OpenFlags::RDWR | OpenFlags::NOCTTY).map_err(BootError::Start)?;
    let slave = Arc::new(slave);
    let open = match found {
        Some(found) => OpenFile::new(found, slave, OpenFlags::RDWR),
        None => {
            let attr = AnonAttr { kind: FileType::CharDevice, uid: cred.uid, gid: cred.gid, now: now() };
            let inode = AnonFs::anon_inodefs(abi::fs::make_dev(0, 9)).inode(Some("console"), attr);
            OpenFile::anonymous(inode, b"/dev/console", slave, OpenFlags::RDWR)
        }
    };
    let table = FdTable::new();
    for _ in 0..3 {
        table.insert(Arc::clone(&open), false, 0, 3).map_err(BootError::Start)?;
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::home_of;

    #[test]
    fn homes_are_those_of_the_file() {
        let text = "root:x:0:0:root:/root:/bin/sh\nodd\nuser:x:7:7::/home/u:/bin/sh\nnone:x:8:8:::\n";
        assert_eq!((home_of(text, 0), home_of(text, 7)), (Some("/root"), Some("/home/u")));
        assert_eq!((home_of(text, 8), home_of(text, 9)), (None, None));
    }
}
