//! The container's processes as `runsc` controls them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::poll::PollEvents;
use abi::process::WaitStatus;
use abi::signal::{SI_KERNEL, SI_USER, SigInfo, Signal};
use control::metrics::Family;
use control::{EgressConfig, Guest, NetworkConfig, ProcessInfo, Target};
use kernel::group::ThreadGroup;
use kernel::{Kernel, PidNamespace};
use socket::inet::Network;
use sync::wait::Parker;

use crate::boot::{ExitStatus, Process};
use crate::members::Members;
use crate::metrics;
use crate::net::Connector;
use crate::process::{Standard, Starter};
use crate::start::MAX_TASKS;
use crate::tree::Materials;

/// The first process of a container: nobody else can have its pid.
const FIRST: i32 = 1;

/// Waits for the end of a process that no guest process is the parent of, and reaps it. `None` when there
/// is no such process.
pub(crate) fn wait(kernel: &Kernel, tgid: i32) -> Option<ExitStatus> {
    let parker = Parker::new();
    let _waiter = kernel.ended().register(parker.clone(), PollEvents::IN);
    loop {
        if let Some(status) = kernel.reap_orphan(tgid) {
            return Some(exit_status(status));
        }
        kernel.process(tgid)?;
        parker.park(None);
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

/// Answers requests about the processes of one kernel.
pub(crate) struct Processes {
    starter: Arc<Starter>,
    connector: Connector,
    network: Arc<Network>,
    members: Members,
}

impl Processes {
    /// Those that `starter` starts, and their children; others from `materials`.
    pub(crate) fn new(starter: Arc<Starter>, connector: Connector, materials: Arc<Materials>) -> Self {
        let network = Arc::clone(&materials.network);
        Self { members: Members::new(Arc::clone(&starter), materials), starter, connector, network }
    }
}

/// A pid as the kernel has it; one out of range is nobody's.
fn pid(pid: u32) -> i32 {
    i32::try_from(pid).unwrap_or(0)
}

/// What can be done with the processes of one container.
impl Starter {
    fn group(&self, number: i32) -> Result<Arc<ThreadGroup>, String> {
        let group = self.pid_ns.id(number).and_then(|id| self.kernel.process(id));
        group.ok_or_else(|| format!("there is no process {number}"))
    }

    /// Those in its pid namespace, or below.
    fn groups(&self) -> impl Iterator<Item = Arc<ThreadGroup>> {
        let all = self.kernel.processes().into_iter().filter(|id| self.pid_ns.number(*id) != 0);
        all.filter_map(|id| self.kernel.process(id))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, target: Target, signal: u8) -> Result<(), String> {
        let signal = Signal::new(i32::from(signal)).ok_or_else(|| format!("there is no signal {signal}"))?;
        let groups = match target {
            Target::First | Target::Program => vec![self.group(FIRST)?],
            Target::Pid(number) => vec![self.group(pid(number))?],
            Target::All => self.groups().collect(),
        };
        for group in groups {
            let code = if target == Target::Program { SI_KERNEL } else { SI_USER };
            let info = SigInfo::from_sender(signal, code, 0, 0);
            self.kernel.send_to_group(&group, signal, info).map_err(|errno| errno.to_string())?;
        }
        Ok(())
    }

    /// Lists processes but those in a pid namespace that is one of `others`, or below one.
    pub(crate) fn processes(&self, others: &[Arc<PidNamespace>]) -> Vec<ProcessInfo> {
        let info = |group: Arc<ThreadGroup>| {
            let leader = self.kernel.threads(group.tgid()).into_iter().next()?;
            let parent = self.kernel.parent_of(group.tgid());
            Some(ProcessInfo {
                pid: self.pid_ns.number(group.tgid()).unsigned_abs(),
                ppid: self.pid_ns.number(parent).unsigned_abs(),
                uid: leader.cred().uid,
                name: String::from_utf8_lossy(&leader.name()).into_owned(),
            })
        };
        let own = |group: &Arc<ThreadGroup>| !others.iter().any(|other| other.holds(group.pid_ns()));
        self.groups().filter(own).filter_map(info).collect()
    }

    /// Starts another program.
    pub(crate) fn exec(&self, process: &Process, stdio: Vec<OwnedFd>) -> Result<u32, String> {
        let start = || {
            let standard = Standard::new(process, stdio, &self.devpts)?;
            self.start(self.prepare(process, standard)?)
        };
        start()
            .map(|group| group.number().unsigned_abs())
            .map_err(|error: crate::BootError| error.to_string())
    }

    /// Waits for the end of one.
    pub(crate) fn wait(&self, number: u32) -> Result<ExitStatus, String> {
        let id = self.pid_ns.id(pid(number));
        id.and_then(|id| wait(&self.kernel, id)).ok_or_else(|| format!("there is no process {number}"))
    }
}

impl Guest for Processes {
    fn signal(&self, target: Target, signal: u8) -> Result<(), String> {
        self.starter.signal(target, signal)
    }

    fn processes(&self) -> Result<Vec<ProcessInfo>, String> {
        Ok(self.starter.processes(&self.members.pid_namespaces()))
    }

    fn limit_tasks(&self, tasks: Option<u32>) -> Result<(), String> {
        self.starter.kernel.limit_tasks(tasks.map_or(MAX_TASKS, |tasks| tasks as usize));
        Ok(())
    }

    fn exec(&self, process: Process, stdio: Vec<OwnedFd>) -> Result<u32, String> {
        self.starter.exec(&process, stdio)
    }

    fn attach(&self, config: &NetworkConfig, sockets: Vec<OwnedFd>) -> Result<(), String> {
        self.connector.attach(config, sockets)
    }

    fn set_egress(&self, egress: &EgressConfig) -> Result<(), String> {
        self.connector.set_egress(egress)
    }

    fn metrics(&self) -> Vec<Family> {
        metrics::gather(&self.starter.kernel, &self.network)
    }

    fn wait(&self, number: u32) -> Result<ExitStatus, String> {
        self.starter.wait(number)
    }

    fn create(&self, member: control::Member, gofer: Vec<OwnedFd>, fds: Vec<OwnedFd>) -> Result<(), String> {
        self.members.create(&member, gofer, fds)
    }

    fn member(&self, id: &str) -> Option<Arc<dyn Guest>> {
        self.members.find(id)
    }

    fn destroy(&self, id: &str) -> Result<(), String> {
        self.members.destroy(id)
    }
}
