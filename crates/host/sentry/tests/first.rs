//! First programs: a kernel put together by `run`, a Gofer in a thread, a static program without a libc.
//!
//! The Gofer is not confined and the Sentry not jailed here; that is the sandbox's, and tested there.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use gofer::{Attach, Config, Confinement};
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;
use sentry::{
    BootConfig, BootError, Early, ExitStatus, Inherited, InheritedFds, Mount, Overlay, Process, Resources,
    Source,
};

/// Compiles assembly into a static program at `to`.
fn assemble(text: &str, to: &Path) {
    let source = to.with_extension("S");
    std::fs::write(&source, text).expect("a folder to write to");
    let status = Command::new("gcc")
        .args(["-nostdlib", "-static", "-o"])
        .arg(to)
        .arg(&source)
        .status()
        .expect("gcc is installed");
    assert!(status.success(), "the program must assemble");
}

fn mount(target: &str, source: Source) -> Mount {
    let overlay = Overlay::None;
    Mount {
        target: target.to_owned(),
        source,
        readonly: false,
        shared: false,
        overlay,
        name: None,
        options: Vec::new(),
    }
}

fn config(args: &[&str]) -> BootConfig {
    BootConfig {
        container_id: "test".to_owned(),
        hostname: "test".to_owned(),
        platform: "systrap".to_owned(),
        mounts: vec![
            mount("/", Source::Gofer(0)),
            mount("/proc", Source::Kernel("proc".to_owned())),
            mount("/dev", Source::Kernel("devtmpfs".to_owned())),
        ],
        devices: Vec::new(),
        made: Vec::new(),
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
        sysctls: BTreeMap::new(),
        seccomp: Vec::new(),
        process: Process {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            capabilities: u64::MAX,
            inheritable: 0,
            ambient: 0,
            umask: 0o022,
            rlimits: Vec::new(),
            terminal: false,
            no_new_privs: false,
            oom_score_adj: None,
        },
        resources: Resources::default(),
        net_raw: false,
        debug: false,
        strace: false,
        fast_path: true,
        fds: InheritedFds { control: None, gofer: Vec::new(), stdio: vec![0, 1, 2], device: None },
    }
}

/// Runs `config` over the tree at `root`.
fn run(root: &Path, config: &BootConfig) -> Result<ExitStatus, BootError> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("sockets");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(root, flags, Mode::empty()).expect("a folder");
    let server = std::thread::spawn(move || {
        let proc_fd = Config::open_proc_fd().expect("a procfs");
        let attachments = vec![Attach { root, readonly: true }];
        let config = Config { confinement: Confinement::None, ..Config::new(attachments, proc_fd) };
        gofer::serve(config, vec![theirs])
    });
    let null =
        || OwnedFd::from(std::fs::File::options().read(true).write(true).open("/dev/null").expect("null"));
    let inherited =
        Inherited { gofer: vec![ours], stdio: vec![null(), null(), null()], control: None, device: None };
    let result = sentry::run(config, inherited, &Early::gather()?, sentry::Confinement::None);
    drop(server);
    result
}

/// A root with the places that are mounted over, and `bin`.
fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["bin", "proc", "dev"] {
        std::fs::create_dir(dir.path().join(name)).expect("a folder");
    }
    dir
}

const EXIT: &str = ".globl _start\n_start: mov $231,%eax\nmov $42,%edi\nsyscall\n";
const FAULT: &str = ".globl _start\n_start: mov 0,%rax\nud2\n";
/// fork; the child exits with 7; the parent waits and exits with the child's code plus one.
const FORK: &str = "
    .globl _start
_start:
    mov $57,%eax
    syscall
    test %eax,%eax
    jz child
    sub $16,%rsp
    mov $61,%eax
    mov $-1,%rdi
    mov %rsp,%rsi
    xor %edx,%edx
    xor %r10d,%r10d
    syscall
    movzbl 1(%rsp),%edi
    inc %edi
    mov $231,%eax
    syscall
child:
    mov $231,%eax
    mov $7,%edi
    syscall
";

#[test]
fn a_program_runs_and_its_exit_code_arrives() {
    let root = root();
    assemble(EXIT, &root.path().join("bin/exit"));
    assert_eq!(run(root.path(), &config(&["exit"])).expect("it starts"), ExitStatus::Exited(42));
}

#[test]
fn a_fault_kills_with_its_signal() {
    let root = root();
    assemble(FAULT, &root.path().join("bin/fault"));
    assert_eq!(run(root.path(), &config(&["/bin/fault"])).expect("it starts"), ExitStatus::Signaled(11));
}

#[test]
fn a_child_is_waited_for() {
    let root = root();
    assemble(FORK, &root.path().join("bin/fork"));
    assert_eq!(run(root.path(), &config(&["fork"])).expect("it starts"), ExitStatus::Exited(8));
}

/// Makes /made (openat, creat), writes to it, and exits with what openat says of it afterwards: 0.
const WRITE: &str = "
    .globl _start
_start:
    mov $85,%eax
    lea path(%rip),%rdi
    mov $0600,%esi
    syscall
    mov %eax,%edi
    mov $1,%eax
    lea path(%rip),%rsi
    mov $5,%edx
    syscall
    mov $21,%eax
    lea path(%rip),%rdi
    xor %esi,%esi
    syscall
    mov %eax,%edi
    mov $231,%eax
    syscall
path: .asciz \"/made\"
";

#[test]
fn writes_go_over_the_root_and_not_into_it() {
    let root = root();
    assemble(WRITE, &root.path().join("bin/write"));
    let mut overlaid = config(&["write"]);
    overlaid.mounts[0].overlay = Overlay::Memory;
    assert_eq!(run(root.path(), &overlaid).expect("it starts"), ExitStatus::Exited(0));
    assert!(!root.path().join("made").exists());
}

#[test]
fn what_cannot_start_says_why() {
    let root = root();
    std::fs::write(root.path().join("bin/text"), "not a program\n").expect("a file");
    let said = |args: &[&str]| run(root.path(), &config(args)).expect_err("must not start").to_string();
    assert_eq!(said(&["missing"]), "exec: \"missing\": executable file not found in $PATH");
    assert_eq!(said(&["/bin"]), "exec: \"/bin\": permission denied");
    assert_eq!(said(&["/bin/text"]), "exec: \"/bin/text\": permission denied");
    let mut unknown = config(&["x"]);
    unknown.platform = "moon".to_owned();
    assert_eq!(run(root.path(), &unknown).expect_err("unknown").to_string(), "platform \"moon\" is unknown");
}
