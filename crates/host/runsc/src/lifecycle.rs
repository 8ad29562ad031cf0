//! The life of a container: `create`, `start`, `run`, `kill`, `delete`, `wait`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cgroup::Cgroups;
use control::{Client, ControlError, ExitStatus, Target};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use sandbox::network::Found;
use sandbox::spec::{Settings, boot_config};
use sandbox::{Belongings, Container, Event, ParentDeath, Plan, Processes, Sandbox, StateRoot, Status};
use serde_json::json;

use crate::cli::{Cli, Create, Delete, Detached, FileAccess, Kill, NetworkMode, Run, Wait};
use crate::commands::print;
use crate::forward::{First, Signals};
use crate::terminal::{Pty, Raw};
use crate::{logging, once, pods};

/// How long a sandbox has for an answer that takes no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A container that was just created, and its sandbox.
struct Made {
    container: Container,
    sandbox: Sandbox,
    client: Client,
}

/// Runs `create`.
pub(crate) fn create(cli: &Cli, root: &StateRoot, arguments: &Create) -> Result<u8> {
    let bundle = oci::load(&arguments.bundle.bundle)?;
    if let oci::Role::Member(sandbox) = oci::role(&bundle.spec) {
        return pods::create(cli, root, arguments, &bundle, &sandbox);
    }
    let made = make(cli, root, arguments, &bundle, ParentDeath::Survived)?;
    let written = write_pid(&arguments.detached, made.sandbox.pid());
    if let Err(error) = written {
        made.container.remove()?;
        return Err(error);
    }
    made.sandbox.detach();
    Ok(0)
}

/// Runs `run`. Returns the exit code of the container.
pub(crate) fn run(cli: &Cli, root: &StateRoot, arguments: &Run) -> Result<u8> {
    let create = &arguments.create;
    let parent_death = if arguments.detach { ParentDeath::Survived } else { ParentDeath::Kills };
    let bundle = oci::load(&create.bundle.bundle)?;
    if let oci::Role::Member(sandbox) = oci::role(&bundle.spec) {
        bail!("the container joins the sandbox {sandbox:?}: it can be created and started, not run");
    }
    let signals = (!arguments.detach).then(Signals::block).transpose()?;
    let Made { mut container, sandbox, client } = make(cli, root, create, &bundle, parent_death)?;
    let started = || -> Result<()> {
        write_pid(&create.detached, sandbox.pid())?;
        client.start()?;
        container.set(Status::Running)?;
        sandbox::hooks::run_or_warn(&container.belongings().poststart, container.state());
        Ok(())
    };
    if let Err(error) = { started }() {
        drop(sandbox);
        container.remove()?;
        return Err(error);
    }
    // Others may use the container from now on.
    drop(container);
    let Some(signals) = signals else {
        sandbox.detach();
        return Ok(0);
    };
    let terminal = create.detached.console_socket.is_none() && std::io::stdin().is_terminal();
    let raw = terminal.then(|| Raw::enter(logging::stdio()[0])).transpose()?;
    let code = signals.run(sandbox, client, First::Nothing, None);
    drop(raw);
    if !arguments.keep {
        root.purge(&create.id)?;
    }
    code
}

fn make(
    cli: &Cli,
    root: &StateRoot,
    arguments: &Create,
    bundle: &oci::Bundle,
    parent_death: ParentDeath,
) -> Result<Made> {
    let mut container = root.create(&arguments.id, &bundle.dir, bundle.spec.version())?;
    match launch(cli, &mut container, bundle, arguments, parent_death) {
        Ok((sandbox, client)) => Ok(Made { container, sandbox, client }),
        Err(error) => {
            container.remove()?;
            Err(error)
        }
    }
}

/// What the command line decides of a container.
pub(crate) fn settings(cli: &Cli) -> Settings {
    Settings {
        platform: cli.platform.clone(),
        fast_path: !cli.systrap_disable_fast_path,
        overlay: once::overlay(cli),
        overlay_options: once::overlay_options(cli),
        seccomp: cli.oci_seccomp,
        shared_root: cli.file_access == FileAccess::Shared,
        shared_mounts: cli.file_access_mounts == FileAccess::Shared,
        net_raw: cli.net_raw,
        debug: cli.debug,
        strace: cli.strace,
    }
}

