//! Every app, natively and in a sandbox: the same standard output and the same exit status.
//!
//! An app that fails natively is a mistake of the test. One whose programs are not installed is skipped,
//! and said so; where the variable `CI` is set it fails. What differs in the sandbox is in the list of known failures, or fails the run. Without a
//! `runsc` (the variable `RAMPART_RUNSC`, which `cargo xtask test` sets) nothing runs.
//!
//! Ends with a line of libtest's form.

#![expect(clippy::print_stdout, reason = "the report is what this program is for")]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rampart_tests::app::{App, apps, folder};
use rampart_tests::known::Judge;
use rampart_tests::leftovers;
use rampart_tests::run::Output;
use rampart_tests::sandbox::{Conditions, Sandbox, natively};

const SAME: &str = "(same output and status)";
const CLEAN: &str = "(writes nothing on the host)";
const GONE: &str = "(leaves no process)";

fn main() -> ExitCode {
    let mut sandboxes = judged();
    if sandboxes.is_empty() {
        println!("RAMPART_RUNSC names no runsc");
    }
    leftovers::adopt().expect("a kernel with child subreapers");
    let only = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for app in apps().expect("tests/apps can be read") {
        if sandboxes.is_empty() || only.as_ref().is_some_and(|only| !app.name.contains(only)) {
            continue;
        }
        if let Some(program) = app.missing() {
            println!("skipped {}: no {program} here", app.name);
            for (_, judge) in &mut sandboxes {
                if std::env::var_os("CI").is_some() {
                    judge.complaints.push(format!("{}: no {program} here", app.name));
                }
                judge.skips(&app.name);
            }
            ignored += 1;
            continue;
        }
        both(&mut sandboxes, &app);
    }
    for (sandbox, judge) in &mut sandboxes {
        if only.is_none() {
            judge.finish().unwrap_or_else(|error| panic!("{error}"));
        }
        judge.complaints.iter().for_each(|complaint| println!("FAILED {} {complaint}", sandbox.platform));
        (passed, failed, ignored) =
            (passed + judge.passed, failed + judge.complaints.len(), ignored + judge.known);
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {ignored} ignored; apps");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The sandboxes to test, each with its judge.
fn judged() -> Vec<(Sandbox, Judge)> {
    let judge = |sandbox: &Sandbox| Judge::new(sandbox.platform, "apps");
    let with = |sandbox: Sandbox| judge(&sandbox).map(|judge| (sandbox, judge));
    Sandbox::all().into_iter().map(with).collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}"))
}

/// Runs one app natively and in each sandbox.
fn both(sandboxes: &mut [(Sandbox, Judge)], app: &App) {
    let words: Vec<&Path> = app.words.iter().map(|word| word.as_path()).collect();
    let home = tempfile::tempdir().expect("a temporary folder");
    // The same path each time, so that it may be printed.
    let scratch = home.path().join("scratch");
    let folder = folder();
    // Cargo says where it is to whatever it runs.
    let cargo = std::env::var_os("CARGO").unwrap_or_default();
    let variables = [("APPS", folder.as_path()), ("CARGO", Path::new(&cargo))];
    let conditions = Conditions { scratch: &scratch, variables: &variables, limit: app.limit };
    std::fs::create_dir(&scratch).expect("a folder to write to");
    let began = Instant::now();
    let native = natively(&words, &conditions).expect("an interpreter starts");
    let native_time = began.elapsed();
    leftovers::settle(Duration::from_secs(5));
    if !native.succeeded() {
        let Output { status, stdout, stderr } = native;
        let end = status.map_or("was killed at its limit".to_owned(), |status| status.to_string());
        for (_, judge) in sandboxes {
            judge.complaints.push(format!("{}: natively: {end}\n{stdout}{stderr}", app.name));
            judge.skips(&app.name);
        }
        return;
    }
    for (sandbox, judge) in sandboxes {
        std::fs::remove_dir_all(&scratch).expect("a folder of ours");
        std::fs::create_dir(&scratch).expect("a folder to write to");
        let time = sandboxed((sandbox, judge), app, &native, &conditions);
        println!("{} {}: {native_time:.1?} natively, {time:.1?} in the sandbox", sandbox.platform, app.name);
    }
}

/// Runs one app in a sandbox; how long that took.
fn sandboxed(
    (sandbox, judge): (&Sandbox, &mut Judge),
    app: &App,
    native: &Output,
    conditions: &Conditions<'_>,
) -> Duration {
    let words: Vec<&Path> = app.words.iter().map(|word| word.as_path()).collect();
    let (scratch, folder) = (conditions.scratch, folder());
    let began = Instant::now();
    match sandbox.run(&words, conditions) {
        Ok(output) if same(native, &output) => judge.holds(&app.name, SAME),
        Ok(output) => {
            let text = difference(native, &output);
            let text = text.replace(&*scratch.to_string_lossy(), "$TMPDIR");
            judge.fails(&app.name, SAME, &text.replace(&*folder.to_string_lossy(), "$APPS"));
        }
        Err(error) => judge.fails(&app.name, SAME, &error.to_string()),
    }
    let time = began.elapsed();
    match std::fs::read_dir(scratch).map(Iterator::count) {
        Ok(0) => judge.holds(&app.name, CLEAN),
        found => judge.fails(&app.name, CLEAN, &format!("{found:?} entries in the host's scratch folder")),
    }
    match leftovers::settle(Duration::from_secs(10)) {
        true => judge.holds(&app.name, GONE),
        false => judge.fails(&app.name, GONE, "its processes live on"),
    }
    time
}

fn same(native: &Output, sandboxed: &Output) -> bool {
    native.status == sandboxed.status && native.stdout == sandboxed.stdout
}

/// The first line in which two runs differ, and the last words of the second.
fn difference(native: &Output, sandboxed: &Output) -> String {
    let end = match sandboxed.status {
        None => "killed at its limit".to_owned(),
        Some(status) => status.to_string(),
    };
    let (mut ours, mut theirs) = (sandboxed.stdout.lines(), native.stdout.lines());
    let line = loop {
        match (ours.next(), theirs.next()) {
            (None, None) => break "same output".to_owned(),
            (ours, theirs) if ours == theirs => {}
            (ours, theirs) => break format!("{ours:?} instead of {theirs:?}"),
        }
    };
    let last: Vec<&str> = sandboxed.stderr.lines().rev().take(3).collect();
    format!("{end}; {line}; {}", last.into_iter().rev().collect::<Vec<_>>().join(" | "))
}
