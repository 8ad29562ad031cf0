//! Puts the kernel together and runs the container's first process.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{SystemTime, UNIX_EPOCH};

use abi::Errno;
use abi::time::Timespec;
use control::{Begin, Server};
use devfs::Devpts;
use hostproc::HostView;
use kernel::kernel::{Kernel, Parts};
use loader::CpuFacts;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use procfs::CpuModel;
use socket::inet::Network;
use syscalls::dispatch::X86Calls;
use syscalls::services::Machine;

use crate::boot::{BootConfig, ExitStatus};
use crate::guest::{self, Processes};
use crate::jobs::Jobs;
use crate::memory::HostMemory;
use crate::net::Connector;
use crate::platforms::{self, Chosen, Means, Paths};
use crate::process::{self, Standard, Starter};
use crate::random::HostRandom;
use crate::services::services;
use crate::tree::{self, Materials, Own};
use crate::watch::Watcher;
use crate::{BootError, Confinement, Inherited, seccomp};

/// Most tasks of a container that sets no limit.
pub(crate) const MAX_TASKS: usize = 32_768;

/// What must be gathered while the host's root is still there: call before `pivot_root`.
pub struct Early {
    random: Arc<HostRandom>,
    cpu: CpuFacts,
    model: CpuModel,
    memory: u64,
    host: HostView,
}

impl Early {
    /// Opens and reads it.
    ///
    /// # Errors
    /// When the host's random generator cannot be opened.
    pub fn gather() -> Result<Self, BootError> {
        raise_descriptor_limit();
        let random =
            HostRandom::open().map_err(|source| BootError::Host { doing: "opening /dev/urandom", source })?;
        let model = cpu_model(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
        let memory = memory_of(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default());
        Ok(Self { random: Arc::new(random), cpu: CpuFacts::of_host(), model, memory, host: HostView::take() })
    }

    /// Looks into `/proc` again, because there is one of our own pid namespace now.
    pub fn look_at_own_proc(&mut self) {
        self.host = HostView::take();
    }
}

/// As many descriptors as the host lets us have: files of guests, their processes and virtual processors take them,
/// and the limit that a guest sees is its own.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of descriptors stays");
    }
}

/// Runs the container of `config` until its first process ends.
///
/// # Errors
/// Whatever keeps the first process from starting; each names the thing.
pub fn run(
    config: &BootConfig,
    inherited: Inherited,
    early: &Early,
    confinement: Confinement,
) -> Result<ExitStatus, BootError> {
    let memory = config.resources.memory.map_or(early.memory, |memory| memory.min(early.memory));
    let means = Means {
        view: early.host.clone(),
        paths: if config.fast_path { Paths::All } else { Paths::Slow },
        device: inherited.device,
        memory,
    };
    let Chosen { platform, host_calls } = platforms::choose(&config.platform, means)?;
    let syscalls = X86Calls::new();
    let kernel = Kernel::new(Parts {
        platform,
        syscalls: syscalls.clone(),
        max_tasks: config.resources.tasks.map_or(MAX_TASKS, |tasks| tasks as usize),
    });
    if let Err(errno) = kernel.uts().set_hostname(config.hostname.as_bytes()) {
        return Err(BootError::Hostname { name: config.hostname.clone(), errno });
    }
    let gofer = tree::gofer_client(inherited.gofer).map_err(BootError::Gofer)?;
    let jobs = Jobs::new(&kernel);
    let devpts = Devpts::new(jobs.clone());
    let standard = Standard::new(&config.process, inherited.stdio, &devpts)?;
    let network = Network::loopback();
    if config.net_raw {
        network.allow_raw(Arc::new(HostMemory));
    }
    let materials = Arc::new(Materials {
        network: Arc::clone(&network),
        kernel: Arc::clone(&kernel),
        jobs: jobs.clone(),
        devpts: Arc::clone(&devpts),
        random: early.random.clone(),
        cpu: early.model.clone(),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory,
        memory_limited: config.resources.memory.is_some_and(|memory| memory < early.memory),
        now: now(),
        devices: AtomicU32::new(0),
    });
    let own = Own { gofer, console: standard.console(), pid_ns: Arc::clone(kernel.pid_ns()) };
    let (namespace, _) = tree::build(config, &materials, &own)?;
    let machine = Machine { cpus: materials.cpus, memory: materials.memory };
    let connector = Connector::new(Arc::clone(&network), early.random.clone());
    let connector = connector.map_err(|source| BootError::Host { doing: "making an eventfd", source })?;
    syscalls.provide(services(&materials, early.random.clone(), early.cpu, machine, network));
    let random = early.random.clone();
    let watcher = Watcher::start()
        .map_err(|source| BootError::Host { doing: "starting the watch over host descriptors", source })?;
    let starter = Arc::new(Starter {
        profile: process::profile(&config.seccomp)?,
        pid_ns: own.pid_ns,
        kernel,
        namespace,
        devpts,
        random,
        cpu: early.cpu,
        watcher,
    });
    let prepared = starter.prepare(&config.process, standard)?;
    if confinement == Confinement::LockedIn {
        seccomp::lock_in(host_calls)?;
    }
    let control = inherited.control.map(Server::new).transpose()?;
    if let Some(control) = &control {
        control.created(Arc::new(Processes::new(Arc::clone(&starter), connector, materials)));
        if let Begin::Killed(signal) = control.wait_for_start() {
            let status = ExitStatus::Signaled(signal);
            control.ended(status);
            return Ok(status);
        }
    }
    let group = starter.start(prepared)?;
    let status = guest::wait(&starter.kernel, group.tgid()).ok_or(BootError::Start(Errno::ECHILD))?;
    if let Some(control) = &control {
        control.ended(status);
    }
    Ok(status)
}

/// The time of day.
pub(crate) fn now() -> Timespec {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().into()
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