fn launch(
    cli: &Cli,
    container: &mut Container,
    bundle: &oci::Bundle,
    arguments: &Create,
    parent_death: ParentDeath,
) -> Result<(Sandbox, Client)> {
    let (boot, attachments) = boot_config(&arguments.id, bundle, &settings(cli))?;
    let attached = parent_death == ParentDeath::Kills;
    let pty = pty(boot.process.terminal, attached, &arguments.detached)?;
    let more = preserved(arguments.preserve_fds)?;
    let listener = control::bind(container.dir())?;
    let device = once::device(cli)?;
    let log = logging::for_sandbox(cli)?;
    let plan = Plan {
        title: title(&boot.process.args),
        boot,
        attachments,
        stdio: stdio(pty.as_ref(), &more),
        log: log.as_fd(),
        flags: logging::flags(cli),
        control: Some(listener.as_fd()),
        device: device.as_ref().map(AsFd::as_fd),
        parent_death,
    };
    own(cli, container, bundle)?;
    let joined = container.belongings().cgroups.join()?;
    let mut sandbox = Sandbox::launch(&plan)?;
    drop(joined);
    // From here on a `delete` finds it, should we be killed.
    if let Ok(processes) = Processes::of(&sandbox) {
        container.launched(processes)?;
    }
    sandbox.noted()?;
    // Only the sandbox holds it from now on, so that its end is noticed.
    drop(listener);
    // One that is gone says itself why, whether it went before or after we were connected.
    let client = match Client::connect(container.dir()).and_then(|client| client.hello().map(|()| client)) {
        Err(ControlError::Gone) => match sandbox.watch(None, None)? {
            Event::Ended(code) => bail!("the sandbox ended with code {code} before it was created"),
            Event::Readable | Event::TimedOut => bail!("the sandbox does not answer"),
        },
        other => other?,
    };
    container.created(Processes::of(&sandbox)?, annotations(bundle))?;
    hooks_before(bundle, container)?;
    if cli.network == NetworkMode::Sandbox {
        give_network(cli, &client, bundle, sandbox.pid())?;
    }
    if let (Some(pty), Some(socket)) = (&pty, &arguments.detached.console_socket) {
        pty.send_master(socket)?;
    }
    Ok((sandbox, client))
}

/// Gives a container the links of its network namespace: of the one that the spec names, or of the Sentry's own,
/// into which hooks may have put some. One that is to use the host's own namespace gets none.
fn give_network(cli: &Cli, client: &Client, bundle: &oci::Bundle, sentry: i32) -> Result<()> {
    let linux = bundle.spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    let network = |namespace: &&LinuxNamespace| namespace.typ() == LinuxNamespaceType::Network;
    let Some(namespace) = namespaces.into_iter().flatten().find(network) else {
        return Ok(());
    };
    let own = PathBuf::from(format!("/proc/{sentry}/ns/net"));
    let path = namespace.path().clone().unwrap_or(own);
    if is_ours(&path) {
        tracing::warn!(
            ?path,
            "the network namespace of runsc itself is not taken over: there is only a loopback"
        );
        return Ok(());
    }
    let Some(found) = Found::look(&path)? else { return Ok(()) };
    let mut config = found.config.clone();
    config.egress = cli.egress_rules.config(cli.egress, &cli.egress_resolvers)?;
    let mut descriptors = found.sockets();
    let file = cli.pcap_log.as_deref().map(|path| File::create(path).with_context(|| format!("{path:?}")));
    let file = file.transpose()?;
    config.captures = file.is_some();
    descriptors.extend(file.as_ref().map(AsFd::as_fd));
    client.attach(config, &descriptors)?;
    Ok(found.take_over()?)
}

/// Is it the network namespace that we are in, which others use as well?
fn is_ours(path: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
    identity(path).is_some() && identity(path) == identity(Path::new("/proc/self/ns/net"))
}

