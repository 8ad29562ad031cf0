//! One virtual processor, and how a guest runs on it.
//!
//! All general registers are loaded at each entry and stored at each exit in the page shared with the host
//! (`KVM_CAP_SYNC_REGS`), segments and `CR3` only when they are not what they should be: after an exception, which
//! ends in ring 0, when the space is another, or the guest's bases are.

use std::io;
use std::sync::Arc;

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_xcr, kvm_xcrs};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd};
use platform::Registers;
use platform::regs::{USER_CS, USER_SS};

use crate::arena::{Arena, Frame};
use crate::fpstate;
use crate::layout::{GATE, GDT, IDT, PAGE, RING0_CS, RING0_SS, TASK, USER_END, cpu_page};
use crate::machine::{Entrance, Machine};
use crate::raw::cpu::{Stop, Stopping, set_clock_offset, set_xsave};
use crate::ring0::{self, Frame as Interrupted, GDT_LIMIT, IDT_LIMIT, TASK_LIMIT};

const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const SFMASK: u32 = 0xc000_0084;
/// Flags that `syscall` clears: trap, interrupt, direction, I/O level, nested task, alignment check.
const CLEARED: u64 = 0x4_7700;
/// Protected mode, monitor, extension type, numeric error, write protect, alignment mask, paging.
const CR0: u64 = 0x8005_0033;
/// Long mode, enabled and active; `syscall`; no-execute.
const EFER: u64 = 0xd01;

/// How a guest came back.
#[derive(Debug)]
pub(crate) enum Exit {
    /// It makes a call.
    Call,
    /// The processor took an exception.
    Exception {
        /// Which.
        vector: u64,
        /// Its error code.
        code: u64,
        /// `CR2`, for a page fault.
        cr2: u64,
    },
    /// It was stopped.
    Stopped,
    /// It touched memory that the machine has, but that has nothing behind it.
    Nothing,
    /// Something that cannot be, and what.
    Broken(String),
}

/// See the module.
pub(crate) struct Vcpu {
    fd: VcpuFd,
    stop: Stop,
    arena: Arc<Arena>,
    page: Frame,
    entrance: Entrance,
    /// What it should have.
    sregs: kvm_sregs,
    /// It has something else.
    stale: bool,
}

