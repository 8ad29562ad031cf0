//! What an exception means to a guest's kernel (SDM volume 3, 6.15; `sigaction(2)`).

use abi::signal::{SI_KERNEL, SigInfo, Signal};
use platform::Fault;

use crate::fault::Miss;
use crate::fpstate;

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const ILL_ILLOPN: i32 = 2;
const TRAP_TRACE: i32 = 2;
const FPE_INTDIV: i32 = 1;
const FPE_FLTDIV: i32 = 3;
const FPE_FLTOVF: i32 = 4;
const FPE_FLTUND: i32 = 5;
const FPE_FLTRES: i32 = 6;
const FPE_FLTINV: i32 = 7;

/// Number of the page fault.
pub(crate) const PAGE_FAULT: u64 = 14;
/// Number of the protection fault.
pub(crate) const PROTECTION: u64 = 13;

/// Any but a page fault. `state` is the floating-point state, asked for when it matters.
pub(crate) fn exception(vector: u64, code: u64, ip: u64, state: impl FnOnce() -> Vec<u8>) -> Fault {
    let (signal, si_code, addr) = match vector {
        0 => (Signal::SIGFPE, FPE_INTDIV, ip),
        1 => (Signal::SIGTRAP, TRAP_TRACE, ip),
        3 => (Signal::SIGTRAP, SI_KERNEL, 0),
        6 => (Signal::SIGILL, ILL_ILLOPN, ip),
        11 | 12 => (Signal::SIGBUS, SI_KERNEL, 0),
        16 => (Signal::SIGFPE, x87_code(fpstate::status(&state()).0), ip),
        17 => (Signal::SIGBUS, BUS_ADRALN, 0),
        19 => (Signal::SIGFPE, simd_code(fpstate::status(&state()).1), ip),
        _ => (Signal::SIGSEGV, SI_KERNEL, 0),
    };
    let info = SigInfo::fault(signal, si_code, addr);
    Fault { signal, info, trap_number: vector, error_code: code, cr2: 0 }
}

/// A page fault at `addr` that stays one.
pub(crate) fn page_fault(miss: Miss, code: u64, addr: u64) -> Fault {
    let (signal, si_code) = match miss {
        Miss::Denied => (Signal::SIGSEGV, SEGV_ACCERR),
        Miss::NoFile | Miss::NoMemory => (Signal::SIGBUS, BUS_ADRERR),
        Miss::Unmapped => (Signal::SIGSEGV, SEGV_MAPERR),
    };
    // Present, or not: as it is on a machine of one's own.
    let code = if miss == Miss::Denied { code | 1 } else { code & !1 };
    let info = SigInfo::fault(signal, si_code, addr);
    Fault { signal, info, trap_number: PAGE_FAULT, error_code: code, cr2: addr }
}

/// Unmasked exceptions of the x87 status word.
fn x87_code(status: u16) -> i32 {
    float_code(u32::from(status))
}

/// Unmasked exceptions of `MXCSR`.
fn simd_code(mxcsr: u32) -> i32 {
    float_code(mxcsr & !(mxcsr >> 7) & 0x3f)
}

fn float_code(raised: u32) -> i32 {
    match raised {
        r if r & 1 != 0 => FPE_FLTINV,
        r if r & 4 != 0 => FPE_FLTDIV,
        r if r & 8 != 0 => FPE_FLTOVF,
        r if r & 0x12 != 0 => FPE_FLTUND,
        r if r & 0x20 != 0 => FPE_FLTRES,
        _ => SI_KERNEL,
    }
}

#[cfg(test)]
mod tests {
    use super::{exception, page_fault, simd_code};
    use crate::fault::Miss;
    use abi::signal::Signal;

    #[test]
    fn exceptions_are_signals() {
        let fault = exception(6, 0, 0x1234, Vec::new);
        assert_eq!((fault.signal, fault.info.code, fault.trap_number), (Signal::SIGILL, 2, 6));
        assert_eq!(exception(13, 8, 0, Vec::new).info.code, 0x80);
        let fault = page_fault(Miss::Denied, 6, 0x5000);
        assert_eq!((fault.info.code, fault.error_code, fault.cr2), (2, 7, 0x5000));
        assert_eq!(page_fault(Miss::NoFile, 7, 0x5000).signal, Signal::SIGBUS);
    }

    #[test]
    fn only_unmasked_exceptions_count() {
        assert_eq!(simd_code(0x1f80 | 4 | 0x20), 0x80);
        assert_eq!(simd_code(0x1d80 | 4 | 0x20), 3);
    }
}
