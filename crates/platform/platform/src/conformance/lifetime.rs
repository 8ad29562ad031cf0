//! Guests end with the platform, and with the program it is in, whatever they are doing.
//!
//! For backends whose guests are processes of the host: these look for them there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::kit::{LIMIT, eventually, space_with, thread};
use crate::{GuestThread, HostExit, NewThread, Platform, Resume, ThreadHandle, Trap, TrapHandler};

/// Set for the program that is to be killed.
const VICTIM: &str = "RAMPART_TEST_VICTIM";
/// What it says.
const WORD: &str = "two guests run";

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
fn start_two(platform: &dyn Platform) -> Receiver<HostExit> {
    // syscall; jmp $
    let space = space_with(platform, b"\x0f\x05\xeb\xfe");
    let ((started, starts), (ended, ends)) = (channel(), channel());
    platform.spawn(&space, thread(Arc::new(Forks { started, ended }))).expect("started");
    // Two starts, and the end of the fork.
    for _ in 0..3 {
        starts.recv_timeout(LIMIT).expect("both guests start");
    }
    ends
}

/// Guests end when nobody has their platform any more.
pub fn dropping_ends_guests(platform: impl Platform) {
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

/// Guests end when their Sentry is killed. `test` is the name of the test that calls [`victim`], and `processes`
/// how many the host has for two guests.
pub fn guests_die_with_their_sentry(test: &str, processes: usize) {
    let mut victim = Command::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", test, "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the victim starts");
    let mut lines = BufReader::new(victim.stdout.take().expect("a pipe")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains(WORD))), "the victim says no word");
    let orphans = children(victim.id());
    assert_eq!(orphans.len(), processes, "{orphans:?}");
    victim.kill().expect("killed");
    victim.wait().expect("reaped");
    let is_over = |pid: &u32| stat(*pid).is_none_or(|(_, state)| matches!(state, 'Z' | 'X'));
    eventually("guests end with their Sentry", || {
        std::thread::sleep(Duration::from_millis(1));
        orphans.iter().all(is_over)
    });
}

/// The program that [`guests_die_with_their_sentry`] kills; does nothing where it was not started by that.
#[allow(clippy::print_stdout)]
pub fn victim<P: Platform>(new: impl FnOnce() -> P) {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let platform = new();
    let ends = start_two(&platform);
    println!("{WORD}");
    let _ = ends.recv_timeout(LIMIT);
}