fn host(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

impl Vcpu {
    /// Number `index` of a machine.
    pub(crate) fn new(machine: &Machine, index: u64) -> io::Result<Self> {
        let mut fd = machine.slots.vm().create_vcpu(index).map_err(host)?;
        let page = machine.cpu_frame(index)?;
        fd.set_cpuid2(&machine.cpuid).map_err(host)?;
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..kvm_xcrs::default() };
        if let Some(first) = xcrs.xcrs.first_mut() {
            *first = kvm_xcr { xcr: 0, value: machine.xcr0, ..kvm_xcr::default() };
        }
        let mut sregs = fd.get_sregs().map_err(host)?;
        fill(&mut sregs, cpu_page(index));
        sregs.cr4 = machine.cr4;
        sregs.cr3 = machine.boot_root;
        fd.set_sregs(&sregs).map_err(host)?;
        fd.set_xcrs(&xcrs).map_err(host)?;
        let star = u64::from(RING0_CS) << 32 | ((USER_CS - 16) | 3) << 48;
        let msr = |index, data| kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
        let entries = [msr(STAR, star), msr(LSTAR, GATE), msr(SFMASK, CLEARED)];
        let msrs = Msrs::from_entries(&entries).map_err(|_| io::ErrorKind::OutOfMemory)?;
        if fd.set_msrs(&msrs).map_err(host)? != entries.len() {
            return Err(io::Error::other("the machine refuses a register of syscall"));
        }
        same_clock(&fd);
        fd.set_sync_valid_reg(SyncReg::Register);
        fd.set_sync_valid_reg(SyncReg::SystemRegister);
        let (stop, arena, entrance) = (Stop::of(&mut fd), Arc::clone(&machine.arena), machine.entrance);
        Ok(Self { fd, stop, arena, page, entrance, sregs, stale: true })
    }

    /// The flag by which it comes back at once. Must not be used once this is gone.
    pub(crate) fn stop(&self) -> Stop {
        self.stop
    }

    /// The machine's way for calls has changed.
    pub(crate) fn set_entrance(&mut self, entrance: Entrance) {
        self.entrance = entrance;
    }

    /// Floating-point features that it keeps.
    pub(crate) fn features(&self) -> io::Result<u64> {
        Ok(fpstate::features(&self.fd.get_xsave().map_err(host)?))
    }

    /// Floating-point state, as a signal frame holds it.
    pub(crate) fn fp_state(&self, size: usize) -> io::Result<Vec<u8>> {
        Ok(fpstate::bytes(&self.fd.get_xsave().map_err(host)?, size))
    }

    /// Loads it; of the reset state, when the host refuses it.
    pub(crate) fn set_fp_state(&self, state: Option<&[u8]>, size: usize, xcr0: u64) -> io::Result<()> {
        let reset = || set_xsave(&self.fd, &fpstate::area(&fpstate::reset(size)));
        match state.and_then(|state| fpstate::sanitised(state, size, xcr0)) {
            Some(state) => set_xsave(&self.fd, &fpstate::area(&state)).or_else(|_| reset()),
            None => reset(),
        }
    }

    /// Runs a guest as `registers` say, which must be sanitised, in the space with `root`, until it comes back.
    pub(crate) fn run(&mut self, registers: &mut Registers, root: u64) -> Exit {
        if self.sregs.cr3 != root
            || self.sregs.fs.base != registers.fs_base
            || self.sregs.gs.base != registers.gs_base
        {
            self.sregs.cr3 = root;
            self.sregs.fs.base = canonical(registers.fs_base);
            self.sregs.gs.base = canonical(registers.gs_base);
            self.stale = true;
        }
        self.fd.sync_regs_mut().regs = to_host(registers);
        self.fd.set_sync_dirty_reg(SyncReg::Register);
        // What it was stopped in the midst of is brought to its end first.
        for _ in 0..16 {
            if self.stale {
                self.fd.sync_regs_mut().sregs = self.sregs;
                self.fd.set_sync_dirty_reg(SyncReg::SystemRegister);
                self.stale = false;
            }
            let raw = raw_exit(self.fd.run());
            self.fd.clear_sync_dirty_reg(SyncReg::Register);
            self.fd.clear_sync_dirty_reg(SyncReg::SystemRegister);
            let state = self.fd.sync_regs();
            let user = state.sregs.cs.selector & 3 == 3;
            if let Some(exit) = self.exit(raw, &state.regs, &state.sregs, registers) {
                self.sregs.fs.base = state.sregs.fs.base;
                self.sregs.gs.base = state.sregs.gs.base;
                (registers.fs_base, registers.gs_base) = (state.sregs.fs.base, state.sregs.gs.base);
                self.stale |= !user;
                return exit;
            }
            self.stop.set(Stopping::Not);
        }
        Exit::Broken("it does not leave ring 0".to_owned())
    }

    /// What an exit means; `None` when the processor is between the guest and us.
    fn exit(
        &mut self,
        raw: Raw,
        regs: &kvm_regs,
        sregs: &kvm_sregs,
        registers: &mut Registers,
    ) -> Option<Exit> {
        let user = sregs.cs.selector & 3 == 3;
        from_host(registers, regs);
        let at_gate = match self.entrance {
            Entrance::Fault => user && regs.rip == GATE,
            Entrance::Halt => !user && regs.rip == GATE + 1,
        };
        match raw {
            Raw::Stopped | Raw::Nothing | Raw::Halt if at_gate => {
                registers.rip = regs.rcx;
                registers.rflags = regs.r11;
                Some(Exit::Call)
            }
            Raw::Stopped if !user => None,
            Raw::Stopped => Some(Exit::Stopped),
            Raw::Nothing if user => Some(Exit::Nothing),
            Raw::Halt if !user => Some(self.exception(regs, sregs, registers)),
            other => Some(Exit::Broken(format!("{other:?} at {:#x}, cs {:#x}", regs.rip, sregs.cs.selector))),
        }
    }

    fn exception(&self, regs: &kvm_regs, sregs: &kvm_sregs, registers: &mut Registers) -> Exit {
        let Some(vector) = ring0::vector(regs.rip) else {
            return Exit::Broken(format!("a halt at {:#x}", regs.rip));
        };
        let word = |back: usize| self.arena.word(self.page, PAGE as usize / 8 - back);
        let words = [6, 5, 4, 3, 2, 1].map(word);
        let Ok(frame) = Interrupted::of(words, vector) else {
            return Exit::Broken(format!("exception {vector} in ring 0: {words:x?}"));
        };
        (registers.rip, registers.rflags, registers.rsp) = (frame.rip, frame.rflags, frame.rsp);
        Exit::Exception { vector, code: frame.code, cr2: sregs.cr2 }
    }
}

