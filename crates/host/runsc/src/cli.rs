//! The grammar of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// An application kernel for containers.
#[derive(Debug, Parser)]
#[command(name = "runsc", version, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Directory of the containers' states
    #[arg(long, global = true, default_value = "/run/runsc")]
    pub(crate) root: PathBuf,
    /// File to which errors and events are added; standard error without it
    #[arg(long, global = true)]
    pub(crate) log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Log in detail
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Log every system call of the guest
    #[arg(long, global = true)]
    pub(crate) strace: bool,
    /// What catches the guest's system calls
    #[arg(long, global = true, default_value = "systrap")]
    pub(crate) platform: String,
    /// Where writes to the root of the guest go
    #[arg(long, global = true, value_enum, default_value = "root:memory")]
    pub(crate) overlay2: Overlay,
    /// Accepted for callers of other runtimes; without effect
    #[arg(long, global = true, hide = true)]
    pub(crate) systemd_cgroup: bool,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program in a sandbox of its own
    Do(Do),
    /// Create and start a container, and wait for it
    Run(Run),
    /// Create a container
    Create(Create),
    /// Start a created container
    Start(Id),
    /// Print the state of a container
    State(Id),
    /// Send a signal to a container
    Kill(Kill),
    /// Stop all processes of a container
    Pause(Id),
    /// Let the processes of a paused container go on
    Resume(Id),
    /// Remove a stopped container
    Delete(Delete),
    /// List containers
    List(List),
    /// Run another program in a container
    Exec(Exec),
    /// List the processes of a container
    Ps(Ps),
    /// Write a template of a spec
    Spec(Bundle),
    /// Wait for a container to end, and print how it did
    Wait(Id),
    /// Describe a command, or with `syscalls` the system calls that guests have
    Help(Help),
    /// Be the Gofer of a sandbox; only runsc itself can start it
    #[command(hide = true)]
    Gofer,
    /// Be the Sentry of a sandbox; only runsc itself can start it
    #[command(hide = true)]
    Boot,
    /// Stand for a process that a detached `exec` started; only runsc itself can start it
    #[command(hide = true)]
    Stand(Stand),
}

/// Form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// An object a line.
    Json,
}

impl LogFormat {
    /// As it is given.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Where writes to the root go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Overlay {
    /// Into the root itself
    None,
    /// Into memory, lost when the container ends
    #[value(name = "root:memory")]
    Memory,
}

/// Arguments of `do`.
#[derive(Debug, Args)]
pub(crate) struct Do {
    /// Show a host path in the guest, as HOST:GUEST or HOST:GUEST:ro
    #[arg(short, long = "volume", value_parser = volume)]
    pub(crate) volume: Vec<Volume>,
    /// Root of the guest
    #[arg(long, default_value = "/")]
    pub(crate) rootfs: PathBuf,
    /// Working directory in the guest; without it ours when the root is /, else /
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// Set a variable, as NAME=VALUE, or pass ours, as NAME
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// A host path shown in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Path on the host.
    pub(crate) host: PathBuf,
    /// Absolute path in the guest.
    pub(crate) guest: PathBuf,
    /// Refuse writes.
    pub(crate) readonly: bool,
}

/// A container by id.
#[derive(Debug, Args)]
pub(crate) struct Id {
    /// Container id
    pub(crate) id: String,
}

/// A bundle.
#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// Directory of the bundle
    #[arg(short, long, default_value = ".")]
    pub(crate) bundle: PathBuf,
}

/// Arguments of `create` and `run`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) bundle: Bundle,
    #[command(flatten)]
    pub(crate) detached: Detached,
    /// Container id
    pub(crate) id: String,
    /// Accepted for callers of other runtimes; there is always a pivot
    #[arg(long, hide = true)]
    pub(crate) no_pivot: bool,
    /// Accepted for callers of other runtimes; there are no keyrings
    #[arg(long, hide = true)]
    pub(crate) no_new_keyring: bool,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) create: Create,
    /// Do not wait for it
    #[arg(short, long)]
    pub(crate) detach: bool,
}

/// What somebody needs who starts something and does not wait for it here.
#[derive(Debug, Args)]
pub(crate) struct Detached {
    /// File to write the host pid to
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Unix socket to send a terminal's master end to
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
}

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Container id
    pub(crate) id: String,
    /// Name or number of the signal
    #[arg(default_value = "TERM", value_parser = signal)]
    pub(crate) signal: u8,
    /// Send it to every process, not only to the first
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Remove whatever is left, in any status; no error when there is nothing
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Container id
    pub(crate) id: String,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// Form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON value.
    Json,
}

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Container id
    pub(crate) id: String,
    /// Form of the output
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// Arguments of `help`.
#[derive(Debug, Args)]
pub(crate) struct Help {
    /// A command, or `syscalls`
    pub(crate) topic: Option<String>,
    /// Form of the table of system calls
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// Arguments of `stand`.
#[derive(Debug, Args)]
pub(crate) struct Stand {
    /// Pid in the container
    pub(crate) pid: u32,
}

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Container id
    pub(crate) id: String,
    /// File with a process as in a spec, in place of a command
    #[arg(short, long)]
    pub(crate) process: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// Set a variable, as NAME=VALUE, or pass ours, as NAME
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// User, as UID or UID:GID
    #[arg(short, long, value_parser = user)]
    pub(crate) user: Option<(u32, Option<u32>)>,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Do not wait for it; the host pid is that of a process that stands for it
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) detached: Detached,
    /// Program and arguments
    #[arg(required_unless_present = "process", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number"));
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

fn volume(text: &str) -> Result<Volume, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, guest, readonly) = match parts.as_slice() {
        [host, guest] | [host, guest, "rw"] => (*host, *guest, false),
        [host, guest, "ro"] => (*host, *guest, true),
        _ => return Err("not HOST:GUEST or HOST:GUEST:ro".into()),
    };
    if host.is_empty() || !guest.starts_with('/') {
        return Err("the path in the guest must be absolute, that on the host not empty".into());
    }
    Ok(Volume { host: host.into(), guest: guest.into(), readonly })
}

fn signal(text: &str) -> Result<u8, String> {
    use nix::sys::signal::Signal;
    if let Ok(number) = text.parse::<u8>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err("not 1 to 64".into()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<Signal>().map(|signal| signal as u8).map_err(|_| "unknown signal".into())
}

/// The part of a usage error that says what is wrong: everything before the usage and the hints.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    if !first.starts_with("error: ") {
        return "no command given; see runsc --help".into();
    }
    let words: Vec<&str> = first.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Cli, Volume, signal, volume};
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn volumes() {
        let good = Volume { host: "/a".into(), guest: "/b".into(), readonly: true };
        assert_eq!(volume("/a:/b:ro"), Ok(good));
        for bad in ["", "/a", "/a:b", ":/b", "/a:/b:rx", "/a:/b:ro:ro"] {
            assert!(volume(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn users() {
        assert_eq!(super::user("5:6"), Ok((5, Some(6))));
        assert_eq!(super::user("5"), Ok((5, None)));
        assert!(super::user("root").is_err() && super::user("1:").is_err());
    }

    #[test]
    fn signals() {
        assert_eq!(signal("KILL"), Ok(9));
        assert_eq!(signal("sigterm"), Ok(15));
        assert_eq!(signal("64"), Ok(64));
        for bad in ["0", "65", "-1", "", "NOPE"] {
            assert!(signal(bad).is_err(), "{bad:?}");
        }
    }
}
