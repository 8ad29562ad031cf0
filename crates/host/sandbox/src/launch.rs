//! Starting the two processes of a sandbox, and watching them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use abi::Errno;
use hostsys::mount::{self, Access, Submounts};
use hostsys::namespace::{self, Ids};
use hostsys::pidfd::{self, Ended};
use hostsys::spawn::{Child, ParentDeath, Program, spawn_self};
use nix::errno::Errno as HostErrno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use sentry::{BootConfig, InheritedFds};

use crate::SandboxError;
use crate::handover::{self, AttachmentFd, FIRST, GoferConfig, seal};

/// Connections from Sentry to Gofer, and so requests at a time.
const CONNECTIONS: usize = 4;
/// Longest text of a report in bytes.
const MAX_REPORT: u64 = 4096;
/// How long a Sentry without a Gofer has to end by itself, in milliseconds.
const GRACE_MS: u16 = 2000;

/// A tree or file of the host that the guest can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Where it is.
    pub path: PathBuf,
    /// Refuse every change.
    pub readonly: bool,
    /// Whether what is mounted below it is seen.
    pub submounts: Submounts,
}

/// What to start.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What the Sentry is called in lists of the host's processes, after our own name; empty for only that.
    pub title: String,
    /// The container. Descriptors in it are filled in by [`Sandbox::launch`].
    pub boot: BootConfig,
    /// What the Gofer serves, in the order of [`sentry::Source::Gofer`].
    pub attachments: Vec<Attachment>,
    /// Standard descriptors of the guest, and those it has after them.
    pub stdio: Vec<BorrowedFd<'a>>,
    /// Where both processes write their log.
    pub log: BorrowedFd<'a>,
    /// Arguments of `runsc` before the command, for both processes.
    pub flags: Vec<OsString>,
    /// Listening control socket.
    pub control: Option<BorrowedFd<'a>>,
    /// The device of the platform, which the Sentry could not open.
    pub device: Option<BorrowedFd<'a>>,
    /// What becomes of the sandbox when we die.
    pub parent_death: ParentDeath,
}

/// A process of a sandbox, and where it says why it failed.
#[derive(Debug)]
pub(crate) struct Half {
    child: Child,
    report: File,
}

/// A sandbox that runs as our child. It is ended when this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    sentry: Half,
    gofer: Half,
    /// Tells the Gofer that somebody knows of the sandbox.
    noted: File,
    watched: bool,
}

/// What [`Sandbox::watch`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The sandbox has ended, with this exit code.
    Ended(u8),
    /// There is something to be read from the descriptor given.
    Readable,
    /// Nothing has happened in the time given.
    TimedOut,
}

/// Descriptors in the order of their numbers in a child.
struct Fds<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Fds<'a> {
    /// The number that `fd` will have.
    fn add(&mut self, fd: BorrowedFd<'a>) -> RawFd {
        self.0.push(fd);
        self.0.len() as RawFd - 1
    }
}

fn host(doing: &'static str) -> impl Fn(HostErrno) -> SandboxError {
    move |errno| SandboxError::Host { doing, source: errno.into() }
}

pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), SandboxError> {
    pipe2(OFlag::O_CLOEXEC).map_err(host("cannot make a pipe"))
}

/// A connection to a Gofer.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), SandboxError> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(host("cannot make sockets"))
}

/// What both processes are started with.
pub(crate) struct Common<'a> {
    pub(crate) flags: &'a [OsString],
    pub(crate) null: BorrowedFd<'a>,
    pub(crate) log: BorrowedFd<'a>,
    pub(crate) parent_death: ParentDeath,
}

impl Common<'_> {
    /// Starts `runsc COMMAND` with a configuration and the descriptors `others`, which it names.
    fn start(
        &self,
        command: &str,
        title: &str,
        ids: Ids,
        config: &OwnedFd,
        lifeline: BorrowedFd<'_>,
        others: &[BorrowedFd<'_>],
    ) -> Result<Half, SandboxError> {
        let (report, theirs) = pipe()?;
        let mut fds = vec![self.null, self.null, self.log, config.as_fd(), theirs.as_fd(), lifeline];
        fds.extend_from_slice(others);
        let name = if title.is_empty() { "runsc".to_owned() } else { format!("runsc: {title}") };
        let name = std::iter::once(OsString::from(name));
        let args = name.chain(self.flags.iter().cloned()).chain([command.into()]).collect();
        let parent_death = self.parent_death;
        let program = Program { args, namespaces: namespace::ALL, ids, fds, parent_death };
        Ok(Half { child: spawn_self(&program)?, report: report.into() })
    }
}

