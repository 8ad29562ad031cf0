//! What a seccomp filter sees: `struct seccomp_data` (`linux/seccomp.h`).

/// The system call under judgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SeccompData {
    /// The system-call number.
    pub nr: u32,
    /// The `AUDIT_ARCH_*` of the call.
    pub arch: u32,
    /// Where the `syscall` instruction returns to.
    pub instruction_pointer: u64,
    /// The six argument registers.
    pub args: [u64; 6],
}

impl SeccompData {
    /// Bytes of the structure, and what `BPF_LEN` loads.
    pub const SIZE: u32 = 64;
    /// `AUDIT_ARCH_X86_64`.
    pub const ARCH_X86_64: u32 = 0xc000_003e;

    /// The 32-bit word at byte `offset`, little endian as on x86-64. `None` when `offset` is not a
    /// multiple of 4 below [`SIZE`](Self::SIZE).
    pub fn word(&self, offset: u32) -> Option<u32> {
        if !offset.is_multiple_of(4) {
            return None;
        }
        let half = |value: u64| if offset.is_multiple_of(8) { value as u32 } else { (value >> 32) as u32 };
        match offset {
            0 => Some(self.nr),
            4 => Some(self.arch),
            8 | 12 => Some(half(self.instruction_pointer)),
            _ => self.args.get((offset as usize - 16) / 8).map(|arg| half(*arg)),
        }
    }
}

/// A 64-bit field of [`SeccompData`], which a filter loads in two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The instruction pointer after the `syscall` instruction.
    Ip,
    /// An argument.
    Arg(Arg),
}

/// Which argument register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// The first argument.
    A0,
    /// The second argument.
    A1,
    /// The third argument.
    A2,
    /// The fourth argument.
    A3,
    /// The fifth argument.
    A4,
    /// The sixth argument.
    A5,
}

impl Field {
    /// Byte offset of the low half.
    pub const fn low(self) -> u32 {
        match self {
            Self::Ip => 8,
            Self::Arg(arg) => 16 + 8 * arg as u32,
        }
    }

    /// Byte offset of the high half.
    pub const fn high(self) -> u32 {
        self.low() + 4
    }
}

#[cfg(test)]
mod tests {
    use super::{Arg, Field, SeccompData};

    #[test]
    fn words_are_those_of_the_structure_in_memory() {
        let data = SeccompData {
            nr: 1,
            arch: 2,
            instruction_pointer: 0x4_0000_0003,
            args: [0x6_0000_0005, 0x8_0000_0007, 0, 0, 0, 0x10_0000_000f],
        };
        let words: Vec<u32> = (0..SeccompData::SIZE).step_by(4).filter_map(|o| data.word(o)).collect();
        assert_eq!(words, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 15, 16]);
        assert_eq!((data.word(64), data.word(2), data.word(u32::MAX)), (None, None, None));
        assert_eq!(data.word(Field::Ip.high()), Some(4));
        assert_eq!(data.word(Field::Arg(Arg::A5).low()), Some(15));
    }
}
