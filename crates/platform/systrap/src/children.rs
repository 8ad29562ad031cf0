//! The host processes of guests: their making by the zygote, and their end.
//!
//! One thread, the *guardian*, clones the zygote and waits for all its clones and theirs, which are the
//! guardian's children. They die with it (`PR_SET_PDEATHSIG` goes by thread), that is with the Sentry, and it
//! ends when they all have.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use bpf::Program;
use hostproc::Vdso;
use parking_lot::Mutex;
use platform::PlatformError;

use crate::crew::Crew;
use crate::host::Process;
use crate::raw::sys;
use crate::raw::zygote::Image;
use crate::space::CURRENT;
use crate::watch::Watch;

/// Ends kept that nobody has asked for yet. Only a guest that clones behind our back makes more.
const MOST_UNCLAIMED: usize = 1024;

#[derive(Default)]
struct Registry {
    live: HashMap<i32, Arc<Process>>,
    /// How many processes are being made and have no id yet.
    starting: usize,
    /// Processes that ended before whoever made them knew their id.
    unclaimed: HashMap<i32, Option<i32>>,
    closed: bool,
}

/// All host processes of a platform.
pub(crate) struct Children {
    registry: Mutex<Registry>,
    /// The way to the zygote; `None` once we are closed.
    zygote: Mutex<Option<OwnedFd>>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) crew: Arc<Crew>,
    /// What every clone of the zygote has to unmap: address and length.
    pub(crate) leftover: (u64, u64),
}

/// While it lives, a process is being made.
pub(crate) struct Starting<'a>(&'a Children);

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        let mut registry = self.0.registry.lock();
        registry.starting -= 1;
        if registry.starting == 0 {
            registry.unclaimed.clear();
        }
    }
}

fn host(doing: &'static str) -> impl Fn(std::io::Error) -> PlatformError {
    move |source| PlatformError::Host { doing, source }
}

impl Children {
    /// Starts the guardian and the zygote; guests map `table`, which has pointers and cells.
    pub(crate) fn start(
        filter: &Program,
        vdso: Option<&Vdso>,
        table: Option<OwnedFd>,
    ) -> Result<Arc<Self>, PlatformError> {
        let (ours, theirs) = sys::socket_pair().map_err(host("making the zygote's socket"))?;
        let watch = Watch::start().map_err(host("starting the watch"))?;
        let (tell, told) = channel();
        let (filter, vdso) = (filter.insns().to_vec(), vdso.cloned());
        std::thread::Builder::new()
            .name("systrap-guard".into())
            .stack_size(512 << 10)
            .spawn(move || guard(&filter, theirs, (vdso.as_ref(), table), (ours, watch), &tell))
            .map_err(host("starting the guardian"))?;
        told.recv().map_err(|_| PlatformError::Gone)?.map_err(host("starting the zygote"))
    }

    /// Announces that a process is being made; [`claim`](Self::claim) it before this is dropped.
    pub(crate) fn starting(&self) -> Starting<'_> {
        self.registry.lock().starting += 1;
        Starting(self)
    }

    /// Makes a process that parks in the stub with this mailbox.
    pub(crate) fn clone_zygote(&self, mailbox: i32, process: &Arc<Process>) -> Result<i32, PlatformError> {
        let _starting = self.starting();
        if let Some(host) = CURRENT.with_borrow(Clone::clone) {
            host.listener.hand_over();
        }
        let zygote = self.zygote.lock();
        let socket = zygote.as_ref().ok_or(PlatformError::Gone)?.as_raw_fd();
        let pid = sys::ask_for_clone(socket, mailbox).map_err(host("asking the zygote"))?;
        drop(zygote);
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0);
        let pid = pid.ok_or(PlatformError::Exhausted("host processes"))?;
        self.claim(process, pid);
        Ok(pid)
    }

    /// Connects a process with its id. The first call for a process counts.
    pub(crate) fn claim(&self, process: &Arc<Process>, pid: i32) {
        let mut registry = self.registry.lock();
        if !process.identify(pid) {
            return;
        }
        let Some(signal) = registry.unclaimed.remove(&pid) else {
            registry.live.insert(pid, Arc::clone(process));
            let closed = registry.closed;
            drop(registry);
            if closed || process.is_doomed() {
                process.kill();
            }
            return;
        };
        drop(registry);
        process.bury(|| {});
        process.tell(&self.crew, signal);
    }

    /// `pid` has ended by `signal`, and is still to be reaped.
    fn ended(&self, pid: i32, signal: Option<i32>) {
        let mut registry = self.registry.lock();
        if let Some(process) = registry.live.remove(&pid) {
            drop(registry);
            process.bury(|| sys::reap(pid));
            return process.tell(&self.crew, signal);
        }
        if registry.starting > 0 && registry.unclaimed.len() < MOST_UNCLAIMED {
            registry.unclaimed.insert(pid, signal);
        }
        drop(registry);
        sys::reap(pid);
    }

    /// Ends all of them, for good.
    pub(crate) fn close(&self) {
        self.zygote.lock().take();
        let live: Vec<_> = {
            let mut registry = self.registry.lock();
            registry.closed = true;
            registry.live.values().cloned().collect()
        };
        for process in live {
            process.kill();
        }
        self.watch.close();
        self.crew.close();
    }
}

/// The guardian.
fn guard(
    filter: &[bpf::Insn],
    theirs: OwnedFd,
    (vdso, table): (Option<&Vdso>, Option<OwnedFd>),
    (ours, watch): (OwnedFd, Arc<Watch>),
    tell: &Sender<Result<Arc<Children>, std::io::Error>>,
) {
    let launched = Image::new(filter, theirs.as_raw_fd(), vdso, table.as_ref().map(AsRawFd::as_raw_fd))
        .and_then(|image| image.launch().map(|pid| (pid, image.leftover())));
    // The zygote alone has it now, so that we see when it goes.
    drop((theirs, table));
    let (zygote, leftover) = match launched {
        Ok(both) => both,
        Err(error) => {
            watch.close();
            let _ = tell.send(Err(error));
            return;
        }
    };
    let children = Arc::new(Children {
        registry: Mutex::default(),
        zygote: Mutex::new(Some(ours)),
        watch,
        crew: Arc::default(),
        leftover,
    });
    let _ = tell.send(Ok(Arc::clone(&children)));
    while let Some((pid, signal)) = sys::wait_child() {
        if pid == zygote {
            if children.zygote.lock().take().is_some() {
                tracing::error!(?signal, "the zygote is gone: no new guest processes");
            }
            sys::reap(pid);
        } else {
            children.ended(pid, signal);
        }
    }
}
