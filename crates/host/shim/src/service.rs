//! The shim itself: containerd's task API.

use std::collections::HashMap;
use std::os::fd::{AsFd, IntoRawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result, anyhow};
use cgroup::Cgroups;
use containerd_shim_protos::api::{self, Empty};
use containerd_shim_protos::events::task;
use containerd_shim_protos::protobuf::{EnumOrUnknown, MessageField};
use containerd_shim_protos::ttrpc::{self, MethodHandler, Server, TtrpcContext};
use containerd_shim_protos::{Task, create_task};
use parking_lot::{Condvar, Mutex};

use crate::args::Args;
use crate::bootstrap::{ADDRESS, SCHEME};
use crate::config::Config;
use crate::container::{Container, Origin};
use crate::error::ShimError;
use crate::events::{Publisher, timestamp};
use crate::oom::Watcher;
use crate::process::{Exit, Phase, Process};
use crate::reaper::Reaper;
use crate::stdio::Paths;
use crate::{cleanup, log, stats};

/// The service as the version of the API names it that our messages are of, and as the one before does, whose
/// messages are the same.
const SERVICES: [&str; 2] = ["/containerd.task.v3.Task/", "/containerd.task.v2.Task/"];
/// Version of the API.
const VERSION: &str = "v2";

/// Is a shim until it is shut down.
pub(crate) fn serve(args: &Args) -> Result<()> {
    let bundle = crate::bundle(args)?;
    log::init(&bundle, args.debug);
    let address = std::fs::read_to_string(bundle.join(ADDRESS)).context("the shim's address")?;
    let socket = PathBuf::from(address.strip_prefix(SCHEME).context("the shim's address")?);
    let listener = std::io::stdin().as_fd().try_clone_to_owned().context("the shim's socket")?;
    let null = std::fs::File::open("/dev/null").context("/dev/null")?;
    nix::unistd::dup2_stdin(&null).context("standard input")?;
    nix::sys::prctl::set_child_subreaper(true).context("becoming a subreaper")?;
    // The bundle may go before we do.
    std::env::set_current_dir("/").context("/")?;
    let events = std::env::var("TTRPC_ADDRESS").unwrap_or_else(|_| format!("{}.ttrpc", args.address));
    let publisher = Publisher::start(&args.namespace, events);
    let (exits, ended) = channel();
    let shim = Arc::new(Shim {
        namespace: args.namespace.clone(),
        socket: socket.clone(),
        reaper: Reaper::start(),
        watcher: Watcher::start(publisher.clone()).context("watching memory")?,
        publisher,
        containers: Mutex::default(),
        exits,
        done: Mutex::new(false),
        finished: Condvar::new(),
    });
    let own = shim.clone();
    std::thread::spawn(move || own.note_exits(&ended));
    let mut server = Server::new()
        .add_listener(listener.into_raw_fd())
        .map_err(|error| anyhow!("the shim's socket: {error}"))?
        .register_service(methods(shim.clone()));
    server.start().map_err(|error| anyhow!("serving: {error}"))?;
    tracing::info!(namespace = args.namespace, id = args.id, "a shim serves");
    shim.wait();
    shim.publisher.finish();
    cleanup::remove_beside(&socket);
    Ok(())
}

/// The methods of the service under both of its names.
fn methods(shim: Arc<Shim>) -> HashMap<String, Box<dyn MethodHandler + Send + Sync>> {
    let [newer, older] = SERVICES;
    let mut methods = create_task(shim.clone());
    let renamed =
        create_task(shim).into_iter().map(|(name, method)| (name.replacen(newer, older, 1), method));
    methods.extend(renamed);
    methods
}

/// The end of a process.
struct Ended {
    container: Arc<Container>,
    process: Arc<Process>,
    code: i32,
}

struct Shim {
    namespace: String,
    socket: PathBuf,
    reaper: Arc<Reaper>,
    watcher: Arc<Watcher>,
    publisher: Publisher,
    /// By id; without a value while it is being made.
    containers: Mutex<HashMap<String, Option<Arc<Container>>>>,
    exits: Sender<Ended>,
    done: Mutex<bool>,
    finished: Condvar,
}

impl Shim {
    fn wait(&self) {
        let mut done = self.done.lock();
        while !*done {
            self.finished.wait(&mut done);
        }
    }

