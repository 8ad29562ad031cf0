//! Every guest program, natively and in a sandbox.
//!
//! The native run must be complete and without a failure. What holds natively and not in the sandbox is
//! reported; it also fails the run when the variable `RAMPART_SANDBOX` is `require`. (That is to become
//! the rule once the systrap platform runs guests; until then the report shows the progress.)
//!
//! Ends with a line of libtest's form, in which every assertion counts as a test.

#![expect(clippy::print_stdout, reason = "the report is what this program is for")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rampart_tests::build::{build, programs};
use rampart_tests::run::run;
use rampart_tests::sandbox::{LIMIT, Sandbox};
use rampart_tests::verdict::Verdict;

/// The counts of the closing line.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    /// Assertions a sandbox lost while that is not yet a failure.
    ignored: usize,
}

/// A built program, and what it said natively.
struct Native {
    name: String,
    binary: PathBuf,
    verdict: Verdict,
}

fn main() -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut tally = Tally::default();
    let natives = oracle(folder.path(), &mut tally);
    match Sandbox::find("systrap", &folder.path().join("hello")) {
        Ok(sandbox) => compare(&sandbox, &natives, &mut tally),
        Err(why) => {
            println!("systrap: platform not available yet: {why}");
            tally.failed += usize::from(required());
        }
    }
    let Tally { passed, failed, ignored } = tally;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {ignored} ignored; guest assertions");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn required() -> bool {
    std::env::var_os("RAMPART_SANDBOX").is_some_and(|value| value == "require")
}

/// Builds every program and runs it natively.
fn oracle(folder: &Path, tally: &mut Tally) -> Vec<Native> {
    let mut natives = Vec::new();
    for program in programs().expect("tests/guest can be read") {
        let binary = match build(&program, folder) {
            Ok(binary) => binary,
            Err(error) => {
                println!("native {error}");
                tally.failed += 1;
                continue;
            }
        };
        let output = run(Command::new(&binary).current_dir(folder).env("TMPDIR", folder), LIMIT)
            .expect("a built program starts");
        let verdict = Verdict::read(&output);
        let failures = verdict.failures();
        println!("native {}: {} assertions, failed: {failures:?}", program.name, verdict.assertions.len());
        if !verdict.complete || verdict.assertions.is_empty() {
            println!("native {}: did not come to its end\n{}{}", program.name, output.stdout, output.stderr);
            tally.failed += 1;
        }
        tally.passed += verdict.assertions.len() - failures.len();
        tally.failed += failures.len();
        natives.push(Native { name: program.name, binary, verdict });
    }
    natives
}

/// Runs every program in `sandbox` and tells which assertions were lost on the way.
fn compare(sandbox: &Sandbox, natives: &[Native], tally: &mut Tally) {
    let platform = sandbox.platform;
    for Native { name, binary, verdict: native } in natives {
        let (verdict, stderr) = match sandbox.run(binary, LIMIT) {
            Ok(output) => (Verdict::read(&output), output.stderr),
            Err(why) => (Verdict::default(), why),
        };
        let lost = native.lost_in(&verdict);
        let held = native.assertions.len() - native.failures().len() - lost.len();
        println!("{platform} {name}: {held} hold, lost: {lost:?}");
        let mut bad = lost.len();
        if !verdict.complete {
            let last = stderr.lines().last().unwrap_or_default();
            println!("{platform} {name}: did not come to its end: {last}");
            bad += 1;
        }
        tally.passed += held;
        if required() {
            tally.failed += bad;
        } else {
            tally.ignored += bad;
        }
    }
}
