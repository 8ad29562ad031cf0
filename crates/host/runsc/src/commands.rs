//! What each command does.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use sandbox::{StateRoot, Status};

use crate::cli::{Cli, Command, Create, Delete};
use crate::{logging, once};

/// Runs a command. Returns the exit status.
pub(crate) fn run(cli: &Cli) -> Result<u8> {
    logging::init(cli)?;
    let root = StateRoot::new(&cli.root);
    match &cli.command {
        Command::Gofer => Ok(sandbox::inside::gofer()),
        Command::Boot => Ok(sandbox::inside::boot()),
        Command::Do(arguments) => once::run(cli, arguments),
        Command::Run(arguments) => create(&root, arguments, "run"),
        Command::Create(arguments) => create(&root, arguments, "create"),
        Command::Start(container) => live(&root, &container.id, &[Status::Created], "start"),
        Command::State(container) => state(&root, &container.id),
        Command::Kill(kill) => {
            let operation = format!("kill with signal {}", kill.signal);
            live(&root, &kill.id, &[Status::Created, Status::Running], "kill").context(operation)
        }
        Command::Delete(arguments) => delete(&root, arguments),
        Command::List(arguments) => list(&root, arguments.quiet),
        Command::Exec(exec) => live(&root, &exec.id, &[Status::Running], "exec")
            .with_context(|| format!("exec {:?}", exec.command)),
        Command::Ps(container) => live(&root, &container.id, &[Status::Created, Status::Running], "ps"),
        Command::Spec(arguments) => spec(&arguments.bundle),
        Command::Wait(container) => live(&root, &container.id, &[Status::Created, Status::Running], "wait"),
    }
}

/// The one thing this build cannot do.
fn cannot_start<T>(operation: &str) -> Result<T> {
    bail!("{operation}: this build cannot start a sandbox yet")
}

fn create(root: &StateRoot, arguments: &Create, operation: &str) -> Result<u8> {
    let bundle = oci::load(&arguments.bundle.bundle)?;
    let container = root.create(&arguments.id, &bundle.dir, bundle.spec.version())?;
    // Nothing runs, so nothing may be left that says otherwise.
    container.remove()?;
    cannot_start(operation)
}

/// A command on a container that lives. No such container can exist as long as none can be started.
fn live(root: &StateRoot, id: &str, allowed: &[Status], operation: &'static str) -> Result<u8> {
    root.open(id)?.require(allowed, operation)?;
    cannot_start(operation)
}

fn state(root: &StateRoot, id: &str) -> Result<u8> {
    let container = root.open(id)?;
    print(&serde_json::to_string_pretty(container.state())?)
}

fn list(root: &StateRoot, quiet: bool) -> Result<u8> {
    let states = root.list()?;
    let mut lines = Vec::new();
    if !quiet {
        lines.push(format!("{:<24} {:<10} {:<10} BUNDLE", "ID", "PID", "STATUS"));
    }
    for state in states {
        let status = state.status.to_string();
        lines.push(match quiet {
            true => state.id,
            false => format!("{:<24} {:<10} {status:<10} {}", state.id, state.pid, state.bundle.display()),
        });
    }
    if lines.is_empty() { Ok(0) } else { print(&lines.join("\n")) }
}

fn delete(root: &StateRoot, arguments: &Delete) -> Result<u8> {
    if arguments.force {
        root.purge(&arguments.id)?;
        return Ok(0);
    }
    let container = root.open(&arguments.id)?;
    container.require(&[Status::Stopped], "delete")?;
    container.remove()?;
    Ok(0)
}

fn spec(bundle: &Path) -> Result<u8> {
    let path = bundle.join(oci::CONFIG);
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(&path).with_context(|| format!("{path:?}"))?;
    let text = serde_json::to_string_pretty(&oci::template())?;
    writeln!(file, "{text}").with_context(|| format!("{path:?}"))?;
    Ok(0)
}

fn print(text: &str) -> Result<u8> {
    writeln!(std::io::stdout(), "{text}").context("standard output")?;
    Ok(0)
}
