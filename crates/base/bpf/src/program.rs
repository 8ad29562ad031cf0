//! A checked filter, and its interpreter.
//!
//! The checks are those of `seccomp(2)`: [`Program::new`] refuses what Linux refuses, so that
//! [`Program::run`] needs no fuel (jumps only go forward) and cannot read an unset scratch word.

use crate::data::SeccompData;
use crate::insn::{
    A, ABS, ADD, ALU, AND, DIV, IMM, Insn, JA, JEQ, JGE, JGT, JMP, JSET, K, LD, LDX, LEN, LSH, MEM,
    MEM_WORDS, MISC, MOD, MUL, NEG, OR, RET, RSH, ST, STX, SUB, TAX, TXA, X, XOR,
};

/// Most instructions a filter may have (`BPF_MAXINSNS`).
pub const MAX_INSNS: usize = 4096;

/// Why an instruction list is not a filter. A guest sees `EINVAL` for each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// No instruction, or more than [`MAX_INSNS`].
    #[error("a filter has 1 to {MAX_INSNS} instructions, not {0}")]
    Length(usize),
    /// The code is not one that a seccomp filter may use.
    #[error("instruction {at}: code {code:#06x} is not allowed")]
    Code {
        /// Index of the instruction.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// A load that is unaligned or outside `seccomp_data`, a division by the constant zero, a
    /// constant shift by 32 or more, or a scratch word that does not exist.
    #[error("instruction {at}: operand {k} is out of range")]
    Operand {
        /// Index of the instruction.
        at: usize,
        /// Its operand.
        k: u32,
    },
    /// A jump past the end.
    #[error("instruction {0}: jumps past the end")]
    Jump(usize),
    /// A scratch word that is read where it may not have been written.
    #[error("instruction {0}: reads a scratch word that may be unset")]
    Unset(usize),
    /// The last instruction does not return.
    #[error("the last instruction does not return")]
    NoReturn,
}

/// A filter that Linux would accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Box<[Insn]>);

impl Program {
    /// Checks `insns` as Linux does.
    ///
    /// # Errors
    /// The first thing wrong, see [`ProgramError`].
    pub fn new(insns: impl Into<Box<[Insn]>>) -> Result<Self, ProgramError> {
        let insns = insns.into();
        if insns.is_empty() || insns.len() > MAX_INSNS {
            return Err(ProgramError::Length(insns.len()));
        }
        for (at, insn) in insns.iter().enumerate() {
            check_insn(*insn, at, insns.len())?;
        }
        if !insns.last().is_some_and(|last| [RET | K, RET | A].contains(&last.code)) {
            return Err(ProgramError::NoReturn);
        }
        check_scratch(&insns)?;
        Ok(Self(insns))
    }

    /// The instructions.
    pub fn insns(&self) -> &[Insn] {
        &self.0
    }

    /// How many instructions: what counts against `MAX_INSNS_PER_PATH`.
    #[expect(clippy::len_without_is_empty, reason = "a program is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Judges a call: the raw value returned, see [`Action::from_raw`](crate::Action::from_raw).
    ///
    /// Takes at most [`len`](Self::len) steps.
    pub fn run(&self, data: &SeccompData) -> u32 {
        let mut machine = Machine::default();
        let mut pc = 0usize;
        while let Some(insn) = self.0.get(pc) {
            match machine.step(*insn, data) {
                Step::Skip(n) => pc = pc.saturating_add(1).saturating_add(n as usize),
                Step::Return(value) => return value,
            }
        }
        // The checks leave no way here; killing is what Linux does with a 0.
        0
    }
}

/// Checks one instruction by itself.
fn check_insn(insn: Insn, at: usize, len: usize) -> Result<(), ProgramError> {
    let Insn { code, k, .. } = insn;
    if (code & 0x07, code & !0x07) == (LD, ABS) {
        let good = k < SeccompData::SIZE && k.is_multiple_of(4);
        return if good { Ok(()) } else { Err(ProgramError::Operand { at, k }) };
    }
    check_common(insn, at, len)
}

/// Checks an instruction that every kind of filter may have.
pub(crate) fn check_common(insn: Insn, at: usize, len: usize) -> Result<(), ProgramError> {
    let Insn { code, jt, jf, k } = insn;
    let operand = |good: bool| if good { Ok(()) } else { Err(ProgramError::Operand { at, k }) };
    let lands = |skip: usize| skip < len - at - 1;
    let jump = |good: bool| if good { Ok(()) } else { Err(ProgramError::Jump(at)) };
    match (code & 0x07, code & !0x07) {
        (LD | LDX, IMM | LEN) | (RET, K | A) | (MISC, TAX | TXA) => Ok(()),
        (LD | LDX, MEM) | (ST | STX, 0) => operand(k < MEM_WORDS),
        (ALU, op) => match (op & 0xf0, op & X) {
            (ADD | SUB | MUL | OR | AND | XOR, _) | (DIV | LSH | RSH, X) | (NEG, K) => legal(op, at, code),
            (DIV, K) => legal(op, at, code).and(operand(k != 0)),
            (LSH | RSH, K) => legal(op, at, code).and(operand(k < 32)),
            _ => Err(ProgramError::Code { at, code }),
        },
        (JMP, JA) => jump(lands(k as usize)),
        (JMP, op) if matches!(op & !X, JEQ | JGT | JGE | JSET) => jump(lands(jt.into()) && lands(jf.into())),
        _ => Err(ProgramError::Code { at, code }),
    }
}

