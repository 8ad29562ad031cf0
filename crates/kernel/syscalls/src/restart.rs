//! Calls that a signal without a handler only interrupts (`restart_syscall(2)`).

use abi::{Errno, Restart, SysError, SysResult};

use crate::cx::Cx;

/// How to go on.
type Again = Box<dyn for<'a> FnOnce(&mut Cx<'a>) -> SysResult<u64> + Send>;

/// The error of a call that goes on with `again`, unless a handler runs: then it is `EINTR`.
pub(crate) fn later(
    cx: &Cx<'_>,
    again: impl for<'a> FnOnce(&mut Cx<'a>) -> SysResult<u64> + Send + 'static,
) -> SysError {
    let again: Again = Box::new(again);
    cx.task.set_restart(Box::new(again));
    SysError::Restart(Restart::Block)
}

/// `restart_syscall(2)`: `EINTR` when there is nothing to go on with.
pub(crate) fn restart_syscall(cx: &mut Cx<'_>) -> SysResult<u64> {
    let again = cx.task.take_restart().and_then(|how| how.downcast::<Again>().ok());
    match again {
        Some(again) => (*again)(cx),
        None => Err(Errno::EINTR.into()),
    }
}
