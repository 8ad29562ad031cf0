//! Signals on their way in: choosing the next, its default action, its handler's frame, the return.

use std::sync::Arc;

use abi::process::WaitStatus;
use abi::signal::{SigAction, SigAltStack, SigInfo, SigSet, Signal};
use abi::{Errno, Restart, SysError, SysResult};
use guestmem::{MemExt, UserAddr, UserMem, UserPtr};
use platform::{GuestThread, PlatformError, Registers};
use signal::action::{SA_NODEFER, SA_RESETHAND, SA_RESTART};
use signal::frame::{Built, SS_AUTODISARM, SigContext, UContext, on_stack};
use signal::{Default, Disposition, Frame, Restored};
use zerocopy::IntoBytes;

use crate::task::Task;
use crate::trap::{Outcome, again};

/// What one step of delivery did.
pub(crate) enum Delivered {
    /// Registers now enter a handler.
    Handler,
    /// A signal was dealt with otherwise.
    Consumed,
    /// No signal is deliverable.
    Nothing,
}

impl Task {
    /// Takes the next unblocked signal, own ones first.
    fn next_signal(&self) -> Option<(Signal, SigInfo)> {
        let wanted = {
            let mut signals = self.signals.lock();
            let wanted = SigSet::FULL.difference(signals.mask);
            if let Some(found) = signals.queue.take(wanted) {
                return Some(found);
            }
            wanted
        };
        let wanted = wanted.intersection(self.shared_pending());
        if wanted.is_empty() { None } else { self.group().queue.lock().take(wanted) }
    }

    /// Is there a reason not to return to the guest yet?
    pub(crate) fn has_work(&self) -> bool {
        if self.must_exit() || self.group().stopped().is_some() {
            return true;
        }
        let (own, mask) = {
            let signals = self.signals.lock();
            (signals.queue.pending(), signals.mask)
        };
        let all = own.union(self.shared_pending());
        !all.difference(mask).is_empty()
    }

    /// Deals with one signal.
    pub(crate) fn deliver_one(
        self: &Arc<Self>,
        thread: &mut dyn GuestThread,
        outcome: &mut Option<Outcome>,
    ) -> Result<Delivered, PlatformError> {
        let Some((signal, info)) = self.next_signal() else { return Ok(Delivered::Nothing) };
        let actions = self.group().actions();
        let action = {
            let mut actions = actions.lock();
            let disposition = actions.disposition(signal);
            if let Disposition::Handler(action) = disposition
                && action.flags & SA_RESETHAND != 0
            {
                actions.set(signal, SigAction { handler: 0, ..action });
            }
            disposition
        };
        match action {
            Disposition::Ignore => Ok(Delivered::Consumed),
            Disposition::Handler(action) => self.enter_handler(thread, outcome, signal, info, action),
            Disposition::Default(default) => {
                self.default_action(signal, &info, default);
                Ok(Delivered::Consumed)
            }
        }
    }

    fn default_action(self: &Arc<Self>, signal: Signal, info: &SigInfo, default: Default) {
        let group = self.group();
        match default {
            Default::Ignore | Default::Continue => {}
            // The first process is not ended by signals of its own container's (pid_namespaces(7)),
            // but its own faults end it.
            Default::Terminate | Default::Core if self.kernel().shields(group, signal, info) => {}
            // No core is written, so the bit in the status stays clear.
            Default::Terminate | Default::Core => {
                self.kernel().end_group(group, WaitStatus::Signaled(signal, false));
            }
            Default::Stop => {
                if signal == Signal::SIGSTOP || !self.kernel().in_orphaned_group(group.tgid()) {
                    self.kernel().stop_group(group, signal);
                }
            }
        }
    }

