//! The guest's own filters of system calls (`seccomp(2)`).
//!
//! Filters belong to a task, are inherited over `clone(2)` and kept over `execve(2)`; none is ever taken
//! away. Absent: listeners (`SECCOMP_RET_USER_NOTIF` fails the call with `ENOSYS`, as without one) and
//! tracers. Calls that the backend answers on the host (native futexes, `sched_yield(2)`) are not judged.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use abi::process::WaitStatus;
use abi::signal::{SigInfo, Signal};
use abi::{Errno, SysError, SysResult};
use bpf::{Action, Program, SeccompData};
use cred::Credentials;
use platform::SyscallTrap;
use sync::{Mutex, order};

use crate::task::Task;

/// Most instructions of all filters of a task, each counted with [`FILTER_COST`] more.
const MAX_INSNS_PER_PATH: usize = 32_768;
/// What a filter costs beside its instructions.
const FILTER_COST: usize = 4;
/// Highest error a filter can give.
const MAX_ERRNO: u16 = 4095;
/// `SYS_SECCOMP`: why there was a `SIGSYS`.
const SYS_SECCOMP: i32 = 1;

/// What judges a task's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SeccompMode {
    /// Nothing.
    Disabled = 0,
    /// Only reading, writing, ending and returning from handlers (`SECCOMP_MODE_STRICT`).
    Strict = 1,
    /// Filters.
    Filter = 2,
}

/// Filters, oldest first.
type Filters = Arc<[Arc<Program>]>;

/// Who gets a new filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterScope {
    /// The caller.
    Thread,
    /// All threads of its process (`SECCOMP_FILTER_FLAG_TSYNC`).
    Process,
}

/// Why a filter was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The task is in another mode: `EINVAL`.
    #[error("another mode is set")]
    Mode,
    /// Too many instructions: `ENOMEM`.
    #[error("too many instructions")]
    TooMany,
    /// This thread has filters that the caller has not.
    #[error("thread {0} has other filters")]
    Diverged(i32),
}

impl From<FilterError> for Errno {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::Mode => Self::EINVAL,
            FilterError::TooMany => Self::ENOMEM,
            FilterError::Diverged(_) => Self::ESRCH,
        }
    }
}

/// A task's own state.
pub(crate) struct Seccomp {
    /// Beside the lock, as it is read at every call. Only ever rises from `Disabled`.
    mode: AtomicU8,
    filters: Mutex<order::Leaf, Filters>,
}

impl Default for Seccomp {
    fn default() -> Self {
        Self { mode: AtomicU8::new(0), filters: Mutex::new(Arc::from([])) }
    }
}

impl Seccomp {
    fn mode(&self) -> SeccompMode {
        match self.mode.load(Ordering::SeqCst) {
            0 => SeccompMode::Disabled,
            1 => SeccompMode::Strict,
            _ => SeccompMode::Filter,
        }
    }

    fn filters(&self) -> Filters {
        Arc::clone(&self.filters.lock())
    }

    /// The filters are there before the mode says so.
    fn set(&self, mode: SeccompMode, filters: Filters) {
        let old = std::mem::replace(&mut *self.filters.lock(), filters);
        self.mode.store(mode as u8, Ordering::SeqCst);
        drop(old);
    }

    /// As `other` has it. Called with the process table locked, so that a clone and a filter for all threads
    /// do not miss each other.
    pub(crate) fn copy_from(&self, other: &Self) {
        self.set(other.mode(), other.filters());
    }
}

