//! Guests that jump into the stub with whatever registers, and what that must not do: stop the Sentry, keep
//! it waiting, or reach another guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
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

use crate::Systrap;
use crate::layout::{
    ACT_CLONE, CELLS, CLONE_FORK, CLONE_SHARED, DOORBELL, MAILBOX, OFF_CALL, SLOT, STUB, WAIT,
};

const CODE: u64 = 0x40_0000;
const LIMIT: Duration = Duration::from_secs(60);
/// Attacks a run makes; more with `RAMPART_ATTACKS`.
const ATTACKS: u64 = 150;

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
        let stub = super::raw::stub::code().len() as u64;
        match self.below(16) {
            0 => 0,
            1 => u64::MAX,
            2 => MAILBOX + self.below(4) * SLOT,
            3 => MAILBOX + self.below(8 * SLOT),
            4 => STUB + self.below(stub),
            5 => CODE + self.below(4096),
            6 => [u64::from(DOORBELL), u64::from(WAIT), CELLS + self.below(4096)][self.below(3) as usize],
            7 => ACT_CLONE + self.below(2),
            8 => [CLONE_THREAD, CLONE_FORK, CLONE_SHARED][self.below(3) as usize],
            // mmap, mprotect, munmap, rt_sigreturn, mremap, madvise, futex, exits, prctl, seccomp
            9 => [9, 10, 11, 15, 25, 28, 202, 60, 231, 157, 317][self.below(11) as usize],
            10 => self.below(4096),
            11 => 4096 << self.below(20),
            12 => 0x7ffe_0000_0000 + self.below(1 << 32),
            13 => self.below(64),
            14 => self.roll(),
            _ => u64::from(u32::MAX),
        }
    }

    fn registers(&mut self) -> Registers {
        let stub = super::raw::stub::code().len() as u64;
        let mut registers =
            Registers::entry(STUB + self.below(stub), MAILBOX + self.below(4) * SLOT + 0x3000);
        let r = &mut registers;
        let all = [
            &mut r.rax, &mut r.rbx, &mut r.rcx, &mut r.rdx, &mut r.rsi, &mut r.rdi, &mut r.rbp, &mut r.r8,
            &mut r.r9, &mut r.r10, &mut r.r11, &mut r.r12, &mut r.r13, &mut r.r14, &mut r.r15,
        ];
        for register in all {
            *register = self.value();
        }
        if self.below(2) == 0 {
            r.rbx = MAILBOX;
        }
        if self.below(4) == 0 {
            r.rsp = self.value();
        }
        registers
    }
}

/// Sends the guest into the stub again at each trap, some times.
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

    fn trap(&self, thread: &mut dyn GuestThread, _trap: Trap) -> Resume {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 1 {
            return Resume::ExitProcess;
        }
        let registers = self.dice.lock().registers();
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

fn start(platform: &Systrap, registers: Registers, handler: Arc<dyn TrapHandler>) -> Arc<dyn AddressSpace> {
    let space = platform.new_address_space().expect("a space");
    space.apply(&[map(CODE)]).expect("mapped");
    // again: mov eax,186; syscall; jmp again
    space.write(UserAddr(CODE), b"\xb8\xba\0\0\0\x0f\x05\xeb\xf7").expect("written");
    platform
        .spawn(&space, NewThread { registers, fp_state: None, handler, clear_tid: 0 })
        .expect("it starts");
    space
}

/// Writes what the guest could into the words by which it posts calls. There is a thread in the first slots only.
fn scrawl(space: &Arc<dyn AddressSpace>, dice: &mut Dice) {
    for _ in 0..200 {
        let at = MAILBOX + dice.below(2) * SLOT + OFF_CALL as u64 + dice.below(20) * 4;
        let value = if dice.below(2) == 0 { dice.below(6) } else { dice.value() };
        let _ = space.write_forced(UserAddr(at), &value.to_le_bytes()[..4]);
    }
}

fn attack(platform: &Systrap, seed: u64) -> Result<(), &'static str> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let registers = dice.registers();
    let ((ended, ends), (handle, handles)) = (channel(), channel());
    let left = AtomicU32::new(8);
    let space =
        start(platform, registers, Arc::new(Attacker { dice: Mutex::new(dice), left, ended, handle }));
    let handle: Arc<dyn ThreadHandle> = handles.recv_timeout(LIMIT).map_err(|_| "it does not start")?;
    // Whatever it does, others can ask for its memory and get an answer.
    let (done, answered): (Sender<()>, Receiver<()>) = channel();
    let theirs = Arc::clone(&space);
    let mut scribble = Dice(seed | 1 << 40);
    std::thread::spawn(move || {
        scrawl(&theirs, &mut scribble);
        let _ = theirs.apply(&[map(CODE + 0x10_0000)]);
        let _ = theirs.futex_wake(UserAddr(CODE), 1, u32::MAX);
        let _ = theirs.read(UserAddr(CODE), &mut [0; 8]);
        let _ = done.send(());
    });
    answered.recv_timeout(LIMIT).map_err(|_| "a change of its memory waits for ever")?;
    handle.kill_process();
    ends.recv_timeout(LIMIT).map_err(|_| "its end is not told")?;
    Ok(())
}

#[test]
fn jumps_into_the_stub_hurt_nobody_else() {
    let platform = Systrap::new().expect("this machine can run systrap");
    let calls = Arc::new(AtomicU32::new(0));
    let (ended, ends) = channel();
    let witness = Arc::new(Witness(Arc::clone(&calls), ended));
    let space = start(&platform, Registers::entry(CODE, CODE + 4096), witness);
    let attacks = std::env::var("RAMPART_ATTACKS").ok().and_then(|n| n.parse().ok()).unwrap_or(ATTACKS);
    for seed in 1..=attacks {
        if let Err(what) = attack(&platform, seed) {
            panic!("attack {seed}: {what}");
        }
    }
    assert!(ends.try_recv().is_err(), "the witness lives");
    let before = calls.load(Ordering::SeqCst);
    let began = std::time::Instant::now();
    while calls.load(Ordering::SeqCst) == before {
        assert!(began.elapsed() < LIMIT, "the witness makes no progress");
        std::thread::yield_now();
    }
    let mut code = [0; 2];
    space.read(UserAddr(CODE), &mut code).expect("readable");
    assert_eq!(code, [0xb8, 0xba], "its memory is its own");
}
