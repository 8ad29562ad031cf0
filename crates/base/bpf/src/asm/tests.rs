//! The assembler against the meaning of what was asked, judged by the interpreter.

use proptest::prelude::{any, prop, proptest};

use super::{AsmError, Assembler, Target};
use crate::action::Action;
use crate::data::{Arg, Field, SeccompData};
use crate::insn::{ADD, JEQ};

const FIELD: Field = Field::Arg(Arg::A3);

/// Whether the filter that `build` makes of one test says yes for `value` in [`FIELD`]. `padding`
/// instructions lie between the test and the answers, so that jumps have to be widened.
fn says_yes(value: u64, padding: usize, build: impl Fn(&mut Assembler, Target, Target)) -> bool {
    let mut asm = Assembler::new();
    let (yes, no) = (asm.label(), asm.label());
    build(&mut asm, yes.into(), no.into());
    for _ in 0..padding {
        asm.load_imm(0);
    }
    asm.bind(yes);
    asm.ret(Action::Allow);
    for _ in 0..padding {
        asm.load_imm(0);
    }
    asm.bind(no);
    asm.ret(Action::KillProcess);
    let data = SeccompData { args: [0, 0, 0, value, 0, 0], ..Default::default() };
    Action::from_raw(asm.finish().expect("assembles").run(&data)) == Action::Allow
}

/// The same with one answer being "go on".
fn falls_through(value: u64, build: impl Fn(&mut Assembler, Target, Target)) -> bool {
    let mut asm = Assembler::new();
    let no = asm.label();
    build(&mut asm, Target::Next, no.into());
    asm.ret(Action::Allow);
    asm.bind(no);
    asm.ret(Action::KillProcess);
    let data = SeccompData { args: [0, 0, 0, value, 0, 0], ..Default::default() };
    Action::from_raw(asm.finish().expect("assembles").run(&data)) == Action::Allow
}

#[test]
fn mistakes_are_told() {
    let mut asm = Assembler::new();
    let label = asm.label();
    asm.jump(label);
    asm.ret(Action::Allow);
    assert_eq!(asm.finish(), Err(AsmError::Unbound(0)));
    asm.bind(label);
    asm.ret(Action::Log);
    assert!(asm.finish().is_ok());
    asm.jump(label);
    assert_eq!(asm.finish(), Err(AsmError::Backwards(3)));
    asm.bind(label);
    assert_eq!(asm.finish(), Err(AsmError::BoundTwice));
}

#[test]
fn only_x86_64_passes_the_architecture_check() {
    let mut asm = Assembler::new();
    asm.require_x86_64(Action::KillProcess);
    asm.jeq(39, Target::Next, Target::Next);
    asm.ret(Action::Errno(1));
    let filter = asm.finish().expect("assembles");
    let judge = |arch, nr| Action::from_raw(filter.run(&SeccompData { nr, arch, ..Default::default() }));
    assert_eq!(judge(SeccompData::ARCH_X86_64, 39), Action::Errno(1));
    assert_eq!(judge(SeccompData::ARCH_X86_64, 39 | 0x4000_0000), Action::KillProcess);
    assert_eq!(judge(0x4000_0003, 39), Action::KillProcess);
}

#[test]
fn arithmetic_goes_through_x_and_memory() {
    let mut asm = Assembler::new();
    let (same, differ) = (asm.label(), asm.label());
    asm.load_low(Field::Ip);
    asm.store(2);
    asm.load_low(FIELD);
    asm.a_to_x();
    asm.load_mem(2);
    asm.alu_x(ADD);
    asm.load_x_imm(12);
    asm.branch_x(JEQ, same, differ);
    asm.bind(same);
    asm.ret_a();
    asm.bind(differ);
    asm.ret(Action::Allow);
    let run = |ip, arg| {
        let data = SeccompData { instruction_pointer: ip, args: [0, 0, 0, arg, 0, 0], ..Default::default() };
        asm.finish().expect("assembles").run(&data)
    };
    assert_eq!(run(5, 7), 12);
    assert_eq!(run(5, 8), Action::Allow.to_raw());
}

proptest! {
    #[test]
    fn comparisons_mean_what_they_say(
        // Near values and shared halves are where a comparison of halves goes wrong.
        high in 0u64..3, other_high in 0u64..3, low in any::<u32>(), delta in -2i64..3,
        mask in any::<u64>(), padding in prop::sample::select(vec![0usize, 1, 254, 255, 256, 300]),
    ) {
        let value = high << 32 | u64::from(low);
        let other = (other_high << 32 | u64::from(low)).wrapping_add_signed(delta);
        let both = |expected: bool, build: &dyn Fn(&mut Assembler, Target, Target)| {
            assert_eq!(says_yes(value, padding, build), expected);
            assert_eq!(falls_through(value, build), expected);
            assert_eq!(!falls_through(value, |asm, yes, no| build(asm, no, yes)), expected);
        };
        both(value == other, &|asm, yes, no| asm.if_eq(FIELD, other, yes, no));
        both(value >= other, &|asm, yes, no| asm.if_ge(FIELD, other, yes, no));
        both(value & other != 0, &|asm, yes, no| asm.if_any_set(FIELD, other, yes, no));
        both(value & mask == other & mask, &|asm, yes, no| {
            asm.if_masked_eq(FIELD, mask, other & mask, yes, no);
        });
        for end in [other.wrapping_add(3), other.wrapping_add(5 << 32), other] {
            both((other..end).contains(&value), &|asm, yes, no| asm.if_in_range(FIELD, other..end, yes, no));
        }
    }
}