/// Did a task with `own` filters have no others than the first of `all`?
fn is_older(own: &Filters, all: &Filters) -> bool {
    own.len() <= all.len() && own.iter().zip(all.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
}

impl Task {
    /// What judges its calls (`PR_GET_SECCOMP`).
    pub fn seccomp_mode(&self) -> SeccompMode {
        self.seccomp.mode()
    }

    /// How many filters it has.
    pub fn seccomp_filters(&self) -> usize {
        self.seccomp.filters.lock().len()
    }

    /// `SECCOMP_SET_MODE_STRICT`.
    pub fn set_seccomp_strict(&self) -> Result<(), FilterError> {
        if self.seccomp_mode() == SeccompMode::Filter {
            return Err(FilterError::Mode);
        }
        self.seccomp.set(SeccompMode::Strict, Arc::from([]));
        Ok(())
    }

    /// `SECCOMP_SET_MODE_FILTER`. Whether the task may is the caller's business.
    pub fn add_seccomp_filter(&self, program: Program, scope: FilterScope) -> Result<(), FilterError> {
        if self.seccomp_mode() == SeccompMode::Strict {
            return Err(FilterError::Mode);
        }
        // Held throughout: no thread comes or goes meanwhile.
        let table = self.kernel().table.lock();
        let own = self.seccomp.filters();
        let used: usize = own.iter().map(|filter| filter.len() + FILTER_COST).sum();
        if used + program.len() > MAX_INSNS_PER_PATH {
            return Err(FilterError::TooMany);
        }
        let others = match scope {
            FilterScope::Thread => Vec::new(),
            FilterScope::Process => table.members(self.tgid()),
        };
        let diverged = |task: &Arc<Self>| match task.seccomp_mode() {
            SeccompMode::Disabled => false,
            SeccompMode::Strict => true,
            SeccompMode::Filter => !is_older(&task.seccomp.filters(), &own),
        };
        if let Some(task) = others.iter().find(|task| task.tid() != self.tid() && diverged(task)) {
            return Err(FilterError::Diverged(task.tid()));
        }
        let filters: Filters = own.iter().cloned().chain([Arc::new(program)]).collect();
        self.seccomp.set(SeccompMode::Filter, Arc::clone(&filters));
        let no_new_privs = self.cred().no_new_privs;
        for task in others {
            task.seccomp.set(SeccompMode::Filter, Arc::clone(&filters));
            if no_new_privs {
                let gives_up = |cred: &Credentials| Credentials { no_new_privs: true, ..cred.clone() };
                let _ = task.change_cred(|cred| Ok::<_, Infallible>(gives_up(cred)));
            }
        }
        Ok(())
    }

    /// Judges a call: `Some` is its result, and it is not carried out.
    pub(crate) fn judge(self: &Arc<Self>, call: &SyscallTrap) -> Option<SysResult<u64>> {
        match self.seccomp_mode() {
            SeccompMode::Disabled => None,
            SeccompMode::Strict => {
                // read, write, exit, rt_sigreturn.
                if matches!(call.nr, 0 | 1 | 60 | 15) {
                    return None;
                }
                self.end_by(Signal::SIGKILL);
                Some(Ok(0))
            }
            SeccompMode::Filter => self.filter(call),
        }
    }

    fn filter(self: &Arc<Self>, call: &SyscallTrap) -> Option<SysResult<u64>> {
        let data = SeccompData {
            nr: call.nr as u32,
            arch: SeccompData::ARCH_X86_64,
            instruction_pointer: call.ip,
            args: call.args,
        };
        // The newest first: of equals the first one found counts.
        let filters = self.seccomp.filters();
        let verdicts = filters.iter().rev().map(|filter| Action::from_raw(filter.run(&data)));
        match verdicts.min_by_key(|action| action.precedence())? {
            Action::Allow | Action::Log => None,
            Action::Errno(data) => Some(Ok((-i64::from(data.min(MAX_ERRNO))) as u64)),
            Action::UserNotif | Action::Trace(_) => Some(Err(SysError::Errno(Errno::ENOSYS))),
            Action::Trap(data) => {
                self.trap_call(call, data);
                // As if the call had not been made: the handler finds its number.
                Some(Ok(call.nr))
            }
            Action::KillThread => {
                self.end_by(Signal::SIGSYS);
                Some(Ok(0))
            }
            Action::KillProcess => {
                let status = WaitStatus::Signaled(Signal::SIGSYS, false);
                self.kernel().end_group(self.group(), status);
                Some(Ok(0))
            }
        }
    }

    /// Sends the `SIGSYS` of a call that a filter traps.
    fn trap_call(self: &Arc<Self>, call: &SyscallTrap, data: u16) {
        let mut info = SigInfo::new(Signal::SIGSYS, SYS_SECCOMP);
        info.errno = i32::from(data);
        info.put(0, &call.ip.to_le_bytes());
        info.put(8, &(call.nr as u32).to_le_bytes());
        info.put(12, &SeccompData::ARCH_X86_64.to_le_bytes());
        self.force_signal(Signal::SIGSYS, info);
    }

    /// Ends this thread, and with the last one the process, as if by `signal`.
    fn end_by(self: &Arc<Self>, signal: Signal) {
        let alone = self.kernel().table.lock().members(self.tgid()).len() <= 1;
        if alone {
            self.kernel().end_group(self.group(), WaitStatus::Signaled(signal, false));
        } else {
            self.doomed.store(true, Ordering::SeqCst);
        }
    }
}
