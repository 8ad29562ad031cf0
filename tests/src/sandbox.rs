//! Finding a `runsc` that can run a guest.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::run::{Output, run};
use crate::verdict::Verdict;

/// Longest a guest program may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A platform backend under test.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The backend's name.
    pub platform: &'static str,
    runsc: PathBuf,
}

impl Sandbox {
    /// Looks for `runsc` (the variable `RAMPART_RUNSC`, which `cargo xtask test` sets) and tries `probe`,
    /// a guest program, under `platform`.
    ///
    /// # Errors
    /// Why the platform is not available, in words.
    pub fn find(platform: &'static str, probe: &Path) -> Result<Self, String> {
        let runsc = std::env::var_os("RAMPART_RUNSC").map(PathBuf::from);
        let runsc = runsc.ok_or("RAMPART_RUNSC names no runsc")?;
        let sandbox = Self { platform, runsc };
        let output = sandbox.run(probe, LIMIT / 2)?;
        let verdict = Verdict::read(&output);
        if verdict.complete && !verdict.assertions.is_empty() {
            return Ok(sandbox);
        }
        let why = output.stderr.lines().next().unwrap_or("it said nothing");
        Err(match output.status {
            Some(status) => format!("`runsc do` ended with {status}: {why}"),
            None => format!("`runsc do` did not end: {why}"),
        })
    }

    /// Runs `program` in a sandbox.
    ///
    /// # Errors
    /// `runsc` could not be started, in words.
    pub fn run(&self, program: &Path, limit: Duration) -> Result<Output, String> {
        let mut command = Command::new(&self.runsc);
        command.arg("do").arg(program);
        run(&mut command, limit).map_err(|error| format!("{}: {error}", self.runsc.display()))
    }
}