/// Refuses bits of an arithmetic code beyond operation and source.
pub(crate) fn legal(op: u16, at: usize, code: u16) -> Result<(), ProgramError> {
    if op & !(0xf0 | X) == 0 { Ok(()) } else { Err(ProgramError::Code { at, code }) }
}

/// Refuses a scratch word read where some path has not written it. One bit a word; forward jumps
/// make a single pass enough.
pub(crate) fn check_scratch(insns: &[Insn]) -> Result<(), ProgramError> {
    let mut set_on_entry = vec![u16::MAX; insns.len()];
    let mut set = 0u16;
    for (at, insn) in insns.iter().enumerate() {
        set &= set_on_entry.get(at).copied().unwrap_or(0);
        let mut jump_to = |skip: usize| {
            if let Some(entry) = set_on_entry.get_mut(at + 1 + skip) {
                *entry &= set;
            }
        };
        match (insn.code & 0x07, insn.code & !0x07) {
            (ST | STX, _) => set |= 1 << insn.k,
            (LD | LDX, MEM) if set & (1 << insn.k) == 0 => return Err(ProgramError::Unset(at)),
            (JMP, op) => {
                if op == JA {
                    jump_to(insn.k as usize);
                } else {
                    jump_to(insn.jt.into());
                    jump_to(insn.jf.into());
                }
                // Nothing falls through a jump; only what jumps to the next instruction counts.
                set = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The registers and scratch memory of a running filter.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) a: u32,
    pub(crate) x: u32,
    pub(crate) mem: [u32; MEM_WORDS as usize],
}

/// What an instruction does to control flow.
pub(crate) enum Step {
    /// Go on after skipping this many instructions.
    Skip(u32),
    /// The program is done.
    Return(u32),
}

impl Machine {
    fn step(&mut self, insn: Insn, data: &SeccompData) -> Step {
        let Insn { code, k, .. } = insn;
        match code & 0x07 {
            LD => self.a = self.load(code & !0x07, k, data),
            LDX => self.x = self.load(code & !0x07, k, data),
            _ => return self.step_without_load(insn),
        }
        Step::Skip(0)
    }

    /// An instruction that loads nothing.
    pub(crate) fn step_without_load(&mut self, insn: Insn) -> Step {
        let Insn { code, k, .. } = insn;
        let rest = code & !0x07;
        match code & 0x07 {
            ST => self.store(k, self.a),
            STX => self.store(k, self.x),
            ALU => return self.alu(rest, k),
            JMP if rest == JA => return Step::Skip(k),
            JMP => return self.branch(insn),
            RET => return Step::Return(if rest == A { self.a } else { k }),
            _ if rest == TAX => self.x = self.a,
            _ => self.a = self.x,
        }
        Step::Skip(0)
    }

    fn load(&self, mode: u16, k: u32, data: &SeccompData) -> u32 {
        match mode {
            ABS => data.word(k).unwrap_or(0),
            MEM => self.mem.get(k as usize).copied().unwrap_or(0),
            LEN => SeccompData::SIZE,
            _ => k,
        }
    }

    fn store(&mut self, k: u32, value: u32) {
        if let Some(word) = self.mem.get_mut(k as usize) {
            *word = value;
        }
    }

    fn alu(&mut self, op: u16, k: u32) -> Step {
        let operand = if op & X != 0 { self.x } else { k };
        self.a = match op & !X {
            ADD => self.a.wrapping_add(operand),
            SUB => self.a.wrapping_sub(operand),
            MUL => self.a.wrapping_mul(operand),
            DIV => match self.a.checked_div(operand) {
                Some(quotient) => quotient,
                None => return Step::Return(0),
            },
            MOD => match self.a.checked_rem(operand) {
                Some(rest) => rest,
                None => return Step::Return(0),
            },
            OR => self.a | operand,
            AND => self.a & operand,
            // The count is taken modulo 32, as the shift instruction does.
            LSH => self.a.wrapping_shl(operand),
            RSH => self.a.wrapping_shr(operand),
            NEG => self.a.wrapping_neg(),
            _ => self.a ^ operand,
        };
        Step::Skip(0)
    }

    fn branch(&self, insn: Insn) -> Step {
        let operand = if insn.code & X != 0 { self.x } else { insn.k };
        let taken = match insn.code & 0xf0 {
            JEQ => self.a == operand,
            JGT => self.a > operand,
            JGE => self.a >= operand,
            _ => self.a & operand != 0,
        };
        Step::Skip(if taken { insn.jt } else { insn.jf }.into())
    }
}

#[cfg(test)]
mod tests;
