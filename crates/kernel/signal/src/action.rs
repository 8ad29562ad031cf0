//! What a thread group does about each signal (`sigaction(2)`, `signal(7)`).

use abi::signal::{SigAction, SigSet, Signal};

/// `SIG_DFL`.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`.
pub const SIG_IGN: u64 = 1;
/// `SA_NOCLDSTOP`: no `SIGCHLD` when children stop.
pub const SA_NOCLDSTOP: u64 = 1;
/// `SA_NOCLDWAIT`: children leave no zombies.
pub const SA_NOCLDWAIT: u64 = 2;
/// `SA_SIGINFO`.
pub const SA_SIGINFO: u64 = 4;
/// `SA_RESTORER`: `restorer` holds an address.
pub const SA_RESTORER: u64 = 0x0400_0000;
/// `SA_ONSTACK`: run on the alternate stack.
pub const SA_ONSTACK: u64 = 0x0800_0000;
/// `SA_RESTART`: restart interrupted calls.
pub const SA_RESTART: u64 = 0x1000_0000;
/// `SA_NODEFER`: do not block the signal while it is handled.
pub const SA_NODEFER: u64 = 0x4000_0000;
/// `SA_RESETHAND`: one shot.
pub const SA_RESETHAND: u64 = 0x8000_0000;

/// The stop signals.
pub const STOPS: SigSet =
    SigSet::of(Signal::SIGSTOP).with(Signal::SIGTSTP).with(Signal::SIGTTIN).with(Signal::SIGTTOU);

/// What happens by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// The process ends.
    Terminate,
    /// The process ends and dumps core.
    Core,
    /// The process stops.
    Stop,
    /// The process goes on when it was stopped.
    Continue,
    /// Nothing.
    Ignore,
}

impl Default {
    /// The default action of `signal`.
    pub const fn of(signal: Signal) -> Self {
        match signal {
            Signal::SIGCHLD | Signal::SIGURG | Signal::SIGWINCH => Self::Ignore,
            Signal::SIGCONT => Self::Continue,
            Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => Self::Stop,
            Signal::SIGQUIT
            | Signal::SIGILL
            | Signal::SIGTRAP
            | Signal::SIGABRT
            | Signal::SIGBUS
            | Signal::SIGFPE
            | Signal::SIGSEGV
            | Signal::SIGXCPU
            | Signal::SIGXFSZ
            | Signal::SIGSYS => Self::Core,
            _ => Self::Terminate,
        }
    }
}

/// What is to be done about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The default.
    Default(Default),
    /// Nothing: `SIG_IGN`.
    Ignore,
    /// Run a handler.
    Handler(SigAction),
}

/// The 64 actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actions([SigAction; 64]);

impl core::default::Default for Actions {
    /// All `SIG_DFL`.
    fn default() -> Self {
        Self([SigAction { handler: 0, flags: 0, restorer: 0, mask: SigSet::EMPTY }; 64])
    }
}

impl Actions {
    /// The action of one signal.
    pub fn get(&self, signal: Signal) -> SigAction {
        self.0.get(usize::from(signal.number() - 1)).copied().unwrap_or_default()
    }

    /// Replaces it and returns the old one. The caller refuses `SIGKILL` and `SIGSTOP`.
    pub fn set(&mut self, signal: Signal, mut action: SigAction) -> SigAction {
        action.mask = action.mask.difference(SigSet::UNBLOCKABLE);
        match self.0.get_mut(usize::from(signal.number() - 1)) {
            Some(slot) => core::mem::replace(slot, action),
            None => action,
        }
    }

    /// What is to be done about `signal`.
    pub fn disposition(&self, signal: Signal) -> Disposition {
        let action = self.get(signal);
        match action.handler {
            SIG_DFL => Disposition::Default(Default::of(signal)),
            SIG_IGN => Disposition::Ignore,
            _ => Disposition::Handler(action),
        }
    }

    /// Would it be dropped on arrival (when not blocked)?
    pub fn ignores(&self, signal: Signal) -> bool {
        matches!(self.disposition(signal), Disposition::Ignore | Disposition::Default(Default::Ignore))
    }

    /// Do ended children vanish without a wait?
    pub fn reaps_children(&self) -> bool {
        let action = self.get(Signal::SIGCHLD);
        action.handler == SIG_IGN || action.flags & SA_NOCLDWAIT != 0
    }

    /// After `execve`: caught signals go back to default; ignored ones stay ignored.
    pub fn reset_handlers(&mut self) {
        for slot in &mut self.0 {
            let handler = if slot.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            *slot = SigAction { handler, flags: 0, restorer: 0, mask: SigSet::EMPTY };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_keeps_only_ignored() {
        let mut actions = Actions::default();
        let with = |handler| SigAction { handler, ..SigAction::default() };
        actions.set(Signal::SIGUSR1, with(0x1000));
        actions.set(Signal::SIGHUP, with(SIG_IGN));
        actions.reset_handlers();
        assert_eq!(actions.disposition(Signal::SIGUSR1), Disposition::Default(Default::Terminate));
        assert_eq!(actions.disposition(Signal::SIGHUP), Disposition::Ignore);
        assert!(actions.ignores(Signal::SIGCHLD) && !actions.reaps_children());
    }
}
