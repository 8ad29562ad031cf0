//! The virtual machine of a sandbox: the device, what its processors can do, and the system window.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Cap;
use platform::PlatformError;

use crate::NAME;
use crate::arena::{Arena, Frame, NoMemory};
use crate::layout::{ENTRIES, GATE, GDT, GPA_BITS, IDT, MAX_CPUS, NOTHING_GPA, PAGE, cpu_page};
use crate::raw;
use crate::ring0;
use crate::slots::Slots;
use crate::tables::{Rights, SystemTables, Tables};
use crate::vcpu::Vcpu;

/// x87, SSE, AVX, AVX-512 and protection keys: what a plain area of KVM can hold.
const FEATURES: u64 = 0x2e7;
/// Of the only KVM there is (`KVM_GET_API_VERSION`).
const API_VERSION: i32 = 12;
/// Physical address extension, FXSAVE, SIMD exceptions.
const CR4_LEAST: u64 = 0x620;
/// UMIP, FSGSBASE, OSXSAVE, SMEP and SMAP.
const CR4_MORE: u64 = 1 << 11 | 1 << 16 | 1 << 18 | 1 << 20 | 1 << 21;
/// FSGSBASE and OSXSAVE, where the rest is not there.
const CR4_LESS: u64 = 1 << 16 | 1 << 18;

/// How a system call leaves the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// `syscall` enters ring 0 at the gate, which halts: what processors do.
    Halt,
    /// `syscall` goes to the gate *without leaving user mode* (a hypervisor that runs all of its guest there, as
    /// `kvm_pvm`). The gate has nothing behind it, and to run it ends the run.
    Fault,
}

impl Entrance {
    /// In words.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Halt => "system calls enter ring 0",
            Self::Fault => "system calls stay in user mode",
        }
    }
}

/// See the module.
pub(crate) struct Machine {
    pub(crate) slots: Arc<Slots>,
    pub(crate) arena: Arc<Arena>,
    pub(crate) system: SystemTables,
    pub(crate) cpuid: CpuId,
    pub(crate) xcr0: u64,
    pub(crate) cr4: u64,
    pub(crate) entrance: Entrance,
    /// As many pages can be copied in the time of an exit, or more: a power of two.
    pub(crate) copies_an_exit: u64,
    /// `CR3` of tables with nothing but the system window.
    pub(crate) boot_root: u64,
    /// Processors that have been made.
    pub(crate) cpus_made: u64,
    /// Most processors.
    pub(crate) cpus: u64,
    gate: Frame,
}

pub(crate) fn unsupported(reason: impl Into<String>) -> PlatformError {
    PlatformError::Unsupported { platform: NAME, reason: reason.into() }
}

impl From<NoMemory> for io::Error {
    fn from(_: NoMemory) -> Self {
        io::ErrorKind::OutOfMemory.into()
    }
}

impl Machine {
    /// Makes one with `device`, for guests of at most `memory` bytes.
    pub(crate) fn new(device: OwnedFd, memory: u64) -> Result<Self, PlatformError> {
        let device = raw::device::of(device);
        if device.get_api_version() != API_VERSION {
            return Err(unsupported("what was opened is not a device of KVM"));
        }
        for (cap, what) in [
            (Cap::SyncRegs, "registers in shared memory"),
            (Cap::ImmediateExit, "immediate exits"),
            (Cap::SyncMmu, "memory that can be taken away"),
            (Cap::Xcrs, "extended control registers"),
        ] {
            if !device.check_extension(cap) {
                return Err(unsupported(format!("the device has no {what}")));
            }
        }
        let host = |doing| {
            move |e: kvm_ioctls::Error| PlatformError::Host {
                doing,
                source: io::Error::from_raw_os_error(e.errno()),
            }
        };
        let cpuid = device.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(host("asking for features"))?;
        let bits = find(&cpuid, 0x8000_0008, 0).map_or(36, |leaf| leaf.eax & 0xff);
        if bits < GPA_BITS {
            return Err(unsupported(format!("the machine has {bits} address bits only")));
        }
        let xcr0 = find(&cpuid, 0xd, 0).map_or(7, |leaf| u64::from(leaf.eax)) & FEATURES | 3;
        let vm = device.create_vm().map_err(host("making a virtual machine"))?;
        let cpus = (device.get_max_vcpus() as u64).min(MAX_CPUS);
        let setting_up = |source| PlatformError::Host { doing: "setting a virtual machine up", source };
        let slots = Arc::new(Slots::new(vm).map_err(setting_up)?);
        let arena = Arc::new(Arena::new(&slots, memory).map_err(setting_up)?);
        let system = SystemTables::new(&arena)?;
        let gate = arena.take_one()?;
        let boot_root = Tables::new(&arena, &system)?.root();
        let entrance = Entrance::Fault;
        let cr4 = CR4_LEAST | CR4_MORE;
        let machine = Self {
            slots,
            arena,
            system,
            cpuid,
            xcr0,
            cr4,
            entrance,
            copies_an_exit: 1,
            boot_root,
            cpus_made: 0,
            cpus,
            gate,
        };
        machine.lay_out().map_err(setting_up)?;
        Ok(machine)
    }

