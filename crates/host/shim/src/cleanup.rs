//! The action `delete`: removes what is left of a container whose shim has died.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::shim::DeleteResponse;

use hostsys::pidfd;
use nix::poll::PollTimeout;

use crate::args::Args;
use crate::bootstrap::{ADDRESS, SCHEME, listening};
use crate::config::Config;
use crate::container::{FIRST, ROOTFS};
use crate::events::timestamp;
use crate::reaper::Reaper;
use crate::rootfs;
use crate::runsc::Runsc;

/// How a container ended that was killed.
const KILLED: u32 = 128 + 9;
/// How long to wait for the end of a process that was killed, in milliseconds.
const MAKER_MS: u16 = 5000;
/// How often to look for the words of a program that is being executed.
const LOOKS: usize = 10_000;

/// Runs the action. Returns the answer for containerd.
pub(crate) fn run(args: &Args) -> Result<Vec<u8>> {
    let bundle = crate::bundle(args)?;
    end_makers(&bundle);
    let runsc = Runsc::new(Reaper::start(), &Config::load(&bundle), &args.namespace);
    let deleted = runsc.ask("delete", &["--force", &args.id], None);
    // As much as can be, whatever of it fails.
    let unmounted = rootfs::unmount(&bundle.join(ROOTFS));
    remove_sockets(&bundle);
    deleted.map(drop).or_else(|error| if bundle.join("shim.json").exists() { Err(error) } else { Ok(()) })?;
    unmounted?;
    let pid = std::fs::read_to_string(bundle.join(format!("{FIRST}.pid"))).unwrap_or_default();
    let response = DeleteResponse {
        pid: pid.trim().parse().unwrap_or(0),
        exit_status: KILLED,
        exited_at: MessageField::some(timestamp(SystemTime::now())),
        ..DeleteResponse::default()
    };
    response.write_to_bytes().context("the answer")
}

/// Ends every `runsc` that still makes a process of the container: it has outlived its shim, and would make it after
/// we have found nothing to remove. What it has begun ends with it.
fn end_makers(bundle: &Path) {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Opened before it is looked at, so that it is the same one or none.
        let Ok(process) = pidfd::open(pid) else { continue };
        if makes(&entry.path(), bundle) && pidfd::send_signal(process.as_fd(), nix::libc::SIGKILL).is_ok() {
            let ended = pidfd::wait_for_end(process.as_fd(), PollTimeout::from(MAKER_MS));
            tracing::debug!(pid, ?ended, "a runsc without a shim was ended");
        }
    }
}

/// Whether a process was told to write a pid file into the bundle.
fn makes(process: &Path, bundle: &Path) -> bool {
    let words = command(process);
    let mut words = words.split(|byte| *byte == 0).map(OsStr::from_bytes);
    words.any(|word| word == "--pid-file")
        && words.next().is_some_and(|file| Path::new(file).starts_with(bundle))
}

/// The command line of a process; empty when it has none, like a thread of the kernel.
fn command(process: &Path) -> Vec<u8> {
    for _ in 0..LOOKS {
        let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
        if !words.is_empty() || std::fs::read_link(process.join("exe")).is_err() {
            return words;
        }
        // A program that is just being executed: its maker goes on when the old memory is gone, which is before the
        // new one has the words.
        std::thread::yield_now();
    }
    Vec::new()
}

/// Removes the sockets of the shim, unless it lives: others of the pod may use it.
fn remove_sockets(bundle: &Path) {
    let Ok(address) = std::fs::read_to_string(bundle.join(ADDRESS)) else { return };
    let Some(socket) = address.strip_prefix(SCHEME).map(PathBuf::from) else { return };
    if listening(bundle).is_none() {
        remove_beside(&socket);
    }
}

/// Removes a shim's socket, and what it made beside it.
pub(crate) fn remove_beside(socket: &Path) {
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_stem().and_then(|name| name.to_str())) else {
        return;
    };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(name) {
            // Somebody else may have been faster.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PollTimeout, end_makers, pidfd, remove_beside};
    use std::os::fd::{AsFd, OwnedFd};
    use std::process::Command;

    #[test]
    fn only_makers_of_the_container_are_ended() {
        let dir = tempfile::tempdir().expect("a folder");
        let start = |file: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", "read x", "sh", "--pid-file"]).arg(dir.path().join(file));
            shell.stdin(std::process::Stdio::piped()).spawn().expect("starts")
        };
        let (mut other, mut maker) = (start("two/init.pid"), start("one/init.pid"));
        let [of_other, of_maker] =
            [&other, &maker].map(|child| pidfd::open(child.id() as i32).expect("it lives"));
        end_makers(&dir.path().join("one"));
        // Not by their status: the reaper of another test may be faster to ask for it.
        let ended = |process: &OwnedFd, patience: u16| {
            pidfd::wait_for_end(process.as_fd(), PollTimeout::from(patience)).expect("polls")
        };
        // On a busy machine an end takes its time.
        assert_eq!((ended(&of_maker, 20_000), ended(&of_other, 0)), (true, false));
        for child in [&mut maker, &mut other] {
            let _ = child.wait();
        }
    }

    #[test]
    fn sockets_go_with_those_beside_them() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["abc", "abc.pty5", "other"] {
            std::fs::write(dir.path().join(name), "").expect("writes");
        }
        remove_beside(&dir.path().join("abc"));
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).expect("reads").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["other"]);
    }
}
