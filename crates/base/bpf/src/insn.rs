//! One instruction, and the words its code is made of (`linux/bpf_common.h`).

/// One instruction: the layout of `struct sock_filter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Insn {
    /// Class, operation, width and source, or-ed together.
    pub code: u16,
    /// Instructions to skip when a conditional jump is taken.
    pub jt: u8,
    /// Instructions to skip when it is not.
    pub jf: u8,
    /// The immediate operand.
    pub k: u32,
}

impl Insn {
    /// Bytes of an instruction in memory.
    pub const SIZE: usize = 8;

    /// An instruction that is not a conditional jump.
    pub const fn stmt(code: u16, k: u32) -> Self {
        Self { code, jt: 0, jf: 0, k }
    }

    /// A conditional jump: skips `jt` instructions when it holds, else `jf`.
    pub const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Self {
        Self { code, jt, jf, k }
    }

    /// Its bytes as one number, for those that store or send it.
    pub const fn to_word(self) -> u64 {
        self.code as u64 | (self.jt as u64) << 16 | (self.jf as u64) << 24 | (self.k as u64) << 32
    }

    /// From [`Insn::to_word`].
    pub const fn from_word(word: u64) -> Self {
        Self { code: word as u16, jt: (word >> 16) as u8, jf: (word >> 24) as u8, k: (word >> 32) as u32 }
    }

    /// From the bytes of a `struct sock_filter`, native endian.
    pub const fn from_bytes(b: [u8; Self::SIZE]) -> Self {
        Self {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        }
    }

    /// The bytes of a `struct sock_filter`, native endian.
    pub const fn to_bytes(self) -> [u8; Self::SIZE] {
        let (c, k) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [c[0], c[1], self.jt, self.jf, k[0], k[1], k[2], k[3]]
    }
}

/// Words of scratch memory a program has (`BPF_MEMWORDS`).
pub const MEM_WORDS: u32 = 16;

// Classes.
/// Load into A.
pub const LD: u16 = 0x00;
/// Load into X.
pub const LDX: u16 = 0x01;
/// Store A to scratch memory.
pub const ST: u16 = 0x02;
/// Store X to scratch memory.
pub const STX: u16 = 0x03;
/// Arithmetic on A.
pub const ALU: u16 = 0x04;
/// Jump.
pub const JMP: u16 = 0x05;
/// Return.
pub const RET: u16 = 0x06;
/// Moves between A and X.
pub const MISC: u16 = 0x07;

// Modes of a load; the width is always a 32-bit word (0) in a seccomp filter.
/// An immediate.
pub const IMM: u16 = 0x00;
/// A word of `seccomp_data`.
pub const ABS: u16 = 0x20;
/// Bytes of a packet, at X and the operand.
pub const IND: u16 = 0x40;
/// Four times the low half of a byte of a packet: the length of a head of IPv4.
pub const MSH: u16 = 0xa0;
/// Widths of a load from a packet: two bytes, and one.
pub const HALF: u16 = 0x08;
/// One byte.
pub const BYTE: u16 = 0x10;
/// A word of scratch memory.
pub const MEM: u16 = 0x60;
/// The length of `seccomp_data`.
pub const LEN: u16 = 0x80;

// Operands.
/// The operand is `k`.
pub const K: u16 = 0x00;
/// The operand is X.
pub const X: u16 = 0x08;
/// The value returned is A (in class [`RET`]).
pub const A: u16 = 0x10;

// Arithmetic.
/// `A += operand`.
pub const ADD: u16 = 0x00;
/// `A -= operand`.
pub const SUB: u16 = 0x10;
/// `A *= operand`.
pub const MUL: u16 = 0x20;
/// `A /= operand`; a zero X ends the program with 0.
pub const DIV: u16 = 0x30;
/// `A |= operand`.
pub const OR: u16 = 0x40;
/// `A &= operand`.
pub const AND: u16 = 0x50;
/// `A <<= operand`.
pub const LSH: u16 = 0x60;
/// `A >>= operand`.
pub const RSH: u16 = 0x70;
/// `A %= operand`; a zero X ends the program with 0. Not in seccomp filters.
pub const MOD: u16 = 0x90;
/// `A = -A`.
pub const NEG: u16 = 0x80;
/// `A ^= operand`.
pub const XOR: u16 = 0xa0;

// Jumps.
/// Always, by `k`.
pub const JA: u16 = 0x00;
/// When `A == operand`.
pub const JEQ: u16 = 0x10;
/// When `A > operand`, unsigned.
pub const JGT: u16 = 0x20;
/// When `A >= operand`, unsigned.
pub const JGE: u16 = 0x30;
/// When `A & operand != 0`.
pub const JSET: u16 = 0x40;

// Moves.
/// `X = A`.
pub const TAX: u16 = 0x00;
/// `A = X`.
pub const TXA: u16 = 0x80;
