//! The Sentry's end: a thread that accepts, and one a connection.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};

use crate::ControlError;
use crate::message::{ExitStatus, Member, Process, ProcessInfo, Reply, Request, Target, receive, send};
use crate::metrics::Family;
use crate::network::{EgressConfig, NetworkConfig};

/// Most connections at a time; more wait in the socket's queue.
const MAX_CONNECTIONS: usize = 32;
/// Stack of a connection's thread in bytes. Messages are on the heap.
const STACK_SIZE: usize = 256 << 10;
/// How long the end of the sandbox waits for answers on their way.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the processes of a sandbox can be told. Errors are shown to the caller of runsc.
pub trait Guest: Send + Sync {
    /// Sends a signal, 1 to 64.
    fn signal(&self, target: Target, signal: u8) -> Result<(), String>;
    /// The processes there are.
    fn processes(&self) -> Result<Vec<ProcessInfo>, String>;
    /// Starts another program with these first descriptors, at least three; its pid in the container.
    fn exec(&self, process: Process, fds: Vec<OwnedFd>) -> Result<u32, String>;
    /// Changes the limit of tasks.
    fn limit_tasks(&self, tasks: Option<u32>) -> Result<(), String>;
    /// Gives it links to the outside, whose sockets these are.
    fn attach(&self, config: &NetworkConfig, sockets: Vec<OwnedFd>) -> Result<(), String>;
    /// Replaces the rules about who may be reached.
    fn set_egress(&self, _: &EgressConfig) -> Result<(), String> {
        Err("the network is the sandbox's".into())
    }
    /// What the sandbox has counted.
    fn metrics(&self) -> Vec<Family> {
        Vec::new()
    }
    /// Waits for the end of a process that [`Guest::exec`] started.
    fn wait(&self, pid: u32) -> Result<ExitStatus, String>;
    /// Creates another container with these connections to its Gofer and first descriptors.
    fn create(&self, _: Member, _gofer: Vec<OwnedFd>, _fds: Vec<OwnedFd>) -> Result<(), String> {
        Err("there is only one container here".into())
    }
    /// Another container; of it all methods but those that make and find such.
    fn member(&self, _id: &str) -> Option<Arc<dyn Guest>> {
        None
    }
    /// Ends another container and forgets it.
    fn destroy(&self, _id: &str) -> Result<(), String> {
        Ok(())
    }
    /// Starts the program of another container.
    fn start(self: Arc<Self>) -> Result<(), String> {
        Err("it is not for itself to start".into())
    }
    /// Waits for the end of the program of another container.
    fn wait_for_first(&self) -> Result<ExitStatus, String> {
        Err("it is not for itself to wait".into())
    }
}

/// What a created container is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Run its program.
    Run,
    /// End, killed by this signal before its program ran.
    Killed(u8),
}

/// Answers requests from its making on; those that need a guest, or the answer to `Hello`, wait for
/// [`Server::created`].
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    guest: Option<Arc<dyn Guest>>,
    begin: Option<Begin>,
    ended: Option<ExitStatus>,
    connections: Vec<Arc<OwnedFd>>,
    /// Of them, those that wait for something else than the container's end.
    busy: usize,
}

