//! Containers that join the sandbox of another one: the pods of Kubernetes.
//!
//! The first container of a pod makes the sandbox; those whose annotations name it run in the same Sentry, with
//! a Gofer, a root, and pid and mount namespaces of their own. On the host each has a process that stands for its
//! first one, because callers wait for a host pid.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Result, bail};
use control::{Client, ControlError, Member};
use sandbox::spec::boot_config;
use sandbox::{Container, MemberGofer, StateRoot, Status};

use crate::cli::{Cli, Create};
use crate::exec::{Stands, stand_in};
use crate::lifecycle::{self, PATIENCE, connect, preserved, pty, stdio, title, write_pid};
use crate::logging;

/// Most descriptors that go with one message.
const MAX_FDS: usize = 16;

/// Creates a container of `bundle` in the sandbox that the container `sandbox` made.
pub(crate) fn create(
    cli: &Cli,
    root: &StateRoot,
    arguments: &Create,
    bundle: &oci::Bundle,
    sandbox: &str,
) -> Result<u8> {
    let dir = {
        let first = root.open(sandbox)?;
        first.require(&[Status::Running], "join")?;
        if first.sandbox().is_some() {
            bail!("container {sandbox:?} has no sandbox of its own to join");
        }
        first.dir().to_path_buf()
    };
    let mut container = root.create(&arguments.id, &bundle.dir, bundle.spec.version())?;
    let made = join(cli, &mut container, arguments, bundle, (sandbox, &dir));
    if let Err(error) = made {
        leave(root, &container);
        container.kill()?;
        container.remove()?;
        return Err(error);
    }
    Ok(0)
}

fn join(
    cli: &Cli,
    container: &mut Container,
    arguments: &Create,
    bundle: &oci::Bundle,
    (sandbox, dir): (&str, &Path),
) -> Result<()> {
    let id = arguments.id.as_str();
    let (boot, attachments) = boot_config(id, bundle, &lifecycle::settings(cli))?;
    let pty = pty(boot.process.terminal, false, &arguments.detached)?;
    let more = preserved(arguments.preserve_fds)?;
    let log = logging::for_sandbox(cli)?;
    lifecycle::own(cli, container, bundle)?;
    container.joins(sandbox, None)?;
    let joined = container.belongings().cgroups.join()?;
    let (mut gofer, connections) = MemberGofer::launch(&attachments, &logging::flags(cli), log.as_fd())?;
    container.joins(sandbox, Some(&gofer))?;
    gofer.noted()?;
    let standard = stdio(pty.as_ref(), &more);
    let fds: Vec<_> = connections.iter().map(AsFd::as_fd).chain(standard).collect();
    if fds.len() > MAX_FDS {
        bail!("--preserve-fds: too many for a container that joins a sandbox");
    }
    let config = serde_json::to_string(&boot)?;
    let member = Member { id: id.into(), config, connections: connections.len() };
    connect(dir)?.create(member, &fds)?;
    // Only the Sentry holds them from now on, so that the Gofer ends with the container.
    drop(fds);
    drop(connections);
    let clients = [Client::connect(dir)?.of(id), connect(dir)?.of(id)];
    let stands = Stands { pid: 0, container: Some(id) };
    let stand = stand_in(cli, &title(&boot.process.args), &stands, [&clients[0], &clients[1]])?;
    drop(joined);
    container.joined(stand, lifecycle::annotations(bundle))?;
    lifecycle::hooks_before(bundle, container)?;
    if let (Some(pty), Some(socket)) = (&pty, &arguments.detached.console_socket) {
        pty.send_master(socket)?;
    }
    write_pid(&arguments.detached, stand)?;
    gofer.detach();
    Ok(())
}

/// A connection about a container, whichever sandbox it is in. Waits for answers for ever.
pub(crate) fn reach(root: &StateRoot, container: &Container) -> Result<Client> {
    match container.sandbox() {
        Some(sandbox) => Ok(Client::connect(&root.dir_of(sandbox)?)?.of(&container.state().id)),
        None => Ok(Client::connect(container.dir())?),
    }
}

/// As [`reach`], and the other end has to answer soon.
pub(crate) fn reach_soon(root: &StateRoot, container: &Container) -> Result<Client> {
    let client = reach(root, container)?;
    client.set_patience(Some(PATIENCE))?;
    Ok(client)
}

/// Has the Sentry end a container that joined its sandbox, and forget it. Nothing for others.
pub(crate) fn leave(root: &StateRoot, container: &Container) {
    let Some(sandbox) = container.sandbox() else { return };
    let destroy = || -> Result<()> { Ok(connect(&root.dir_of(sandbox)?)?.destroy(&container.state().id)?) };
    match destroy() {
        Ok(()) => {}
        Err(error) if matches!(error.downcast_ref(), Some(ControlError::Gone)) => {}
        // With the sandbox all of its containers are gone.
        Err(error) => tracing::debug!(%error, "a container is not taken out of its sandbox"),
    }
}
