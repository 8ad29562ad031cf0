//! One host thread under its tracer: stops, injected calls, registers.
//!
//! A tracee belongs to the OS thread that seized it; only that thread may use it. In it, the thread stops
//! where the filter says: *at* a call, which then is not carried out unless the tracer replaces it by one of
//! its own. Injected calls are made there, or at the stub's gate.

use platform::regs::FIXED_RFLAGS;
use platform::{PlatformError, Registers};

use crate::layout::{AFTER_EXCHANGE, EXCHANGE, GATE, INTERRUPT, PARK, STUB, VSYSCALL};
use crate::raw::sys::{self, Status};

/// Signal of stops that are not for a signal.
const TRAP: i32 = libc::SIGTRAP;
const CALL_STOP: i32 = TRAP | 0x80;
const SECCOMP_STOP: i32 = TRAP | 7 << 8;
const EVENT_STOP: i32 = 128;
const EINTR: i64 = -4;
/// `-ERESTARTSYS` to `-ERESTART_RESTARTBLOCK`: what the host keeps from user code.
const RESTARTS: std::ops::RangeInclusive<i64> = -516..=-512;
const RESTART_BLOCK: i64 = -516;

/// The thread is gone; how is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest thread is gone")]
pub(crate) struct Gone;

impl From<Gone> for PlatformError {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<std::io::Error> for Gone {
    /// Requests fail when the thread is no longer stopped, that is, was killed.
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

/// What a running guest stopped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It makes a call: number, and address behind the instruction.
    Call(u64, u64),
    /// A signal came; it is not delivered.
    Signal(i32),
    /// Nothing of interest.
    Nothing,
}

/// See the module.
pub(crate) struct Tracee {
    /// Thread group.
    pub(crate) tgid: i32,
    /// Its id.
    pub(crate) tid: i32,
    /// Address of the `syscall` instruction for injected calls.
    pub(crate) gate: u64,
    /// Its filter stops it at calls. Before it has one, every call does, twice.
    pub(crate) filtered: bool,
    /// The guest's registers, which it does not have itself when `dirty`.
    registers: Registers,
    dirty: bool,
    /// It is at a call.
    at_call: bool,
}

impl Tracee {
    /// Seizes a parked thread and stops it.
    pub(crate) fn seize(tgid: i32, tid: i32) -> Result<Self, PlatformError> {
        sys::seize(tid)
            .map_err(|source| PlatformError::Host { doing: "becoming a guest's tracer", source })?;
        let registers = Registers::default();
        let mut tracee =
            Self { tgid, tid, gate: STUB + GATE, filtered: true, registers, dirty: false, at_call: false };
        sys::interrupt(tid).map_err(|_| Gone)?;
        loop {
            match tracee.wait()? {
                status if status >> 8 == EVENT_STOP => break,
                // Parked threads make none that stops, and going on would carry it out.
                SECCOMP_STOP => return Err(PlatformError::Gone),
                _ => sys::go_on(tid).map_err(|_| Gone)?,
            }
        }
        let registers = sys::registers(tid).map_err(|_| Gone)?;
        tracee.registers = Registers::entry(STUB + PARK, registers.rsp);
        Ok(tracee)
    }

    /// Lets it go, to wait parked.
    pub(crate) fn park(self) {
        let registers = Registers { rip: STUB + PARK, ..Registers::entry(0, self.registers.rsp) };
        // A failure means that it is gone.
        let _ = sys::set_registers(self.tid, &registers).and_then(|()| sys::detach(self.tid));
    }

    fn wait(&mut self) -> Result<i32, Gone> {
        match sys::wait(self.tid) {
            Some(Status::Stopped(status)) => Ok(status),
            Some(Status::Ended(_)) | None => Err(Gone),
        }
    }

    /// The guest's registers.
    pub(crate) fn registers(&self) -> Registers {
        self.registers
    }

    /// Replaces them.
    pub(crate) fn set_registers(&mut self, registers: &Registers) {
        self.registers = *registers;
        self.registers.sanitise();
        self.dirty = true;
    }

    /// Replaces `rax` only.
    pub(crate) fn set_result(&mut self, value: u64) {
        self.registers.rax = value;
        self.dirty = true;
    }

    /// Lets it run as its registers say, until it stops again.
    pub(crate) fn run(&mut self) -> Result<Event, Gone> {
        if self.dirty {
            self.load(&self.registers)?;
        }
        sys::go_on(self.tid)?;
        let status = self.wait()?;
        self.registers = sys::registers(self.tid)?;
        (self.dirty, self.at_call) = (false, false);
        if status == SECCOMP_STOP {
            return self.entered();
        }
        let signal = if status >> 8 == 0 { status & 0x7f } else { 0 };
        self.unwind();
        Ok(if signal == 0 { Event::Nothing } else { Event::Signal(signal) })
    }

    /// It is at a call, which it must not carry out.
    fn entered(&mut self) -> Result<Event, Gone> {
        let nr = u64::from(self.registers.orig_rax as u32);
        (self.dirty, self.at_call) = (true, true);
        if self.registers.rip < VSYSCALL {
            return Ok(Event::Call(nr, self.registers.rip));
        }
        // The host kills who is elsewhere after a call from the vsyscall page, so it must be done with first.
        let at = self.registers.rip;
        self.load(&self.registers)?;
        self.at_call = false;
        sys::poke(self.tgid, self.tid);
        loop {
            sys::go_on(self.tid)?;
            match self.wait()? {
                INTERRUPT => break,
                // Going on would carry it out.
                SECCOMP_STOP => return Err(Gone),
                _ => {}
            }
        }
        self.registers = Registers { orig_rax: nr, ..sys::registers(self.tid)? };
        Ok(Event::Call(nr, at))
    }

