//! The project's own chores: `cargo xtask tidy`, `test`, `bench`, `fuzz`, `soak`, `docs` and `known-failures`.
//!
//! Chores are Rust so that they need no second toolchain. `tidy` holds the rules that no compiler
//! checks (layers, where `unsafe` may live, headers); `test` is what CI runs, and all that it runs.
#![forbid(unsafe_code)]

mod bench;
mod docs;
mod lexer;
mod report;
mod soak;
mod suite;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

const USAGE: &str = "\
usage: cargo xtask <chore>

chores:
  tidy   check the rules of the tree that no compiler checks
  bench  [--turns N] [--quick] [--peer RUNSC]... [--platform NAME]... [NAME...]: the guest micro-benchmark and
         loads of real programs, natively and in sandboxes, in one run
  fuzz   SECONDS: feed each fuzz target that long, from a new seed
  soak   MINUTES: a guest that makes and removes all kinds of things that long; the Sentry must stay flat
  engines   compare uses of docker with runc, kill processes of containers at random, start pods, try the shim of
         containerd; for root, with Debian's docker.io
  docs [RUNSC]   rewrite the pages of docs/ that runsc itself can tell
  known-failures   rewrite tests/known-failures from what is seen; the lists may only shrink
  test   install what the tests need (Debian, root), then run every check and every test
";

fn main() -> ExitCode {
    let chore = std::env::args().nth(1);
    let outcome = match chore.as_deref() {
        Some("tidy") => run_tidy(),
        Some("test") => suite::run(&root()),
        Some("fuzz") => match std::env::args().nth(2).and_then(|word| word.parse().ok()) {
            Some(seconds) => suite::fuzz(&root(), seconds),
            None => Err(anyhow::anyhow!("fuzz takes a number of seconds")),
        },
        Some("soak") => match std::env::args().nth(2).and_then(|word| word.parse().ok()) {
            Some(minutes) => soak::run(&root(), minutes),
            None => Err(anyhow::anyhow!("soak takes a number of minutes")),
        },
        Some("engines") => suite::engines(&root()),
        Some("docs") => match std::env::args().nth(2) {
            Some(runsc) => docs::run(&root(), Path::new(&runsc)).map(|()| true),
            None => suite::docs(&root()),
        },
        Some("known-failures") => suite::known_failures(&root()),
        Some("bench") => {
            bench::Options::parse(std::env::args().skip(2)).and_then(|o| bench::run(&root(), &o))
        }
        _ => {
            report::note(USAGE);
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::note(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints what `tidy` found; true when it found nothing.
fn run_tidy() -> anyhow::Result<bool> {
    let findings = tidy::check(&root()).context("tidy")?;
    for finding in &findings {
        report::note(&finding.to_string());
    }
    report::note(&format!("tidy: {} findings", findings.len()));
    Ok(findings.is_empty())
}

/// The workspace root: the parent of this crate's manifest.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
