//! Running a program under a deadline, and leaving nothing of it behind.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What a program left.
#[derive(Debug)]
pub struct Output {
    /// How it ended; `None` when it was killed at the deadline.
    pub status: Option<ExitStatus>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether it ended by itself with status 0.
    pub fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Runs `command` in a process group of its own, with no stdin, for at most `limit`. What is left of
/// the group afterwards is killed.
///
/// Output goes to files, not pipes: a descendant that keeps a pipe open must not hang us.
///
/// # Errors
/// When the program cannot be started, or its output not be read.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Output> {
    let (out, err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .process_group(0)
        .spawn()?;
    let status = wait(&mut child, limit);
    // The leader is reaped or killed here; others of its group may be left. The group's id cannot have
    // been reused while any of them lives, and when none does there is no such group.
    let _ = i32::try_from(child.id()).map(|group| killpg(Pid::from_raw(group), Signal::SIGKILL));
    let status = match status? {
        Some(status) => Some(status),
        None => {
            child.wait()?;
            None
        }
    };
    Ok(Output { status, stdout: text(out)?, stderr: text(err)? })
}

/// Waits for `child`; `None` at the deadline.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn text(mut file: File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::run;

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let began = Instant::now();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo begun; sleep 60 & sleep 60"]);
        let output = run(&mut shell, Duration::from_millis(500)).expect("sh runs");
        assert!(output.status.is_none() && began.elapsed() < Duration::from_secs(30));
        assert_eq!(output.stdout, "begun\n");
    }

    #[test]
    fn status_and_output_come_back() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo out; echo err >&2; exit 3"]);
        let output = run(&mut shell, Duration::from_secs(30)).expect("sh runs");
        assert_eq!(output.status.and_then(|status| status.code()), Some(3));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    }
}
