//! Host calls without a safe wrapper that fits.
//!
//! # Soundness
//! Every pointer passed is to a live local of the size the call expects.

use std::io::Error;

use platform::Registers;

use crate::layout::INTERRUPT;

pub(crate) const CONT: u32 = 7;
pub(crate) const SYSCALL: u32 = 24;
pub(crate) const GETREGS: u32 = 12;
pub(crate) const SETREGS: u32 = 13;
pub(crate) const DETACH: u32 = 17;
pub(crate) const GETSIGINFO: u32 = 0x4202;
pub(crate) const GETREGSET: u32 = 0x4204;
pub(crate) const SETREGSET: u32 = 0x4205;
pub(crate) const SEIZE: u32 = 0x4206;
pub(crate) const INTERRUPT_REQUEST: u32 = 0x4207;
const SETSIGMASK: u32 = 0x420b;
const NT_X86_XSTATE: u64 = 0x202;

/// `EXITKILL`, `TRACESYSGOOD`, `TRACESECCOMP`.
const OPTIONS: u64 = 1 << 20 | 1 | 1 << 7;

fn request(request: u32, tid: i32, addr: u64, data: u64) -> Result<(), Error> {
    // SAFETY: callers pass plain numbers, or addresses of live locals of the size the request expects.
    let r = unsafe { libc::syscall(libc::SYS_ptrace, u64::from(request), tid, addr, data) };
    if r < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Becomes the tracer of `tid`, which goes on running. It dies with us.
pub(crate) fn seize(tid: i32) -> Result<(), Error> {
    request(SEIZE, tid, 0, OPTIONS)
}

/// Makes it stop.
pub(crate) fn interrupt(tid: i32) -> Result<(), Error> {
    request(INTERRUPT_REQUEST, tid, 0, 0)
}

/// Lets it run, to the next call that its filter wants seen.
pub(crate) fn go_on(tid: i32) -> Result<(), Error> {
    request(CONT, tid, 0, 0)
}

/// Lets it run to the begin or end of a call.
pub(crate) fn go_to_call(tid: i32) -> Result<(), Error> {
    request(SYSCALL, tid, 0, 0)
}

/// Is its tracer no longer; it goes on running.
pub(crate) fn detach(tid: i32) -> Result<(), Error> {
    request(DETACH, tid, 0, 0)
}

/// Its general registers.
pub(crate) fn registers(tid: i32) -> Result<Registers, Error> {
    let mut registers = Registers::default();
    request(GETREGS, tid, 0, (&raw mut registers).addr() as u64)?;
    Ok(registers)
}

/// Replaces them.
pub(crate) fn set_registers(tid: i32, registers: &Registers) -> Result<(), Error> {
    request(SETREGS, tid, 0, std::ptr::from_ref(registers).addr() as u64)
}

/// Its XSAVE area in the standard form; as many bytes as there are, at most `room`.
pub(crate) fn xstate(tid: i32, room: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0u8; room];
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: room };
    request(GETREGSET, tid, NT_X86_XSTATE, (&raw mut iov).addr() as u64)?;
    bytes.truncate(iov.iov_len);
    Ok(bytes)
}

/// Replaces it.
pub(crate) fn set_xstate(tid: i32, bytes: &[u8]) -> Result<(), Error> {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    request(SETREGSET, tid, NT_X86_XSTATE, (&raw mut iov).addr() as u64)
}

/// Code and address of the signal it stopped for.
pub(crate) fn signal_info(tid: i32) -> Result<(i32, u64), Error> {
    let mut words = [0u64; 16];
    request(GETSIGINFO, tid, 0, (&raw mut words).addr() as u64)?;
    Ok((words[1] as u32 as i32, words[2]))
}

/// Blocks no signal any more.
pub(crate) fn unblock_signals(tid: i32) -> Result<(), Error> {
    let none = 0u64;
    request(SETSIGMASK, tid, 8, (&raw const none).addr() as u64)
}

/// How a thread stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// As its tracer sees it: signal, with 0x80 for a call, and event above it.
    Stopped(i32),
    /// It has ended, by this signal if any. It stays to be reaped.
    Ended(Option<i32>),
}

/// Waits until `tid`, whose tracer or parent is in this process, stops or ends. `None` when it is gone.
pub(crate) fn wait(tid: i32) -> Option<Status> {
    let options = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT | libc::__WALL;
    loop {
        // SAFETY: plain zeroes are a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: a live local.
        let r = unsafe { libc::waitid(libc::P_PID, tid as u32, &raw mut info, options) };
        if r == 0 {
            // SAFETY: the field is valid in this kind of record.
            let status = unsafe { info.si_status() };
            return Some(match info.si_code {
                libc::CLD_EXITED => Status::Ended(None),
                libc::CLD_KILLED | libc::CLD_DUMPED => Status::Ended(Some(status)),
                _ => Status::Stopped(status),
            });
        }
        if Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}

/// Reaps the ended thread or process `tid`, without waiting for its end. Whether it is gone now.
pub(crate) fn reap(tid: i32) -> bool {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(tid, std::ptr::null_mut(), libc::__WALL | libc::WNOHANG) != 0 }
}

/// Makes a running thread stop for a signal.
pub(crate) fn poke(tgid: i32, tid: i32) {
    // SAFETY: plain numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, tgid, tid, INTERRUPT) };
}

/// Ends a process.
pub(crate) fn kill(tgid: i32) {
    if tgid > 0 {
        // SAFETY: plain numbers.
        unsafe { libc::kill(tgid, libc::SIGKILL) };
    }
}

/// Gives the calling thread a table of descriptors of its own, with `kept` only.
pub(crate) fn own_table(kept: i32) -> Result<(), Error> {
    // SAFETY: plain number; only the calling thread's view of descriptors changes from here on.
    if unsafe { libc::unshare(libc::CLONE_FILES) } < 0 {
        return Err(Error::last_os_error());
    }
    let kept = kept as u32;
    for (from, to) in [(0, kept.wrapping_sub(1)), (kept + 1, u32::MAX)] {
        // SAFETY: plain numbers; whoever owns descriptors here owns them in the table left behind.
        if from <= to && unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } < 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}