/// Why the host came back.
#[derive(Debug)]
enum Raw {
    Halt,
    Stopped,
    Nothing,
    Other(#[allow(dead_code)] String),
}

fn raw_exit(result: Result<VcpuExit<'_>, kvm_ioctls::Error>) -> Raw {
    match result {
        Ok(VcpuExit::Hlt) => Raw::Halt,
        Ok(VcpuExit::MemoryFault { .. }) => Raw::Nothing,
        Ok(VcpuExit::Intr) => Raw::Stopped,
        Ok(other) => Raw::Other(format!("{other:?}")),
        Err(error) => match error.errno() {
            libc::EINTR | libc::EAGAIN => Raw::Stopped,
            libc::EFAULT => Raw::Nothing,
            _ => Raw::Other(error.to_string()),
        },
    }
}

/// Makes its time-stamp counter ours, where the machine adds to it: the vDSO reads it.
fn same_clock(fd: &VcpuFd) {
    if let Err(error) = set_clock_offset(fd, 0) {
        // Whether it is ours nevertheless shows itself.
        tracing::debug!(%error, "no offset of the time-stamp counter");
    }
}

/// Everything but what the machine and the guest say.
fn fill(sregs: &mut kvm_sregs, page: u64) {
    let segment = |selector, type_, l| kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 3,
        db: 1 - l,
        s: 1,
        l,
        g: 1,
        ..kvm_segment::default()
    };
    let data = segment(USER_SS as u16, 3, 0);
    sregs.cs = segment(USER_CS as u16, 11, 1);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment {
        base: page,
        limit: TASK_LIMIT,
        selector: TASK,
        type_: 11,
        present: 1,
        ..kvm_segment::default()
    };
    sregs.ldt = kvm_segment { unusable: 1, ..kvm_segment::default() };
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, GDT_LIMIT);
    (sregs.idt.base, sregs.idt.limit) = (IDT, IDT_LIMIT);
    (sregs.cr0, sregs.efer) = (CR0, EFER);
    const { assert!(RING0_SS == RING0_CS + 8) };
}

/// Bases that the processor takes.
fn canonical(base: u64) -> u64 {
    if base < USER_END { base } else { 0 }
}

fn to_host(r: &Registers) -> kvm_regs {
    kvm_regs {
        rax: r.rax,
        rbx: r.rbx,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        rsp: r.rsp,
        rbp: r.rbp,
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rip: r.rip,
        rflags: r.rflags,
    }
}

fn from_host(r: &mut Registers, from: &kvm_regs) {
    *r = Registers {
        rax: from.rax,
        rbx: from.rbx,
        rcx: from.rcx,
        rdx: from.rdx,
        rsi: from.rsi,
        rdi: from.rdi,
        rsp: from.rsp,
        rbp: from.rbp,
        r8: from.r8,
        r9: from.r9,
        r10: from.r10,
        r11: from.r11,
        r12: from.r12,
        r13: from.r13,
        r14: from.r14,
        r15: from.r15,
        rip: from.rip,
        rflags: from.rflags,
        ..*r
    };
}
