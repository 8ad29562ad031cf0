//! Guests that run random code with random registers, in the stub too, and what that must not do: stop the
//! Sentry, keep it waiting, reach another guest, or make a call of its own on the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use abi::mm::Prot;
use guestmem::UserAddr;
use hostproc::ops::CLONE_THREAD;
use memmap::Backing;
use parking_lot::Mutex;
use platform::{
    AddressSpace, GuestThread, HostExit, MapOp, NewThread, Platform, Registers, Resume, ThreadHandle, Trap,
    TrapHandler,
};

use crate::Ptrace;
use crate::layout::{CLONE_FORK, CLONE_SHARED, CODE as STUB_CODE, STUB, VSYSCALL};

const CODE: u64 = 0x40_0000;
const LIMIT: Duration = Duration::from_secs(60);
/// Attacks a run makes; more with `RAMPART_ATTACKS`.
const ATTACKS: u64 = 200;

/// A small generator of numbers (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    /// What a register may hold to do harm.
    fn value(&mut self) -> u64 {
        match self.below(12) {
            0 => 0,
            1 => u64::MAX,
            2 => STUB + self.below(64),
            3 => CODE + self.below(4096),
            4 => [CLONE_THREAD, CLONE_FORK, CLONE_SHARED][self.below(3) as usize],
            // mmap, mprotect, munmap, rt_sigreturn, clone, fork, execve, exits, ptrace, prctl, futex, seccomp
            5 => [9, 10, 11, 15, 56, 57, 59, 60, 231, 101, 157, 202, 317][self.below(13) as usize],
            6 => self.below(4096),
            7 => 1 << self.below(64),
            8 => [1, 9, 128, 202][self.below(4) as usize],
            9 => 0xffff_8000_0000_0000 | self.roll(),
            10 => self.roll(),
            _ => u64::from(u32::MAX),
        }
    }

    fn registers(&mut self) -> Registers {
        let rip = match self.below(8) {
            0..=2 => STUB + self.below(STUB_CODE.len() as u64),
            3 => VSYSCALL + 1024 * self.below(4),
            4 => self.value(),
            _ => CODE + self.below(4096),
        };
        let mut registers = Registers::entry(rip, CODE + self.below(4096));
        let r = &mut registers;
        let all = [
            &mut r.rax,
            &mut r.rbx,
            &mut r.rcx,
            &mut r.rdx,
            &mut r.rsi,
            &mut r.rdi,
            &mut r.rbp,
            &mut r.r8,
            &mut r.r9,
            &mut r.r10,
            &mut r.r11,
            &mut r.r12,
            &mut r.r13,
            &mut r.r14,
            &mut r.r15,
            &mut r.fs_base,
            &mut r.gs_base,
            &mut r.rflags,
            &mut r.ds,
            &mut r.fs,
            &mut r.orig_rax,
        ];
        for register in all {
            *register = self.value();
        }
        registers
    }

    /// Random bytes, with calls strewn in.
    fn code(&mut self) -> Vec<u8> {
        let mut code: Vec<u8> = (0..512).flat_map(|_| self.roll().to_le_bytes()).collect();
        for _ in 0..200 {
            let at = self.below(4094) as usize;
            let bytes =
                [[0x0f, 0x05], [0xcd, 0x80], [0x0f, 0x34], [0x9d, 0x90]][self.below(12).min(3) as usize];
            code.splice(at..at + 2, if self.below(3) == 0 { bytes } else { [0x0f, 0x05] });
        }
        code
    }
}

/// Lets the guest go on, or sends it elsewhere, at each trap, some times.
struct Attacker {
    dice: Mutex<Dice>,
    left: AtomicU32,
    ended: Sender<HostExit>,
    handle: Sender<Arc<dyn ThreadHandle>>,
}

impl TrapHandler for Attacker {
    fn started(&self, handle: Arc<dyn ThreadHandle>) {
        let _ = self.handle.send(handle);
    }

    fn trap(&self, thread: &mut dyn GuestThread, trap: Trap) -> Resume {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 1 {
            return Resume::ExitProcess;
        }
        let mut dice = self.dice.lock();
        if matches!(trap, Trap::Syscall(_)) && dice.below(2) == 0 {
            return Resume::Return(dice.value());
        }
        let registers = dice.registers();
        if dice.below(4) == 0 {
            let _ = thread.address_space().compare_exchange_u32(UserAddr(CODE), 0, 1);
            let _ = thread.set_fp_state(&dice.code());
        }
        match thread.set_registers(&registers) {
            Ok(()) => Resume::Continue,
            Err(_) => Resume::ExitProcess,
        }
    }

