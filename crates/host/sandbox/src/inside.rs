//! The lives of the two processes of a sandbox, from the first instruction to the work of their crates:
//! what `runsc gofer` and `runsc boot` do.
//!
//! Each starts as the first process of namespaces of its own, with all capabilities in its user namespace
//! and the host's mounts in view, and gives these away here.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use caps::Capability;
use gofer::{Attach, Config};
use hostsys::mount::{self, Access, Submounts};
use hostsys::privilege;
use nix::sys::stat::fstat;
use sentry::{Confinement, Early, Inherited};

use crate::SandboxError;
use crate::handover::{self, AttachmentFd, GoferConfig, LIFELINE, REPORT, SentryConfig, inherit};

/// Exit code of a process that failed; its report says why.
const FAILURE: u8 = 1;

/// Runs this process as a Gofer. Returns its exit code.
pub fn gofer() -> u8 {
    name("runsc-gofer");
    reporting(serve)
}

/// Runs this process as a Sentry. Returns its exit code, which is the container's.
pub fn boot() -> u8 {
    name("runsc-sentry");
    reporting(run)
}

/// What lists of the host's processes call us, instead of the `exe` we were started as.
fn name(name: &str) {
    if let Err(error) = std::fs::write("/proc/self/comm", name) {
        tracing::debug!(%error, "this process keeps its name");
    }
}

/// Tells the parent of a failure.
fn reporting(run: impl FnOnce(&File) -> Result<u8, SandboxError>) -> u8 {
    let report = match inherit(REPORT) {
        Ok(report) => File::from(report),
        Err(error) => {
            tracing::error!(%error, "not started by runsc");
            return FAILURE;
        }
    };
    if let Ok(report) = report.try_clone() {
        // What a kernel does: it stops, and says why.
        std::panic::set_hook(Box::new(move |panic| {
            tell(&report, &format!("panic: {panic}"));
            std::process::exit(i32::from(FAILURE));
        }));
    }
    run(&report).unwrap_or_else(|error| {
        tell(&report, &error.to_string());
        FAILURE
    })
}

fn tell(mut report: &File, reason: &str) {
    tracing::error!(reason, "failed");
    // Nobody may listen any more.
    let _ = report.write_all(reason.as_bytes());
}

fn jail(doing: &'static str) -> impl Fn(abi::Errno) -> SandboxError {
    move |errno| SandboxError::Jail { doing, errno }
}

/// The capabilities that [`gofer::lock_in`] leaves; the bounding set is emptied here, where it can be.
const GOFER_CAPABILITIES: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
];

fn serve(_report: &File) -> Result<u8, SandboxError> {
    // Never written to: that it is open tells the Sentry that we live.
    let _lifeline = inherit(LIFELINE)?;
    let config: GoferConfig = handover::take()?;
    mount::isolate().map_err(jail("making mounts private"))?;
    let attachments = config.attachments.iter().map(attach).collect::<Result<Vec<_>, _>>()?;
    let noted = inherit(config.noted)?;
    let sockets = config.sockets.into_iter().map(inherit).collect::<Result<Vec<_>, _>>()?;
    if let Err(error) = mount::mount_own_proc() {
        tracing::warn!(%error, "no procfs of its own for the Gofer; it holds on to the host's");
    }
    let proc_fd = Config::open_proc_fd()?;
    mount::enter_empty_root().map_err(jail("entering an empty root"))?;
    privilege::keep_only(&GOFER_CAPABILITIES)?;
    if File::from(noted).read(&mut [0]).unwrap_or(0) == 0 {
        return Ok(FAILURE);
    }
    gofer::serve(Config::new(attachments, proc_fd), sockets)?;
    Ok(0)
}

/// The root of an attachment as a tree of its own, out of which no `..` leads.
fn attach(attachment: &AttachmentFd) -> Result<Attach, SandboxError> {
    let AttachmentFd { fd, readonly, copy_from } = attachment;
    let given = inherit(*fd)?;
    let Some(path) = copy_from else { return Ok(Attach { root: given, readonly: *readonly }) };
    let access = if *readonly { Access::ReadOnly } else { Access::ReadWrite };
    let failed = |errno| SandboxError::Attachment { path: path.clone(), errno };
    // In our own mount namespace we may, but only with everything that is mounted below.
    let root = mount::copy_tree(path, Submounts::Copied, access).map_err(failed)?;
    let identity = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    if identity(&root).ok() != identity(&given).ok() {
        return Err(failed(abi::Errno::ESTALE));
    }
    Ok(Attach { root, readonly: *readonly })
}

fn run(report: &File) -> Result<u8, SandboxError> {
    let lifeline = File::from(inherit(LIFELINE)?);
    let config: SentryConfig = handover::take()?;
    let fds = &config.fds;
    let inherited = Inherited {
        gofer: fds.gofer.iter().map(|fd| inherit(*fd)).collect::<Result<_, _>>()?,
        stdio: fds.stdio.iter().map(|fd| inherit(*fd)).collect::<Result<_, _>>()?,
        control: fds.control.map(inherit).transpose()?,
        device: fds.device.map(inherit).transpose()?,
    };
    if let Some(connection) = inherited.gofer.first() {
        // For all our life, or the Gofer would end, and its end be taken for a fault, while we do.
        let failed = |source| SandboxError::Host { doing: "cannot hold on to the Gofer", source };
        std::mem::forget(connection.try_clone().map_err(failed)?);
    }
    let mut early = Early::gather()?;
    mount::isolate().map_err(jail("making mounts private"))?;
    match mount::mount_own_proc() {
        Ok(()) => early.look_at_own_proc(),
        Err(error) => tracing::warn!(%error, "no procfs of its own for the Sentry: no sizes of guests"),
    }
    mount::enter_empty_root().map_err(jail("entering an empty root"))?;
    privilege::keep_only(&[])?;
    end_with_the_gofer(lifeline, report)?;
    Ok(sentry::run(&config, inherited, &early, Confinement::LockedIn)?.code())
}

/// Without a Gofer a Sentry is of no use: it ends as soon as the other end of the lifeline is closed.
fn end_with_the_gofer(mut lifeline: File, report: &File) -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Host { doing: "cannot watch the Gofer", source };
    let report = report.try_clone().map_err(failed)?;
    let watch = move || {
        // Nothing is ever sent, so that whatever comes is the end.
        let _ = lifeline.read(&mut [0]);
        tell(&report, "the Gofer is gone");
        std::process::exit(i32::from(FAILURE));
    };
    std::thread::Builder::new()
        .name("lifeline".into())
        .stack_size(64 << 10)
        .spawn(watch)
        .map(drop)
        .map_err(failed)
}
