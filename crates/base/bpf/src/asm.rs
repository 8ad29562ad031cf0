//! An assembler for filters: labels, jumps of any distance, and 64-bit comparisons.
//!
//! ```
//! use bpf::{Action, Assembler, Field, SeccompData, Target};
//! let mut asm = Assembler::new();
//! let (inside, outside) = (asm.label(), asm.label());
//! asm.if_in_range(Field::Ip, 0x7000_0000_0000..0x7000_0000_1000, inside, outside);
//! asm.bind(inside);
//! asm.load_nr();
//! asm.jeq(11, Target::Next, outside); // munmap
//! asm.ret(Action::Allow);
//! asm.bind(outside);
//! asm.ret(Action::UserNotif);
//! let filter = asm.finish().expect("labels are bound and the filter is short");
//! let call = SeccompData { nr: 11, instruction_pointer: 0x7000_0000_0010, ..Default::default() };
//! assert_eq!(Action::from_raw(filter.run(&call)), Action::Allow);
//! ```
//!
//! A conditional jump reaches 255 instructions; one that must go further is widened with `ja`s
//! behind it, so that callers need not count.

use crate::action::Action;
use crate::data::{Field, SeccompData};
use crate::insn::{
    A, ABS, ALU, IMM, Insn, JA, JEQ, JGE, JGT, JMP, JSET, K, LD, LDX, MEM, MISC, RET, ST, STX, TAX, TXA, X,
};
use crate::program::{Program, ProgramError};

/// A place in the filter; made by [`Assembler::label`], placed by [`Assembler::bind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Where a jump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The instruction that follows.
    Next,
    /// A label, which must lie further down.
    To(Label),
}

impl From<Label> for Target {
    fn from(label: Label) -> Self {
        Self::To(label)
    }
}

/// Why a filter could not be assembled: a mistake in the caller's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AsmError {
    /// A jump to a label that was never placed.
    #[error("item {0} jumps to a label that is not bound")]
    Unbound(usize),
    /// A jump up; filters only go down.
    #[error("item {0} jumps backwards")]
    Backwards(usize),
    /// A label placed twice.
    #[error("a label is bound twice")]
    BoundTwice,
    /// The instructions do not make a filter.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// What was asked for, before distances are known.
#[derive(Clone, Copy, Debug)]
enum Item {
    Plain(Insn),
    Always(Target),
    Branch { code: u16, k: u32, then: Target, otherwise: Target },
}

/// A filter under construction. Methods append, in order.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    items: Vec<Item>,
    /// For each label, the index of the item it stands before.
    labels: Vec<Option<usize>>,
    bound_twice: bool,
}

impl Assembler {
    /// An empty filter.
    pub fn new() -> Self {
        Self::default()
    }

    /// A fresh label, not placed yet.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places `label` before the next instruction. A label of another assembler is ignored.
    pub fn bind(&mut self, label: Label) {
        let here = self.items.len();
        if let Some(place) = self.labels.get_mut(label.0) {
            self.bound_twice |= place.replace(here).is_some();
        }
    }

    /// Any instruction that is not a jump, see [`insn`](crate::insn).
    pub fn stmt(&mut self, code: u16, k: u32) {
        self.items.push(Item::Plain(Insn::stmt(code, k)));
    }

    /// `A = nr`.
    pub fn load_nr(&mut self) {
        self.stmt(LD | ABS, 0);
    }

    /// `A = arch`.
    pub fn load_arch(&mut self) {
        self.stmt(LD | ABS, 4);
    }

    /// `A =` the low half of `field`.
    pub fn load_low(&mut self, field: Field) {
        self.stmt(LD | ABS, field.low());
    }

    /// `A =` the high half of `field`.
    pub fn load_high(&mut self, field: Field) {
        self.stmt(LD | ABS, field.high());
    }

    /// `A = value`.
    pub fn load_imm(&mut self, value: u32) {
        self.stmt(LD | IMM, value);
    }

    /// `X = value`.
    pub fn load_x_imm(&mut self, value: u32) {
        self.stmt(LDX | IMM, value);
    }

    /// `A =` scratch word `index`, which must have been stored on every path.
    pub fn load_mem(&mut self, index: u32) {
        self.stmt(LD | MEM, index);
    }

    /// `X =` scratch word `index`, which must have been stored on every path.
    pub fn load_x_mem(&mut self, index: u32) {
        self.stmt(LDX | MEM, index);
    }