    /// A native wait that was stopped is to be seen as if it had not begun, or, where that would wait too long, as
    /// ended. When nobody changes anything the host just goes on with it.
    fn unwind(&mut self) {
        let result = self.registers.rax as i64;
        if (self.registers.orig_rax as i64) < 0 || !RESTARTS.contains(&result) {
            return;
        }
        if result == RESTART_BLOCK {
            self.registers.rax = EINTR as u64;
        } else {
            self.registers.rip = self.registers.rip.wrapping_sub(2);
            self.registers.rax = self.registers.orig_rax;
        }
        self.registers.orig_rax = u64::MAX;
    }

    /// Gives it registers that the host takes, to be in no call with.
    fn load(&self, registers: &Registers) -> Result<(), Gone> {
        self.put(&Registers { orig_rax: u64::MAX, ..*registers })
    }

    fn put(&self, registers: &Registers) -> Result<(), Gone> {
        let user = |base: u64| if base < 1 << 47 { base } else { 0 };
        let selector = |value: u64| if value & !3 == 0 || value == 0x2b { value & 0xff } else { 0 };
        let registers = Registers {
            fs_base: user(registers.fs_base),
            gs_base: user(registers.gs_base),
            ds: selector(registers.ds),
            es: selector(registers.es),
            fs: 0,
            gs: 0,
            ..*registers
        };
        Ok(sys::set_registers(self.tid, &registers)?)
    }

    /// Makes it carry out a call, where it is or at the gate.
    pub(crate) fn call(&mut self, call: [u64; 7]) -> Result<i64, Gone> {
        if self.at_call {
            self.at_call = false;
            self.put(&with_call(self.registers, call))?;
            let result = self.finish()?;
            if !RESTARTS.contains(&result) {
                return Ok(result);
            }
        }
        self.call_at_gate(call)
    }

    /// Makes it carry out a call at the gate; what a clone of it does next is to park.
    pub(crate) fn call_at_gate(&mut self, call: [u64; 7]) -> Result<i64, Gone> {
        (self.dirty, self.at_call) = (true, false);
        loop {
            let [nr, ..] = call;
            self.load(&Registers { rip: self.gate, rax: nr, ..with_call(self.registers, call) })?;
            let entry = if self.filtered { SECCOMP_STOP } else { CALL_STOP };
            loop {
                if self.filtered {
                    sys::go_on(self.tid)?
                } else {
                    sys::go_to_call(self.tid)?
                }
                if self.wait()? == entry {
                    break;
                }
            }
            let result = self.finish()?;
            // A signal waits: it is taken first, and dropped; who sent it has said why elsewhere.
            if !RESTARTS.contains(&result) {
                return Ok(result);
            }
        }
    }

    /// Carries out the call it is at; the result.
    fn finish(&mut self) -> Result<i64, Gone> {
        self.dirty = true;
        loop {
            sys::go_to_call(self.tid)?;
            if self.wait()? == CALL_STOP {
                return Ok(sys::registers(self.tid)?.rax as i64);
            }
        }
    }

    /// Makes it compare and exchange the word at `addr`; what was there. `None` when that faults.
    pub(crate) fn exchange(&mut self, addr: u64, old: u32, new: u32) -> Result<Option<u32>, Gone> {
        (self.dirty, self.at_call) = (true, false);
        let registers = Registers {
            rip: STUB + EXCHANGE,
            rdi: addr,
            rsi: u64::from(old),
            rdx: u64::from(new),
            rflags: FIXED_RFLAGS,
            ..self.registers
        };
        self.load(&registers)?;
        loop {
            sys::go_on(self.tid)?;
            let status = self.wait()?;
            if status == SECCOMP_STOP {
                return Err(Gone);
            }
            if status == INTERRUPT || status >> 8 != 0 {
                continue;
            }
            let registers = sys::registers(self.tid)?;
            let done = status == TRAP && registers.rip == STUB + AFTER_EXCHANGE;
            return Ok(done.then_some(registers.rax as u32));
        }
    }

    /// Lets it end by itself, at the call it is in or at the gate. Nothing stops it after that.
    pub(crate) fn exit(&mut self) -> Result<(), Gone> {
        let call = [libc::SYS_exit as u64, 0, 0, 0, 0, 0, 0];
        if !self.at_call {
            let [nr, ..] = call;
            self.load(&Registers { rip: self.gate, rax: nr, ..with_call(self.registers, call) })?;
            loop {
                sys::go_on(self.tid)?;
                if self.wait()? == SECCOMP_STOP {
                    break;
                }
            }
        }
        self.put(&with_call(self.registers, call))?;
        Ok(sys::go_on(self.tid)?)
    }
}

/// The registers of a thread that enters a call.
fn with_call(registers: Registers, [nr, rdi, rsi, rdx, r10, r8, r9]: [u64; 7]) -> Registers {
    // Without the trap flag: a clone would have it too, and nobody to trap to.
    let rflags = FIXED_RFLAGS;
    Registers { orig_rax: nr, rax: -38i64 as u64, rdi, rsi, rdx, r10, r8, r9, rflags, ..registers }
}
