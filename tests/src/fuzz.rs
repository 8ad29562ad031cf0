//! Fuzz targets: one a trust boundary, each a function of bytes that must not panic, hang or grow.
//!
//! `fuzz/` hands them to libFuzzer; [`run`] feeds them from a seeded generator, for a while or for a number of
//! inputs, so that every run of the tests tries each a little. Inputs that once found something are put into
//! `fuzz/corpus/TARGET/`, and tried first.

pub mod bpf;
pub mod elf;
pub mod frames;
pub mod gofer;
pub mod spec;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A boundary.
pub struct Target {
    /// As in `fuzz/fuzz_targets/NAME.rs`.
    pub name: &'static str,
    /// What is fed.
    pub run: fn(&[u8]),
    /// Inputs that get past the first checks, to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "bpf", run: bpf::program, seeds: bpf::seeds },
    Target { name: "elf", run: elf::load, seeds: elf::seeds },
    Target { name: "frames", run: frames::frames, seeds: frames::seeds },
    Target { name: "gofer_request", run: gofer::request, seeds: gofer::seeds },
    Target { name: "gofer_response", run: gofer::response, seeds: gofer::seeds },
    Target { name: "spec", run: spec::bundle, seeds: spec::seeds },
];

/// How long a target is fed.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// This many inputs.
    Inputs(u64),
    /// This long.
    Time(Duration),
}

/// Feeds `target` its corpus, then variations of it and of its seeds, and what a generator makes of `seed`. How
/// many inputs there were.
pub fn run(target: &Target, seed: u64, until: Until) -> u64 {
    let mut known = corpus(target.name);
    known.extend((target.seeds)());
    known.iter().for_each(|input| (target.run)(input));
    let mut random = Random(seed | 1);
    let began = Instant::now();
    let mut inputs = 0;
    loop {
        match until {
            Until::Inputs(limit) if inputs >= limit => return inputs,
            Until::Time(limit) if began.elapsed() >= limit => return inputs,
            _ => {}
        }
        (target.run)(&input(&mut random, &known));
        inputs += 1;
    }
}

/// What is in `fuzz/corpus/NAME/`, by name.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// An input: mostly something known with a few changes, else bytes of which most are small.
fn input(random: &mut Random, known: &[Vec<u8>]) -> Vec<u8> {
    let known = if random.below(4) > 0 { random.pick(known) } else { None };
    match known {
        Some(known) => {
            let mut bytes = known.clone();
            for _ in 0..=random.below(8) {
                change(random, &mut bytes);
            }
            bytes
        }
        None => (0..random.below(400)).map(|_| random.byte()).collect(),
    }
}

/// One change: a byte set, a word set to something at an edge, bytes cut out or put in.
fn change(random: &mut Random, bytes: &mut Vec<u8>) {
    const EDGES: [u64; 8] = [0, 1, u64::MAX, i64::MAX as u64, u32::MAX as u64, 4095, 4096, 1 << 47];
    let at = random.below(bytes.len() as u64 + 1) as usize;
    match random.below(5) {
        0 | 1 => {
            let byte = random.byte();
            bytes.iter_mut().skip(at).take(1).for_each(|place| *place = byte);
        }
        2 => {
            let edge = random.pick(&EDGES).copied().unwrap_or_default().to_le_bytes();
            let len = 1 << random.below(4);
            bytes.iter_mut().skip(at).take(len).zip(edge).for_each(|(place, byte)| *place = byte);
        }
        3 => bytes.truncate(at),
        _ => {
            let more: Vec<u8> = (0..random.below(16)).map(|_| random.byte()).collect();
            bytes.splice(at..at, more);
        }
    }
}

/// A small generator: the same numbers from the same seed, whatever the machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        let word = self.next();
        if word & 0x300 == 0 { word as u8 } else { (word & 7) as u8 }
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, TARGETS, Target, Until, change, run};

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let inputs = |seed| {
            let mut random = Random(seed);
            (0..20).map(|_| super::input(&mut random, &[b"known".to_vec()])).collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(9));
    }

    #[test]
    fn changes_stay_within_bounds() {
        let mut random = Random(3);
        let mut bytes = Vec::new();
        for _ in 0..10_000 {
            change(&mut random, &mut bytes);
            bytes.truncate(64);
        }
    }

    #[test]
    #[should_panic(expected = "found")]
    fn a_target_that_panics_is_seen() {
        let run_one = |bytes: &[u8]| assert!(bytes.len() < 100, "found");
        run(&Target { name: "none", run: run_one, seeds: Vec::new }, 1, Until::Inputs(1000));
    }

    #[test]
    fn each_has_seeds_and_a_libfuzzer_target() {
        for target in TARGETS {
            assert!(!(target.seeds)().is_empty(), "{}", target.name);
            let file = format!("{}/../fuzz/fuzz_targets/{}.rs", env!("CARGO_MANIFEST_DIR"), target.name);
            assert!(std::path::Path::new(&file).exists(), "{file}");
        }
    }
}
