//! Where events and errors are written.
//!
//! With `--log`, into that file. Without it events are seen only with `--debug`, on standard error; an
//! error of a command is one line there in any case. The processes of a sandbox log to their standard
//! error, which is that same file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tracing::level_filters::LevelFilter;

use crate::cli::{Cli, Command, LogFormat};

fn open(cli: &Cli) -> Result<Option<File>> {
    let Some(path) = &cli.log else { return Ok(None) };
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    file.map(Some).with_context(|| format!("--log {path:?}"))
}

/// Sends the events of this process where they belong.
pub(crate) fn init(cli: &Cli) -> Result<()> {
    let inside = matches!(cli.command, Command::Boot | Command::Gofer);
    let sink: Box<dyn Write + Send> = match open(cli)? {
        Some(file) => Box::new(file),
        None if inside || cli.debug => Box::new(std::io::stderr()),
        None => return Ok(()),
    };
    let level = if cli.debug { LevelFilter::DEBUG } else { LevelFilter::WARN };
    let builder =
        tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(Mutex::new(sink));
    match cli.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Where the processes of a sandbox log.
pub(crate) fn for_sandbox(cli: &Cli) -> Result<OwnedFd> {
    match open(cli)? {
        Some(file) => Ok(file.into()),
        None if cli.debug => std::io::stderr().as_fd().try_clone_to_owned().context("standard error"),
        None => null(),
    }
}

fn null() -> Result<OwnedFd> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from).context("/dev/null")
}

/// The flags that make a process of a sandbox log as we do.
pub(crate) fn flags(cli: &Cli) -> Vec<std::ffi::OsString> {
    let format = ["--log-format", cli.log_format.name()];
    let debug = cli.debug.then_some("--debug");
    format.into_iter().chain(debug).map(Into::into).collect()
}

/// Adds the error of a command to the log file, in the form that callers of OCI runtimes look for.
pub(crate) fn failure(cli: &Cli, error: &anyhow::Error) {
    let Ok(Some(mut file)) = open(cli) else { return };
    let time = timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    let message = format!("{error:#}");
    let line = match cli.log_format {
        LogFormat::Text => format!("time=\"{time}\" level=error msg={message:?}\n"),
        LogFormat::Json => {
            format!("{}\n", serde_json::json!({ "level": "error", "msg": message, "time": time }))
        }
    };
    // There is no better place to say that the log cannot be written.
    let _ = file.write_all(line.as_bytes());
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
    use super::timestamp;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(timestamp(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
