//! A toy backend, as an example of how one is written, and the part of the conformance suite that it passes.
//!
//! It interprets a handful of instructions, so it has no vectors, no vDSO and no native futexes; a real one
//! passes the whole suite. `docs/writing-a-platform.md` walks through it.

#[path = "toy/machine.rs"]
mod machine;
#[path = "toy/memory.rs"]
mod memory;

use platform::conformance::TESTS;

/// What needs more than the toy has.
const BEYOND: &[&str] = &["vectors_survive", "interrupts_reach_waits", "waiters_are_woken_from_elsewhere"];

#[test]
fn the_toy_conforms_as_far_as_it_goes() {
    let toy = machine::Toy::default();
    let mut run = 0;
    for (_, test) in TESTS.iter().filter(|(name, _)| !BEYOND.contains(name)) {
        test(&toy);
        run += 1;
    }
    assert_eq!(run + BEYOND.len(), TESTS.len(), "a test was renamed");
}