    /// Scratch word `index` `= A`.
    pub fn store(&mut self, index: u32) {
        self.stmt(ST, index);
    }

    /// Scratch word `index` `= X`.
    pub fn store_x(&mut self, index: u32) {
        self.stmt(STX, index);
    }

    /// `X = A`.
    pub fn a_to_x(&mut self) {
        self.stmt(MISC | TAX, 0);
    }

    /// `A = X`.
    pub fn x_to_a(&mut self) {
        self.stmt(MISC | TXA, 0);
    }

    /// `A = A op k`, with `op` one of [`insn::ADD`](crate::insn::ADD) and its fellows.
    pub fn alu(&mut self, op: u16, k: u32) {
        self.stmt(ALU | op | K, k);
    }

    /// `A = A op X`.
    pub fn alu_x(&mut self, op: u16) {
        self.stmt(ALU | op | X, 0);
    }

    /// Returns `action`.
    pub fn ret(&mut self, action: Action) {
        self.stmt(RET | K, action.to_raw());
    }

    /// Returns A.
    pub fn ret_a(&mut self) {
        self.stmt(RET | A, 0);
    }

    /// Goes to `target`.
    pub fn jump(&mut self, target: impl Into<Target>) {
        self.items.push(Item::Always(target.into()));
    }

    /// A conditional jump, `op` one of [`insn::JEQ`](crate::insn::JEQ) and its fellows, against `k`.
    pub fn branch(&mut self, op: u16, k: u32, then: impl Into<Target>, otherwise: impl Into<Target>) {
        let (then, otherwise) = (then.into(), otherwise.into());
        self.items.push(Item::Branch { code: JMP | op | K, k, then, otherwise });
    }

    /// A conditional jump, `op` one of [`insn::JEQ`](crate::insn::JEQ) and its fellows, against X.
    pub fn branch_x(&mut self, op: u16, then: impl Into<Target>, otherwise: impl Into<Target>) {
        let (then, otherwise) = (then.into(), otherwise.into());
        self.items.push(Item::Branch { code: JMP | op | X, k: 0, then, otherwise });
    }

    /// Is `A == k`?
    pub fn jeq(&mut self, k: u32, then: impl Into<Target>, otherwise: impl Into<Target>) {
        self.branch(JEQ, k, then, otherwise);
    }

    /// Is `A > k`, unsigned?
    pub fn jgt(&mut self, k: u32, then: impl Into<Target>, otherwise: impl Into<Target>) {
        self.branch(JGT, k, then, otherwise);
    }

    /// Is `A >= k`, unsigned?
    pub fn jge(&mut self, k: u32, then: impl Into<Target>, otherwise: impl Into<Target>) {
        self.branch(JGE, k, then, otherwise);
    }

    /// Is `A & k != 0`?
    pub fn jset(&mut self, k: u32, then: impl Into<Target>, otherwise: impl Into<Target>) {
        self.branch(JSET, k, then, otherwise);
    }
}

/// Comparisons of 64-bit fields. They load A.
impl Assembler {
    /// Is `field == value`?
    pub fn if_eq(&mut self, field: Field, value: u64, then: impl Into<Target>, otherwise: impl Into<Target>) {
        self.if_masked_eq(field, u64::MAX, value, then, otherwise);
    }

    /// Is `field & mask == value`? A half whose mask is zero is not loaded, unless `value` makes
    /// the answer no.
    pub fn if_masked_eq(
        &mut self,
        field: Field,
        mask: u64,
        value: u64,
        then: impl Into<Target>,
        otherwise: impl Into<Target>,
    ) {
        let (then, otherwise) = (then.into(), otherwise.into());
        let end = self.label();
        let (then, otherwise) = (then.or(end), otherwise.or(end));
        for (offset, mask, value) in [
            (field.high(), (mask >> 32) as u32, (value >> 32) as u32),
            (field.low(), mask as u32, value as u32),
        ] {
            if mask == 0 && value == 0 {
                continue;
            }
            self.stmt(LD | ABS, offset);
            if mask != u32::MAX {
                self.alu(crate::insn::AND, mask);
            }
            self.jeq(value, Target::Next, otherwise);
        }
        self.jump_unless_next(then, end);
    }

