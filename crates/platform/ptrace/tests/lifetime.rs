//! Guests end with the platform, and with the program it is in, whatever they are doing.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use abi::mm::Prot;
use guestmem::UserAddr;
use memmap::Backing;
use platform::{
    GuestThread, HostExit, MapOp, NewThread, Platform, Registers, Resume, ThreadHandle, Trap, TrapHandler,
};
use platform_ptrace::Ptrace;

const CODE: u64 = 0x40_0000;
const LIMIT: Duration = Duration::from_secs(60);
/// Set for the program that is to be killed.
const VICTIM: &str = "RAMPART_TEST_VICTIM";

/// Forks at the first call; everything else is the guest's own.
#[derive(Clone)]
struct Forks {
    started: Sender<()>,
    ended: Sender<HostExit>,
}

impl TrapHandler for Forks {
    fn started(&self, _handle: Arc<dyn ThreadHandle>) {
        let _ = self.started.send(());
    }

    fn trap(&self, thread: &mut dyn GuestThread, _trap: Trap) -> Resume {
        let registers = thread.registers().expect("registers");
        let handler = Arc::new(self.clone());
        thread.fork(NewThread { registers, fp_state: None, handler, clear_tid: 0 }).expect("forked");
        let _ = self.started.send(());
        Resume::Return(0)
    }

    fn host_exit(&self, exit: HostExit) {
        let _ = self.ended.send(exit);
    }
}

/// Starts a guest and its child, both in an endless loop without a call.
fn start_two(platform: &Ptrace) -> std::sync::mpsc::Receiver<HostExit> {
    let space = platform.new_address_space().expect("a space");
    let map = MapOp::Map {
        addr: UserAddr(CODE),
        len: 4096,
        prot: Prot::READ | Prot::WRITE | Prot::EXEC,
        backing: Backing::Anonymous,
        shared: false,
        no_reserve: false,
        populate: false,
    };
    space.apply(&[map]).expect("mapped");
    // syscall; jmp $
    space.write(UserAddr(CODE), b"\x0f\x05\xeb\xfe").expect("written");
    let ((started, starts), (ended, ends)) = (channel(), channel());
    let registers = Registers::entry(CODE, CODE + 4096);
    let handler = Arc::new(Forks { started, ended });
    let thread = NewThread { registers, fp_state: None, handler, clear_tid: 0 };
    platform.spawn(&space, thread).expect("started");
    // Two starts, and the end of the fork.
    for _ in 0..3 {
        starts.recv_timeout(LIMIT).expect("both guests start");
    }
    ends
}

#[test]
fn dropping_the_platform_ends_its_guests() {
    let platform = Ptrace::new().expect("this machine can run ptrace");
    let ends = start_two(&platform);
    drop(platform);
    for _ in 0..2 {
        assert_eq!(ends.recv_timeout(LIMIT), Ok(HostExit::Requested));
    }
}

/// Parent and state of a process.
fn stat(pid: u32) -> Option<(u32, char)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

fn children(of: u32) -> Vec<u32> {
    let names = std::fs::read_dir("/proc").expect("a proc").flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(parent, _)| parent == of)).collect()
}

#[test]
fn guests_die_with_their_sentry() {
    let mut victim = Command::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the victim starts");
    let mut lines = BufReader::new(victim.stdout.take().expect("a pipe")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("two guests"))), "the victim says no word");
    let orphans = children(victim.id());
    // The master and two guests.
    assert_eq!(orphans.len(), 3, "{orphans:?}");
    victim.kill().expect("killed");
    victim.wait().expect("reaped");
    let began = Instant::now();
    while orphans.iter().any(|pid| stat(*pid).is_some_and(|(_, state)| !matches!(state, 'Z' | 'X'))) {
        assert!(began.elapsed() < LIMIT, "guests outlive their Sentry: {orphans:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The program that [`guests_die_with_their_sentry`] kills; no test by itself.
#[test]
#[allow(clippy::print_stdout)]
fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let platform = Ptrace::new().expect("this machine can run ptrace");
    let ends = start_two(&platform);
    println!("two guests run");
    let _ = ends.recv_timeout(LIMIT);
}
