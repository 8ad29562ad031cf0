//! Running a command under `runsc do`, and natively under the same conditions.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::run::{Output, run};
use crate::verdict::Verdict;

/// Longest a guest program may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Names the `runsc` under test; `cargo xtask test` sets it.
pub const RUNSC: &str = "RAMPART_RUNSC";
/// Names the platforms to test, with commas between them; all without it.
pub const PLATFORMS: &str = "RAMPART_PLATFORMS";
/// Platforms with a list of known failures, and how much longer than usual a command may take on each. An exit of a
/// virtual machine in another, without a processor's help, takes a hundred times what it takes elsewhere.
const TESTED: &[(&str, u32)] = &[("systrap", 1), ("kvm", 4), ("ptrace", 1)];

/// What a command is run with, natively and in a sandbox alike.
#[derive(Clone, Debug)]
pub struct Conditions<'a> {
    /// Working directory, home and place for temporary files.
    pub scratch: &'a Path,
    /// Variables beside the usual ones.
    pub variables: &'a [(&'a str, &'a Path)],
    /// When it is killed.
    pub limit: Duration,
}

impl Conditions<'_> {
    fn apply(&self, command: &mut Command) {
        command.current_dir(self.scratch).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.scratch).env("TMPDIR", self.scratch);
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.envs(self.variables.iter().copied());
    }
}

/// Runs `words` natively.
///
/// # Errors
/// The program could not be started.
pub fn natively(words: &[&Path], conditions: &Conditions<'_>) -> io::Result<Output> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    conditions.apply(command.args(arguments));
    run(&mut command, conditions.limit)
}

/// A platform backend under test.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The backend's name.
    pub platform: &'static str,
    runsc: PathBuf,
}

impl Sandbox {
    /// The one that [`RUNSC`] names, with `platform`; `None` when it names none.
    pub fn find(platform: &'static str) -> Option<Self> {
        let runsc = std::env::var_os(RUNSC).map(PathBuf::from)?;
        Some(Self { platform, runsc })
    }

    /// One of each platform, or of those that [`PLATFORMS`] names; none without a `runsc`. Where a platform does not
    /// work it is skipped, and said so; where the variable `CI` is set it is there and fails.
    pub fn all() -> Vec<Self> {
        let wanted = std::env::var(PLATFORMS).unwrap_or_default();
        let wanted = |name: &&str| wanted.is_empty() || wanted.split(',').any(|word| word == *name);
        let all = TESTED.iter().map(|(name, _)| *name).filter(wanted).filter_map(Self::find);
        all.filter(|sandbox| std::env::var_os("CI").is_some() || sandbox.works()).collect()
    }

    /// Whether `runsc` says that its platform works here.
    #[expect(clippy::print_stdout, reason = "what is skipped is said")]
    fn works(&self) -> bool {
        let output = Command::new(&self.runsc).args(["help", "platforms"]).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let text = text.unwrap_or_default();
        let row = text.lines().find(|line| line.split_whitespace().next() == Some(self.platform));
        let works = row.is_some_and(|row| row.split_whitespace().nth(1) == Some("yes"));
        if !works {
            println!("skipped: {}", row.unwrap_or(self.platform));
        }
        works
    }

    /// How much longer than usual a command may take.
    fn patience(&self) -> u32 {
        TESTED.iter().find(|(name, _)| *name == self.platform).map_or(1, |(_, patience)| *patience)
    }

    /// Tries `probe`, a guest program.
    ///
    /// # Errors
    /// Why a sandbox does not even run that, in words.
    pub fn probe(&self, probe: &Path, conditions: &Conditions<'_>) -> Result<(), String> {
        let output = self.run(&[probe], conditions).map_err(|error| error.to_string())?;
        let verdict = Verdict::read(&output);
        if verdict.complete && !verdict.assertions.is_empty() {
            return Ok(());
        }
        let why = output.stderr.lines().next().unwrap_or("it said nothing");
        Err(match output.status {
            Some(status) => format!("`runsc do` ended with {status}: {why}"),
            None => format!("`runsc do` did not end: {why}"),
        })
    }

    /// Runs `words` in a sandbox.
    ///
    /// # Errors
    /// `runsc` could not be started.
    pub fn run(&self, words: &[&Path], conditions: &Conditions<'_>) -> io::Result<Output> {
        let mut command = self.command();
        conditions.apply(command.arg("--").args(words));
        run(&mut command, conditions.limit * self.patience())
    }

    /// `runsc do`, to be followed by flags and a program.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.runsc);
        command.args(["--platform", self.platform, "do"]);
        command
    }
}
