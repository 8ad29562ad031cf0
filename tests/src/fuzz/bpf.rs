//! Guest to Sentry: a seccomp filter, and the data it judges.

use bpf::insn::Insn;
use bpf::{Program, SeccompData};

/// Instructions, run on the words behind them. What the checks accept ends, and says something.
pub fn program(data: &[u8]) {
    let (instructions, _) = data.as_chunks::<{ Insn::SIZE }>();
    let insns: Vec<Insn> = instructions.iter().map(|bytes| Insn::from_bytes(*bytes)).collect();
    let Ok(program) = Program::new(insns) else { return };
    let word = |index: usize| instructions.get(index).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let data = SeccompData {
        nr: word(0) as u32,
        arch: SeccompData::ARCH_X86_64,
        instruction_pointer: word(1),
        args: std::array::from_fn(word),
    };
    let first = program.run(&data);
    assert_eq!(first, program.run(&data), "a filter has no memory");
}

/// Small filters.
pub fn seeds() -> Vec<Vec<u8>> {
    let load = |k: u32| [0x20, 0, 0, 0].into_iter().chain(k.to_le_bytes());
    let jump = |k: u32| [0x15, 0, 1, 0].into_iter().chain(k.to_le_bytes());
    let give = |k: u32| [0x06, 0, 0, 0].into_iter().chain(k.to_le_bytes());
    let one = load(0).chain(jump(39)).chain(give(0x5_0001)).chain(give(0x7fff_0000));
    let scratch: [u8; 32] = [
        0x20, 0, 0, 0, 16, 0, 0, 0, 0x02, 0, 0, 0, 3, 0, 0, 0, 0x61, 0, 0, 0, 3, 0, 0, 0, 0x16, 0, 0, 0, 0,
        0, 0, 0,
    ];
    vec![one.collect(), scratch.to_vec(), give(0).collect()]
}

#[cfg(test)]
mod tests {
    use super::{Insn, Program, seeds};

    #[test]
    fn seeds_are_filters() {
        for seed in seeds() {
            let (instructions, _) = seed.as_chunks::<{ Insn::SIZE }>();
            let insns: Vec<Insn> = instructions.iter().map(|bytes| Insn::from_bytes(*bytes)).collect();
            assert_eq!(Program::new(insns).err(), None);
        }
    }
}
