//! `runsc exec` and `ps`: other processes of a container.

use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use control::{Client, ControlError, ExitStatus, Process, Target};
use hostsys::namespace::{Ids, Namespaces};
use hostsys::spawn::{ParentDeath, Program, spawn_self};
use sandbox::{StateRoot, Status, spec};

use crate::cli::{Cli, Exec, Format, Ps, Stand};
use crate::commands::print;
use crate::forward::Signals;
use crate::lifecycle::{preserved, pty, stdio, title, write_pid, write_pid_to};
use crate::pods::{reach, reach_soon};
use crate::terminal::Raw;
use crate::{logging, once};

/// Numbers of the descriptors of a process that stands for another: a connection to wait on, one for
/// signals, and a pipe that is closed when it is ready for them.
const STAND_FDS: [i32; 3] = [3, 4, 5];

/// Runs `exec`. Returns the exit code of the program, or 0 when it is detached.
pub(crate) fn exec(cli: &Cli, root: &StateRoot, arguments: &Exec) -> Result<u8> {
    let container = root.open(&arguments.id)?;
    container.require(&[Status::Running], "exec in")?;
    let process = process(arguments, &container.state().bundle)?;
    let (terminal, name) = (process.terminal, title(&process.args));
    let pty = pty(terminal, !arguments.detach, &arguments.detached)?;
    let more = preserved(arguments.preserve_fds)?;
    let (client, for_signals) = (reach(root, &container)?, reach_soon(root, &container)?);
    let member = container.sandbox().map(|_| arguments.id.as_str());
    drop(container);
    let signals = (!arguments.detach).then(Signals::block).transpose()?;
    let pid = client.exec(process, &stdio(pty.as_ref(), &more))?;
    if let (Some(pty), Some(socket)) = (&pty, &arguments.detached.console_socket) {
        pty.send_master(socket)?;
    }
    if let Some(path) = &arguments.internal_pid_file {
        write_pid_to(path, i32::try_from(pid)?, "--internal-pid-file")?;
    }
    let Some(signals) = signals else {
        let stand = stand_in(cli, &name, &Stands { pid, container: member }, [&client, &for_signals])?;
        // It may have ended with the container by now.
        if let Err(error) = root.open(&arguments.id).and_then(|mut container| container.add_stand(stand)) {
            tracing::debug!(%error, "a process is not noted");
        }
        write_pid(&arguments.detached, stand)?;
        return Ok(0);
    };
    write_pid(&arguments.detached, std::process::id() as i32)?;
    let raw = terminal && pty.is_none() && std::io::stdin().is_terminal();
    let _raw = raw.then(|| Raw::enter(logging::stdio()[0])).transpose()?;
    signals.pass_to(Target::Pid(pid), for_signals)?;
    Ok(client.wait(Some(pid))?.code())
}

/// The process asked for: from a file, or like the container's first with another command.
fn process(arguments: &Exec, bundle: &std::path::Path) -> Result<Process> {
    let mut process = match &arguments.process {
        Some(path) => spec::process(&oci::load_process(path)?)?,
        None => {
            let bundle = oci::load(bundle)?;
            let process = bundle.spec.process().as_ref().context("the spec has no process")?;
            Process { args: arguments.command.clone(), terminal: false, ..spec::process(process)? }
        }
    };
    process.terminal |= arguments.tty;
    process.no_new_privs |= arguments.no_new_privs;
    process.groups.extend(&arguments.additional_gids);
    let more = arguments.cap.iter().fold(0, |all, bit| all | bit);
    process.capabilities |= more;
    process.inheritable |= more;
    process.ambient |= more;
    process.env = once::with(process.env, &arguments.env)?;
    if let Some(cwd) = &arguments.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some((uid, gid)) = arguments.user {
        process.uid = uid;
        process.gid = gid.unwrap_or(process.gid);
    }
    Ok(process)
}

/// Whom a process of the host stands for.
pub(crate) struct Stands<'a> {
    /// Pid in the container; 0 for its first process.
    pub(crate) pid: u32,
    /// The container, when it is not the first of its sandbox.
    pub(crate) container: Option<&'a str>,
}

/// Leaves a host process behind that stands for the guest's: it ends as that does, and passes on signals.
/// Callers of OCI runtimes wait for a process by its host pid, and a guest's process has none of its own.
pub(crate) fn stand_in(cli: &Cli, name: &str, whom: &Stands<'_>, clients: [&Client; 2]) -> Result<i32> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").context("/dev/null")?;
    let log = logging::for_sandbox(cli)?;
    let (mut is_ready, ready) = std::io::pipe().context("a pipe")?;
    let others = clients.map(AsFd::as_fd).into_iter().chain([ready.as_fd()]);
    let args = std::iter::once(OsString::from(format!("runsc: {name}"))).chain(logging::flags(cli));
    let mut words = vec![OsString::from("stand"), whom.pid.to_string().into()];
    words.extend(whom.container.map(OsString::from));
    let program = Program {
        args: args.chain(words).collect(),
        namespaces: Namespaces::empty(),
        ids: Ids::Same,
        fds: [null.as_fd(), null.as_fd(), log.as_fd()].into_iter().chain(others).collect(),
        parent_death: ParentDeath::Survived,
    };
    let child = spawn_self(&program)?;
    drop(ready);
    // A signal that came earlier would only end it.
    is_ready.read_to_end(&mut Vec::new()).context("a pipe")?;
    Ok(child.pid)
}

/// Runs `stand`: the life of that process.
pub(crate) fn stand(arguments: &Stand) -> Result<u8> {
    let [client, for_signals, ready] = STAND_FDS.map(hostsys::inherit::take);
    let about = |socket| match &arguments.container {
        Some(container) => Client::new(socket).of(container),
        None => Client::new(socket),
    };
    let (client, for_signals, ready) = (about(client?), about(for_signals?), ready?);
    let pid = Some(arguments.pid).filter(|pid| *pid != 0);
    Signals::block()?.pass_to(pid.map_or(Target::First, Target::Pid), for_signals)?;
    drop(ready);
    match client.wait(pid) {
        // The sandbox ended, and took the container along.
        Err(ControlError::Gone) => Ok(ExitStatus::Signaled(9).code()),
        other => Ok(other?.code()),
    }
}

/// Runs `ps`.
pub(crate) fn ps(root: &StateRoot, arguments: &Ps) -> Result<u8> {
    let container = root.open(&arguments.id)?;
    container.require(&[Status::Created, Status::Running, Status::Paused], "list the processes of")?;
    if arguments.format == Format::Json {
        // Engines compare them with the pids they were given, and look them up on the host.
        return print(&serde_json::to_string(&container.host_pids())?);
    }
    let processes = reach_soon(root, &container)?.processes()?;
    let lines = processes
        .iter()
        .map(|process| format!("{:<8} {:<8} {:<8} {}", process.uid, process.pid, process.ppid, process.name));
    let head = format!("{:<8} {:<8} {:<8} NAME", "UID", "PID", "PPID");
    print(&std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n"))
}
