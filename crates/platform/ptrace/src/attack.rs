//! Guests that run random code with random registers, in the stub too.

use std::time::Duration;

use guestmem::UserAddr;
use hostproc::ops::CLONE_THREAD;
use platform::conformance::CODE;
use platform::conformance::attack::{Attack, Dice, hurts_nobody_else};
use platform::{GuestThread, Registers, Resume, Trap};

use crate::Ptrace;
use crate::layout::{CLONE_FORK, CLONE_SHARED, CODE as STUB_CODE, STUB, VSYSCALL};

/// What a register may hold to do harm.
fn value(dice: &mut Dice) -> u64 {
    match dice.below(12) {
        0 => 0,
        1 => u64::MAX,
        2 => STUB + dice.below(64),
        3 => CODE + dice.below(4096),
        4 => [CLONE_THREAD, CLONE_FORK, CLONE_SHARED][dice.below(3) as usize],
        // mmap, mprotect, munmap, rt_sigreturn, clone, fork, execve, exits, ptrace, prctl, futex, seccomp
        5 => [9, 10, 11, 15, 56, 57, 59, 60, 231, 101, 157, 202, 317][dice.below(13) as usize],
        6 => dice.below(4096),
        7 => 1 << dice.below(64),
        8 => [1, 9, 128, 202][dice.below(4) as usize],
        9 => 0xffff_8000_0000_0000 | dice.roll(),
        10 => dice.roll(),
        _ => u64::from(u32::MAX),
    }
}

/// Lets a guest go on, or sends it elsewhere.
struct RandomCode;

impl Attack for RandomCode {
    const GUESTS: u64 = 200;
    const TRAPS: u32 = 50;
    const GRACE: Duration = Duration::from_millis(5);

    fn registers(dice: &mut Dice) -> Registers {
        let rip = match dice.below(8) {
            0..=2 => STUB + dice.below(STUB_CODE.len() as u64),
            3 => VSYSCALL + 1024 * dice.below(4),
            4 => value(dice),
            _ => CODE + dice.below(4096),
        };
        let mut registers = Registers::entry(rip, CODE + dice.below(4096));
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
            *register = value(dice);
        }
        registers
    }

    /// Random bytes, with calls strewn in.
    fn code(dice: &mut Dice) -> Vec<u8> {
        let mut code: Vec<u8> = (0..512).flat_map(|_| dice.roll().to_le_bytes()).collect();
        for _ in 0..200 {
            let at = dice.below(4094) as usize;
            let bytes =
                [[0x0f, 0x05], [0xcd, 0x80], [0x0f, 0x34], [0x9d, 0x90]][dice.below(12).min(3) as usize];
            code.splice(at..at + 2, if dice.below(3) == 0 { bytes } else { [0x0f, 0x05] });
        }
        code
    }

    fn answer(dice: &mut Dice, thread: &mut dyn GuestThread, trap: Trap) -> Option<Resume> {
        if matches!(trap, Trap::Syscall(_)) && dice.below(2) == 0 {
            return Some(Resume::Return(value(dice)));
        }
        if dice.below(4) == 0 {
            let _ = thread.address_space().compare_exchange_u32(UserAddr(CODE), 0, 1);
            let _ = thread.set_fp_state(&Self::code(dice));
        }
        None
    }
}

#[test]
fn random_code_hurts_nobody_else() {
    hurts_nobody_else::<RandomCode>(&Ptrace::new().expect("this machine can run ptrace"));
}