    fn enter_handler(
        self: &Arc<Self>,
        thread: &mut dyn GuestThread,
        outcome: &mut Option<Outcome>,
        signal: Signal,
        info: SigInfo,
        action: SigAction,
    ) -> Result<Delivered, PlatformError> {
        // What a handler interrupts is not gone on with.
        drop(self.take_restart());
        let mut registers = thread.registers()?;
        if let Some(outcome) = outcome.take() {
            settle_for_handler(&mut registers, &outcome, action);
        }
        let fp = thread.fp_state()?;
        let features = self.kernel().platform().features();
        let built = {
            let mut signals = self.signals.lock();
            let mask = signals.saved_mask.take().unwrap_or(signals.mask);
            let context = context_of(&registers, signals.fault.take().unwrap_or_default());
            let stack = signals.stack;
            Frame { signal, info, action, context, mask, stack, fp: &fp, xcr0: features.xcr0 }.build()
        };
        let Some(built) = built.filter(|built| self.write_frame(built).is_ok()) else {
            thread.set_registers(&registers)?;
            self.bad_frame(signal);
            return Ok(Delivered::Handler);
        };
        self.mask_for_handler(signal, action, built.sp);
        registers.rip = action.handler;
        registers.rsp = built.sp;
        registers.rax = 0;
        registers.orig_rax = u64::MAX;
        registers.rdi = u64::from(signal.number());
        registers.rsi = built.info_at();
        registers.rdx = built.ucontext_at();
        // Direction, trap and resume flags are clear in a handler.
        registers.rflags &= !(0x400 | 0x100 | 0x1_0000);
        thread.set_registers(&registers)?;
        thread.reset_fp_state()?;
        Ok(Delivered::Handler)
    }

    fn write_frame(&self, built: &Built) -> Result<(), guestmem::Fault> {
        let mem = self.mm();
        mem.write(UserAddr(built.fp_at), &built.fp)?;
        mem.write(UserAddr(built.sp), built.frame.as_bytes())
    }

    fn mask_for_handler(&self, signal: Signal, action: SigAction, sp: u64) {
        self.change_mask(|signals| {
            signals.mask = signals.mask.union(action.mask);
            if action.flags & SA_NODEFER == 0 {
                signals.mask.insert(signal);
            }
            let stack = signals.stack;
            if stack.flags & SS_AUTODISARM != 0 && sp > stack.sp && sp - stack.sp <= stack.size {
                signals.stack = SigAltStack::default();
            }
        });
    }

    /// No room for a frame: `SIGSEGV`, which cannot be handled when it was the one without room.
    fn bad_frame(self: &Arc<Self>, signal: Signal) {
        if signal == Signal::SIGSEGV {
            let actions = self.group().actions();
            actions.lock().set(Signal::SIGSEGV, SigAction::default());
        }
        self.force_signal(Signal::SIGSEGV, SigInfo::new(Signal::SIGSEGV, abi::signal::SI_KERNEL));
    }

    /// After a call with a temporary mask that no handler ran in.
    pub(crate) fn restore_mask(&self) {
        self.change_mask(|signals| {
            if let Some(mask) = signals.saved_mask.take() {
                signals.mask = mask;
            }
        });
    }

    /// `rt_sigreturn(2)`: state back from the frame. A bad frame forces `SIGSEGV`.
    pub fn sigreturn(self: &Arc<Self>, thread: &mut dyn GuestThread) -> SysResult<u64> {
        self.registers_replaced();
        let mut registers = thread.registers().map_err(Errno::from)?;
        let mem = self.mm();
        let at = Restored::ucontext_at(registers.rsp);
        let Ok(ucontext) = mem.load(UserPtr::<UContext>::new(UserAddr(at))) else {
            return self.bad_return();
        };
        let restored = Restored::from(ucontext);
        if restored.context.fpstate == 0 {
            thread.reset_fp_state().map_err(Errno::from)?;
        } else {
            let mut fp = vec![0; self.kernel().platform().features().xsave_size];
            if mem.read(UserAddr(restored.context.fpstate), &mut fp).is_err() {
                return self.bad_return();
            }
            thread.set_fp_state(&fp).map_err(Errno::from)?;
        }
        apply_context(&mut registers, &restored.context);
        registers.sanitise();
        thread.set_registers(&registers).map_err(Errno::from)?;
        self.change_mask(|signals| {
            signals.mask = restored.mask;
            signals.saved_mask = None;
            signals.stack =
                SigAltStack { flags: restored.stack.flags & !signal::frame::SS_ONSTACK, ..restored.stack };
        });
        Ok(0)
    }