    fn host_exit(&self, exit: HostExit) {
        let _ = self.ended.send(exit);
    }
}

/// Counts the calls of a guest that makes nothing but calls.
struct Witness(Arc<AtomicU32>, Sender<HostExit>);

impl TrapHandler for Witness {
    fn started(&self, _handle: Arc<dyn ThreadHandle>) {}

    fn trap(&self, _thread: &mut dyn GuestThread, trap: Trap) -> Resume {
        if !matches!(trap, Trap::Syscall(_)) {
            return Resume::ExitProcess;
        }
        self.0.fetch_add(1, Ordering::SeqCst);
        Resume::Return(0)
    }

    fn host_exit(&self, exit: HostExit) {
        let _ = self.1.send(exit);
    }
}

fn map(addr: u64) -> MapOp {
    MapOp::Map {
        addr: UserAddr(addr),
        len: 4096,
        prot: Prot::READ | Prot::WRITE | Prot::EXEC,
        backing: Backing::Anonymous,
        shared: false,
        no_reserve: false,
        populate: false,
    }
}

fn start(
    platform: &Ptrace,
    code: &[u8],
    registers: Registers,
    handler: Arc<dyn TrapHandler>,
) -> Arc<dyn AddressSpace> {
    let space = platform.new_address_space().expect("a space");
    space.apply(&[map(CODE)]).expect("mapped");
    space.write(UserAddr(CODE), code).expect("written");
    let thread = NewThread { registers, fp_state: None, handler, clear_tid: 0 };
    platform.spawn(&space, thread).expect("it starts");
    space
}

fn attack(platform: &Ptrace, seed: u64) -> Result<(), &'static str> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (registers, code) = (dice.registers(), dice.code());
    let ((ended, ends), (handle, handles)) = (channel(), channel());
    let left = AtomicU32::new(50);
    let attacker = Arc::new(Attacker { dice: Mutex::new(dice), left, ended, handle });
    let space = start(platform, &code, registers, attacker);
    let handle: Arc<dyn ThreadHandle> = handles.recv_timeout(LIMIT).map_err(|_| "it does not start")?;
    // Whatever it does, others can ask for its memory and get an answer.
    let (done, answered) = channel::<()>();
    std::thread::spawn(move || {
        let _ = space.apply(&[map(CODE + 0x10_0000)]);
        let _ = space.futex_wake(UserAddr(CODE), 1, u32::MAX);
        let _ = space.read(UserAddr(CODE), &mut [0; 8]);
        let _ = done.send(());
    });
    answered.recv_timeout(LIMIT).map_err(|_| "a change of its memory waits for ever")?;
    handle.interrupt();
    if ends.recv_timeout(Duration::from_millis(5)).is_ok() {
        return Ok(());
    }
    handle.kill_process();
    ends.recv_timeout(LIMIT).map_err(|_| "its end is not told")?;
    Ok(())
}

#[test]
fn random_code_hurts_nobody_else() {
    let platform = Ptrace::new().expect("this machine can run ptrace");
    let calls = Arc::new(AtomicU32::new(0));
    let (ended, ends) = channel();
    let witness = Arc::new(Witness(Arc::clone(&calls), ended));
    // again: mov eax,186; syscall; jmp again
    let code = b"\xb8\xba\0\0\0\x0f\x05\xeb\xf7";
    let _space = start(&platform, code, Registers::entry(CODE, CODE + 4096), witness);
    let attacks = std::env::var("RAMPART_ATTACKS").ok().and_then(|n| n.parse().ok()).unwrap_or(ATTACKS);
    for seed in 1..=attacks {
        if let Err(what) = attack(&platform, seed) {
            panic!("attack {seed}: {what}");
        }
    }
    let before = calls.load(Ordering::SeqCst);
    let began = std::time::Instant::now();
    while calls.load(Ordering::SeqCst) == before {
        assert!(began.elapsed() < LIMIT, "the other guest does not go on");
        std::thread::yield_now();
    }
    assert!(ends.try_recv().is_err(), "the other guest ended");
}