    fn container(&self, id: &str) -> Result<Arc<Container>, ShimError> {
        let found = self.containers.lock().get(id).cloned().flatten();
        found.ok_or_else(|| ShimError::NotFound { what: "container", id: id.into() })
    }

    fn process(&self, id: &str, exec_id: &str) -> Result<(Arc<Container>, Arc<Process>), ShimError> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        Ok((container, process))
    }

    /// Tells of the ends of processes.
    fn note_exits(&self, ended: &Receiver<Ended>) {
        for Ended { container, process, code } in ended {
            // Why it ended comes first.
            self.watcher.check(&container.id);
            process.ends(code, |pid, exit| self.tell_exit(&container, &process, pid, exit));
        }
    }

    fn tell_exit(&self, container: &Container, process: &Process, pid: u32, exit: Exit) {
        let id = if process.exec_id.is_empty() { &container.id } else { &process.exec_id };
        self.publisher.publish(&task::TaskExit {
            container_id: container.id.clone(),
            id: id.clone(),
            pid,
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        });
    }

    /// What is to be told when a process ends.
    fn teller(
        &self,
        container: &Arc<Container>,
        process: &Arc<Process>,
    ) -> impl FnOnce(i32) + Send + 'static {
        let (exits, container, process) = (self.exits.clone(), container.clone(), process.clone());
        move |code| {
            // Only a shim that is ending does not listen.
            let _ = exits.send(Ended { container, process, code });
        }
    }

    fn make(&self, request: &api::CreateTaskRequest) -> Result<Arc<Container>, ShimError> {
        let expectation = self.reaper.expect();
        let origin =
            Origin { request, namespace: &self.namespace, reaper: &self.reaper, socket: &self.socket };
        let container = Arc::new(Container::create(&origin)?);
        expectation.claim(container.first.pid() as i32, self.teller(&container, &container.first));
        if let Some(path) = &container.cgroups {
            self.watcher.watch(&container.id, path);
        }
        Ok(container)
    }

    fn create_container(&self, request: &api::CreateTaskRequest) -> Result<u32, ShimError> {
        let id = request.id.clone();
        let first = {
            let mut containers = self.containers.lock();
            if containers.contains_key(&id) {
                return Err(ShimError::Exists { what: "container", id });
            }
            containers.insert(id.clone(), None);
            containers.len() == 1
        };
        if first && let Err(error) = self.enter_group(request) {
            tracing::warn!(%error, "the shim stays in its control groups");
        }
        let made = self.make(request);
        let mut containers = self.containers.lock();
        match made {
            Ok(container) => {
                let pid = container.first.pid();
                containers.insert(id, Some(container));
                self.tell_created(request, pid);
                Ok(pid)
            }
            Err(error) => {
                containers.remove(&id);
                Err(error)
            }
        }
    }

    /// Moves the shim into the groups that the options name for it.
    fn enter_group(&self, request: &api::CreateTaskRequest) -> Result<()> {
        let config = Config::from_options(request.options.as_ref())?;
        if !config.shim_cgroup.is_empty() {
            // For good: nothing brings it back.
            std::mem::forget(Cgroups::create(&config.shim_cgroup, None)?.join()?);
        }
        Ok(())
    }

    fn tell_created(&self, request: &api::CreateTaskRequest, pid: u32) {
        let io = task::TaskIO {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
            ..Default::default()
        };
        self.publisher.publish(&task::TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: MessageField::some(io),
            pid,
            ..Default::default()
        });
    }

    fn start_first(&self, container: &Arc<Container>) -> Result<u32, ShimError> {
        let process = &container.first;
        process.begin(&container.id)?;
        let started = container.runsc.ask("start", &[&container.id], None);
        let tell = |pid| {
            let container_id = container.id.clone();
            self.publisher.publish(&task::TaskStart { container_id, pid, ..Default::default() });
        };
        process.started(started.is_ok(), tell, |pid, exit| self.tell_exit(container, process, pid, exit));
        started.map(|_| process.pid())
    }

    fn start_other(&self, container: &Arc<Container>, process: &Arc<Process>) -> Result<u32, ShimError> {
        process.begin(&process.exec_id)?;
        let expectation = self.reaper.expect();
        let made = container.execute(process).map(|made| {
            let pid = made.pid;
            process.made(made);
            expectation.claim(pid, self.teller(container, process));
        });
        let tell = |pid| {
            let (container_id, exec_id) = (container.id.clone(), process.exec_id.clone());
            self.publisher.publish(&task::TaskExecStarted {
                container_id,
                exec_id,
                pid,
                ..Default::default()
            });
        };
        process.started(made.is_ok(), tell, |pid, exit| self.tell_exit(container, process, pid, exit));
        made.map(|()| process.pid())
    }

    fn delete_first(&self, container: &Arc<Container>) -> Result<Exit, ShimError> {
        let phase = container.first.phase();
        if matches!(phase, Phase::Running | Phase::Starting) {
            let id = container.id.clone();
            return Err(ShimError::WrongState { id, state: phase.name(), operation: "delete" });
        }
        container.remove()?;
        let exit = container.first.wait();
        self.watcher.forget(&container.id);
        self.containers.lock().remove(&container.id);
        self.publisher.publish(&task::TaskDelete {
            container_id: container.id.clone(),
            pid: container.first.pid(),
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        });
        Ok(exit)
    }

    fn delete_other(&self, container: &Container, process: &Process) -> Result<Exit, ShimError> {
        match process.phase() {
            Phase::Created => process.give_up(),
            Phase::Stopped => {}
            phase => {
                let id = process.exec_id.clone();
                return Err(ShimError::WrongState { id, state: phase.name(), operation: "delete" });
            }
        }
        container.forget(&process.exec_id);
        process.release();
        Ok(process.wait())
    }

    fn signal(&self, request: &api::KillRequest) -> Result<(), ShimError> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let signal = request.signal.to_string();
        match process.phase() {
            Phase::Stopped => {
                return Err(ShimError::NotFound { what: "running process", id: request.id.clone() });
            }
            Phase::Created if !process.exec_id.is_empty() => {
                let id = process.exec_id.clone();
                return Err(ShimError::WrongState { id, state: Phase::Created.name(), operation: "signal" });
            }
            Phase::Created | Phase::Starting | Phase::Running => {}
        }
        let inside = process.inside().to_string();
        let words: Vec<&str> = match (process.exec_id.is_empty(), request.all) {
            (true, true) => vec!["--all", &container.id, &signal],
            (true, false) => vec![&container.id, &signal],
            (false, _) => vec!["--pid", &inside, &container.id, &signal],
        };
        container.runsc.ask("kill", &words, None).map(drop)
    }

    fn state_of(&self, request: &api::StateRequest) -> Result<api::StateResponse, ShimError> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let paused = container.is_paused() && process.exec_id.is_empty();
        let status = match process.phase() {
            Phase::Created | Phase::Starting => api::Status::CREATED,
            Phase::Running if paused => api::Status::PAUSED,
            Phase::Running => api::Status::RUNNING,
            Phase::Stopped => api::Status::STOPPED,
        };
        let exit = process.exit();
        let paths = process.paths.clone();
        Ok(api::StateResponse {
            id: container.id.clone(),
            bundle: container.bundle.to_string_lossy().into_owned(),
            pid: process.pid(),
            status: EnumOrUnknown::new(status),
            stdin: paths.stdin,
            stdout: paths.stdout,
            stderr: paths.stderr,
            terminal: paths.terminal,
            exit_status: exit.map_or(0, |exit| exit.code),
            exited_at: exit.map(|exit| timestamp(exit.at)).into(),
            exec_id: request.exec_id.clone(),
            ..Default::default()
        })
    }

    fn pids_of(&self, id: &str) -> Result<Vec<api::ProcessInfo>, ShimError> {
        let container = self.container(id)?;
        if container.first.phase() == Phase::Stopped {
            return Ok(Vec::new());
        }
        let printed = container.runsc.ask("ps", &["--format=json", id], None)?;
        let pids: Vec<u32> = serde_json::from_str(&printed)
            .map_err(|error| ShimError::Runsc { command: "ps", reason: error.to_string() })?;
        Ok(pids.into_iter().map(|pid| api::ProcessInfo { pid, ..Default::default() }).collect())
    }
}

