//! Where events and errors are written.
//!
//! With `--log`, into that file. Without it events are seen only with `--debug`, on standard error; an
//! error of a command is one line there in any case. The processes of a sandbox log to their standard
//! error, which is that same file.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::{Cli, Command, LogFormat};

/// Name of a file in the directory of debug logs.
const DEBUG_NAME: &str = "runsc.log.%TIMESTAMP%.%COMMAND%.txt";

fn append(path: &Path, flag: &str) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    file.with_context(|| format!("{flag} {path:?}"))
}

fn open(cli: &Cli) -> Result<Option<File>> {
    cli.log.as_ref().map(|path| append(path, "--log")).transpose()
}

/// The debug log of a process with this command.
fn open_debug(cli: &Cli, command: &str) -> Result<Option<File>> {
    let Some(pattern) = cli.debug_log.as_deref().filter(|pattern| !pattern.is_empty()) else {
        return Ok(None);
    };
    let directory = pattern.ends_with('/');
    let pattern = if directory { format!("{pattern}{DEBUG_NAME}") } else { pattern.to_owned() };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = format!(
        "{}.{:06}",
        timestamp(since.as_secs()).replace([':', '-', 'T', 'Z'], ""),
        since.subsec_micros()
    );
    let id = cli.command.container().unwrap_or("-");
    let path = pattern.replace("%TIMESTAMP%", &time).replace("%COMMAND%", command);
    let path = PathBuf::from(path.replace("%ID%", id).replace("%CID%", id));
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.with_context(|| format!("--debug-log {dir:?}"))?;
    }
    append(&path, "--debug-log").map(Some)
}

/// Sends the events of this process where they belong.
pub(crate) fn init(cli: &Cli) -> Result<()> {
    let inside = matches!(cli.command, Command::Boot | Command::Gofer);
    let (sink, format): (Box<dyn Write + Send>, _) = match (open_debug(cli, cli.command.name())?, open(cli)?)
    {
        (Some(file), _) => (Box::new(file), cli.debug_log_format),
        (None, Some(file)) => (Box::new(file), cli.log_format),
        (None, None) if inside || cli.debug => (Box::new(std::io::stderr()), cli.log_format),
        (None, None) => return Ok(()),
    };
    let level = if cli.debug { LevelFilter::DEBUG } else { LevelFilter::WARN };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(Mutex::new(sink))
        .event_format(Shape(format))
        .init();
    Ok(())
}

/// Where the processes of a sandbox log.
pub(crate) fn for_sandbox(cli: &Cli) -> Result<OwnedFd> {
    match (open_debug(cli, "boot")?, open(cli)?) {
        (Some(file), _) | (None, Some(file)) => Ok(file.into()),
        (None, None) if cli.debug => std::io::stderr().as_fd().try_clone_to_owned().context("standard error"),
        (None, None) => null(),
    }
}

fn null() -> Result<OwnedFd> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from).context("/dev/null")
}

/// The flags that make a process of a sandbox log as we do.
pub(crate) fn flags(cli: &Cli) -> Vec<std::ffi::OsString> {
    let format = if cli.debug_log.is_some() { cli.debug_log_format } else { cli.log_format };
    let debug = cli.debug.then_some("--debug");
    ["--log-format", format.name()].into_iter().chain(debug).map(Into::into).collect()
}

/// An error with its causes in one line. Many errors of ours already say their cause: it is said once.
pub(crate) fn said(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line.replace('\n', " ")
}

/// Adds the error of a command to the log file, in the form that callers of OCI runtimes look for.
pub(crate) fn failure(cli: &Cli, error: &anyhow::Error) {
    let Ok(Some(mut file)) = open(cli) else { return };
    let line = cli.log_format.line("error", &said(error), Map::new());
    // There is no better place to say that the log cannot be written.
    let _ = writeln!(file, "{line}");
}

impl LogFormat {
    /// A line in the shape that other runtimes' logs have.
    fn line(self, level: &str, message: &str, fields: Map<String, Value>) -> String {
        let time = timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
        let text = |fields: Map<String, Value>| -> String {
            fields.iter().map(|(name, value)| format!(" {name}={value}")).collect()
        };
        match self {
            Self::Text => format!("time=\"{time}\" level={level} msg={message:?}{}", text(fields)),
            Self::Json => {
                let mut all = fields;
                all.insert("level".into(), level.into());
                all.insert("msg".into(), message.into());
                all.insert("time".into(), time.into());
                Value::Object(all).to_string()
            }
            Self::JsonK8s => {
                let log = format!("{message}{}", text(fields));
                serde_json::json!({ "log": log, "severity": level, "time": time }).to_string()
            }
        }
    }
}

/// Makes lines of events.
struct Shape(LogFormat);

impl<S, N> FormatEvent<S, N> for Shape
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let level = match *event.metadata().level() {
            // Engines take the last line of this level for the reason why a command failed.
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warning",
            tracing::Level::INFO => "info",
            _ => "debug",
        };
        writeln!(to, "{}", self.0.line(level, &parts.message, parts.fields))
    }
}

/// What an event says.
#[derive(Default)]
struct Parts {
    message: String,
    fields: Map<String, Value>,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => drop(self.fields.insert(name.into(), format!("{value:?}").into())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        drop(self.fields.insert(field.name().into(), value.into()));
    }
}

/// Seconds since 1970 as RFC 3339 has them.
fn timestamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years of March to February, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + carry;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A standard descriptor of ours.
pub(crate) fn stdio() -> [BorrowedFd<'static>; 3] {
    use std::sync::LazyLock;
    static IN: LazyLock<std::io::Stdin> = LazyLock::new(std::io::stdin);
    static OUT: LazyLock<std::io::Stdout> = LazyLock::new(std::io::stdout);
    static ERR: LazyLock<std::io::Stderr> = LazyLock::new(std::io::stderr);
    [IN.as_fd(), OUT.as_fd(), ERR.as_fd()]
}

#[cfg(test)]
mod tests {
    use super::{said, timestamp};

    #[test]
    fn a_cause_is_said_once() {
        let inner = std::io::Error::other("gone");
        assert_eq!(said(&anyhow::Error::new(inner).context("file x: gone")), "file x: gone");
        assert_eq!(said(&anyhow::anyhow!("gone").context("file x")), "file x: gone");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(timestamp(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
