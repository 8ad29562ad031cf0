//! Both ends against each other.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use abi::Errno;

use crate::{
    Begin, Client, ControlError, ExitStatus, Guest, NetworkConfig, Process, ProcessInfo, Server, Target, bind,
};

struct Fake(Sender<String>);

impl Guest for Fake {
    fn signal(&self, target: Target, signal: u8) -> Result<(), String> {
        self.0.send(format!("{target:?} {signal}")).map_err(|error| error.to_string())
    }

    fn processes(&self) -> Result<Vec<ProcessInfo>, String> {
        Ok(vec![ProcessInfo { pid: 1, ppid: 0, uid: 0, name: "init".into() }])
    }

    fn exec(&self, process: Process, fds: Vec<OwnedFd>) -> Result<u32, String> {
        nix::unistd::write(&fds[1], process.args.concat().as_bytes()).map_err(|error| error.to_string())?;
        Ok(7)
    }

    fn limit_tasks(&self, tasks: Option<u32>) -> Result<(), String> {
        self.0.send(format!("{tasks:?}")).map_err(|error| error.to_string())
    }

    fn attach(&self, config: &NetworkConfig, sockets: Vec<OwnedFd>) -> Result<(), String> {
        self.0.send(format!("{config:?} {}", sockets.len())).map_err(|error| error.to_string())
    }

    fn wait(&self, pid: u32) -> Result<ExitStatus, String> {
        if pid == 7 { Ok(ExitStatus::Signaled(9)) } else { Err(format!("no process {pid}")) }
    }
}

fn process(word: &str) -> Process {
    Process {
        args: vec![word.into()],
        env: Vec::new(),
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        capabilities: 0,
        inheritable: 0,
        ambient: 0,
        umask: 0o022,
        rlimits: Vec::new(),
        terminal: false,
        no_new_privs: true,
        oom_score_adj: None,
    }
}

#[test]
fn a_container_is_created_started_used_and_ended() {
    // Longer than an address of a socket can be.
    let dir = tempfile::tempdir().expect("tempdir");
    let long = dir.path().join("d".repeat(200));
    std::fs::create_dir(&long).expect("mkdir");
    assert!(matches!(Client::connect(&long), Err(ControlError::Socket { .. })));
    let server = Server::new(bind(&long).expect("binds")).expect("serves");
    let (told, hears) = channel();
    let client = Client::connect(&long).expect("connects");
    server.created(Arc::new(Fake(told)));
    client.hello().expect("created");
    assert!(matches!(client.exec(process("x"), &null()), Err(ControlError::Refused(_))));
    client.signal(Target::First, 17).expect("ignored");
    client.start().expect("starts");
    assert_eq!(server.wait_for_start(), Begin::Run);
    assert!(matches!(client.start(), Err(ControlError::Refused(reason)) if reason.contains("already")));
    client.signal(Target::All, 15).expect("signals");
    assert_eq!(hears.recv().expect("heard"), "All 15");
    assert!(matches!(client.signal(Target::First, 65), Err(ControlError::Refused(_))));
    assert_eq!(client.processes().expect("lists").len(), 1);
    let (read, write) = nix::unistd::pipe().expect("pipe");
    let mut bytes = [0; 8];
    let pid = client.exec(process("words"), &[write.as_fd(); 3]).expect("runs");
    assert_eq!(nix::unistd::read(&read, &mut bytes), Ok(5));
    assert_eq!(client.wait(Some(pid)).expect("waits"), ExitStatus::Signaled(9));
    let idle = Client::connect(&long).expect("connects");
    idle.hello().expect("answers");
    let asked = Client::connect(&long).expect("connects");
    hostsys::file::send_message(asked.as_fd(), b"{\"wait\":{\"pid\":null}}", None).expect("asks");
    let since = std::time::Instant::now();
    server.ended(ExitStatus::Exited(3));
    // All who had asked have been told, and nobody who does not ask is waited for.
    assert!(since.elapsed() < std::time::Duration::from_secs(2));
    drop(server);
    let mut bytes = [0; 64];
    let told = hostsys::file::receive_message(asked.as_fd(), &mut bytes).expect("told");
    assert_eq!(&bytes[..told.len], b"{\"ended\":{\"exited\":3}}");
    assert!(matches!(idle.start(), Err(ControlError::Gone)));
}

fn null() -> [std::os::fd::BorrowedFd<'static>; 3] {
    static NULL: std::sync::LazyLock<std::fs::File> =
        std::sync::LazyLock::new(|| std::fs::File::open("/dev/null").expect("opens"));
    [NULL.as_fd(); 3]
}

#[test]
fn a_created_container_can_be_killed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let server = Server::new(bind(dir.path()).expect("binds")).expect("serves");
    server.created(Arc::new(Fake(channel().0)));
    let client = Client::connect(dir.path()).expect("connects");
    client.signal(Target::First, 9).expect("kills");
    assert_eq!(server.wait_for_start(), Begin::Killed(9));
    assert!(matches!(client.start(), Err(ControlError::Refused(_))));
}

#[test]
fn what_is_not_a_message_ends_the_connection() {
    let dir = tempfile::tempdir().expect("tempdir");
    let listener = bind(dir.path()).expect("binds");
    let _server = Server::new(listener).expect("serves");
    for bytes in [b"nonsense".as_slice(), b"{\"signal\":{}}", b"\"start\" \"start\""] {
        let client = Client::connect(dir.path()).expect("connects");
        hostsys::file::send_message(client.as_fd(), bytes, None).expect("sends");
        assert!(matches!(client.processes(), Err(ControlError::Gone)));
    }
    let client = Client::connect(dir.path()).expect("connects");
    let long = process(&"x".repeat(crate::MAX_MESSAGE));
    let refused = client.exec(long, &null());
    assert!(matches!(refused, Err(ControlError::Connection(Errno::EMSGSIZE))), "{refused:?}");
}

#[test]
fn codes_are_those_of_a_shell() {
    assert_eq!(ExitStatus::Exited(3).code(), 3);
    assert_eq!(ExitStatus::Signaled(9).code(), 137);
    assert_eq!(ExitStatus::Signaled(255).code(), 255);
}
