//! The containers of a pod beside the first: each with a root of its own behind a Gofer of its own, and pid and
//! mount namespaces of its own; network, IPC and host name are the sandbox's.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use control::{ExitStatus, Guest, NetworkConfig, Process, ProcessInfo, Target};
use kernel::PidNamespace;

use crate::boot::BootConfig;
use crate::guest;
use crate::process::{self, Prepared, Standard, Starter};
use crate::tree::{self, Materials, Own};

/// Most containers beside the first.
const MAX_MEMBERS: usize = 256;
/// Stack of a thread that waits for the end of one, in bytes.
const STACK_SIZE: usize = 128 << 10;

/// All there are.
pub(crate) struct Members {
    first: Arc<Starter>,
    materials: Arc<Materials>,
    all: Mutex<BTreeMap<String, Arc<Member>>>,
}

/// One of them.
struct Member {
    starter: Starter,
    life: Mutex<Life>,
    changed: Condvar,
}

/// Where it is in its life.
enum Life {
    Created(Box<Prepared>),
    Running,
    Ended(ExitStatus),
}

/// Nothing that holds these locks panics, so that a poisoned one is as good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Members {
    /// None yet, in the sandbox that `first` is the first container of.
    pub(crate) fn new(first: Arc<Starter>, materials: Arc<Materials>) -> Self {
        Self { first, materials, all: Mutex::default() }
    }

    /// Their pid namespaces.
    pub(crate) fn pid_namespaces(&self) -> Vec<Arc<PidNamespace>> {
        lock(&self.all).values().map(|member| Arc::clone(&member.starter.pid_ns)).collect()
    }

    /// One of them.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<dyn Guest>> {
        lock(&self.all).get(id).map(|member| Arc::clone(member) as Arc<dyn Guest>)
    }

    /// Makes one, short of running its program.
    pub(crate) fn create(
        &self,
        wanted: &control::Member,
        gofer: Vec<OwnedFd>,
        stdio: Vec<OwnedFd>,
    ) -> Result<(), String> {
        {
            let all = lock(&self.all);
            if all.contains_key(&wanted.id) {
                return Err(format!("there is a container {:?} already", wanted.id));
            }
            if all.len() >= MAX_MEMBERS {
                return Err("there are too many containers in the sandbox".into());
            }
        }
        let config: BootConfig = serde_json::from_str(&wanted.config).map_err(|error| error.to_string())?;
        let (starter, prepared) = self.make(&config, gofer, stdio).map_err(|error| error.to_string())?;
        let life = Mutex::new(Life::Created(Box::new(prepared)));
        let member = Arc::new(Member { starter, life, changed: Condvar::new() });
        let old = lock(&self.all).insert(wanted.id.clone(), member);
        drop(old);
        Ok(())
    }

    fn make(
        &self,
        config: &BootConfig,
        gofer: Vec<OwnedFd>,
        stdio: Vec<OwnedFd>,
    ) -> Result<(Starter, Prepared), crate::BootError> {
        let first = &self.first;
        let gofer = tree::gofer_client(gofer).map_err(crate::BootError::Gofer)?;
        let pid_ns = PidNamespace::below(first.kernel.pid_ns()).map_err(crate::BootError::Start)?;
        let standard = Standard::new(&config.process, stdio, &first.devpts)?;
        let own = Own { gofer, console: standard.console(), pid_ns: Arc::clone(&pid_ns) };
        let (namespace, _) = tree::build(config, &self.materials, &own)?;
        let starter = Starter {
            kernel: Arc::clone(&first.kernel),
            namespace,
            pid_ns,
            devpts: Arc::clone(&first.devpts),
            random: Arc::clone(&first.random),
            cpu: first.cpu,
            watcher: Arc::clone(&first.watcher),
            profile: process::profile(&config.seccomp)?,
        };
        let prepared = starter.prepare(&config.process, standard)?;
        Ok((starter, prepared))
    }

    /// Ends one, if it runs, and forgets it; nothing when there is none.
    pub(crate) fn destroy(&self, id: &str) -> Result<(), String> {
        let member = lock(&self.all).remove(id);
        match member {
            // Its processes' end is waited for, as its Gofer goes with it.
            Some(member) if member.end() => member.wait_for_first().map(drop),
            _ => Ok(()),
        }
    }
}

impl Member {
    /// Kills it; false when it does not run, and never will.
    fn end(&self) -> bool {
        let mut life = lock(&self.life);
        match &*life {
            Life::Created(_) => {
                *life = Life::Ended(ExitStatus::Signaled(9));
                drop(life);
                self.changed.notify_all();
                false
            }
            Life::Running => {
                drop(life);
                // It may have ended meanwhile.
                let _ = self.starter.signal(Target::First, 9);
                true
            }
            Life::Ended(_) => false,
        }
    }

    fn begin(self: &Arc<Self>) -> Result<(), String> {
        let prepared = {
            let mut life = lock(&self.life);
            match std::mem::replace(&mut *life, Life::Running) {
                Life::Created(prepared) => prepared,
                other => {
                    *life = other;
                    return Err("the container was started already".into());
                }
            }
        };
        let started = self.starter.start(*prepared).map_err(|error| error.to_string());
        let id = match started {
            Ok(group) => group.tgid(),
            Err(error) => {
                self.ended(ExitStatus::Signaled(9));
                return Err(error);
            }
        };
        let member = Arc::clone(self);
        let body = move || {
            let status = guest::wait(&member.starter.kernel, id).unwrap_or(ExitStatus::Signaled(9));
            member.ended(status);
        };
        let thread = std::thread::Builder::new().name("container".into()).stack_size(STACK_SIZE);
        thread.spawn(body).map(drop).map_err(|error| format!("a thread: {error}"))
    }

    fn ended(&self, status: ExitStatus) {
        *lock(&self.life) = Life::Ended(status);
        self.changed.notify_all();
    }
}

impl Guest for Member {
    fn signal(&self, target: Target, signal: u8) -> Result<(), String> {
        let created = matches!(*lock(&self.life), Life::Created(_));
        match (created, signal) {
            (false, _) => self.starter.signal(target, signal),
            (true, 9 | 15) => {
                self.end();
                Ok(())
            }
            (true, _) => Ok(()),
        }
    }

    fn processes(&self) -> Result<Vec<ProcessInfo>, String> {
        Ok(self.starter.processes(&[]))
    }

    fn exec(&self, process: Process, fds: Vec<OwnedFd>) -> Result<u32, String> {
        if !matches!(*lock(&self.life), Life::Running) {
            return Err("the container does not run".into());
        }
        self.starter.exec(&process, fds)
    }

    fn limit_tasks(&self, _tasks: Option<u32>) -> Result<(), String> {
        Err("tasks are limited for the whole sandbox".into())
    }

    fn attach(&self, _config: &NetworkConfig, _sockets: Vec<OwnedFd>) -> Result<(), String> {
        Err("the network is the sandbox's".into())
    }

    fn wait(&self, pid: u32) -> Result<ExitStatus, String> {
        self.starter.wait(pid)
    }

    fn start(self: Arc<Self>) -> Result<(), String> {
        self.begin()
    }

    fn wait_for_first(&self) -> Result<ExitStatus, String> {
        let mut life = lock(&self.life);
        loop {
            if let Life::Ended(status) = *life {
                return Ok(status);
            }
            life = self.changed.wait(life).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