/// Makes what the container has on the host beside processes, and notes it.
pub(crate) fn own(cli: &Cli, container: &mut Container, bundle: &oci::Bundle) -> Result<()> {
    let resources = bundle.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let mut belongings = belongings(bundle);
    if let Some(path) = cgroups_path(cli, bundle) {
        // Noted before they are made: a `delete` is to find them, should we be killed in between.
        container.owns(Belongings { cgroups: Cgroups::plan(path)?, ..belongings.clone() })?;
        belongings.cgroups = Cgroups::create(path, resources)?;
    }
    Ok(container.owns(belongings)?)
}

/// The annotations of a spec.
pub(crate) fn annotations(bundle: &oci::Bundle) -> BTreeMap<String, String> {
    bundle.spec.annotations().clone().unwrap_or_default().into_iter().collect()
}

/// Runs the hooks that come before a start.
pub(crate) fn hooks_before(bundle: &oci::Bundle, container: &Container) -> Result<()> {
    let Some(hooks) = bundle.spec.hooks() else { return Ok(()) };
    // The old name of createRuntime, which engines still use.
    #[allow(deprecated)]
    let before = hooks.prestart().iter().chain(hooks.create_runtime()).chain(hooks.create_container());
    before.into_iter().try_for_each(|list| sandbox::hooks::run(list, container.state()))?;
    if hooks.start_container().as_ref().is_some_and(|list| !list.is_empty()) {
        tracing::warn!("hooks.startContainer is not run");
    }
    Ok(())
}

/// The path of the container's control groups, when its spec names them and we may make them.
fn cgroups_path<'a>(cli: &Cli, bundle: &'a oci::Bundle) -> Option<&'a str> {
    let linux = bundle.spec.linux().as_ref()?;
    let path = linux.cgroups_path().as_ref()?.to_str()?;
    (nix::unistd::geteuid().is_root() && !cli.ignore_cgroups).then_some(path)
}

/// What the container will have on the host beside control groups.
fn belongings(bundle: &oci::Bundle) -> Belongings {
    let hooks = bundle.spec.hooks().clone().unwrap_or_default();
    Belongings {
        cgroups: Cgroups::default(),
        poststart: hooks.poststart().clone().unwrap_or_default(),
        poststop: hooks.poststop().clone().unwrap_or_default(),
    }
}

/// Longest title of a process in bytes.
const MAX_TITLE: usize = 512;

/// What a process of the host is called that stands for a process of a guest.
pub(crate) fn title(args: &[String]) -> String {
    let words = args.join(" ");
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TITLE).collect()
}

/// The terminal that a process asks for, when somebody else is to hold its other end.
pub(crate) fn pty(wanted: bool, attached: bool, detached: &Detached) -> Result<Option<Pty>> {
    match &detached.console_socket {
        Some(_) if !wanted => bail!("--console-socket, but the process has no terminal"),
        Some(_) => Pty::open().map(Some),
        None if wanted && !attached => bail!("a process with a terminal needs --console-socket"),
        None => Ok(None),
    }
}

/// First descriptors of a guest's process: the standard ones and `more`.
pub(crate) fn stdio<'a>(pty: Option<&'a Pty>, more: &'a [OwnedFd]) -> Vec<BorrowedFd<'a>> {
    let standard: [BorrowedFd<'a>; 3] = match pty {
        Some(pty) => [pty.slave(); 3],
        None => logging::stdio(),
    };
    standard.into_iter().chain(more.iter().map(AsFd::as_fd)).collect()
}

/// Most descriptors that a program can be given after the standard ones.
const MAX_PRESERVED: u16 = 12;

/// So many of our own descriptors after the standard ones, which are for a guest's process.
pub(crate) fn preserved(number: u16) -> Result<Vec<OwnedFd>> {
    if number > MAX_PRESERVED {
        bail!("--preserve-fds {number}: more than {MAX_PRESERVED}");
    }
    let take = |fd: u16| {
        hostsys::inherit::take(fd.into()).map_err(|errno| anyhow::anyhow!("--preserve-fds: {fd}: {errno}"))
    };
    (3..3 + number).map(take).collect()
}

