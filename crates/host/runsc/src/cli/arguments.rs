//! The arguments of each command.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

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
    #[arg(required = true, trailing_var_arg = true)]
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
    /// Give the program this many descriptors after the standard ones
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u16,
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
    /// Do not delete it when it has ended
    #[arg(long)]
    pub(crate) keep: bool,
    /// Accepted for callers of other runtimes; orphans of a container are inside it
    #[arg(long, hide = true)]
    pub(crate) no_subreaper: bool,
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
    /// Send it to the process with this pid in the container
    #[arg(long, conflicts_with = "all")]
    pub(crate) pid: Option<u32>,
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
    #[value(alias = "text")]
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
    /// A command, `syscalls` or `platforms`
    pub(crate) topic: Option<String>,
    /// Form of a table
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// Arguments of `stand`.
#[derive(Debug, Args)]
pub(crate) struct Stand {
    /// Pid in the container; 0 for the first process
    pub(crate) pid: u32,
    /// The container, when it joined a sandbox
    pub(crate) container: Option<String>,
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
    /// Add a supplementary group
    #[arg(short = 'g', long, value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// Add a capability
    #[arg(short, long, value_parser = capability)]
    pub(crate) cap: Vec<u64>,
    /// Give it no privileges by executing programs
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Give it this many descriptors after the standard ones
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u16,
    /// File to write the pid in the container to
    #[arg(long)]
    pub(crate) internal_pid_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) detached: Detached,
    /// Program and arguments
    #[arg(required_unless_present = "process", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Container id
    pub(crate) id: String,
    /// Wait for the process with this pid in the container, which `exec` started
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Container id
    pub(crate) id: String,
    /// How often, such as 500ms, 5s or 1m
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// Print what it uses once, and end
    #[arg(long)]
    pub(crate) stats: bool,
}

/// Arguments of `update`. Numbers are those of the resources of a spec.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Container id
    pub(crate) id: String,
    /// File with the resources of a spec, or - for standard input; no other is looked at then
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// Share of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u16>,
    /// Processor time in a period in microseconds; -1 for no limit
    #[arg(long, allow_negative_numbers = true, value_name = "MICROSECONDS")]
    pub(crate) cpu_quota: Option<i64>,
    /// That period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<u64>,
    /// Share of processor time; 1024 is usual
    #[arg(long, value_name = "SHARES")]
    pub(crate) cpu_share: Option<u64>,
    /// Processors to run on, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Nodes of memory to use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Bytes of memory; -1 for no limit
    #[arg(long, allow_negative_numbers = true, value_name = "BYTES")]
    pub(crate) memory: Option<i64>,
    /// Bytes of memory that it is left when the host has little
    #[arg(long, allow_negative_numbers = true, value_name = "BYTES")]
    pub(crate) memory_reservation: Option<i64>,
    /// Bytes of memory and swap together; -1 for no limit
    #[arg(long, allow_negative_numbers = true, value_name = "BYTES")]
    pub(crate) memory_swap: Option<i64>,
    /// Tasks at a time; -1 for no limit
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub(crate) pids_limit: Option<i64>,
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
    if let Some(number) = real_time(upper.trim_start_matches("SIG")) {
        return Ok(number);
    }
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<Signal>().map(|signal| signal as u8).map_err(|_| "unknown signal".into())
}

/// `RTMIN+n` and `RTMAX-n` as the C library counts them.
fn real_time(name: &str) -> Option<u8> {
    const MIN: u8 = 34;
    const MAX: u8 = 64;
    let offset = |rest: &str, sign| match rest {
        "" => Some(0),
        _ => rest.strip_prefix(sign)?.parse::<u8>().ok().filter(|n| *n <= MAX - MIN),
    };
    let up = || offset(name.strip_prefix("RTMIN")?, '+').map(|n| MIN + n);
    let down = || offset(name.strip_prefix("RTMAX")?, '-').map(|n| MAX - n);
    up().or_else(down)
}

/// The bit of a capability, with or without `CAP_`.
fn capability(text: &str) -> Result<u64, String> {
    match sandbox::spec::bit(text) {
        0 => Err("unknown capability".into()),
        bit => Ok(bit),
    }
}

/// As Go writes it, with one unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is not a time"))?;
    let seconds = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err("a time has one of the units ms, s, m, h".into()),
    };
    let time = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if time < Duration::from_millis(1) { Err("less than a millisecond".into()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::{Volume, duration, signal, volume};
    use std::time::Duration;

    #[test]
    fn times() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "5", "s", "-1s", "0s", "1y"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
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
        assert_eq!((signal("SIGRTMIN+3"), signal("RTMAX-1"), signal("rtmin")), (Ok(37), Ok(63), Ok(34)));
        for bad in ["0", "65", "-1", "", "NOPE", "RTMIN+31", "RTMAX+1"] {
            assert!(signal(bad).is_err(), "{bad:?}");
        }
    }
}
