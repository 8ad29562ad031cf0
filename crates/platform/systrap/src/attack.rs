//! Guests that jump into the stub with whatever registers, and scrawl on their mailboxes.

use guestmem::UserAddr;
use hostproc::ops::CLONE_THREAD;
use platform::conformance::CODE;
use platform::conformance::attack::{Attack, Dice, hurts_nobody_else};
use platform::{AddressSpace, Registers};

use crate::Systrap;
use crate::layout::{
    ACT_CLONE, CELLS, CLONE_FORK, CLONE_SHARED, DOORBELL, MAILBOX, OFF_CALL, SLOT, STUB, WAIT,
};

/// What a register may hold to do harm.
fn value(dice: &mut Dice) -> u64 {
    let stub = super::raw::stub::code().len() as u64;
    match dice.below(16) {
        0 => 0,
        1 => u64::MAX,
        2 => MAILBOX + dice.below(4) * SLOT,
        3 => MAILBOX + dice.below(8 * SLOT),
        4 => STUB + dice.below(stub),
        5 => CODE + dice.below(4096),
        6 => [u64::from(DOORBELL), u64::from(WAIT), CELLS + dice.below(4096)][dice.below(3) as usize],
        7 => ACT_CLONE + dice.below(2),
        8 => [CLONE_THREAD, CLONE_FORK, CLONE_SHARED][dice.below(3) as usize],
        // mmap, mprotect, munmap, rt_sigreturn, mremap, madvise, futex, exits, prctl, seccomp
        9 => [9, 10, 11, 15, 25, 28, 202, 60, 231, 157, 317][dice.below(11) as usize],
        10 => dice.below(4096),
        11 => 4096 << dice.below(20),
        12 => 0x7ffe_0000_0000 + dice.below(1 << 32),
        13 => dice.below(64),
        14 => dice.roll(),
        _ => u64::from(u32::MAX),
    }
}

/// Sends a guest into the stub at each trap.
struct StubJumps;

impl Attack for StubJumps {
    const GUESTS: u64 = 150;
    const TRAPS: u32 = 8;

    fn registers(dice: &mut Dice) -> Registers {
        let stub = super::raw::stub::code().len() as u64;
        let mut registers =
            Registers::entry(STUB + dice.below(stub), MAILBOX + dice.below(4) * SLOT + 0x3000);
        let r = &mut registers;
        let all = [
            &mut r.rax, &mut r.rbx, &mut r.rcx, &mut r.rdx, &mut r.rsi, &mut r.rdi, &mut r.rbp, &mut r.r8,
            &mut r.r9, &mut r.r10, &mut r.r11, &mut r.r12, &mut r.r13, &mut r.r14, &mut r.r15,
        ];
        for register in all {
            *register = value(dice);
        }
        if dice.below(2) == 0 {
            r.rbx = MAILBOX;
        }
        if dice.below(4) == 0 {
            r.rsp = value(dice);
        }
        registers
    }

    /// Writes what the guest could into the words by which it posts calls. There is a thread in the first slots only.
    fn meddle(space: &dyn AddressSpace, dice: &mut Dice) {
        for _ in 0..200 {
            let at = MAILBOX + dice.below(2) * SLOT + OFF_CALL as u64 + dice.below(40) * 4;
            let value = if dice.below(2) == 0 { dice.below(6) } else { value(dice) };
            let _ = space.write_forced(UserAddr(at), &value.to_le_bytes()[..4]);
        }
    }
}

#[test]
fn jumps_into_the_stub_hurt_nobody_else() {
    hurts_nobody_else::<StubJumps>(&Systrap::new().expect("this machine can run systrap"));
}
