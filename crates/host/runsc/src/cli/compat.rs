//! Flags of gVisor's and runc's that change nothing here.
//!
//! Each has a row in [`ROWS`]: the values that ask for what is done anyway, and why any other is refused. A
//! flag without a row, and not of ours either, is an error like every unknown one.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, error::ErrorKind};

/// A flag.
pub(crate) struct Row {
    /// Its name, without dashes.
    pub(crate) name: &'static str,
    /// What it is followed by.
    kind: Kind,
    /// Values that say what is done anyway.
    pub(crate) accepted: &'static [&'static str],
    /// Why there is no other.
    pub(crate) reason: &'static str,
}

/// What a flag is followed by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing, or `=true` or `=false`.
    Switch,
    /// A value.
    Value,
}

const fn off(name: &'static str, reason: &'static str) -> Row {
    Row { name, kind: Kind::Switch, accepted: &["false"], reason }
}

const fn on(name: &'static str, reason: &'static str) -> Row {
    Row { name, kind: Kind::Switch, accepted: &["true"], reason }
}

const fn only(name: &'static str, accepted: &'static [&'static str], reason: &'static str) -> Row {
    Row { name, kind: Kind::Value, accepted, reason }
}

const fn never(name: &'static str, reason: &'static str) -> Row {
    Row { name, kind: Kind::Value, accepted: &[""], reason }
}

const NO_GO: &str = "there is no Go runtime to profile or to trace";
const NO_STACK: &str = "the network stack here has no such part";
const LEFT: &str = "large segments and checksums are always left to the device";
const NO_SAVE: &str = "containers are not saved";
const NO_PROXY: &str = "no devices of the host are passed through";

/// All of them.
pub(crate) const ROWS: &[Row] = &[
    off("TESTONLY-unsafe-nonroot", "a sandbox always locks itself in"),
    off("allow-connected-on-save", NO_SAVE),
    off("allow-flag-override", "an annotation of a bundle cannot change the sandbox around it"),
    off("allow-live-tcp-migration", NO_SAVE),
    off("allow-packet-socket-write", NO_STACK),
    off("allow-rootfs-tar-annotation", "the root comes from the bundle alone"),
    on("allow-suid", "set-user-ID programs work as Linux has them"),
    off("app-huge-pages", "memory of guests is not made of huge pages by itself"),
    only("character-device-policy", &["emulated-only"], NO_PROXY),
    only(
        "control-rpc-stop-timeout",
        &["", "15s"],
        "a sandbox that does not answer is killed after ten seconds",
    ),
    never("coverage-report", NO_GO),
    never("criu", NO_SAVE),
    only("dcache", &["-1"], "the cache of names grows and shrinks with its use"),
    never("debug-command", "all processes of a sandbox log alike"),
    off("debug-to-user-log", "the debug log is for operators only"),
    off("directfs", "the Sentry opens no files of the host; the Gofer does"),
    off("enable-core-tags", "core scheduling is the operator's to set"),
    only("fdlimit", &["-1"], "descriptors are those that the host allows"),
    never("final-metrics-log", "metrics are asked for, not logged"),
    only("gofer-network-namespace", &["new", "null"], "a Gofer always has an empty one of its own"),
    on("gso", LEFT),
    never("gvisor-marker-file", "there is no such file"),
    only("host-fifo", &["none"], "named pipes of the host are not opened"),
    only("host-settings", &["ignore"], "settings of the host are the operator's"),
    only("host-uds", &["none"], "sockets of the host are not connected to"),
    off("iouring", "guests have no io_uring"),
    off("kvm-use-cpu-nums", "virtual processors are not bound to those of the host"),
    off("log-packets", NO_STACK),
    off("mount-cgroup-v2", "control groups are not seen inside"),
    on("net-disconnect-ok", NO_SAVE),
    only("network-processors-per-channel", &["0"], NO_STACK),
    only("num-network-channels", &["1"], NO_STACK),
    off("nvproxy", NO_PROXY),
    never("panic-log", "why a sandbox ended is in --log"),
    only("panic-signal", &["-1"], "there is no signal that makes a Sentry panic"),
    off("pause-external-networking", NO_SAVE),
    never("pod-init-config", "there are no trace sessions"),
    off("profile", NO_GO),
    never("profile-block", NO_GO),
    never("profile-cpu", NO_GO),
    never("profile-heap", NO_GO),
    never("profile-mutex", NO_GO),
    never("profiling-metrics", "metrics are asked for, not logged"),
    only("qdisc", &["none"], NO_STACK),
    off("rdmaproxy", NO_PROXY),
    only("ref-leak-mode", &["disabled"], "what is shared is counted by the compiler's own means"),
    off("reproduce-nat", NO_STACK),
    off("reproduce-nftables", NO_STACK),
    only("restore-spec-validation", &["enforce"], NO_SAVE),
    only("rootless", &["auto", "true", "false"], "it is found out"),
    on("rx-checksum-offload", LEFT),
    never("shared-root", "sandboxes share nothing"),
    off("software-gso", NO_STACK),
    off("strace-event", "system calls are logged, not sent"),
    only("strace-log-size", &["1024"], "lines have the length that their arguments need"),
    never("strace-syscalls", "all system calls are logged"),
    off("tpuproxy", NO_PROXY),
    never("trace", NO_GO),
    only("traceback", &["", "system"], NO_GO),
    on("tx-checksum-offload", LEFT),
    only("watchdog-action", &["log", "logwarning"], "there is no watchdog over guests"),
];

/// All these flags; what is given is good once it is parsed.
#[derive(Debug)]
pub(crate) struct Compat;

impl Args for Compat {
    fn augment_args(command: Command) -> Command {
        ROWS.iter().fold(command, |command, row| {
            let arg = Arg::new(row.name).long(row.name).global(true).hide(true).action(ArgAction::Append);
            command.arg(match row.kind {
                Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
                Kind::Value => arg.num_args(1),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Compat {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        for row in ROWS {
            let given = matches.get_many::<String>(row.name).into_iter().flatten();
            for value in given {
                check(row, value)?;
            }
        }
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        Self::from_arg_matches(matches).map(drop)
    }
}

fn check(row: &Row, value: &str) -> Result<(), Error> {
    // As Go reads them.
    let meant = match (row.kind, value) {
        (Kind::Switch, "1" | "t" | "T" | "TRUE" | "True") => "true",
        (Kind::Switch, "0" | "f" | "F" | "FALSE" | "False") => "false",
        _ => value,
    };
    if row.accepted.contains(&meant) {
        return Ok(());
    }
    let text = format!("--{} {value:?} is refused: {}\n\n", row.name, row.reason);
    Err(Error::raw(ErrorKind::InvalidValue, text))
}

#[cfg(test)]
mod tests {
    use super::ROWS;
    use crate::cli::Cli;
    use clap::Parser;

    #[test]
    fn rows_are_in_order_and_each_says_why() {
        assert!(ROWS.is_sorted_by_key(|row| row.name));
        assert!(ROWS.iter().all(|row| !row.accepted.is_empty() && row.reason.len() > 10));
    }

    #[test]
    fn what_is_done_anyway_is_accepted_and_nothing_else() {
        let parse = |flag: &str| Cli::try_parse_from(["runsc", flag, "list"]).map_err(|e| e.to_string());
        for good in ["--directfs=false", "--host-uds=none", "--rootless=true", "--allow-suid"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for (bad, name) in
            [("--directfs", "--directfs"), ("--host-uds=all", "--host-uds"), ("--nope", "--nope")]
        {
            let text = parse(bad).expect_err("refused");
            assert!(text.contains(name), "{text}");
        }
    }

    #[test]
    fn the_page_lists_them() {
        let page = include_str!("../../../../../docs/flags.md");
        for row in ROWS {
            let accepted: Vec<_> = row.accepted.iter().filter(|value| !value.is_empty()).collect();
            let accepted: Vec<_> = accepted.iter().map(|value| format!("`{value}`")).collect();
            let line = format!("| `--{}` | {} | {} |", row.name, accepted.join(", "), row.reason);
            assert!(page.contains(&line), "docs/flags.md lacks:\n{line}");
        }
    }
}
