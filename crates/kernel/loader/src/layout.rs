//! Where stack, mappings, program and heap go, and the randomness in it.

use abi::{PAGE_SIZE, page_down};
use mm::STACK_GUARD_GAP;
use platform::Features;

/// Highest user address plus one, page-aligned (`TASK_SIZE`).
const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// Random pages of the stack's top: 22 bits, 16 GiB.
const STACK_RANDOM_PAGES: u64 = 1 << 22;
/// Random pages of `mmap` base and program base: 28 bits, 1 TiB.
const MMAP_RANDOM_PAGES: u64 = 1 << 28;
/// Random pages between program and heap: 32 MiB.
const BRK_RANDOM_PAGES: u64 = (32 << 20) / PAGE_SIZE;
/// The room for the stack is at least this.
const MIN_GAP: u64 = 128 << 20;

/// Randomness for one program, from a good source.
#[derive(Clone, Copy, Debug)]
pub struct Entropy {
    /// What `AT_RANDOM` points to.
    pub(crate) at_random: [u8; 16],
    words: Option<[u64; 5]>,
}

/// Which place a random word is for.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Stack,
    Mmap,
    Program,
    Heap,
    StackPointer,
}

impl Entropy {
    /// Random bytes an [`Entropy`] is made of.
    pub const BYTES: usize = 56;

    /// From random bytes.
    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        let mut at_random = [0; 16];
        for (to, from) in at_random.iter_mut().zip(bytes) {
            *to = from;
        }
        let mut words = [0u64; 5];
        let rest = bytes.get(16..).unwrap_or_default();
        for (word, chunk) in words.iter_mut().zip(rest.chunks_exact(8)) {
            *word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Self { at_random, words: Some(words) }
    }

    /// The same, but for an address space without randomness (`ADDR_NO_RANDOMIZE`).
    pub fn fixed_layout(self) -> Self {
        Self { words: None, ..self }
    }

    /// A random number below `bound`; zero without randomness.
    pub(crate) fn below(&self, place: Place, bound: u64) -> u64 {
        let word = self.words.and_then(|words| words.get(place as usize).copied());
        word.and_then(|word| word.checked_rem(bound)).unwrap_or(0)
    }
}

/// Where things go before the program's size is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) stack_top: u64,
    pub(crate) mmap_top: u64,
    /// Base of a position-independent program.
    pub(crate) program_base: u64,
}

impl Plan {
    pub(crate) fn new(features: &Features, stack_limit: u64, entropy: &Entropy) -> Self {
        let max = page_down(features.max_address.min(TASK_SIZE));
        let random = |place, pages: u64| entropy.below(place, pages.min(max / PAGE_SIZE / 8)) * PAGE_SIZE;
        let stack_top = max.saturating_sub(random(Place::Stack, STACK_RANDOM_PAGES));
        let pad = STACK_RANDOM_PAGES * PAGE_SIZE + STACK_GUARD_GAP;
        let gap = stack_limit.saturating_add(pad).clamp(MIN_GAP, max / 6 * 5);
        let mmap_top =
            page_down(max.saturating_sub(gap).saturating_sub(random(Place::Mmap, MMAP_RANDOM_PAGES)));
        let program_base = page_down(max / 3 * 2).saturating_add(random(Place::Program, MMAP_RANDOM_PAGES));
        Self { min: features.min_address, max, stack_top, mmap_top, program_base }
    }

    /// The first byte of the heap behind a program that ends at `end`.
    pub(crate) fn heap(&self, end: u64, entropy: &Entropy) -> u64 {
        let random = entropy.below(Place::Heap, BRK_RANDOM_PAGES) * PAGE_SIZE;
        abi::page_up(end).unwrap_or(end).saturating_add(random)
    }
}

#[cfg(test)]
mod tests {
    use super::{Entropy, Plan};
    use platform::Features;

    #[test]
    fn everything_is_in_bounds_and_apart() {
        let features = Features {
            min_address: 0x1_0000,
            max_address: 1 << 47,
            native_futex: false,
            xsave_size: 0,
            xcr0: 0,
            host_vdso: false,
        };
        for byte in [0, 1, 0x7f, 0xff] {
            for limit in [0, 8 << 20, u64::MAX] {
                let plan = Plan::new(&features, limit, &Entropy::new([byte; Entropy::BYTES]));
                assert!(plan.stack_top <= plan.max && plan.mmap_top < plan.stack_top);
                assert!(plan.min < plan.mmap_top && plan.program_base < plan.max);
                assert!([plan.stack_top, plan.mmap_top, plan.program_base].iter().all(|a| a % 4096 == 0));
            }
        }
    }
}