impl Task for Shim {
    fn state(&self, _: &TtrpcContext, request: api::StateRequest) -> ttrpc::Result<api::StateResponse> {
        Ok(self.state_of(&request)?)
    }

    fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        let pid = self.create_container(&request)?;
        Ok(api::CreateTaskResponse { pid, ..Default::default() })
    }

    fn start(&self, _: &TtrpcContext, request: api::StartRequest) -> ttrpc::Result<api::StartResponse> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let pid = match process.exec_id.is_empty() {
            true => self.start_first(&container)?,
            false => self.start_other(&container, &process)?,
        };
        Ok(api::StartResponse { pid, ..Default::default() })
    }

    fn delete(&self, _: &TtrpcContext, request: api::DeleteRequest) -> ttrpc::Result<api::DeleteResponse> {
        let (container, process) = self.process(&request.id, &request.exec_id)?;
        let exit = match process.exec_id.is_empty() {
            true => self.delete_first(&container)?,
            false => self.delete_other(&container, &process)?,
        };
        Ok(api::DeleteResponse {
            pid: process.pid(),
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        })
    }

    fn pids(&self, _: &TtrpcContext, request: api::PidsRequest) -> ttrpc::Result<api::PidsResponse> {
        Ok(api::PidsResponse { processes: self.pids_of(&request.id)?, ..Default::default() })
    }

    fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> ttrpc::Result<Empty> {
        self.container(&request.id)?.pause(true)?;
        self.publisher.publish(&task::TaskPaused { container_id: request.id, ..Default::default() });
        Ok(Empty::default())
    }

    fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> ttrpc::Result<Empty> {
        self.container(&request.id)?.pause(false)?;
        self.publisher.publish(&task::TaskResumed { container_id: request.id, ..Default::default() });
        Ok(Empty::default())
    }

    fn checkpoint(&self, _: &TtrpcContext, request: api::CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        self.container(&request.id)?;
        Err(ShimError::Unimplemented("checkpoints are not made").into())
    }

    fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<Empty> {
        self.signal(&request)?;
        Ok(Empty::default())
    }

    fn exec(&self, _: &TtrpcContext, request: api::ExecProcessRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id)?;
        let paths = Paths {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        container.add(&request.exec_id, paths, &request.spec.value)?;
        let (container_id, exec_id) = (request.id, request.exec_id);
        self.publisher.publish(&task::TaskExecAdded { container_id, exec_id, ..Default::default() });
        Ok(Empty::default())
    }

    fn resize_pty(&self, _: &TtrpcContext, request: api::ResizePtyRequest) -> ttrpc::Result<Empty> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let short = |value| u16::try_from(value).unwrap_or(u16::MAX);
        process.resize(short(request.width), short(request.height))?;
        Ok(Empty::default())
    }

    fn close_io(&self, _: &TtrpcContext, request: api::CloseIORequest) -> ttrpc::Result<Empty> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        if request.stdin {
            process.close_input();
        }
        Ok(Empty::default())
    }

    fn update(&self, _: &TtrpcContext, request: api::UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = self.container(&request.id)?;
        container.runsc.ask("update", &["--resources", "-", &request.id], Some(&request.resources.value))?;
        Ok(Empty::default())
    }

    fn wait(&self, _: &TtrpcContext, request: api::WaitRequest) -> ttrpc::Result<api::WaitResponse> {
        let (_, process) = self.process(&request.id, &request.exec_id)?;
        let exit = process.wait();
        Ok(api::WaitResponse {
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        })
    }

    fn stats(&self, _: &TtrpcContext, request: api::StatsRequest) -> ttrpc::Result<api::StatsResponse> {
        let container = self.container(&request.id)?;
        let printed = container.runsc.ask("events", &["--stats", &request.id], None)?;
        let stats = stats::metrics(&printed, container.version())
            .map_err(|error| ShimError::Runsc { command: "events", reason: error.to_string() })?;
        Ok(api::StatsResponse { stats: MessageField::some(stats), ..Default::default() })
    }

    fn connect(&self, _: &TtrpcContext, request: api::ConnectRequest) -> ttrpc::Result<api::ConnectResponse> {
        let container = self.container(&request.id);
        Ok(api::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: container.map_or(0, |container| container.first.pid()),
            version: VERSION.into(),
            ..Default::default()
        })
    }

    fn shutdown(&self, _: &TtrpcContext, request: api::ShutdownRequest) -> ttrpc::Result<Empty> {
        // The other containers of the pod need it.
        if request.now || self.containers.lock().is_empty() {
            *self.done.lock() = true;
            self.finished.notify_all();
        }
        Ok(Empty::default())
    }
}