/// Opens the root of an attachment; whether it is a copy of its own.
fn open(attachment: &Attachment) -> Result<(OwnedFd, bool), SandboxError> {
    let Attachment { path, readonly, submounts } = attachment;
    let failed = |errno| SandboxError::Attachment { path: path.clone(), errno };
    let access = if *readonly { Access::ReadOnly } else { Access::ReadWrite };
    match mount::copy_tree(path, *submounts, access) {
        Ok(tree) => Ok((tree, true)),
        Err(Errno::EPERM) => Ok((mount::handle(path).map_err(failed)?, false)),
        Err(errno) => Err(failed(errno)),
    }
}

pub(crate) fn start_gofer(
    common: &Common<'_>,
    attachments: &[Attachment],
    sockets: &[OwnedFd],
    lifeline: BorrowedFd<'_>,
    noted: BorrowedFd<'_>,
) -> Result<Half, SandboxError> {
    let roots = attachments.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut fds = Fds(vec![common.null; FIRST as usize]);
    let attachments = attachments.iter().zip(&roots).map(|(attachment, (root, copied))| AttachmentFd {
        fd: fds.add(root.as_fd()),
        readonly: attachment.readonly,
        copy_from: (!copied).then(|| attachment.path.clone()),
    });
    let attachments = attachments.collect();
    let sockets = sockets.iter().map(|socket| fds.add(socket.as_fd())).collect();
    let noted = fds.add(noted);
    let config = seal(&GoferConfig { attachments, sockets, noted })?;
    common.start("gofer", "", Ids::Same, &config, lifeline, fds.0.get(FIRST as usize..).unwrap_or_default())
}

/// A Sentry opens nothing by itself, so it need not be anybody outside; as long as nobody may execute us.
fn ids_of_sentry() -> Ids {
    let others = std::fs::metadata("/proc/self/exe").is_ok_and(|data| data.mode() & 0o001 != 0);
    if others && nix::unistd::geteuid().is_root() { Ids::Nobody } else { Ids::Same }
}

fn start_sentry(
    common: &Common<'_>,
    plan: &Plan<'_>,
    sockets: &[OwnedFd],
    lifeline: BorrowedFd<'_>,
) -> Result<Half, SandboxError> {
    let mut fds = Fds(vec![common.null; FIRST as usize]);
    let stdio = plan.stdio.iter().map(|fd| fds.add(*fd)).collect();
    let gofer = sockets.iter().map(|socket| fds.add(socket.as_fd())).collect();
    let control = plan.control.map(|socket| fds.add(socket));
    let device = plan.device.map(|device| fds.add(device));
    let config = BootConfig { fds: InheritedFds { control, gofer, stdio, device }, ..plan.boot.clone() };
    let config = seal::<handover::SentryConfig>(&config)?;
    common.start(
        "boot",
        &plan.title,
        ids_of_sentry(),
        &config,
        lifeline,
        fds.0.get(FIRST as usize..).unwrap_or_default(),
    )
}

