//! Tests of the checks, and of the interpreter instruction by instruction.

use proptest::prelude::{Strategy, any, prop, prop_oneof, proptest};

use super::{MAX_INSNS, Program, ProgramError};
use crate::data::SeccompData;
use crate::insn::{
    A, ABS, ADD, ALU, DIV, IMM, Insn, JA, JEQ, JMP, K, LD, LDX, LEN, LSH, MEM, MISC, NEG, RET, ST, SUB, TXA,
    X,
};

const RET_A: Insn = Insn::stmt(RET | A, 0);

fn checked(insns: &[Insn]) -> Result<Program, ProgramError> {
    Program::new(insns)
}

fn result(insns: &[Insn]) -> u32 {
    checked(insns).expect("legal").run(&SeccompData::default())
}

#[test]
fn lengths_and_ends() {
    assert_eq!(checked(&[]), Err(ProgramError::Length(0)));
    assert_eq!(checked(&vec![RET_A; MAX_INSNS + 1]), Err(ProgramError::Length(MAX_INSNS + 1)));
    assert!(checked(&vec![RET_A; MAX_INSNS]).is_ok());
    assert_eq!(checked(&[Insn::stmt(LD | IMM, 1)]), Err(ProgramError::NoReturn));
}

#[test]
fn loads_stay_inside_seccomp_data() {
    let load = |k| checked(&[Insn::stmt(LD | ABS, k), RET_A]).map(|_| ());
    assert_eq!(load(60), Ok(()));
    assert_eq!(load(64), Err(ProgramError::Operand { at: 0, k: 64 }));
    assert_eq!(load(2), Err(ProgramError::Operand { at: 0, k: 2 }));
    // Bytes, indirect loads and the packet-only mode of LDX are for packets.
    for code in [LD | ABS | 0x10, LD | 0x40, LDX | 0xa0, LDX | ABS] {
        assert_eq!(checked(&[Insn::stmt(code, 0), RET_A]), Err(ProgramError::Code { at: 0, code }));
    }
}

#[test]
fn jumps_stay_inside_the_program() {
    let jump = |insn| checked(&[insn, RET_A]).map(|_| ());
    assert_eq!(jump(Insn::stmt(JMP | JA, 0)), Ok(()));
    assert_eq!(jump(Insn::stmt(JMP | JA, 1)), Err(ProgramError::Jump(0)));
    assert_eq!(jump(Insn::stmt(JMP | JA, u32::MAX)), Err(ProgramError::Jump(0)));
    assert_eq!(jump(Insn::jump(JMP | JEQ, 0, 0, 1)), Err(ProgramError::Jump(0)));
    assert_eq!(jump(Insn::jump(JMP | JEQ, 0, 1, 0)), Err(ProgramError::Jump(0)));
}

#[test]
fn constants_that_cannot_be_computed_with_are_refused() {
    for (code, k) in [(ALU | DIV, 0), (ALU | LSH, 32), (ST, 16), (LD | MEM, 16)] {
        assert_eq!(checked(&[Insn::stmt(code, k), RET_A]), Err(ProgramError::Operand { at: 0, k }));
    }
    let modulo = ALU | 0x90;
    assert_eq!(checked(&[Insn::stmt(modulo, 3), RET_A]), Err(ProgramError::Code { at: 0, code: modulo }));
}

#[test]
fn a_scratch_word_must_be_set_on_every_path() {
    let read = Insn::stmt(LD | MEM, 3);
    assert_eq!(checked(&[read, RET_A]), Err(ProgramError::Unset(0)));
    assert!(checked(&[Insn::stmt(ST, 3), read, RET_A]).is_ok());
    let one_side = [Insn::jump(JMP | JEQ, 0, 0, 1), Insn::stmt(ST, 3), read, RET_A];
    assert_eq!(checked(&one_side), Err(ProgramError::Unset(2)));
}

#[test]
fn arithmetic_is_that_of_32_bits() {
    let with_x = |a, x, op| {
        result(&[Insn::stmt(LDX | IMM, x), Insn::stmt(LD | IMM, a), Insn::stmt(ALU | X | op, 0), RET_A])
    };
    assert_eq!(with_x(u32::MAX, 2, ADD), 1);
    assert_eq!(with_x(1, 2, SUB), u32::MAX);
    assert_eq!(with_x(7, 2, DIV), 3);
    assert_eq!(with_x(1, 33, LSH), 2);
    assert_eq!(result(&[Insn::stmt(LD | IMM, 5), Insn::stmt(ALU | NEG, 0), RET_A]), -5i32 as u32);
    // A division by a zero X ends the program, whatever follows.
    assert_eq!(result(&[Insn::stmt(ALU | DIV | X, 0), Insn::stmt(RET | K, 9)]), 0);
    assert_eq!(result(&[Insn::stmt(LDX | LEN, 0), Insn::stmt(MISC | TXA, 0), RET_A]), 64);
}

/// Instructions that are likely to be legal, so that programs get past the checks.
fn likely() -> impl Strategy<Value = Insn> {
    let code = prop::sample::select((0u16..0x100).collect::<Vec<_>>());
    prop_oneof![
        (code, 0u8..4, 0u8..4, 0u32..70).prop_map(|(code, jt, jf, k)| Insn { code, jt, jf, k }),
        (any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()).prop_map(|(code, jt, jf, k)| Insn {
            code,
            jt,
            jf,
            k
        }),
    ]
}

proptest! {
    #[test]
    fn no_list_of_instructions_panics(
        mut insns in prop::collection::vec(likely(), 0..40),
        nr: u32, ip: u64, args: [u64; 6],
    ) {
        let data = SeccompData { nr, arch: SeccompData::ARCH_X86_64, instruction_pointer: ip, args };
        // Drop what is refused until the rest is a program, so that it also gets to run.
        insns.push(RET_A);
        loop {
            let at = match Program::new(&insns[..]) {
                Ok(program) => {
                    program.run(&data);
                    break;
                }
                Err(ProgramError::Code { at, .. } | ProgramError::Operand { at, .. }) => at,
                Err(ProgramError::Jump(at) | ProgramError::Unset(at)) => at,
                Err(ProgramError::NoReturn | ProgramError::Length(_)) => break,
            };
            insns.remove(at);
        }
    }

    #[test]
    fn bytes_round_trip(bytes: [u8; Insn::SIZE]) {
        assert_eq!(Insn::from_bytes(bytes).to_bytes(), bytes);
    }
}
