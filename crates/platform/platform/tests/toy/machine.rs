//! The toy's threads: an OS thread each, which interprets, and runs the handler.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use abi::signal::{SigInfo, Signal};
use guestmem::{UserAddr, UserMem};
use platform::{
    AddressSpace, Fault, Features, GuestThread, HostExit, NewThread, Platform, PlatformError, Registers,
    Resume, SyscallTrap, ThreadHandle, Trap, TrapHandler,
};

use crate::memory::Space;

/// Spaces by address: how ours is found again behind the trait object.
type Spaces = Arc<Mutex<HashMap<usize, Arc<Space>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The backend.
#[derive(Default)]
pub(crate) struct Toy {
    spaces: Spaces,
}

fn remember(spaces: &Spaces, space: Space) -> Arc<Space> {
    let space = Arc::new(space);
    lock(spaces).insert(Arc::as_ptr(&space).addr(), Arc::clone(&space));
    space
}

fn find(spaces: &Spaces, space: &Arc<dyn AddressSpace>) -> Result<Arc<Space>, PlatformError> {
    lock(spaces).get(&Arc::as_ptr(space).cast::<()>().addr()).cloned().ok_or(PlatformError::Gone)
}

impl Platform for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn features(&self) -> Features {
        Features {
            min_address: 0x1_0000,
            max_address: 0x7fff_0000_0000,
            native_futex: false,
            xsave_size: 576,
            xcr0: 3,
            host_vdso: false,
        }
    }

    fn new_address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(remember(&self.spaces, Space::default()))
    }

    fn spawn(&self, space: &Arc<dyn AddressSpace>, thread: NewThread) -> Result<(), PlatformError> {
        let space = find(&self.spaces, space)?;
        start(&self.spaces, space, Arc::default(), thread, None).map(drop)
    }
}

/// What stands for a host process: nothing but its end.
type Process = AtomicBool;

/// What others can do to a thread.
struct Handle {
    process: Mutex<Arc<Process>>,
    interrupted: AtomicBool,
}

impl ThreadHandle for Handle {
    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
    }

    fn kill_process(&self) {
        lock(&self.process).store(true, Ordering::SeqCst);
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        Default::default()
    }
}

/// A thread, in its trap or not.
struct Thread {
    spaces: Spaces,
    space: Arc<Space>,
    handle: Arc<Handle>,
    handler: Arc<dyn TrapHandler>,
    registers: Registers,
    fp: Vec<u8>,
    clear_tid: u64,
}

fn start(
    spaces: &Spaces,
    space: Arc<Space>,
    process: Arc<Process>,
    new: NewThread,
    fp: Option<Vec<u8>>,
) -> Result<Arc<Handle>, PlatformError> {
    let handle = Arc::new(Handle { process: Mutex::new(process), interrupted: AtomicBool::new(false) });
    let mut thread = Thread {
        spaces: Arc::clone(spaces),
        space,
        handle: Arc::clone(&handle),
        handler: new.handler,
        registers: new.registers,
        fp: new.fp_state.or(fp).unwrap_or_else(|| vec![0; 576]),
        clear_tid: new.clear_tid,
    };
    thread.space.enter();
    let run = std::thread::Builder::new().spawn(move || thread.run());
    run.map(|_| handle).map_err(|source| PlatformError::Host { doing: "starting a thread", source })
}

impl Thread {
    fn run(&mut self) {
        let handler = Arc::clone(&self.handler);
        handler.started(Arc::clone(&self.handle) as Arc<dyn ThreadHandle>);
        while !self.is_dead() {
            // An interrupt that came during the handler waits here.
            let trap = match self.handle.interrupted.swap(false, Ordering::SeqCst) {
                true => Trap::Interrupted,
                false => match self.step() {
                    Some(trap) => trap,
                    None => continue,
                },
            };
            match handler.trap(self, trap) {
                Resume::Return(value) => self.registers.rax = value,
                Resume::Continue => {}
                Resume::Exit => {
                    let _ = self.space.write(UserAddr(self.clear_tid), &[0; 4]);
                    return self.space.leave();
                }
                Resume::ExitProcess => self.handle.kill_process(),
            }
        }
        self.space.leave();
        handler.host_exit(HostExit::Requested);
    }

    fn is_dead(&self) -> bool {
        lock(&self.handle.process).load(Ordering::SeqCst)
    }

