//! What a new program finds on its stack: count, pointers, auxiliary vector, strings.

use std::ops::Range;

use abi::Errno;
use guestmem::{UserAddr, UserMem};
use mm::MemoryManager;

use crate::aux::{self, CpuFacts, Ids, Pointers};
use crate::layout::{Entropy, Place};
use crate::{LoadError, Program};

/// `AT_PLATFORM`.
const PLATFORM: &[u8] = b"x86_64\0";
/// A zero word ends the stack.
const END: u64 = 8;
/// The pointers begin up to this far below the strings, at random.
const POINTER_RANDOM: u64 = 8192;
const WORD: u64 = 8;

/// A stack laid out.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) sp: u64,
    pub(crate) args: Range<u64>,
    pub(crate) env: Range<u64>,
    pub(crate) auxv: Vec<u8>,
}

/// Bytes a program's strings, pointers and vector take, at most.
pub(crate) fn size(program: &Program) -> u64 {
    let args = &program.args;
    let strings: u64 = args.argv.iter().chain(&args.envp).map(|s| s.len() as u64 + 1 + WORD).sum();
    // Vector, count, the ends of the arrays, alignment: less than two pages.
    strings + program.filename.len() as u64 + POINTER_RANDOM + 2 * abi::PAGE_SIZE
}

/// Lays strings out upwards from an address.
struct Strings {
    bytes: Vec<u8>,
    base: u64,
}

impl Strings {
    fn put(&mut self, string: &[u8]) -> u64 {
        let at = self.here();
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        at
    }

    fn here(&self) -> u64 {
        self.base.saturating_add(self.bytes.len() as u64)
    }
}

/// Writes the stack below `top`, where memory is mapped.
pub(crate) fn build(
    mm: &MemoryManager,
    top: u64,
    program: &Program,
    mut pointers: Pointers,
    cpu: &CpuFacts,
    ids: &Ids,
    entropy: &Entropy,
) -> Result<Stack, LoadError> {
    let args = &program.args;
    let all = args.argv.iter().chain(&args.envp).chain(std::iter::once(&program.filename));
    let len: u64 = all.map(|string| string.len() as u64 + 1).sum();
    let base = top.checked_sub(len + END).ok_or(Errno::ENOMEM)?;
    let mut strings = Strings { bytes: Vec::new(), base };
    let argv: Vec<u64> = args.argv.iter().map(|arg| strings.put(arg)).collect();
    let env_start = strings.here();
    let envp: Vec<u64> = args.envp.iter().map(|env| strings.put(env)).collect();
    let env_end = strings.here();
    pointers.exec_fn = strings.put(&program.filename);
    strings.bytes.extend_from_slice(&[0; END as usize]);
    mm.write(UserAddr(base), &strings.bytes)?;

    let below = base.saturating_sub(entropy.below(Place::StackPointer, POINTER_RANDOM)) & !0xf;
    pointers.platform = below.saturating_sub(16);
    pointers.random = below.saturating_sub(32);
    mm.write(UserAddr(pointers.platform), PLATFORM)?;
    mm.write(UserAddr(pointers.random), &entropy.at_random)?;

    let auxv = words(aux::vector(&pointers, cpu, ids).into_iter().flat_map(|(key, value)| [key, value]));
    let count = argv.len() as u64;
    let list = std::iter::once(count).chain(argv).chain([0]).chain(envp).chain([0]);
    let mut bytes = words(list);
    bytes.extend_from_slice(&auxv);
    // `sp` is a multiple of 16 at the start of a program (x86-64 psABI, 3.4.1).
    let sp = pointers.random.saturating_sub(bytes.len() as u64) & !0xf;
    mm.write(UserAddr(sp), &bytes)?;
    Ok(Stack { sp, args: base..env_start, env: env_start..env_end, auxv })
}

fn words(words: impl Iterator<Item = u64>) -> Vec<u8> {
    words.flat_map(u64::to_le_bytes).collect()
}