impl Sandbox {
    /// Starts a sandbox. It ends by itself when we do so before [`noted`](Self::noted).
    pub fn launch(plan: &Plan<'_>) -> Result<Self, SandboxError> {
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|source| SandboxError::Host { doing: "cannot open /dev/null", source })?;
        let common =
            Common { flags: &plan.flags, null: null.as_fd(), log: plan.log, parent_death: plan.parent_death };
        let pairs = (0..CONNECTIONS).map(|_| pair()).collect::<Result<Vec<_>, _>>()?;
        let (for_sentry, for_gofer): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let (lifeline_read, lifeline_write) = pipe()?;
        let (noted_read, noted) = pipe()?;
        let (lifeline, noted_read) = (lifeline_write.as_fd(), noted_read.as_fd());
        let gofer = start_gofer(&common, &plan.attachments, &for_gofer, lifeline, noted_read)?;
        match start_sentry(&common, plan, &for_sentry, lifeline_read.as_fd()) {
            Ok(sentry) => Ok(Self { sentry, gofer, noted: noted.into(), watched: true }),
            Err(error) => {
                // Fails only when it is gone already.
                let _ = gofer.kill();
                Err(error)
            }
        }
    }

    /// Lets it boot, now that whoever is to end it can find it.
    pub fn noted(&mut self) -> Result<(), SandboxError> {
        match self.noted.write_all(b"n") {
            // Why it has ended is seen by whoever waits for it.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => {
                other.map_err(|source| SandboxError::Host { doing: "cannot let the Gofer go on", source })
            }
        }
    }

    /// Host pid of the Sentry.
    pub fn pid(&self) -> i32 {
        self.sentry.child.pid
    }

    /// Host pid of the Gofer.
    pub fn gofer_pid(&self) -> i32 {
        self.gofer.child.pid
    }

    /// Waits until the sandbox ends or `other` can be read, for at most `time`. Once it has ended nothing is
    /// left of it.
    pub fn watch(
        &mut self,
        other: Option<BorrowedFd<'_>>,
        time: Option<Duration>,
    ) -> Result<Event, SandboxError> {
        // A time too long to be told to the host is cut, and its end seen by the caller.
        let time =
            time.map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
        let (sentry, gofer) = (self.sentry.child.process.as_fd(), self.gofer.child.process.as_fd());
        loop {
            let mut fds = vec![PollFd::new(sentry, PollFlags::POLLIN), PollFd::new(gofer, PollFlags::POLLIN)];
            fds.extend(other.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match poll(&mut fds, time) {
                Err(HostErrno::EINTR) => continue,
                Ok(0) => return Ok(Event::TimedOut),
                other => other.map_err(host("cannot wait for a sandbox"))?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
            match ready.as_slice() {
                [false, false, ..] => return Ok(Event::Readable),
                _ => return self.end().map(Event::Ended),
            }
        }
    }

    /// One of the processes has ended: ends the other and tells how it came to that.
    fn end(&mut self) -> Result<u8, SandboxError> {
        self.watched = false;
        let sentry = self.sentry.child.process.as_fd();
        let sentry_first = pidfd::wait_for_end(sentry, PollTimeout::ZERO).map_err(SandboxError::Wait)?;
        if !sentry_first {
            // A Sentry at its end closes its connections before it is gone; without a Gofer it ends too.
            pidfd::wait_for_end(sentry, GRACE_MS.into()).map_err(SandboxError::Wait)?;
        }
        let (sentry, gofer) = (self.sentry.kill(), self.gofer.kill());
        if let Some(reason) = self.gofer.read_report() {
            return Err(SandboxError::Failed { name: "gofer", reason });
        }
        let gofer = gofer.map_err(SandboxError::Wait)?;
        if !sentry_first && gofer != Ended::Exited(0) {
            return Err(SandboxError::GoferEnded(gofer));
        }
        if let Some(reason) = self.sentry.read_report() {
            return Err(SandboxError::Failed { name: "sentry", reason });
        }
        match sentry.map_err(SandboxError::Wait)? {
            Ended::Exited(code) => Ok(code),
            Ended::Signaled(signal) => Ok(128_u8.saturating_add(signal)),
        }
    }

    /// Leaves the sandbox to itself: it is not ended when we are done.
    pub fn detach(mut self) {
        self.watched = false;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.watched {
            for half in [&self.sentry, &self.gofer] {
                if let Err(error) = half.kill() {
                    tracing::warn!(pid = half.child.pid, %error, "cannot reap");
                }
            }
        }
    }
}

impl Half {
    /// Its host pid.
    pub(crate) fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Kills it, unless it has ended, and reaps it.
    pub(crate) fn kill(&self) -> Result<Ended, Errno> {
        let process = self.child.process.as_fd();
        // Fails only when it has been reaped.
        let _ = pidfd::send_signal(process, libc::SIGKILL);
        pidfd::wait(process)
    }

    /// What it said before it ended.
    fn read_report(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        (&mut self.report).take(MAX_REPORT).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Some(shown).filter(|text| !text.is_empty())
    }
}
