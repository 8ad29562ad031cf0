//! The conformance suite in a program that leaves itself only a backend's host calls, as a Sentry does: what a
//! backend's tests call. A failure panics, as tests do.
#![allow(clippy::expect_used, clippy::panic)]

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use abi::mm::Prot;
use guestmem::UserAddr;
use hostsys::seccomp::{Filter, Rule};
use memmap::Backing;
use platform::{MapOp, Platform, conformance};

/// Set for the program that locks itself in.
const LOCKED: &str = "RAMPART_TEST_LOCKED";
/// What it says at its end.
const WORD: &str = "all of it passed";

/// What the suite and its harness do themselves: look into files, map a program, say where they are.
static OF_THE_TEST: &[Rule] = hostsys::seccomp_rules! {
    SYS_write => "messages";
    SYS_fstat => "files";
    SYS_brk => "memory";
    SYS_mremap => "memory";
    SYS_getpid => "names";
    SYS_getrandom => "hash maps";
};

/// How many filters a process has.
fn filters(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let line = status.lines().find(|line| line.starts_with("Seccomp_filters:"));
    line.unwrap_or_default().split_whitespace().nth(1).unwrap_or_default().to_owned()
}

/// Runs `test`, a test of the calling program that calls [`locked`], in a program of its own.
pub fn run(test: &str) {
    let output = Command::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", test, "--nocapture"])
        .env(LOCKED, "1")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "signal {:?}: {said}", output.status.signal());
    assert!(said.contains(WORD), "{said}");
}

/// The program that [`run`] starts; does nothing where it was not started by that. It leaves itself `host_calls`
/// and what the `test` does beyond the suite. `guest` makes a space of a platform's and says its process's id.
#[allow(clippy::print_stderr)]
pub fn locked<P: Platform, S>(
    new: impl FnOnce() -> P,
    (host_calls, test): (&[Rule], &[Rule]),
    guest: impl FnOnce(&P) -> (S, i32),
) {
    if std::env::var_os(LOCKED).is_none() {
        return;
    }
    let platform = new();
    let rules: Vec<_> = host_calls.iter().chain(OF_THE_TEST).chain(test).copied().collect();
    let filter = Filter::compile(&rules).expect("it compiles");
    filter.install_on_all_threads().expect("it is installed");
    conformance::run(&platform);
    let (_space, pid) = guest(&platform);
    assert_eq!(filters(pid), "1", "a guest has its own filter only");
    let space = platform.new_address_space().expect("a space");
    let page = MapOp::Map {
        addr: UserAddr(0x6000_0000_0000),
        len: 4096,
        prot: Prot::READ | Prot::WRITE,
        backing: Backing::Anonymous,
        shared: false,
        no_reserve: false,
        populate: true,
    };
    space.apply(&[page]).expect("a page");
    assert!(space.memory_use().resident > 0, "its size is seen");
    eprintln!("{WORD}");
}
