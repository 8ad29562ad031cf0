//! The life of a trap: dispatch, then signals, then how the guest goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::process::WaitStatus;
use abi::signal::Signal;
use abi::{Restart, SysError, SysResult};
use guestmem::UserAddr;
use obs::Counter;
use platform::{
    Fault, GuestThread, HostExit, PlatformError, Registers, Resume, SyscallTrap, ThreadHandle, Trap,
    TrapHandler,
};

use crate::deliver::Delivered;
use crate::task::Task;

/// Bytes of the `syscall` instruction: how far back a restart goes.
const SYSCALL_LEN: u64 = 2;
/// `restart_syscall(2)`.
const NR_RESTART: u64 = 219;

static FAULTS: Counter = Counter::new("faults", "Faults that guests were told of by a signal");

/// The call a trap is about, until its result has been settled.
pub(crate) struct Outcome {
    pub(crate) call: SyscallTrap,
    pub(crate) result: SysResult<u64>,
}

impl TrapHandler for Task {
    fn started(&self, handle: Arc<dyn ThreadHandle>) {
        self.keep_handle(handle);
        // A kill may have come before there was a way to reach the guest.
        if self.must_exit() || self.parker().is_interrupted() {
            self.interrupt();
        }
    }

    fn trap(&self, thread: &mut dyn GuestThread, trap: Trap) -> Resume {
        let Some(task) = self.me.upgrade() else { return Resume::ExitProcess };
        self.in_trap.store(true, Ordering::SeqCst);
        let outcome = match trap {
            Trap::Syscall(call) => task.syscall(thread, call),
            Trap::Fault(fault) => {
                FAULTS.increment();
                task.fault(&fault);
                None
            }
            Trap::Interrupted => None,
        };
        task.leave(thread, outcome).unwrap_or_else(|_| task.lost(thread))
    }

    fn host_exit(&self, exit: HostExit) {
        let Some(task) = self.me.upgrade() else { return };
        if self.exited.load(Ordering::SeqCst) {
            return;
        }
        let signal = match exit {
            HostExit::Signaled(number) => Signal::new(number).unwrap_or(Signal::SIGKILL),
            HostExit::Corrupt | HostExit::Requested => Signal::SIGKILL,
        };
        task.kernel().end_group(task.group(), WaitStatus::Signaled(signal, false));
        task.exit_now(0);
    }
}

impl Task {
    fn syscall(self: &Arc<Self>, thread: &mut dyn GuestThread, call: SyscallTrap) -> Option<Outcome> {
        if self.must_exit() {
            return None;
        }
        let result =
            self.judge(&call).unwrap_or_else(|| self.kernel().syscalls().dispatch(self, thread, call));
        // Such a call has no result of its own any more.
        if self.registers_set.swap(false, Ordering::SeqCst) {
            return None;
        }
        Some(Outcome { call, result })
    }

    /// Says that the call at hand has replaced all registers: it returns nothing to `rax`.
    pub fn registers_replaced(&self) {
        self.registers_set.store(true, Ordering::SeqCst);
    }

    fn fault(self: &Arc<Self>, fault: &Fault) {
        if fault.signal == Signal::SIGSEGV && self.mm().grow_stack(UserAddr(fault.cr2)) == Ok(true) {
            return;
        }
        self.signals.lock().fault = Some((fault.trap_number, fault.error_code, fault.cr2));
        self.force_signal(fault.signal, fault.info);
    }

    /// Signals, stops and the end, until nothing is left to do; then back to the guest.
    fn leave(
        self: &Arc<Self>,
        thread: &mut dyn GuestThread,
        mut outcome: Option<Outcome>,
    ) -> Result<Resume, PlatformError> {
        // Without a call the registers are the guest's: `Return` is only for calls.
        let mut resume = None;
        loop {
            self.parker().clear_interrupt();
            if self.must_exit() {
                return Ok(self.exit_now(self.exit_code()));
            }
            if self.group().stopped().is_some() {
                self.wait_while_stopped();
                continue;
            }
            match self.deliver_one(thread, &mut outcome)? {
                Delivered::Handler => resume = Some(Resume::Continue),
                Delivered::Consumed => {}
                Delivered::Nothing => {
                    if let Some(outcome) = outcome.take() {
                        resume = Some(self.settle(thread, &outcome)?);
                    }
                    self.restore_mask();
                    self.in_trap.store(false, Ordering::SeqCst);
                    // Whoever queued a signal before that saw us in the trap and did not interrupt.
                    if !self.has_work() {
                        return Ok(resume.unwrap_or(Resume::Continue));
                    }
                    self.in_trap.store(true, Ordering::SeqCst);
                    self.unsettle(thread, &mut resume)?;
                }
            }
        }
    }

    /// Turns a settled `Return` into registers, because a handler is to run on top of them.
    fn unsettle(
        &self,
        thread: &mut dyn GuestThread,
        resume: &mut Option<Resume>,
    ) -> Result<(), PlatformError> {
        if let Some(Resume::Return(value)) = *resume {
            let mut registers = thread.registers()?;
            registers.rax = value;
            registers.orig_rax = u64::MAX;
            thread.set_registers(&registers)?;
            *resume = Some(Resume::Continue);
        }
        Ok(())
    }

    /// The end of a call no handler ran in: its result, or its restart.
    fn settle(&self, thread: &mut dyn GuestThread, outcome: &Outcome) -> Result<Resume, PlatformError> {
        let restart = match outcome.result {
            Ok(value) => return Ok(Resume::Return(value)),
            Err(SysError::Errno(errno)) => return Ok(Resume::Return(errno.to_register())),
            Err(SysError::Restart(restart)) => restart,
        };
        let mut registers = thread.registers()?;
        let nr = if restart == Restart::Block { NR_RESTART } else { outcome.call.nr };
        again(&mut registers, nr);
        thread.set_registers(&registers)?;
        Ok(Resume::Continue)
    }

    fn wait_while_stopped(&self) {
        while self.group().stopped().is_some() && !self.must_exit() {
            self.parker().clear_interrupt();
            if self.group().stopped().is_some() && !self.must_exit() {
                let _ = self.parker().park(None);
            }
        }
    }

    /// The guest's side failed under us: the process is as good as killed.
    fn lost(self: &Arc<Self>, _thread: &mut dyn GuestThread) -> Resume {
        self.kernel().end_group(self.group(), WaitStatus::Signaled(Signal::SIGKILL, false));
        self.exit_now(0)
    }
}

/// Sets the registers to carry out call `nr` again.
pub(crate) fn again(registers: &mut Registers, nr: u64) {
    registers.rip = registers.rip.wrapping_sub(SYSCALL_LEN);
    registers.rax = nr;
    registers.orig_rax = u64::MAX;
}