    fn bad_return(self: &Arc<Self>) -> SysResult<u64> {
        self.force_signal(Signal::SIGSEGV, SigInfo::new(Signal::SIGSEGV, abi::signal::SI_KERNEL));
        Ok(0)
    }

    /// `sigaltstack(2)`; `rsp` is the caller's. `EPERM` while on it, `ENOMEM` when too small.
    pub fn sigaltstack(&self, new: Option<SigAltStack>, rsp: u64) -> Result<SigAltStack, Errno> {
        const MINSIGSTKSZ: u64 = 2048;
        let mut signals = self.signals.lock();
        let mut old = signals.stack;
        let on = on_stack(&old, rsp);
        if on {
            old.flags |= signal::frame::SS_ONSTACK;
        }
        if let Some(new) = new {
            if on {
                return Err(Errno::EPERM);
            }
            match new.flags & !SS_AUTODISARM {
                signal::frame::SS_DISABLE => {
                    signals.stack = SigAltStack { sp: 0, size: 0, pad: 0, flags: new.flags };
                }
                0 | signal::frame::SS_ONSTACK if new.size < MINSIGSTKSZ => return Err(Errno::ENOMEM),
                0 | signal::frame::SS_ONSTACK => {
                    signals.stack = SigAltStack { flags: new.flags & SS_AUTODISARM, pad: 0, ..new };
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(old)
    }
}

/// The call's result, or its restart, as it stands in the registers a handler interrupts.
fn settle_for_handler(registers: &mut Registers, outcome: &Outcome, action: SigAction) {
    match outcome.result {
        Ok(value) => registers.rax = value,
        Err(SysError::Errno(errno)) => registers.rax = errno.to_register(),
        Err(SysError::Restart(Restart::Always)) => again(registers, outcome.call.nr),
        Err(SysError::Restart(Restart::Sys)) if action.flags & SA_RESTART != 0 => {
            again(registers, outcome.call.nr);
        }
        Err(SysError::Restart(_)) => registers.rax = Errno::EINTR.to_register(),
    }
    registers.orig_rax = u64::MAX;
}

fn context_of(r: &Registers, (trapno, err, cr2): (u64, u64, u64)) -> SigContext {
    SigContext {
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rdi: r.rdi,
        rsi: r.rsi,
        rbp: r.rbp,
        rbx: r.rbx,
        rdx: r.rdx,
        rax: r.rax,
        rcx: r.rcx,
        rsp: r.rsp,
        rip: r.rip,
        rflags: r.rflags,
        cs: r.cs as u16,
        gs: 0,
        fs: 0,
        ss: r.ss as u16,
        err,
        trapno,
        oldmask: 0,
        cr2,
        fpstate: 0,
        reserved: [0; 8],
    }
}

fn apply_context(r: &mut Registers, c: &SigContext) {
    r.r8 = c.r8;
    r.r9 = c.r9;
    r.r10 = c.r10;
    r.r11 = c.r11;
    r.r12 = c.r12;
    r.r13 = c.r13;
    r.r14 = c.r14;
    r.r15 = c.r15;
    r.rdi = c.rdi;
    r.rsi = c.rsi;
    r.rbp = c.rbp;
    r.rbx = c.rbx;
    r.rdx = c.rdx;
    r.rax = c.rax;
    r.rcx = c.rcx;
    r.rsp = c.rsp;
    r.rip = c.rip;
    r.rflags = c.rflags;
    r.orig_rax = u64::MAX;
}
