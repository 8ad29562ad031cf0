//! Guests that do what they can to do harm, and what that must not do: stop the Sentry, keep it waiting, or reach
//! another guest. What harm looks like differs by backend; a backend says so with an [`Attack`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use abi::mm::Prot;
use guestmem::UserAddr;

use super::kit::{CODE, LIMIT, Watch, anonymous, eventually, script};
use crate::{AddressSpace, GuestThread, NewThread, Platform, Registers, Resume, Trap, TrapHandler};

/// A program that makes nothing but calls. `again: mov eax,186; syscall; jmp again`
pub const CALLS: &[u8] = b"\xb8\xba\0\0\0\x0f\x05\xeb\xf7";

/// A small generator of numbers (Marsaglia's xorshift).
pub struct Dice(u64);

impl Dice {
    /// The same numbers for the same seed; any seed will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
}

/// How the guests of a backend attack.
pub trait Attack {
    /// Guests a run makes; the variable `RAMPART_ATTACKS` says otherwise.
    const GUESTS: u64;
    /// Traps after which a guest is ended.
    const TRAPS: u32;
    /// How long a guest may go on, interrupted, before it is killed.
    const GRACE: Duration = Duration::ZERO;

    /// Where a guest begins, or is sent at a trap.
    fn registers(dice: &mut Dice) -> Registers;

    /// What lies at [`CODE`], at most a page.
    fn code(_dice: &mut Dice) -> Vec<u8> {
        CALLS.to_vec()
    }

    /// What is done at a trap; an answer, unless the guest is to go on elsewhere.
    fn answer(_dice: &mut Dice, _thread: &mut dyn GuestThread, _trap: Trap) -> Option<Resume> {
        None
    }

    /// What is done to its memory meanwhile, from another thread.
    fn meddle(_space: &dyn AddressSpace, _dice: &mut Dice) {}
}

fn page(addr: u64) -> crate::MapOp {
    anonymous(addr, 4096, Prot::READ | Prot::WRITE | Prot::EXEC)
}

fn start(
    platform: &dyn Platform,
    code: &[u8],
    registers: Registers,
    handler: Arc<dyn TrapHandler>,
) -> Arc<dyn AddressSpace> {
    let space = platform.new_address_space().expect("a space");
    space.apply(&[page(CODE)]).expect("mapped");
    space.write(UserAddr(CODE), code).expect("written");
    platform
        .spawn(&space, NewThread { registers, fp_state: None, handler, clear_tid: 0 })
        .expect("it starts");
    space
}

/// One guest.
fn attack<A: Attack>(platform: &dyn Platform, seed: u64) {
    let mut dice = Dice::new(seed);
    let (registers, code) = (A::registers(&mut dice), A::code(&mut dice));
    let mut left = A::TRAPS;
    let (handler, watch) = script(move |thread, trap| {
        left = left.saturating_sub(1);
        if left == 0 {
            return Resume::ExitProcess;
        }
        if let Some(answer) = A::answer(&mut dice, thread, trap) {
            return answer;
        }
        match thread.set_registers(&A::registers(&mut dice)) {
            Ok(()) => Resume::Continue,
            Err(_) => Resume::ExitProcess,
        }
    });
    let space = start(platform, &code, registers, handler);
    let handle = watch.handle();
    // Whatever it does, others can ask for its memory and get an answer.
    let (done, answered) = channel();
    let theirs = Arc::clone(&space);
    let mut scribble = Dice::new(seed | 1 << 40);
    std::thread::spawn(move || {
        A::meddle(&*theirs, &mut scribble);
        let _ = theirs.apply(&[page(CODE + 0x10_0000)]);
        let _ = theirs.futex_wake(UserAddr(CODE), 1, u32::MAX);
        let _ = theirs.read(UserAddr(CODE), &mut [0; 8]);
        let _ = done.send(());
    });
    answered.recv_timeout(LIMIT).expect("a change of its memory is answered");
    if !A::GRACE.is_zero() {
        handle.interrupt();
        if watch.ended_within(A::GRACE) {
            return;
        }
    }
    handle.kill_process();
    watch.end();
}

/// Starts a guest that goes on making calls, and then many that attack.
pub fn hurts_nobody_else<A: Attack>(platform: &dyn Platform) {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let (handler, witness): (_, Watch) = script(move |_, trap| {
        if !matches!(trap, Trap::Syscall(_)) {
            return Resume::ExitProcess;
        }
        counter.fetch_add(1, Ordering::SeqCst);
        Resume::Return(0)
    });
    let space = start(platform, CALLS, Registers::entry(CODE, CODE + 4096), handler);
    let guests = std::env::var("RAMPART_ATTACKS").ok().and_then(|n| n.parse().ok()).unwrap_or(A::GUESTS);
    for seed in 1..=guests {
        let attacked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attack::<A>(platform, seed)));
        assert!(attacked.is_ok(), "attack {seed} is told of above");
    }
    assert!(!witness.ended_within(Duration::ZERO), "the other guest ended");
    let before = calls.load(Ordering::SeqCst);
    eventually("the other guest goes on", || calls.load(Ordering::SeqCst) != before);
    let mut code = vec![0; CALLS.len()];
    space.read(UserAddr(CODE), &mut code).expect("readable");
    assert_eq!(code, CALLS, "its memory is its own");
}