    /// Interprets one instruction.
    fn step(&mut self) -> Option<Trap> {
        let code = self.space.fetch(self.registers.rip);
        let registers = &mut self.registers;
        let (imm, disp) = match code {
            [op @ 0xb8..=0xbf, a, b, c, d, ..] => (Some((op & 7, [a, b, c, d])), 0),
            [0x41, op @ 0xb8..=0xbf, a, b, c, d, ..] => (Some((op & 7 | 8, [a, b, c, d])), 0),
            [0x89 | 0x8b | 0xff, 0x04, 0x25, a, b, c, d, ..] => {
                (None, u64::from(u32::from_le_bytes([a, b, c, d])))
            }
            _ => (None, 0),
        };
        if let Some((number, imm)) = imm {
            registers.rip += if number < 8 { 5 } else { 6 };
            *register(registers, number) = u64::from(u32::from_le_bytes(imm));
            return None;
        }
        let mut word = [0; 4];
        match code {
            [0x0f, 0x05, ..] => {
                registers.rip += 2;
                (registers.orig_rax, registers.rax) = (registers.rax, -38i64 as u64);
                let (nr, ip) = (registers.orig_rax, registers.rip);
                return Some(Trap::Syscall(SyscallTrap { nr, args: registers.syscall_args(), ip }));
            }
            [0x0f, 0x0b, ..] => return Some(fault(Signal::SIGILL, 6, registers.rip)),
            [0xeb, to, ..] => registers.rip = registers.rip.wrapping_add_signed(2 + i64::from(to as i8)),
            [0x89, 0xc7, ..] => {
                registers.rdi = registers.rax & 0xffff_ffff;
                registers.rip += 2;
            }
            [op @ (0x89 | 0x8b | 0xff), 0x04, 0x25, ..] => {
                let addr = UserAddr(disp);
                let mut done = self.space.read(addr, &mut word);
                let value = u32::from_le_bytes(word);
                match op {
                    0x89 => done = self.space.write(addr, &(registers.rax as u32).to_le_bytes()),
                    0xff => done = done.and_then(|()| self.space.write(addr, &(value + 1).to_le_bytes())),
                    _ if done.is_ok() => registers.rax = value.into(),
                    _ => {}
                }
                if done.is_err() {
                    return Some(fault(Signal::SIGSEGV, 14, disp));
                }
                registers.rip += 7;
            }
            _ => return Some(fault(Signal::SIGILL, 6, registers.rip)),
        }
        None
    }
}

fn register(registers: &mut Registers, number: u8) -> &mut u64 {
    let r = registers;
    match number {
        0 => &mut r.rax,
        1 => &mut r.rcx,
        2 => &mut r.rdx,
        3 => &mut r.rbx,
        4 => &mut r.rsp,
        5 => &mut r.rbp,
        6 => &mut r.rsi,
        7 => &mut r.rdi,
        8 => &mut r.r8,
        9 => &mut r.r9,
        10 => &mut r.r10,
        11 => &mut r.r11,
        12 => &mut r.r12,
        13 => &mut r.r13,
        14 => &mut r.r14,
        _ => &mut r.r15,
    }
}

fn fault(signal: Signal, trap_number: u64, addr: u64) -> Trap {
    let info = SigInfo::fault(signal, 1, addr);
    let cr2 = if trap_number == 14 { addr } else { 0 };
    Trap::Fault(Fault { signal, info, trap_number, error_code: 4, cr2 })
}

impl GuestThread for Thread {
    fn registers(&mut self) -> Result<Registers, PlatformError> {
        Ok(self.registers)
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), PlatformError> {
        self.registers = *registers;
        self.registers.sanitise();
        Ok(())
    }

    fn fp_state(&mut self) -> Result<Vec<u8>, PlatformError> {
        Ok(self.fp.clone())
    }

    fn set_fp_state(&mut self, state: &[u8]) -> Result<(), PlatformError> {
        self.fp = state.to_vec();
        self.fp.resize(576, 0);
        Ok(())
    }

    fn reset_fp_state(&mut self) -> Result<(), PlatformError> {
        self.fp.fill(0);
        Ok(())
    }

    fn address_space(&self) -> Arc<dyn AddressSpace> {
        Arc::clone(&self.space) as Arc<dyn AddressSpace>
    }

    fn clone_thread(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError> {
        let process = Arc::clone(&lock(&self.handle.process));
        Ok(start(&self.spaces, Arc::clone(&self.space), process, new, Some(self.fp.clone()))?)
    }

    fn clone_shared(&mut self, new: NewThread) -> Result<Arc<dyn ThreadHandle>, PlatformError> {
        Ok(start(&self.spaces, Arc::clone(&self.space), Arc::default(), new, Some(self.fp.clone()))?)
    }

    fn fork(
        &mut self,
        new: NewThread,
    ) -> Result<(Arc<dyn AddressSpace>, Arc<dyn ThreadHandle>), PlatformError> {
        let space = remember(&self.spaces, self.space.copy());
        let handle = start(&self.spaces, Arc::clone(&space), Arc::default(), new, Some(self.fp.clone()))?;
        Ok((space, handle))
    }

    fn exec_into(&mut self, space: Arc<dyn AddressSpace>) -> Result<(), PlatformError> {
        let space = find(&self.spaces, &space)?;
        space.enter();
        std::mem::replace(&mut self.space, space).leave();
        let old = std::mem::take(&mut *lock(&self.handle.process));
        old.store(true, Ordering::SeqCst);
        self.reset_fp_state()
    }

    fn handle(&self) -> Arc<dyn ThreadHandle> {
        Arc::clone(&self.handle) as Arc<dyn ThreadHandle>
    }
}