/// Writes a pid file; whoever reads it never sees half of it.
pub(crate) fn write_pid(detached: &Detached, pid: i32) -> Result<()> {
    let Some(path) = &detached.pid_file else { return Ok(()) };
    write_pid_to(path, pid, "--pid-file")
}

/// As [`write_pid`], for a file that `flag` names.
pub(crate) fn write_pid_to(path: &Path, pid: i32, flag: &str) -> Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&new, pid.to_string())
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("{flag} {path:?}"))
}

/// Runs `start`.
pub(crate) fn start(root: &StateRoot, id: &str) -> Result<u8> {
    let mut container = root.open(id)?;
    container.require(&[Status::Created], "start")?;
    pods::reach_soon(root, &container)?.start()?;
    container.set(Status::Running)?;
    sandbox::hooks::run_or_warn(&container.belongings().poststart, container.state());
    Ok(0)
}

/// A connection whose other end has to answer soon.
pub(crate) fn connect(dir: &Path) -> Result<Client, ControlError> {
    let client = Client::connect(dir)?;
    client.set_patience(Some(PATIENCE))?;
    Ok(client)
}

/// Runs `kill`.
pub(crate) fn kill(root: &StateRoot, arguments: &Kill) -> Result<u8> {
    let container = root.open(&arguments.id)?;
    // In these words, because callers look for them.
    container
        .require(&[Status::Created, Status::Running, Status::Paused], "kill")
        .context("container not running")?;
    let ends = i32::from(arguments.signal) == nix::libc::SIGKILL;
    if container.state().status == Status::Paused {
        // Nothing in it can take a signal, and only one needs no taking.
        if !ends {
            bail!("container {:?} is paused: only KILL can be sent", arguments.id);
        }
        container.kill()?;
        return Ok(0);
    }
    let target = match (arguments.all, arguments.pid) {
        (true, _) => Target::All,
        (false, Some(pid)) => Target::Pid(pid),
        (false, None) => Target::First,
    };
    let sent =
        pods::reach_soon(root, &container).and_then(|client| Ok(client.signal(target, arguments.signal)?));
    match sent {
        // A sandbox that does not do it is ended: nothing else could be meant.
        Err(error) if ends && arguments.pid.is_none() => {
            tracing::warn!(%error, "killing a sandbox that does not answer");
            container.kill()?;
        }
        other => other?,
    }
    Ok(0)
}

/// Runs `pause` and `resume`.
pub(crate) fn freeze(root: &StateRoot, id: &str, frozen: bool) -> Result<u8> {
    let mut container = root.open(id)?;
    let (from, to, operation) = match frozen {
        true => (Status::Running, Status::Paused, "pause"),
        false => (Status::Paused, Status::Running, "resume"),
    };
    container.require(&[from], operation)?;
    if let Some(sandbox) = container.sandbox() {
        bail!("{operation}: a container of a pod stops only with its sandbox, {sandbox:?}");
    }
    container.belongings().cgroups.freeze(frozen)?;
    container.set(to)?;
    Ok(0)
}

/// Runs `delete`.
pub(crate) fn delete(root: &StateRoot, arguments: &Delete) -> Result<u8> {
    if arguments.force {
        if let Ok(container) = root.open(&arguments.id) {
            pods::leave(root, &container);
        }
        root.purge(&arguments.id)?;
        return Ok(0);
    }
    let container = root.open(&arguments.id)?;
    container.require(&[Status::Stopped, Status::Created], "delete")?;
    pods::leave(root, &container);
    container.kill()?;
    container.remove()?;
    Ok(0)
}

/// Runs `wait`.
pub(crate) fn wait(root: &StateRoot, arguments: &Wait) -> Result<u8> {
    let id = arguments.id.as_str();
    let container = root.open(id)?;
    container.require(&[Status::Created, Status::Running], "wait for")?;
    let client = pods::reach(root, &container)?;
    // It may take for ever, and others want to use the container.
    drop(container);
    let status = client.wait(arguments.pid).map(ExitStatus::code)?;
    print(&json!({ "id": id, "exitStatus": status }).to_string())
}