    /// Is `field & bits != 0`?
    pub fn if_any_set(
        &mut self,
        field: Field,
        bits: u64,
        then: impl Into<Target>,
        otherwise: impl Into<Target>,
    ) {
        let (then, otherwise) = (then.into(), otherwise.into());
        let end = self.label();
        let (then, otherwise) = (then.or(end), otherwise.or(end));
        for (offset, bits) in [(field.high(), (bits >> 32) as u32), (field.low(), bits as u32)] {
            if bits != 0 {
                self.stmt(LD | ABS, offset);
                self.jset(bits, then, Target::Next);
            }
        }
        self.jump_unless_next(otherwise, end);
    }

    /// Is `field >= value`, unsigned?
    pub fn if_ge(&mut self, field: Field, value: u64, then: impl Into<Target>, otherwise: impl Into<Target>) {
        let (then, otherwise) = (then.into(), otherwise.into());
        let end = self.label();
        let (then, otherwise) = (then.or(end), otherwise.or(end));
        self.load_high(field);
        self.jgt((value >> 32) as u32, then, Target::Next);
        self.jeq((value >> 32) as u32, Target::Next, otherwise);
        self.load_low(field);
        self.jge(value as u32, then, otherwise);
        self.bind(end);
    }

    /// Does `field` lie in `range`? An empty range holds nothing.
    pub fn if_in_range(
        &mut self,
        field: Field,
        range: core::ops::Range<u64>,
        then: impl Into<Target>,
        otherwise: impl Into<Target>,
    ) {
        let (then, otherwise) = (then.into(), otherwise.into());
        let end = self.label();
        let (then, otherwise) = (then.or(end), otherwise.or(end));
        if range.is_empty() {
            self.jump_unless_next(otherwise, end);
            return;
        }
        let (first, last) = (range.start, range.end - 1);
        if first >> 32 == last >> 32 {
            // The usual case, a few pages: one load of each half.
            self.load_high(field);
            self.jeq((first >> 32) as u32, Target::Next, otherwise);
            self.load_low(field);
            self.jge(first as u32, Target::Next, otherwise);
            self.jgt(last as u32, otherwise, then);
        } else {
            self.if_ge(field, first, Target::Next, otherwise);
            self.if_ge(field, range.end, otherwise, then);
        }
        self.bind(end);
    }

    /// Goes where `rows` say for the number in A, or to `otherwise`. The rows ascend; so many comparisons as there
    /// are bits in their count.
    pub fn find(&mut self, rows: &[(u32, Label)], otherwise: Label) {
        if let [(number, label)] = rows {
            return self.jeq(*number, *label, otherwise);
        }
        let (low, high) = rows.split_at(rows.len() / 2);
        let Some((first, _)) = high.first() else { return self.jump(otherwise) };
        let upper = self.label();
        self.jge(*first, upper, Target::Next);
        self.find(low, otherwise);
        self.bind(upper);
        self.find(high, otherwise);
    }

    /// Judges the architecture: anything but x86-64 (and, by its number, x32) gets `action`.
    /// Leaves the number in A.
    pub fn require_x86_64(&mut self, action: Action) {
        const X32_BIT: u32 = 0x4000_0000;
        let (bad, good) = (self.label(), self.label());
        self.load_arch();
        self.jeq(SeccompData::ARCH_X86_64, Target::Next, bad);
        self.load_nr();
        self.jset(X32_BIT, Target::Next, good);
        self.bind(bad);
        self.ret(action);
        self.bind(good);
    }

    /// Ends a composite that came to `target`, whose own end is `end`.
    fn jump_unless_next(&mut self, target: Target, end: Label) {
        if target != Target::To(end) {
            self.jump(target);
        }
        self.bind(end);
    }
}

impl Target {
    /// `Next` of a composite means after all of it.
    fn or(self, end: Label) -> Self {
        match self {
            Self::Next => Self::To(end),
            to => to,
        }
    }
}

mod layout;

impl Assembler {
    /// Resolves the labels and checks the result.
    ///
    /// # Errors
    /// See [`AsmError`].
    pub fn finish(&self) -> Result<Program, AsmError> {
        if self.bound_twice {
            return Err(AsmError::BoundTwice);
        }
        let insns = layout::resolve(&self.items, &self.labels)?;
        Ok(Program::new(insns)?)
    }
}

/// `ja` by `k`.
const fn ja(k: u32) -> Insn {
    Insn::stmt(JMP | JA, k)
}

#[cfg(test)]
mod tests;
