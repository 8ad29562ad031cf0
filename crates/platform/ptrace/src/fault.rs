//! What a fault was, as far as a tracer can tell.
//!
//! A signal's record has code and address, but not the processor's trap number and error code, which a signal
//! frame shows. They follow from the rest, but for one thing: whether a page fault was a write. It was, when the
//! page can be read.

use abi::signal::{SigInfo, Signal};
use platform::{Fault, Registers};

use crate::raw::sys;

const SI_KERNEL: i32 = 0x80;
const SEGV_MAPERR: i32 = 1;
const SEGV_PKUERR: i32 = 4;
const FPE_INTDIV: i32 = 1;
const TRAP_TRACE: i32 = 2;
const BUS_ADRALN: i32 = 1;

/// The fault that thread `tid` stopped for. `None` when somebody sent the signal.
pub(crate) fn of(tid: i32, number: i32, registers: &Registers) -> Option<Fault> {
    let signal = Signal::new(number).filter(|signal| {
        matches!(
            *signal,
            Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE | Signal::SIGTRAP
        )
    })?;
    let (code, addr) = sys::signal_info(tid).ok().filter(|(code, _)| *code > 0)?;
    let readable = || hostproc::memory::read(tid, addr, &mut [0]) == 1;
    let (trap_number, error_code) = trap(signal, code, addr, registers.rip, readable);
    let cr2 = if trap_number == 14 { addr } else { 0 };
    Some(Fault { signal, info: SigInfo::fault(signal, code, addr), trap_number, error_code, cr2 })
}

/// Trap number and error code (Intel SDM volume 3, chapter 6).
fn trap(signal: Signal, code: i32, addr: u64, ip: u64, readable: impl FnOnce() -> bool) -> (u64, u64) {
    match (signal, code) {
        (Signal::SIGSEGV, SI_KERNEL) => (13, 0),
        (Signal::SIGBUS, BUS_ADRALN) => (17, 0),
        (Signal::SIGSEGV | Signal::SIGBUS, _) => {
            let mut error = 4;
            if signal == Signal::SIGSEGV && code != SEGV_MAPERR {
                error |= 1;
            }
            if code == SEGV_PKUERR {
                error |= 0x20;
            }
            if addr == ip {
                error |= 0x10;
            } else if readable() {
                error |= 2;
            }
            (14, error)
        }
        (Signal::SIGFPE, FPE_INTDIV) => (0, 0),
        (Signal::SIGFPE, _) => (19, 0),
        (Signal::SIGTRAP, TRAP_TRACE) => (1, 0),
        (Signal::SIGTRAP, _) => (3, 0),
        _ => (6, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::trap;
    use abi::signal::Signal;

    #[test]
    fn error_codes_tell_write_and_fetch() {
        assert_eq!(trap(Signal::SIGSEGV, 1, 0x1000, 5, || false), (14, 4));
        assert_eq!(trap(Signal::SIGSEGV, 2, 0x1000, 5, || true), (14, 7));
        assert_eq!(trap(Signal::SIGSEGV, 2, 5, 5, || true), (14, 0x15));
        assert_eq!(trap(Signal::SIGSEGV, 0x80, 0, 5, || true), (13, 0));
        assert_eq!(trap(Signal::SIGILL, 2, 0, 5, || true), (6, 0));
    }
}
