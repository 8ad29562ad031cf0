//! A process of a container as containerd sees it: made, started, ended.

use std::time::SystemTime;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::ShimError;
use crate::stdio::{Held, Paths};
use crate::terminal::Terminal;

/// Exit code of what was never started.
const NEVER: i32 = 128 + 9;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// As a shell has it.
    pub(crate) code: u32,
    /// When it was noticed.
    pub(crate) at: SystemTime,
}

/// Where it is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    Starting,
    Running,
    Stopped,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "being started",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// The first process of a container, or one that was executed beside it.
pub(crate) struct Process {
    /// As containerd names it; empty for the first.
    pub(crate) exec_id: String,
    /// Its streams.
    pub(crate) paths: Paths,
    /// What it is, as in a spec; of the first, the bundle has it.
    pub(crate) spec: Vec<u8>,
    life: Mutex<Life>,
    ended: Condvar,
}

struct Life {
    phase: Phase,
    pid: i32,
    /// Its pid in the container; 0 for the first.
    inside: u32,
    exit: Option<Exit>,
    held: Held,
    terminal: Option<Terminal>,
}

/// What a process has once it is made.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) pid: i32,
    pub(crate) inside: u32,
    pub(crate) held: Held,
    pub(crate) terminal: Option<Terminal>,
}

impl Process {
    pub(crate) fn new(exec_id: String, paths: Paths, spec: Vec<u8>, made: Made) -> Self {
        let Made { pid, inside, held, terminal } = made;
        let life = Life { phase: Phase::Created, pid, inside, exit: None, held, terminal };
        Self { exec_id, paths, spec, life: Mutex::new(life), ended: Condvar::new() }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.life.lock().phase
    }

    /// The pid on the host that stands for it; 0 before there is one.
    pub(crate) fn pid(&self) -> u32 {
        u32::try_from(self.life.lock().pid).unwrap_or(0)
    }

    /// Its pid in the container; 0 when it is the first.
    pub(crate) fn inside(&self) -> u32 {
        self.life.lock().inside
    }

    /// How it ended, once it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        let life = self.life.lock();
        life.exit.filter(|_| life.phase == Phase::Stopped)
    }

    /// Nobody else may start it from now on.
    pub(crate) fn begin(&self, name: &str) -> Result<(), ShimError> {
        let mut life = self.life.lock();
        match life.phase {
            Phase::Created => life.phase = Phase::Starting,
            phase => {
                let id = name.to_owned();
                return Err(ShimError::WrongState { id, state: phase.name(), operation: "start" });
            }
        }
        Ok(())
    }

    /// It has been made; what it holds is kept for it.
    pub(crate) fn made(&self, made: Made) {
        let mut life = self.life.lock();
        (life.pid, life.inside, life.held, life.terminal) = (made.pid, made.inside, made.held, made.terminal);
    }

    /// It has started, or has not. `tell` runs when it has, before anybody is told that it has ended.
    pub(crate) fn started(&self, good: bool, tell: impl FnOnce(u32), end: impl FnOnce(u32, Exit)) {
        let mut life = self.life.lock();
        life.phase = if good { Phase::Running } else { Phase::Created };
        if good {
            tell(u32::try_from(life.pid).unwrap_or(0));
        }
        self.settle(life, end);
    }

    /// It has ended. `end` runs when it is known to have started, now or later.
    pub(crate) fn ends(&self, code: i32, end: impl FnOnce(u32, Exit)) {
        let mut life = self.life.lock();
        let code = u32::try_from(code).unwrap_or(u32::MAX);
        life.exit.get_or_insert(Exit { code, at: SystemTime::now() });
        if life.phase != Phase::Starting {
            self.settle(life, end);
        }
    }

    /// Makes what is known of its end true for all.
    fn settle(&self, mut life: MutexGuard<'_, Life>, end: impl FnOnce(u32, Exit)) {
        let Some(exit) = life.exit.filter(|_| life.phase != Phase::Stopped) else { return };
        life.phase = Phase::Stopped;
        // Whoever reads its output sees the end of it.
        life.held = Held::default();
        end(u32::try_from(life.pid).unwrap_or(0), exit);
        self.ended.notify_all();
    }

    /// It will never be started.
    pub(crate) fn give_up(&self) {
        self.ends(NEVER, |_, _| {});
    }

    /// Waits for its end.
    pub(crate) fn wait(&self) -> Exit {
        let mut life = self.life.lock();
        loop {
            match life.exit {
                Some(exit) if life.phase == Phase::Stopped => return exit,
                _ => self.ended.wait(&mut life),
            }
        }
    }

    /// Ends its input.
    pub(crate) fn close_input(&self) {
        self.life.lock().held.stdin = None;
    }

    /// Changes the size of its terminal. Nothing when it has none any more.
    pub(crate) fn resize(&self, width: u16, height: u16) -> Result<(), ShimError> {
        match &self.life.lock().terminal {
            Some(terminal) => terminal.resize(width, height),
            None => Ok(()),
        }
    }

    /// Lets go of its streams.
    pub(crate) fn release(&self) {
        let mut life = self.life.lock();
        life.held = Held::default();
        life.terminal = None;
    }
}

#[cfg(test)]
mod tests {
    use super::{Made, Paths, Phase, Process};
    use std::cell::RefCell;

    #[test]
    fn an_end_is_told_after_the_start() {
        let process = Process::new("x".into(), Paths::default(), Vec::new(), Made::default());
        let told = RefCell::new(Vec::new());
        process.begin("x").expect("new");
        assert!(process.begin("x").is_err());
        process.ends(5, |_, _| told.borrow_mut().push("early"));
        assert_eq!((process.phase(), process.exit()), (Phase::Starting, None));
        process.started(true, |_| told.borrow_mut().push("start"), |_, _| told.borrow_mut().push("end"));
        assert_eq!((process.wait().code, told.take()), (5, vec!["start", "end"]));
        process.ends(6, |_, _| told.borrow_mut().push("again"));
        assert_eq!((process.wait().code, told.take().len()), (5, 0));
    }

    #[test]
    fn what_does_not_start_can_be_started_again() {
        let process = Process::new("x".into(), Paths::default(), Vec::new(), Made::default());
        process.begin("x").expect("new");
        process.started(false, |_| unreachable!("it has not"), |_, _| unreachable!("it has not"));
        process.begin("x").expect("still new");
        process.started(false, |_| (), |_, _| ());
        process.give_up();
        assert_eq!(process.wait().code, 137);
    }
}
