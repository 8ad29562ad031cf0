//! What each command does; those on living containers are in `lifecycle` and `exec`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use sandbox::StateRoot;

use crate::cli::{Cli, Command, Format, List};
use crate::{events, exec, features, help, install, lifecycle, logging, metrics, once, pages, update};

/// Runs a command. Returns the exit status.
pub(crate) fn run(cli: &Cli) -> Result<u8> {
    logging::init(cli)?;
    let root = StateRoot::new(&cli.root);
    match &cli.command {
        Command::Gofer => Ok(sandbox::inside::gofer()),
        Command::Boot => Ok(sandbox::inside::boot()),
        Command::Stand(arguments) => exec::stand(arguments),
        Command::Do(arguments) => once::run(cli, arguments),
        Command::Run(arguments) => lifecycle::run(cli, &root, arguments),
        Command::Create(arguments) => lifecycle::create(cli, &root, arguments),
        Command::Start(container) => lifecycle::start(&root, &container.id),
        Command::State(container) => state(&root, &container.id),
        Command::Kill(arguments) => lifecycle::kill(&root, arguments),
        Command::Pause(container) => lifecycle::freeze(&root, &container.id, true),
        Command::Resume(container) => lifecycle::freeze(&root, &container.id, false),
        Command::Update(arguments) => update::run(&root, arguments),
        Command::Egress(container) => update::egress(cli, &root, &container.id),
        Command::Events(arguments) => events::run(&root, arguments),
        Command::ExportMetrics(arguments) => metrics::export(&root, arguments),
        Command::MetricServer(arguments) => metrics::serve(&root, cli.metric_server.as_deref(), arguments),
        Command::Features => features::run(),
        Command::Delete(arguments) => lifecycle::delete(&root, arguments),
        Command::List(arguments) => list(&root, arguments),
        Command::Exec(arguments) => exec::exec(cli, &root, arguments),
        Command::Ps(arguments) => exec::ps(&root, arguments),
        Command::Spec(arguments) => spec(&arguments.bundle),
        Command::Wait(arguments) => lifecycle::wait(&root, arguments),
        Command::Completion(arguments) => pages::completion(arguments),
        Command::Man(arguments) => pages::man(arguments),
        Command::Install(arguments) => install::install(arguments),
        Command::Uninstall(arguments) => install::uninstall(arguments),
        Command::Help(arguments) => help::run(cli, arguments),
    }
}

fn state(root: &StateRoot, id: &str) -> Result<u8> {
    let container = root.open(id)?;
    print(&serde_json::to_string_pretty(container.state())?)
}

fn list(root: &StateRoot, arguments: &List) -> Result<u8> {
    let states = root.list()?;
    if arguments.format == Format::Json && !arguments.quiet {
        return print(&serde_json::to_string(&states)?);
    }
    let mut lines = Vec::new();
    if !arguments.quiet {
        lines.push(format!("{:<24} {:<10} {:<10} BUNDLE", "ID", "PID", "STATUS"));
    }
    for state in states {
        let status = state.status.to_string();
        lines.push(match arguments.quiet {
            true => state.id,
            false => format!("{:<24} {:<10} {status:<10} {}", state.id, state.pid, state.bundle.display()),
        });
    }
    if lines.is_empty() { Ok(0) } else { print(&lines.join("\n")) }
}

fn spec(bundle: &Path) -> Result<u8> {
    let path = bundle.join(oci::CONFIG);
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(&path).with_context(|| format!("{path:?}"))?;
    let text = serde_json::to_string_pretty(&oci::template())?;
    writeln!(file, "{text}").with_context(|| format!("{path:?}"))?;
    Ok(0)
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<u8> {
    writeln!(std::io::stdout(), "{text}").context("standard output")?;
    Ok(0)
}
