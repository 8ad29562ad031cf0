//! The grammar of the command line: flags of every command, and the commands.
//!
//! Their own arguments are in [`arguments`]; [`compat`] has the flags that are taken but change nothing,
//! [`words`] brings flags as users of Go programs write them into this form.

mod arguments;
mod compat;
mod egress;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{CommandFactory, Parser, Subcommand};

pub(crate) use arguments::{
    Bundle, Create, Delete, Detached, Do, Events, Exec, Format, Help, Id, Kill, List, Ps, Run, Stand, Update,
    Volume, Wait,
};
use compat::Compat;
use egress::{Egress, Resolvers, Rules};

use crate::install::{Install, Uninstall};
use crate::metrics::{Export, Serve};
use crate::pages::{Completion, Man};

/// An application kernel for containers.
#[derive(Debug, Parser)]
#[command(name = "runsc", version = version(), propagate_version = true, disable_help_subcommand = true,
          args_override_self = true)]
pub(crate) struct Cli {
    /// Directory of the containers' states
    #[arg(long, global = true, default_value = "/run/runsc")]
    pub(crate) root: PathBuf,
    /// File to which errors and warnings are added; standard error without it
    #[arg(long, global = true)]
    pub(crate) log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Log in detail
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) debug: bool,
    /// File for the details in place of --log: a directory when it ends in /, with %ID%, %COMMAND% and
    /// %TIMESTAMP% replaced
    #[arg(long, global = true)]
    pub(crate) debug_log: Option<String>,
    /// Form of the log of details
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) debug_log_format: LogFormat,
    /// Log every system call of the guest
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) strace: bool,
    /// What catches the guest's system calls: systrap, kvm, ptrace, or auto for the first that works here
    #[arg(long, global = true, default_value = "systrap")]
    pub(crate) platform: String,
    /// The device that the platform works with, in place of its usual one (kvm: /dev/kvm)
    #[arg(long, global = true, alias = "platform_device_path")]
    pub(crate) platform_device_path: Option<PathBuf>,
    /// Let every call of a guest enter through the host, and leave its programs as they are
    #[arg(long, global = true, alias = "systrap-disable-syscall-patching", num_args = 0..=1,
          require_equals = true, default_value = "false", default_missing_value = "true",
          value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) systrap_disable_fast_path: bool,
    /// Where writes to the root of the guest go: none (into itself) or root:memory[,size=BYTES] (lost when
    /// the container ends)
    #[arg(long, global = true, default_value = "root:memory", value_parser = overlay2)]
    pub(crate) overlay2: Overlay2,
    /// Whether others may change the root while the guest uses it
    #[arg(long, global = true, value_enum, default_value = "exclusive")]
    pub(crate) file_access: FileAccess,
    /// Whether others may change what is mounted from the host while the guest uses it
    #[arg(long, global = true, value_enum, default_value = "shared")]
    pub(crate) file_access_mounts: FileAccess,
    /// What a container sees of the network: the Ethernet interfaces of its network namespace, whose addresses
    /// are taken over (sandbox), or only a loopback (none)
    #[arg(long, global = true, value_enum, default_value = "sandbox")]
    pub(crate) network: NetworkMode,
    /// Processes with CAP_NET_RAW may have raw and packet sockets
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) net_raw: bool,
    /// File for all frames of a container's links, in libpcap's format
    #[arg(long, global = true)]
    pub(crate) pcap_log: Option<PathBuf>,
    /// Whether a container may reach what no rule is about
    #[arg(long, global = true, value_enum, default_value = "allow")]
    pub(crate) egress: Egress,
    /// What it may reach and what not: allow:ADDRESS[/BITS][@PORT[-PORT]], allow:[*.]NAME[@PORT[-PORT]] or deny:...,
    /// with commas between; the first that fits decides
    #[arg(long, global = true, default_value = "", hide_default_value = true, value_parser = egress::rules)]
    pub(crate) egress_rules: Rules,
    /// Addresses of those who are believed about the addresses of names, with commas between; they may be asked for
    /// names that a rule allows
    #[arg(long, global = true, default_value = "", hide_default_value = true, value_parser = egress::resolvers)]
    pub(crate) egress_resolvers: Resolvers,
    /// Where metric-server listens: HOST:PORT, or the path of a Unix socket
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) metric_server: Option<String>,
    /// Have processes of a container keep to the seccomp profile of its spec
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) oci_seccomp: bool,
    /// Make no control groups, and set no limits with them
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    pub(crate) ignore_cgroups: bool,
    /// The path of control groups is SLICE:PREFIX:NAME; it is recognised without this as well
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub(crate) systemd_cgroup: bool,
    #[command(flatten)]
    pub(crate) compat: Compat,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Parses words, the first of which is the name of the program.
    pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(words::canonical(&Self::command(), words))
    }
}

