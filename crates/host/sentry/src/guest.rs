//! The container's processes as `runsc` controls them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::poll::PollEvents;
use abi::process::WaitStatus;
use abi::signal::{SI_KERNEL, SI_USER, SigInfo, Signal};
use control::{Guest, NetworkConfig, ProcessInfo, Target};
use kernel::Kernel;
use kernel::group::ThreadGroup;
use sync::wait::Parker;

use crate::boot::{ExitStatus, Process};
use crate::net::Connector;
use crate::process::{Standard, Starter};
use crate::start::MAX_TASKS;

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
}

impl Processes {
    /// Those that `starter` starts, and their children.
    pub(crate) fn new(starter: Arc<Starter>, connector: Connector) -> Self {
        Self { starter, connector }
    }

    fn group(&self, pid: i32) -> Result<Arc<ThreadGroup>, String> {
        self.starter.kernel.process(pid).ok_or_else(|| format!("there is no process {pid}"))
    }
}

/// A pid as the kernel has it; one out of range is nobody's.
fn pid(pid: u32) -> i32 {
    i32::try_from(pid).unwrap_or(0)
}

impl Guest for Processes {
    fn signal(&self, target: Target, signal: u8) -> Result<(), String> {
        let kernel = &self.starter.kernel;
        let signal = Signal::new(i32::from(signal)).ok_or_else(|| format!("there is no signal {signal}"))?;
        let groups = match target {
            Target::First | Target::Program => vec![self.group(FIRST)?],
            Target::Pid(number) => vec![self.group(pid(number))?],
            Target::All => kernel.processes().into_iter().filter_map(|pid| kernel.process(pid)).collect(),
        };
        for group in groups {
            let code = if target == Target::Program { SI_KERNEL } else { SI_USER };
            let info = SigInfo::from_sender(signal, code, 0, 0);
            kernel.send_to_group(&group, signal, info).map_err(|errno| errno.to_string())?;
        }
        Ok(())
    }

    fn processes(&self) -> Result<Vec<ProcessInfo>, String> {
        let kernel = &self.starter.kernel;
        let info = |tgid: i32| {
            let leader = kernel.threads(tgid).into_iter().next()?;
            Some(ProcessInfo {
                pid: tgid.unsigned_abs(),
                ppid: kernel.parent_of(tgid).unsigned_abs(),
                uid: leader.cred().uid,
                name: String::from_utf8_lossy(&leader.name()).into_owned(),
            })
        };
        Ok(kernel.processes().into_iter().filter_map(info).collect())
    }

    fn limit_tasks(&self, tasks: Option<u32>) -> Result<(), String> {
        self.starter.kernel.limit_tasks(tasks.map_or(MAX_TASKS, |tasks| tasks as usize));
        Ok(())
    }

    fn exec(&self, process: Process, stdio: Vec<OwnedFd>) -> Result<u32, String> {
        let starter = &self.starter;
        let start = || {
            let standard = Standard::new(&process, stdio, &starter.devpts)?;
            starter.start(starter.prepare(&process, standard)?)
        };
        start().map(|group| group.tgid().unsigned_abs()).map_err(|error: crate::BootError| error.to_string())
    }

    fn attach(&self, config: &NetworkConfig, sockets: Vec<OwnedFd>) -> Result<(), String> {
        self.connector.attach(config, sockets)
    }

    fn wait(&self, number: u32) -> Result<ExitStatus, String> {
        wait(&self.starter.kernel, pid(number)).ok_or_else(|| format!("there is no process {number}"))
    }
}
