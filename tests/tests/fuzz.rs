//! Every fuzz target for a little while, and random calls and random code in sandboxes.
//!
//! The variable `RAMPART_FUZZ_SECONDS` makes it that long for each; `cargo xtask fuzz SECONDS` sets it.

#![expect(clippy::print_stdout, reason = "a campaign says how far it came")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rampart_tests::build::compile;
use rampart_tests::fuzz::{self, TARGETS, Until};
use rampart_tests::run::run;
use rampart_tests::sandbox::Sandbox;

/// Inputs of a short run.
const INPUTS: u64 = 3000;
/// Seeds of a short run of random calls, and rounds of a seed.
const SEEDS: u64 = 6;
const ROUNDS: &str = "60";
/// Rounds of a seed of random code.
const CODE_ROUNDS: &str = "80";

/// How long a campaign is to be, when this is one.
fn campaign() -> Option<Duration> {
    let seconds = std::env::var("RAMPART_FUZZ_SECONDS").ok()?;
    Some(Duration::from_secs(seconds.parse().expect("RAMPART_FUZZ_SECONDS is a number")))
}

/// Where a run starts: a short one always in the same place.
fn first_seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
    if campaign().is_some() { now() } else { 1 }
}

#[test]
fn no_input_makes_a_target_panic() {
    let until = campaign().map_or(Until::Inputs(INPUTS), Until::Time);
    for target in TARGETS {
        let seed = first_seed();
        println!("{}: {} inputs from seed {seed}", target.name, fuzz::run(target, seed, until));
    }
}

/// Needs a `runsc` (the variable `RAMPART_RUNSC`, which `cargo xtask test` sets).
#[test]
fn no_calls_harm_the_kernel() {
    let Some(sandbox) = Sandbox::find("systrap") else { return };
    seeds(&sandbox, "calls", ROUNDS);
}

/// As above; on each platform, as they differ in who meets a guest's instructions.
#[test]
fn no_code_harms_the_kernel() {
    for sandbox in Sandbox::all() {
        seeds(&sandbox, "code", CODE_ROUNDS);
    }
}

/// Runs `fuzz/NAME.c` from one seed after the other.
fn seeds(sandbox: &Sandbox, name: &str, rounds: &str) {
    let root = tempfile::tempdir().expect("a folder");
    for name in ["proc", "sys", "dev", "tmp"] {
        std::fs::create_dir(root.path().join(name)).expect("a folder");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name).with_extension("c");
    compile(&source, &root.path().join(name)).expect("it compiles");
    let (first, began) = (first_seed(), Instant::now());
    let mut seed = first;
    loop {
        let done = campaign().map_or(seed >= first + SEEDS, |limit| began.elapsed() >= limit);
        if done {
            println!("{name} on {}: seeds {first} to {seed}", sandbox.platform);
            return;
        }
        run_seed(sandbox, (name, rounds), root.path(), seed);
        seed += 1;
    }
}

fn run_seed(sandbox: &Sandbox, (name, rounds): (&str, &str), root: &Path, seed: u64) {
    let mut command: Command = sandbox.command();
    command.arg("--rootfs").arg(root).args([&format!("/{name}"), &seed.to_string(), rounds]);
    let output = run(&mut command, Duration::from_secs(120)).expect("runsc starts");
    let well = output.succeeded() && output.stdout == "ok\n";
    assert!(
        well,
        "{name} on {}, seed {seed}: {:?}\n{}{}",
        sandbox.platform, output.status, output.stdout, output.stderr
    );
}
