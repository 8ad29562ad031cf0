//! Signals that runsc gets while it waits for a sandbox, and their way to the guest.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use control::{Client, ControlError, Target};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sandbox::{Event, Sandbox};

/// Those that are passed on. Not `SIGCHLD` (ours), nor those of the terminal, whose session the guest's
/// processes are not in.
const FORWARDED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// Signals of ours as something to read.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// From now on they have no other effect. Before there are threads.
    pub(crate) fn block() -> Result<Self> {
        let set: SigSet = FORWARDED.into_iter().collect();
        set.thread_block().context("blocking signals")?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("signalfd").map(Self)
    }

    /// Waits for the sandbox's end and passes on what comes. Returns the exit code.
    ///
    /// With a `grace`, a request to end that the guest does not follow for so long ends the sandbox.
    pub(crate) fn run(
        &self,
        mut sandbox: Sandbox,
        client: Client,
        first: First,
        grace: Option<Duration>,
    ) -> Result<u8> {
        let to_guest = converse(client, first)?;
        let mut end: Option<(Instant, u8)> = None;
        loop {
            let left = end.map(|(at, _)| at.saturating_duration_since(Instant::now()));
            match sandbox.watch(Some(self.0.as_fd()), left)? {
                Event::Ended(code) => return Ok(code),
                Event::TimedOut => return Ok(128_u8.saturating_add(end.map_or(0, |(_, signal)| signal))),
                Event::Readable => {}
            }
            if let Some(signal) = self.0.read_signal().context("signalfd")? {
                let signal = signal.ssi_signo as u8;
                let ends = [Signal::SIGTERM, Signal::SIGHUP].iter().any(|end| *end as u8 == signal);
                if let (Some(grace), true, None) = (grace, ends, end) {
                    end = Some((Instant::now() + grace, signal));
                }
                // Nobody listens when the sandbox is about to end, which is seen next.
                let _ = to_guest.send(signal);
            }
        }
    }

    /// Passes on what comes to one process, on a thread of its own and for ever.
    pub(crate) fn pass_to(self, target: Target, client: Client) -> Result<()> {
        let body = move || {
            while let Ok(Some(signal)) = self.0.read_signal() {
                if let Err(error) = client.signal(target, signal.ssi_signo as u8) {
                    tracing::debug!(%error, "a signal is lost");
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(body).map(drop).context("a thread")
    }
}

/// What is to be done before signals can be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// Start the container's program.
    Start,
    /// Nothing: it runs.
    Nothing,
}

/// The conversation goes on a thread of its own, so that a sandbox that does not answer can be waited for.
fn converse(client: Client, first: First) -> Result<Sender<u8>> {
    let (to_guest, signals) = channel();
    let talk = move || -> Result<(), ControlError> {
        let target = match first {
            First::Start => {
                client.start()?;
                // It was not asked for a container: what it does not handle ends it, as without one.
                Target::Program
            }
            First::Nothing => Target::First,
        };
        signals.iter().try_for_each(|signal| client.signal(target, signal))
    };
    let body = move || match talk() {
        Ok(()) | Err(ControlError::Gone) => {}
        Err(error) => tracing::warn!(%error, "the sandbox cannot be controlled any more"),
    };
    std::thread::Builder::new().name("control".into()).spawn(body).context("a thread")?;
    Ok(to_guest)
}

/// Both ends of a control connection for a sandbox that nobody else is to find: the socket it listens on,
/// and a client of it.
pub(crate) fn private_control() -> Result<(OwnedFd, Client)> {
    let dir =
        nix::unistd::mkdtemp(&std::env::temp_dir().join("runsc-XXXXXX")).context("a temporary directory")?;
    let pair = || -> Result<_> {
        let listener = control::bind(&dir)?;
        Ok((listener, Client::connect(&dir)?))
    };
    let pair = pair();
    std::fs::remove_dir_all(&dir).with_context(|| format!("{dir:?}"))?;
    pair
}
