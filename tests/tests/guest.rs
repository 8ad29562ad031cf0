//! Every guest program, natively and in a sandbox.
//!
//! The native run must be complete and without a failure. In the sandbox every assertion must hold, the
//! program must end with the same output and exit status, and nothing of the sandbox may be left; what does
//! not is in the list of known failures of the platform, or fails the run. Without a `runsc` (the variable
//! `RAMPART_RUNSC`, which `cargo xtask test` sets) only the native half runs.
//!
//! Ends with a line of libtest's form, in which every assertion counts as a test.

#![expect(clippy::print_stdout, reason = "the report is what this program is for")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rampart_tests::build::{build, programs};
use rampart_tests::known::Judge;
use rampart_tests::leftovers;
use rampart_tests::run::Output;
use rampart_tests::sandbox::{Conditions, LIMIT, Sandbox, natively};
use rampart_tests::verdict::Verdict;

/// The assertions that are ours, not the program's.
const ENDS: &str = "(ends)";
const SAME: &str = "(same output and status)";
const GONE: &str = "(leaves no process)";

/// A built program, and what it said natively.
struct Native {
    name: String,
    binary: PathBuf,
    output: Output,
    verdict: Verdict,
}

fn main() -> ExitCode {
    leftovers::adopt().expect("a kernel with child subreapers");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scratch = folder.path().join("scratch");
    std::fs::create_dir(&scratch).expect("a folder to write to");
    let conditions = Conditions { scratch: &scratch, variables: &[], limit: LIMIT };
    let only = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    let (natives, mut passed, mut failed) = oracle(folder.path(), only.as_deref(), &conditions);
    let mut known = 0;
    let sandboxes = Sandbox::all();
    if sandboxes.is_empty() {
        println!("RAMPART_RUNSC names no runsc: native half only");
    }
    for sandbox in sandboxes {
        let mut judge = Judge::new(sandbox.platform, "guest").unwrap_or_else(|error| panic!("{error}"));
        compare(&sandbox, &natives, &conditions, &mut judge);
        if only.is_none() {
            judge.finish().unwrap_or_else(|error| panic!("{error}"));
        }
        judge.complaints.iter().for_each(|complaint| println!("FAILED {} {complaint}", sandbox.platform));
        (passed, failed) = (passed + judge.passed, failed + judge.complaints.len());
        known += judge.known;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {known} ignored; guest assertions");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds every program and runs it natively: what there is, and how many assertions hold and do not.
fn oracle(folder: &Path, only: Option<&str>, conditions: &Conditions<'_>) -> (Vec<Native>, usize, usize) {
    let (mut natives, mut passed, mut failed) = (Vec::new(), 0, 0);
    let all = programs().expect("tests/guest can be read");
    for program in all.into_iter().filter(|program| only.is_none_or(|only| program.name == only)) {
        let binary = match build(&program, folder) {
            Ok(binary) => binary,
            Err(error) => {
                println!("FAILED native {error}");
                failed += 1;
                continue;
            }
        };
        let output = natively(&[&binary], conditions).expect("a built program starts");
        let verdict = Verdict::read(&output);
        let failures = verdict.failures();
        println!("native {}: {} assertions, failed: {failures:?}", program.name, verdict.assertions.len());
        if !verdict.complete || verdict.assertions.is_empty() {
            println!("FAILED native {}: {}\n{}", program.name, ending(&output, &verdict), output.stderr);
            failed += 1;
        }
        passed += verdict.assertions.len() - failures.len();
        failed += failures.len();
        natives.push(Native { name: program.name, binary, output, verdict });
    }
    (natives, passed, failed)
}

/// Runs every program in `sandbox`, and has `judge` judge.
fn compare(sandbox: &Sandbox, natives: &[Native], conditions: &Conditions<'_>, judge: &mut Judge) {
    let hello = natives.iter().find(|native| native.name == "hello");
    if let Some(Err(why)) = hello.map(|hello| sandbox.probe(&hello.binary, conditions)) {
        judge.fails("hello", ENDS, &why);
        natives.iter().for_each(|native| judge.skips(&native.name));
        return;
    }
    for native in natives {
        let before = (judge.passed, judge.known, judge.complaints.len());
        match sandbox.run(&[&native.binary], conditions) {
            Ok(output) => one(native, &output, judge),
            Err(error) => judge.fails(&native.name, ENDS, &error.to_string()),
        }
        // What is killed at a deadline takes a moment to go.
        match leftovers::settle(Duration::from_secs(10)) {
            true => judge.holds(&native.name, GONE),
            false => judge.fails(&native.name, GONE, "its processes live on"),
        }
        let (held, lost) = (judge.passed - before.0, judge.known - before.1);
        let wrong = judge.complaints.len() - before.2;
        println!("{} {}: {held} hold, {lost} known to fail, {wrong} wrong", sandbox.platform, native.name);
    }
}

/// One program's run in a sandbox.
fn one(native: &Native, output: &Output, judge: &mut Judge) {
    let Native { name, verdict: oracle, .. } = native;
    let verdict = Verdict::read(output);
    let whole = output.status.is_some_and(|status| status.code().is_some());
    let reached = |assertion: &String| verdict.assertions.contains_key(assertion);
    let ends = whole && oracle.assertions.keys().all(reached) && verdict.complete;
    match ends {
        true => judge.holds(name, ENDS),
        false => judge.fails(name, ENDS, &ending(output, &verdict)),
    }
    let mut lost = false;
    for (assertion, _) in oracle.assertions.iter().filter(|(_, held)| **held) {
        match verdict.assertions.get(assertion) {
            Some(true) => judge.holds(name, assertion),
            Some(false) => {
                lost = true;
                let begin = format!("not ok {assertion}");
                let line = output.stdout.lines().find(|line| line.starts_with(&begin)).unwrap_or_default();
                judge.fails(name, assertion, line.trim_start_matches(&begin).trim_matches([' ', ':', '#']));
            }
            None => {
                lost = true;
                judge.fails(name, assertion, "not reached");
            }
        }
    }
    // With something lost they differ in that already.
    if ends && !lost {
        let same = same_lines(&native.output, output) && native.output.status == output.status;
        match same {
            true => judge.holds(name, SAME),
            false => judge.fails(name, SAME, &ending(output, &verdict)),
        }
    }
}

/// Whether both said the same, in whatever order threads and processes got to it. What stands behind a `#`
/// is for people: an errno that a call which succeeded has left is nobody's promise.
fn same_lines(one: &Output, other: &Output) -> bool {
    let sorted = |output: &Output| {
        let text = output.stdout.lines().map(|line| line.split(" # ").next().unwrap_or_default().to_owned());
        let mut lines: Vec<String> = text.collect();
        lines.sort_unstable();
        lines
    };
    sorted(one) == sorted(other)
}

/// How a run ended, and after what.
fn ending(output: &Output, verdict: &Verdict) -> String {
    let last = verdict.last.as_deref().unwrap_or("nothing");
    let said = output.stderr.lines().last().unwrap_or_default();
    match output.status {
        None => format!("hung after {last:?}, killed {said}"),
        Some(status) => format!("ended after {last:?} with {status} {said}"),
    }
}