/// In the lines that engines look for.
fn version() -> &'static str {
    concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0")
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
    /// Change the limits of a container
    Update(Update),
    /// Replace what a container may reach by what --egress, --egress-rules and --egress-resolvers say
    Egress(Id),
    /// Remove a stopped container
    Delete(Delete),
    /// List containers
    List(List),
    /// Run another program in a container
    Exec(Exec),
    /// List the processes of a container
    Ps(Ps),
    /// Print what a container uses, and when it runs out of memory
    Events(Events),
    /// Print what the sandbox of a container has counted, as Prometheus reads it
    ExportMetrics(Export),
    /// Serve what all sandboxes have counted to Prometheus, until killed
    MetricServer(Serve),
    /// Print what this runtime can do, as a JSON object
    Features,
    /// Write a template of a spec
    Spec(Bundle),
    /// Wait for a container to end, and print how it did
    Wait(Wait),
    /// Print a script that has a shell complete the words of a command line
    Completion(Completion),
    /// Write a manual page for each command
    Man(Man),
    /// Make this program a runtime of Docker
    Install(Install),
    /// Take it out of Docker's runtimes
    Uninstall(Uninstall),
    /// Describe a command, with `syscalls` the system calls that guests have, or with `platforms` what can catch them here
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

impl Command {
    /// Its name, as it is given.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Do(_) => "do",
            Self::Run(_) => "run",
            Self::Create(_) => "create",
            Self::Start(_) => "start",
            Self::State(_) => "state",
            Self::Kill(_) => "kill",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Update(_) => "update",
            Self::Egress(_) => "egress",
            Self::Delete(_) => "delete",
            Self::List(_) => "list",
            Self::Exec(_) => "exec",
            Self::Ps(_) => "ps",
            Self::Events(_) => "events",
            Self::ExportMetrics(_) => "export-metrics",
            Self::MetricServer(_) => "metric-server",
            Self::Features => "features",
            Self::Spec(_) => "spec",
            Self::Wait(_) => "wait",
            Self::Completion(_) => "completion",
            Self::Man(_) => "man",
            Self::Install(_) => "install",
            Self::Uninstall(_) => "uninstall",
            Self::Help(_) => "help",
            Self::Gofer => "gofer",
            Self::Boot => "boot",
            Self::Stand(_) => "stand",
        }
    }

    /// The container it is about.
    pub(crate) fn container(&self) -> Option<&str> {
        let id = match self {
            Self::Run(arguments) => &arguments.create.id,
            Self::Create(arguments) => &arguments.id,
            Self::Start(id) | Self::State(id) | Self::Pause(id) | Self::Resume(id) | Self::Egress(id) => {
                &id.id
            }
            Self::Kill(arguments) => &arguments.id,
            Self::Update(arguments) => &arguments.id,
            Self::Delete(arguments) => &arguments.id,
            Self::Exec(arguments) => &arguments.id,
            Self::Ps(arguments) => &arguments.id,
            Self::Events(arguments) => &arguments.id,
            Self::ExportMetrics(arguments) => &arguments.id,
            Self::Wait(arguments) => &arguments.id,
            Self::Do(_) | Self::List(_) | Self::Features | Self::Spec(_) | Self::Help(_) => return None,
            Self::Install(_) | Self::Uninstall(_) | Self::MetricServer(_) => return None,
            Self::Completion(_) | Self::Man(_) => return None,
            Self::Gofer | Self::Boot | Self::Stand(_) => return None,
        };
        Some(id)
    }
}

/// Form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// An object a line.
    Json,
    /// An object a line, as Kubernetes has them.
    JsonK8s,
}

impl LogFormat {
    /// As it is given.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::JsonK8s => "json-k8s",
        }
    }
}

/// Where writes to the root go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Overlay2 {
    /// Into the root itself.
    None,
    /// Into memory, at most so much.
    Memory(Option<String>),
}

/// What a container sees of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NetworkMode {
    /// The interfaces of its network namespace
    Sandbox,
    /// A loopback
    None,
}

/// Who may change files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FileAccess {
    /// The guest alone, so that what it knows of them stays true
    Exclusive,
    /// Others as well
    Shared,
}

fn overlay2(text: &str) -> Result<Overlay2, String> {
    match text.split_once(',') {
        None if text == "none" => Ok(Overlay2::None),
        None if text == "root:memory" => Ok(Overlay2::Memory(None)),
        Some(("root:memory", size)) if size.starts_with("size=") => Ok(Overlay2::Memory(Some(size.into()))),
        _ => Err("not none or root:memory[,size=BYTES]: writes are kept nowhere else".into()),
    }
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
    use super::{Cli, Overlay2, overlay2};
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn engines_are_understood() {
        let lines = [
            "--root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /s \
             --no-pivot --no-new-keyring --preserve-fds 2 one",
            "--root /r --log /l --log-format json --systemd-cgroup exec --process /p --detach --pid-file /p one",
            "kill --all one 9",
            "-log-format=json -debug=true events -interval=5s -stats one",
            "update --resources - one",
            "update -memory 100 -cpu-share=5 one",
            "ps --format json one",
            "list -format text",
            "--rootless=auto delete -force one",
            "features",
        ];
        for line in lines {
            let words = ["runsc"].into_iter().chain(line.split_whitespace()).map(Into::into);
            assert!(Cli::read(words).is_ok(), "{line}: {:?}", Cli::read(["runsc".into()]).err());
        }
    }

    #[test]
    fn overlays() {
        assert_eq!(overlay2("none"), Ok(Overlay2::None));
        assert_eq!(overlay2("root:memory,size=2g"), Ok(Overlay2::Memory(Some("size=2g".into()))));
        assert!(overlay2("root:self").is_err() && overlay2("root:memory,x").is_err());
    }
}
