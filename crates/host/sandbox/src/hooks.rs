//! Hooks: programs of the host that a spec wants run at points of a container's life (OCI runtime spec,
//! "POSIX-platform Hooks").
//!
//! All are run in the namespaces of runsc. Those of `createContainer` should be in the container's, which are
//! the guest kernel's and hold no programs of the host; those of `startContainer`, which are the container's
//! own programs, are not run.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hostsys::pidfd;
use nix::poll::PollTimeout;
use oci_spec::runtime::Hook;

use crate::{SandboxError, State};

/// Runs hooks one after the other, each with the container's state on its standard input, until one fails.
pub fn run(hooks: &[Hook], state: &State) -> Result<(), SandboxError> {
    hooks.iter().try_for_each(|hook| run_one(hook, state))
}

/// As [`run`], at a point where a failure has no consequence but a warning.
pub fn run_or_warn(hooks: &[Hook], state: &State) {
    for hook in hooks {
        if let Err(error) = run_one(hook, state) {
            tracing::warn!(%error, "a hook failed");
        }
    }
}

fn run_one(hook: &Hook, state: &State) -> Result<(), SandboxError> {
    let failed = |reason: String| SandboxError::Hook { path: hook.path().clone(), reason };
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_ref().and_then(|args| args.split_first()) {
        command.arg0(name).args(rest);
    }
    let env = hook.env().iter().flatten().filter_map(|variable| variable.split_once('='));
    command.env_clear().envs(env).stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let told = tell(&mut child, state);
    let ended = wait(&mut child, hook.timeout());
    match (told, ended) {
        (_, Err(error)) | (Err(error), Ok(true)) => Err(failed(error.to_string())),
        (_, Ok(false)) => Err(failed("it failed, or took too long".into())),
        (Ok(()), Ok(true)) => Ok(()),
    }
}

fn tell(child: &mut Child, state: &State) -> std::io::Result<()> {
    let Some(mut input) = child.stdin.take() else { return Ok(()) };
    match input.write_all(&serde_json::to_vec(state)?) {
        // It does not want to know.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Waits for its end, for at most `timeout` seconds; whether it succeeded.
fn wait(child: &mut Child, timeout: Option<i64>) -> std::io::Result<bool> {
    let process = pidfd::open(child.id() as i32).map_err(|_| ErrorKind::NotFound)?;
    let time = timeout.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    let time = time.map(|seconds| PollTimeout::try_from(Duration::from_secs(seconds)));
    let time = time.map_or(PollTimeout::NONE, |time| time.unwrap_or(PollTimeout::MAX));
    if !pidfd::wait_for_end(process.as_fd(), time).unwrap_or(false) {
        child.kill()?;
    }
    child.wait().map(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::{State, Status};
    use oci_spec::runtime::Hook;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        let hook = serde_json::json!({
            "path": "/bin/sh", "args": ["hook", "-c", script], "env": ["A=b"], "timeout": timeout,
        });
        serde_json::from_value(hook).expect("a hook")
    }

    #[test]
    fn hooks_are_told_the_state_and_may_fail() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("out");
        let state = State {
            oci_version: "1.0.2".into(),
            id: "one".into(),
            status: Status::Created,
            pid: 7,
            bundle: "/b".into(),
            annotations: Default::default(),
        };
        let write = format!("{{ /bin/cat; echo \" $0 $A $HOME\"; }} > {}", file.display());
        run(&[hook(&write, None)], &state).expect("runs");
        let text = std::fs::read_to_string(file).expect("output");
        let (json, rest) = text.split_once("} ").expect("both");
        assert_eq!(serde_json::from_str::<State>(&format!("{json}}}")).expect("a state"), state);
        assert_eq!(rest.trim(), "hook b");
        run(&[hook("exec 0<&-; exit 0", Some(5))], &state).expect("need not listen");
        for bad in [hook("exit 3", None), hook("while :; do :; done", Some(1))] {
            let text = run(&[bad, hook("touch never", None)], &state).expect_err("fails").to_string();
            assert!(text.contains("/bin/sh"), "{text}");
        }
    }
}