impl Shared {
    /// Nothing that holds this lock panics, so that a poisoned one is as good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` gives something.
    fn wait_until<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut state = self.lock();
        loop {
            if let Some(value) = ready(&mut state) {
                return value;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn forget(&self, socket: &Arc<OwnedFd>) {
        self.change(|state| state.connections.retain(|other| !Arc::ptr_eq(other, socket)));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Server {
    /// Serves a listening socket on threads of its own, until the process ends.
    pub fn new(listener: OwnedFd) -> Result<Self, ControlError> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::Builder::new()
            .name("control".into())
            .stack_size(STACK_SIZE)
            .spawn(move || accept(&accepting, &listener))
            .map_err(ControlError::Thread)?;
        Ok(Self { shared })
    }

    /// The container is set up, short of running its program.
    pub fn created(&self, guest: Arc<dyn Guest>) {
        self.shared.change(|state| state.guest = Some(guest));
    }

    /// Waits until the container is to start, or is killed before that.
    pub fn wait_for_start(&self) -> Begin {
        self.shared.wait_until(|state| state.begin)
    }

    /// The container's first process has ended. Tells those who wait, and lets those know who had a hand in
    /// it; the process may exit afterwards.
    pub fn ended(&self, status: ExitStatus) {
        self.shared.change(|state| {
            state.ended = Some(status);
            state.connections.iter().for_each(|socket| stop_reading(socket));
        });
        let state = self.shared.lock();
        let unheard = |state: &mut State| state.connections.len() > state.busy;
        // The result does not matter: after that time the process exits anyway.
        let _ = self.shared.changed.wait_timeout_while(state, FAREWELL, unheard);
    }
}

/// What has arrived can still be read, then comes the end.
fn stop_reading(socket: &OwnedFd) {
    // Fails when the client is gone, which comes to the same.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Read);
}

fn accept(shared: &Arc<Shared>, listener: &OwnedFd) {
    loop {
        shared.wait_until(|state| (state.connections.len() < MAX_CONNECTIONS).then_some(()));
        let socket = match hostsys::file::accept(listener.as_fd()) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                tracing::error!(%error, "the control socket is lost");
                return;
            }
        };
        shared.change(|state| {
            if state.ended.is_some() {
                stop_reading(&socket);
            }
            state.connections.push(Arc::clone(&socket));
        });
        let (serving, serves) = (Arc::clone(shared), Arc::clone(&socket));
        let body = move || {
            if let Err(error) = converse(&serving, &serves) {
                tracing::warn!(%error, "closing a control connection");
            }
            serving.forget(&serves);
        };
        let thread = thread::Builder::new().name("control-client".into()).stack_size(STACK_SIZE);
        if let Err(error) = thread.spawn(body) {
            tracing::warn!(%error, "no thread for a control connection");
            shared.forget(&socket);
        }
    }
}

/// Answers requests until the client goes.
fn converse(shared: &Shared, socket: &OwnedFd) -> Result<(), ControlError> {
    loop {
        let (request, fds) = match receive(socket.as_fd()) {
            Err(ControlError::Gone) => return Ok(()),
            other => other?,
        };
        // What may take for ever without the container's end is not waited for at that.
        let long = |request: &Request| matches!(request, Request::Wait { pid: Some(_) } | Request::Exec(_));
        let busy = match &request {
            Request::Of { request, .. } => long(request),
            request => long(request),
        };
        let busy = usize::from(busy);
        shared.change(|state| state.busy += busy);
        let reply = answer(shared, request, fds);
        shared.change(|state| state.busy -= busy);
        let sent = send(socket.as_fd(), &reply, &[]);
        match sent {
            Err(ControlError::Gone) => return Ok(()),
            other => other?,
        }
    }
}

fn answer(shared: &Shared, request: Request, fds: Vec<OwnedFd>) -> Reply {
    let guest = || shared.wait_until(|state| state.guest.clone());
    let result = match request {
        Request::Hello => {
            guest();
            Ok(Reply::Done)
        }
        Request::Start => start(shared, Begin::Run),
        Request::Signal { signal, .. } if !(1..=64).contains(&signal) => Err(format!("no signal {signal}")),
        Request::Signal { target, signal } => match running(shared) {
            true => guest().signal(target, signal).map(|()| Reply::Done),
            false if ignored(signal) => Ok(Reply::Done),
            false => start(shared, Begin::Killed(signal)),
        },
        Request::Wait { pid: None } => Ok(Reply::Ended(shared.wait_until(|state| state.ended))),
        Request::Wait { pid: Some(pid) } => guest().wait(pid).map(Reply::Ended),
        Request::Processes => guest().processes().map(Reply::Processes),
        Request::Exec(_) if !running(shared) => Err("the container does not run".into()),
        Request::Exec(_) if fds.len() < 3 => Err(format!("only {} descriptors came", fds.len())),
        Request::Exec(process) => guest().exec(*process, fds).map(Reply::Started),
        Request::Attach(_) if running(shared) => Err("the container runs already".into()),
        Request::Attach(config) => guest().attach(&config, fds).map(|()| Reply::Done),
        Request::Egress(egress) => guest().set_egress(&egress).map(|()| Reply::Done),
        Request::Create(_) if !running(shared) => Err("the sandbox does not run".into()),
        Request::Create(member) => create(guest().as_ref(), *member, fds),
        Request::Of { container, request } => match guest().member(&container) {
            Some(member) => about(&member, *request, fds),
            None => Err(format!("there is no container {container:?} in the sandbox")),
        },
        Request::Destroy(container) => guest().destroy(&container).map(|()| Reply::Done),
        Request::Metrics => Ok(Reply::Metrics(guest().metrics())),
        Request::LimitTasks(tasks) => guest().limit_tasks(tasks).map(|()| Reply::Done),
    };
    result.unwrap_or_else(Reply::Refused)
}

fn create(guest: &dyn Guest, member: Member, mut fds: Vec<OwnedFd>) -> Result<Reply, String> {
    if member.connections == 0 || fds.len() < member.connections.saturating_add(3) {
        return Err(format!("only {} descriptors came", fds.len()));
    }
    let standard = fds.split_off(member.connections);
    guest.create(member, fds, standard).map(|()| Reply::Done)
}

/// Answers what is asked of another container than the first.
fn about(member: &Arc<dyn Guest>, request: Request, fds: Vec<OwnedFd>) -> Result<Reply, String> {
    match request {
        Request::Hello => Ok(Reply::Done),
        Request::Start => Arc::clone(member).start().map(|()| Reply::Done),
        Request::Signal { signal, .. } if !(1..=64).contains(&signal) => Err(format!("no signal {signal}")),
        Request::Signal { target, signal } => member.signal(target, signal).map(|()| Reply::Done),
        Request::Wait { pid: None } => member.wait_for_first().map(Reply::Ended),
        Request::Wait { pid: Some(pid) } => member.wait(pid).map(Reply::Ended),
        Request::Processes => member.processes().map(Reply::Processes),
        Request::Exec(_) if fds.len() < 3 => Err(format!("only {} descriptors came", fds.len())),
        Request::Exec(process) => member.exec(*process, fds).map(Reply::Started),
        _ => Err("that is the sandbox's, not a container's".into()),
    }
}

fn running(shared: &Shared) -> bool {
    shared.lock().begin == Some(Begin::Run)
}

/// Opens the gate, once and when there is a guest behind it.
fn start(shared: &Shared, begin: Begin) -> Result<Reply, String> {
    shared.wait_until(|state| state.guest.is_some().then_some(()));
    let mut state = shared.lock();
    if state.begin.is_some() {
        return Err("the container was started already".into());
    }
    state.begin = Some(begin);
    drop(state);
    shared.changed.notify_all();
    Ok(Reply::Done)
}

/// Signals that do nothing to a process which has not asked for them and is not stopped (`signal(7)`).
/// One that would stop it does nothing either, as there is nothing to stop yet.
fn ignored(signal: u8) -> bool {
    const IGNORED: [i32; 8] = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    IGNORED.contains(&i32::from(signal))
}