    /// Writes what the processor needs into the system window.
    fn lay_out(&self) -> io::Result<()> {
        for (at, bytes) in [(IDT, ring0::idt()), (GDT, ring0::gdt()), (ENTRIES, ring0::entries())] {
            let frame = self.arena.take_one()?;
            self.arena.write(frame, 0, &bytes).ok_or(NoMemory)?;
            self.system.map(at, frame, None)?;
        }
        self.arena.write(self.gate, 0, &ring0::gate()).ok_or(NoMemory)?;
        Ok(self.open_gate()?)
    }

    fn open_gate(&self) -> Result<(), NoMemory> {
        match self.entrance {
            Entrance::Halt => self.system.map(GATE, self.gate, None),
            Entrance::Fault => {
                let run = Rights { read: true, write: false, exec: true };
                self.system.map_foreign(GATE, NOTHING_GPA, run)
            }
        }
    }

    /// Changes how system calls leave. Nothing may have run but the probe's guest.
    pub(crate) fn set_entrance(&mut self, entrance: Entrance) -> io::Result<()> {
        self.entrance = entrance;
        self.open_gate()?;
        self.slots.forget_tables()
    }

    /// Makes the first processor, with as many of the features as there are.
    pub(crate) fn first_cpu(&mut self) -> Result<Vcpu, PlatformError> {
        let doing = "making a virtual processor";
        let mut cpu = None;
        for more in [CR4_MORE, CR4_LESS] {
            self.cr4 = CR4_LEAST | more;
            self.cpus_made += 1;
            match Vcpu::new(self, self.cpus_made - 1) {
                Ok(made) => {
                    cpu = Some(made);
                    break;
                }
                Err(error) => tracing::debug!(%error, cr4 = self.cr4, "the machine refuses"),
            }
        }
        cpu.ok_or(PlatformError::Host { doing, source: io::ErrorKind::Unsupported.into() })
    }

    /// Makes page and task state of processor `index`.
    pub(crate) fn cpu_frame(&self, index: u64) -> io::Result<Frame> {
        let frame = self.arena.take_one()?;
        self.arena.write(frame, 0, &ring0::task_state(cpu_page(index))).ok_or(NoMemory)?;
        self.system.map(cpu_page(index), frame, None)?;
        Ok(frame)
    }

    /// Bytes of floating-point state, and the features in it that `cpu` keeps.
    pub(crate) fn fp_facts(&self, cpu: &Vcpu) -> io::Result<(usize, u64)> {
        let kept = match cpu.features()? & FEATURES {
            0 => self.xcr0,
            kept => kept,
        };
        Ok((platform::xstate::size(kept).min(PAGE as usize), kept))
    }
}

fn find(cpuid: &CpuId, function: u32, index: u32) -> Option<&kvm_bindings::kvm_cpuid_entry2> {
    cpuid.as_slice().iter().find(|entry| entry.function == function && entry.index == index)
}
