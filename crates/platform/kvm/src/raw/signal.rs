//! The signal that brings a thread back from its guest.
//!
//! # Soundness
//! The handler does nothing. It is installed once, for a signal that the Sentry uses for nothing else.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Interrupts `KVM_RUN`.
pub(crate) const KICK: i32 = libc::SIGUSR2;

extern "C" fn nothing(_: i32) {}

/// Installs the handler, with which the signal only interrupts.
pub(crate) fn install() -> std::io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler is async-signal-safe: it does nothing.
    unsafe { sigaction(Signal::SIGUSR2, &action) }?;
    Ok(())
}

/// Id of the calling thread.
pub(crate) fn thread_id() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// Sends it to a thread of this process; one that is gone does not get it.
pub(crate) fn kick(tid: i32) {
    let pid = std::process::id();
    // SAFETY: numbers only.
    let _ = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, KICK) };
}
