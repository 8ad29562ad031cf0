//! Calls of `runsc`, as an engine makes them.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;

use crate::config::Config;
use crate::error::ShimError;
use crate::reaper::Reaper;
use crate::stdio::Streams;

/// Most bytes of an answer or a log that are read.
const MAX_ANSWER: u64 = 16 << 20;

/// How to call it for the containers of a namespace.
#[derive(Clone)]
pub(crate) struct Runsc {
    reaper: Arc<Reaper>,
    binary: PathBuf,
    flags: Vec<String>,
}

/// A process to make: the first of a container, or another.
pub(crate) struct Detached<'a> {
    /// `create` or `exec`.
    pub(crate) command: &'static str,
    /// Words of the command before those that are for both.
    pub(crate) words: Vec<String>,
    /// Where its files go.
    pub(crate) work: &'a Path,
    /// Start of their names.
    pub(crate) name: &'a str,
    /// The container.
    pub(crate) id: &'a str,
    /// What its standard streams are to be.
    pub(crate) streams: Streams,
    /// Socket for the other end of its terminal.
    pub(crate) console: Option<&'a Path>,
}

impl Runsc {
    /// For one of containerd's namespaces.
    pub(crate) fn new(reaper: Arc<Reaper>, config: &Config, namespace: &str) -> Self {
        let root = config.root.join(namespace);
        // Of two, the last counts.
        let flags = config.flags().into_iter().chain([format!("--root={}", root.display())]).collect();
        Self { reaper, binary: config.binary_name.clone(), flags }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(&self.flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a command that needs nothing and answers something. `input` is its standard input.
    pub(crate) fn ask(
        &self,
        name: &'static str,
        words: &[&str],
        input: Option<&[u8]>,
    ) -> Result<String, ShimError> {
        let mut command = self.command();
        command.arg(name).args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let (mut child, exit) = self.reaper.spawn(&mut command).map_err(ShimError::io(&self.binary))?;
        if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
            // One that does not read it says itself what is wrong.
            let _ = pipe.write_all(input);
        }
        // What it says on one stream is short, so that it does not stop while we read the other.
        let answer = child.stdout.take().map(read).unwrap_or_default();
        let errors = child.stderr.take().map(read).unwrap_or_default();
        match exit.recv() {
            Ok(0) => Ok(answer),
            code => Err(ShimError::Runsc { command: name, reason: reason(&errors, code.ok()) }),
        }
    }

    /// Makes a process that goes on without us. Returns the pid that stands for it on the host.
    pub(crate) fn detached(&self, process: Detached<'_>) -> Result<i32, ShimError> {
        let Detached { command: name, words, work, name: start, id, streams, console } = process;
        let (pid, log) = (work.join(format!("{start}.pid")), work.join(format!("{start}.log.json")));
        let mut command = self.command();
        command.arg("--log").arg(&log).args(["--log-format=json", name]).args(words);
        command.arg("--pid-file").arg(&pid);
        if let Some(console) = console {
            command.arg("--console-socket").arg(console);
        }
        command.arg(id).stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
        let (_, exit) = self.reaper.spawn(&mut command).map_err(ShimError::io(&self.binary))?;
        // It holds our ends of the streams, and whoever reads them waits for all to be closed.
        drop(command);
        let code = exit.recv();
        let said = File::open(&log).map(read).unwrap_or_default();
        if code != Ok(0) {
            return Err(ShimError::Runsc {
                command: name,
                reason: reason(last_error(&said).as_ref(), code.ok()),
            });
        }
        let text = std::fs::read_to_string(&pid).map_err(ShimError::io(&pid))?;
        let bad = || ShimError::Runsc { command: name, reason: format!("{pid:?}: {text:?} is no pid") };
        text.trim().parse().map_err(|_| bad())
    }
}

/// What a pipe or a file holds, as far as it can be read.
fn read(from: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.take(MAX_ANSWER).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The message of the last error in a log.
fn last_error(log: &str) -> String {
    let message = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line.get("level")?.as_str()? == "error").then(|| line.get("msg")?.as_str().map(str::to_owned))?
    };
    log.lines().rev().find_map(message).unwrap_or_default()
}

/// Why a command failed: the last line that it said, without its own name.
fn reason(said: &str, code: Option<i32>) -> String {
    let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    match (line.strip_prefix("runsc: ").unwrap_or(line).trim(), code) {
        ("", Some(code)) => format!("ended with exit status {code} and said nothing"),
        ("", None) => "ended, and nobody knows how".into(),
        (line, _) => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{last_error, reason};

    #[test]
    fn reasons_are_found() {
        let log = "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"second\"}\n\
                   {\"level\":\"warning\",\"msg\":\"third\"}\nnonsense\n";
        assert_eq!(last_error(log), "second");
        assert_eq!(last_error(""), "");
        assert_eq!(reason("runsc: no such thing\n\n", Some(1)), "no such thing");
        assert!(reason("", Some(5)).contains('5'));
    }
}
