//! The KVM platform: guests in user mode of a virtual machine whose memory the Sentry owns.
//!
//! One virtual machine a sandbox. The Sentry has all of its memory mapped, builds page tables for each address space
//! and resolves faults in them; a guest thread has an OS thread of ours, which runs it on a virtual processor until
//! it makes a call, faults or is stopped, and then runs its handler. There is no code of ours in the machine but
//! `hlt`: a guest that owned ring 0 would reach other guests' memory, but of the host still only exits.
//!
//! - `layout`, `ring0`: what is where, and every byte that the processor reads in ring 0.
//! - `machine`: the device and the machine; how system calls leave it ([`Entrance`](machine::Entrance)).
//! - `slots`, `arena`, `shared`: the machine's memory: frames for anonymous memory, windows into files.
//! - `tables`, `tree`, `fault`, `space`: address spaces: page tables, mappings, demand, and all of it together.
//! - `vcpu`, `pool`, `fpstate`: virtual processors, and who has one.
//! - `process`, `task`, `stopped`, `trap`: guest threads, their exits, and what handlers see.
//! - `calls`: the table of host calls the Sentry makes for this.
//! - `raw`: all unsafe code.
//!
//! A probe guest at the start finds out what the hypervisor does at `syscall`, and that faults arrive.
//!
//! Deliberately absent: interrupts in the guest, so no processor needs a controller; changes of mappings that
//! interrupt other processors (the host's MMU notifier does it, see `slots`); huge pages; 32-bit code. Pages of
//! private file mappings are copied when they are first touched, so two processes that run a program have its text
//! twice, and such a mapping does not see later writes to the file.

mod arena;
mod calls;
mod fault;
mod fpstate;
mod layout;
mod machine;
mod pool;
mod probe;
mod process;
mod raw;
mod ring0;
mod shared;
mod slots;
mod space;
mod stopped;
mod tables;
mod task;
mod trap;
mod tree;
mod vcpu;
mod vdso;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use platform::{AddressSpace, Features, NewThread, Platform, PlatformError};

use crate::arena::Arena;
use crate::machine::Machine;
use crate::pool::Pool;
use crate::process::Process;
use crate::shared::SharedFiles;
use crate::space::Space;
use crate::tables::SystemTables;
use crate::task::{Place, Task};
use crate::vdso::GuestVdso;

pub use calls::HOST_CALLS;
pub use hostproc::HostView;

/// Its name on the command line.
const NAME: &str = "kvm";
/// Where the device is, unless one says otherwise.
pub const DEVICE: &str = "/dev/kvm";

/// What all address spaces share.
struct Shared {
    pool: Pool,
    files: SharedFiles,
    arena: Arc<Arena>,
    machine: Machine,
    view: HostView,
    vdso: Option<GuestVdso>,
    pid: i32,
    /// Spaces by address, to find ours again behind the trait object.
    spaces: Mutex<HashMap<usize, Weak<Space>>>,
    /// All guest threads; `None` once the platform is gone.
    tasks: Mutex<Option<Vec<Weak<Task>>>>,
    /// Who is stopped next when processors are short.
    turn: AtomicUsize,
}

impl Shared {
    fn system(&self) -> &SystemTables {
        &self.machine.system
    }

    /// A thread runs from now on. Whether the platform is still there.
    fn add(&self, task: &Arc<Task>) -> bool {
        let mut tasks = self.tasks.lock();
        tasks.as_mut().map(|tasks| tasks.push(Arc::downgrade(task))).is_some()
    }

    /// It does not any more.
    fn remove(&self, task: &Arc<Task>) {
        if let Some(tasks) = self.tasks.lock().as_mut() {
            tasks.retain(|other| other.as_ptr() != Arc::as_ptr(task));
        }
    }

    /// Makes some thread that runs guest code give its processor up.
    fn poke_one(&self) {
        let tasks: Vec<_> = self.tasks.lock().iter().flatten().filter_map(Weak::upgrade).collect();
        let from = self.turn.fetch_add(1, Ordering::Relaxed) % tasks.len().max(1);
        let _ = tasks.iter().cycle().skip(from).take(tasks.len()).any(|task| task.poke());
    }
}

/// The backend. Guests end with it.
pub struct Kvm {
    shared: Arc<Shared>,
}

impl Kvm {
    /// Makes a machine with the usual device, while the host is there to look at.
    pub fn new() -> Result<Self, PlatformError> {
        let device = File::options().read(true).write(true).open(DEVICE);
        let device = device.map_err(|error| machine::unsupported(format!("{DEVICE}: {error}")))?;
        Self::with(HostView::take(), Some(device.into()), memory())
    }

    /// The same by somebody who has looked around earlier, and has the device open. Guests have at most `memory` bytes
    /// together.
    pub fn with(view: HostView, device: Option<OwnedFd>, memory: u64) -> Result<Self, PlatformError> {
        Self::of(view, device, memory, layout::MAX_CPUS)
    }

    fn of(view: HostView, device: Option<OwnedFd>, memory: u64, most: u64) -> Result<Self, PlatformError> {
        let setting_up = |source| PlatformError::Host { doing: "setting a virtual machine up", source };
        let device = device.ok_or_else(|| machine::unsupported("no device was handed over"))?;
        raw::signal::install().map_err(setting_up)?;
        let mut machine = Machine::new(device, memory)?;
        let mut first = machine.first_cpu()?;
        probe::decide(&mut machine, &mut first)?;
        let clock = probe::has_our_clock(&machine, &mut first).map_err(setting_up)?;
        tracing::debug!(entrance = machine.entrance.describe(), clock, "the virtual machine works");
        let (pool, files) = {
            let fp = machine.fp_facts(&first).map_err(setting_up)?;
            (
                Pool::new(first, machine.cpus_made, machine.cpus.min(most), fp),
                SharedFiles::new(&machine.slots),
            )
        };
        let vdso = if clock { GuestVdso::new(&view, &machine.slots) } else { None };
        let shared = Shared {
            pool,
            files,
            arena: Arc::clone(&machine.arena),
            vdso,
            machine,
            view,
            pid: std::process::id() as i32,
            spaces: Mutex::default(),
            tasks: Mutex::new(Some(Vec::new())),
            turn: AtomicUsize::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// The memory that the host has.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(8 << 20) * 1024
}

impl Drop for Kvm {
    fn drop(&mut self) {
        let tasks = self.shared.tasks.lock().take();
        for task in tasks.iter().flatten().filter_map(Weak::upgrade) {
            task.place().process.kill();
        }
    }
}

impl Platform for Kvm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn features(&self) -> Features {
        let (xsave_size, xcr0) = self.shared.pool.fp;
        Features {
            min_address: layout::MIN_ADDRESS,
            max_address: layout::MAX_ADDRESS,
            native_futex: false,
            xsave_size,
            xcr0,
            host_vdso: self.shared.vdso.is_some(),
        }
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Space::new(&self.shared)?)
    }

    fn spawn(&self, space: &Arc<dyn AddressSpace>, thread: NewThread) -> Result<(), PlatformError> {
        let space = task::ours(&self.shared, space)?;
        let place = Place { space, process: Arc::new(Process::default()) };
        task::start(&self.shared, place, thread, None).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::{DEVICE, HostView, Kvm};
    use platform::conformance;
    use std::fs::File;

    /// As many processors as it takes at least: a guest's threads take turns.
    #[test]
    fn processors_are_shared() {
        let device = File::options().read(true).write(true).open(DEVICE);
        match Kvm::of(HostView::take(), device.ok().map(Into::into), super::memory(), 1) {
            Ok(platform) => conformance::run(&platform),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}
