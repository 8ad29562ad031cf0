//! Waits for every child of the shim: those it starts, and those that are left to it.
//!
//! The shim is the subreaper of all that `runsc` starts, so that the Sentry, the Gofer and the processes that stand
//! for guests' become its children when the `runsc` that made them ends. One thread waits for all of them. It reaps
//! under the lock that starting a child takes as well, so that no exit is lost between a child's start and the note
//! of who waits for it.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use parking_lot::{Condvar, Mutex};

/// Added to the number of a signal that ended a process, as shells do.
const SIGNALED: i32 = 128;
/// The greatest number of a signal.
const MAX_SIGNAL: i32 = 64;

/// Told the exit code of a process. Runs on the reaper's thread, so that it must not wait for anything.
type Told = Box<dyn FnOnce(i32) + Send>;

/// The one reaper of this process.
#[derive(Default)]
pub(crate) struct Reaper {
    table: Mutex<Table>,
    /// A child was started.
    started: Condvar,
}

#[derive(Default)]
struct Table {
    waiting: HashMap<i32, Told>,
    /// Exits that nobody waited for, while somebody might yet.
    unclaimed: HashMap<i32, i32>,
    /// How many of these there are.
    expectations: usize,
}

/// As long as it lives, exits of processes are kept whose pid is not known yet.
pub(crate) struct Expectation<'a>(&'a Reaper);

impl Reaper {
    /// Makes it, and starts its thread.
    pub(crate) fn start() -> Arc<Self> {
        let reaper = Arc::new(Self::default());
        let own = reaper.clone();
        std::thread::spawn(move || own.run());
        reaper
    }

    /// Starts a program. Returns it and where its exit code will come.
    pub(crate) fn spawn(&self, command: &mut Command) -> std::io::Result<(Child, Receiver<i32>)> {
        let (told, exit) = channel();
        let mut table = self.table.lock();
        let child = command.spawn()?;
        table.waiting.insert(
            child.id() as i32,
            Box::new(move |code| {
                // Whoever does not wait any more does not want to know.
                let _ = told.send(code);
            }),
        );
        self.started.notify_all();
        Ok((child, exit))
    }

    /// To be had before something is started that will leave a process behind.
    pub(crate) fn expect(&self) -> Expectation<'_> {
        self.table.lock().expectations += 1;
        Expectation(self)
    }

    fn run(&self) {
        loop {
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(status) => {
                    if let Some(pid) = status.pid() {
                        self.reap(pid);
                    }
                }
                Err(Errno::ECHILD) => {
                    let mut table = self.table.lock();
                    // Without children of our own none can be left to us.
                    if waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG)
                        == Err(Errno::ECHILD)
                    {
                        self.started.wait(&mut table);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => self.reap_by_name(),
            }
        }
    }

    /// Reaps what was ended by a real-time signal, of which `nix` has no status to give: it fails, and does not say
    /// which process it was.
    fn reap_by_name(&self) {
        let mut table = self.table.lock();
        let odd = |pid: Option<Pid>| waitpid(pid, Some(WaitPidFlag::WNOHANG)) == Err(Errno::EINVAL);
        let found = table.waiting.keys().copied().find(|pid| odd(Some(Pid::from_raw(*pid))));
        match found.and_then(|pid| table.waiting.remove(&pid)) {
            Some(told) => told(SIGNALED + MAX_SIGNAL),
            None => drop(odd(None)),
        }
    }

    fn reap(&self, pid: Pid) {
        let mut table = self.table.lock();
        let code = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => code,
            Ok(WaitStatus::Signaled(_, signal, _)) => SIGNALED + signal as i32,
            _ => return,
        };
        match table.waiting.remove(&pid.as_raw()) {
            Some(told) => told(code),
            None if table.expectations > 0 => drop(table.unclaimed.insert(pid.as_raw(), code)),
            None => tracing::debug!(%pid, code, "a process has ended that nobody waits for"),
        }
    }
}

impl Expectation<'_> {
    /// Has `told` be told when a process ends that was left to us, or has ended.
    pub(crate) fn claim(self, pid: i32, told: impl FnOnce(i32) + Send + 'static) {
        let mut table = self.0.table.lock();
        let lives = waitid(
            Id::Pid(Pid::from_raw(pid)),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG,
        )
        .is_ok();
        if lives {
            table.waiting.insert(pid, Box::new(told));
            return;
        }
        // One that was never ours ended in a way that we shall not know.
        let code = table.unclaimed.remove(&pid).unwrap_or(SIGNALED + 9);
        drop(table);
        told(code);
    }
}

impl Drop for Expectation<'_> {
    fn drop(&mut self) {
        let mut table = self.0.table.lock();
        table.expectations -= 1;
        if table.expectations == 0 {
            table.unclaimed.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reaper;
    use std::process::{Command, Stdio};
    use std::sync::mpsc::channel;

    // One test, as there can be only one reaper in a process.
    #[test]
    fn all_exits_are_told() {
        nix::sys::prctl::set_child_subreaper(true).expect("a subreaper");
        let reaper = Reaper::start();
        let (_, exit) = reaper.spawn(Command::new("sh").args(["-c", "exit 7"])).expect("starts");
        assert_eq!(exit.recv(), Ok(7));
        let (_, exit) = reaper.spawn(Command::new("sh").args(["-c", "kill -TERM $$"])).expect("starts");
        assert_eq!(exit.recv(), Ok(143));
        assert!(reaper.spawn(&mut Command::new("/no/such/program")).is_err());
        for early in [true, false] {
            let expectation = reaper.expect();
            let mut shell = Command::new("sh");
            shell.args(["-c", "exec 3<&0; (exec 1>&-; read x <&3; exit 5) & echo $!"]);
            let (mut child, exit) =
                reaper.spawn(shell.stdout(Stdio::piped()).stdin(Stdio::piped())).expect("starts");
            let pid = std::io::read_to_string(child.stdout.take().expect("piped")).expect("a pid");
            let pid = pid.trim().parse().expect("a pid");
            assert_eq!(exit.recv(), Ok(0));
            // It ends with its input, before or after somebody claims it.
            let input = child.stdin.take().filter(|_| !early);
            while early && !reaper.table.lock().unclaimed.contains_key(&pid) {
                std::thread::yield_now();
            }
            let (told, left) = channel();
            expectation.claim(pid, move |code| told.send(code).expect("sent"));
            drop(input);
            assert_eq!(left.recv(), Ok(5), "early: {early}");
        }
    }
}
