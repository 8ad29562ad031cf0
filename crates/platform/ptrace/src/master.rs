//! The master: a traced process with nothing in it, of which all guest processes are clones.
//!
//! It is cloned from the Sentry once, before the Sentry locks itself in, so that guests neither carry the
//! Sentry's filter nor a copy of its memory, and can be made while the Sentry has many threads. Its tracer, the
//! *guardian*, makes it let go of everything that was the Sentry's, by injected calls, and clones it on demand.
//!
//! The guardian has a table of descriptors of its own, which it shares with all guest processes. A file that a
//! guest is to map is sent to it; the number it gets there is the guest's too. Nothing a guest calls by itself
//! takes a descriptor, and only the guardian's socket and such files are in the table.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::mpsc::channel;

use bpf::Program;
use hostproc::{Vdso, memory, rseq};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use parking_lot::Mutex;
use platform::PlatformError;

use crate::fpstate::Facts;
use crate::layout::{CLONE_FORK, CODE, GATE, PAGE, STUB, USER_END};
use crate::raw::launch::Perch;
use crate::raw::sys;
use crate::tracee::{Gone, Tracee};

/// Where the master's calls find their data, while it is set up.
const SCRATCH: u64 = 0x1000_0000;
const SCRATCH_LEN: u64 = 2 * PAGE;
const ZEROS: u64 = SCRATCH + 64;
const CAP_HEADER: u64 = SCRATCH + 128;
const NAME: u64 = SCRATCH + 160;
const FPROG: u64 = SCRATCH + 192;
const FILTER: u64 = SCRATCH + 256;

/// Requests to the guardian.
const CLONE: u8 = 1;
const TAKE: u8 = 2;
const CLOSE: u8 = 3;

fn host(doing: &'static str) -> impl Fn(std::io::Error) -> PlatformError {
    move |source| PlatformError::Host { doing, source }
}

/// The way to the guardian, and with it to the master. When this is dropped they end.
pub(crate) struct Master {
    socket: Mutex<Option<OwnedFd>>,
    pub(crate) facts: Facts,
}

impl Master {
    /// Starts guardian and master.
    pub(crate) fn start(filter: &Program, vdso: Option<&Vdso>) -> Result<Self, PlatformError> {
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = pair.map_err(|e| host("making the guardian's socket")(e.into()))?;
        let number = theirs.as_raw_fd();
        let (tell, told) = channel();
        let (filter, vdso) = (filter.clone(), vdso.cloned());
        let guard = move || {
            let tracee = sys::own_table(number)
                .map_err(host("giving the guardian its own descriptors"))
                .and_then(|()| launch(&filter, vdso.as_ref()));
            match tracee {
                Ok((tracee, facts)) => {
                    let _ = tell.send(Ok(facts));
                    drop(tell);
                    serve(number, tracee);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        };
        std::thread::Builder::new()
            .name("ptrace-guard".into())
            .stack_size(256 << 10)
            .spawn(guard)
            .map_err(host("starting the guardian"))?;
        let facts = told.recv().map_err(|_| PlatformError::Gone)??;
        // The guardian has its own copy, so that it sees when ours goes.
        drop(theirs);
        Ok(Self { socket: Mutex::new(Some(ours)), facts })
    }

    fn ask(&self, request: u8, number: RawFd, fd: Option<RawFd>) -> Result<i32, PlatformError> {
        let socket = self.socket.lock();
        let socket = socket.as_ref().ok_or(PlatformError::Gone)?.as_raw_fd();
        let mut answer = [0; 4];
        send(socket, request, number, fd)
            .and_then(|()| {
                loop {
                    match nix::sys::socket::recv(socket, &mut answer, MsgFlags::empty()) {
                        Err(nix::Error::EINTR) => {}
                        other => break other,
                    }
                }
            })
            .map_err(|e| host("asking the guardian")(e.into()))?;
        let answer = i32::from_ne_bytes(answer);
        if answer >= 0 { Ok(answer) } else { Err(PlatformError::Exhausted("host processes")) }
    }

    /// Makes a process that waits parked in an address space with nothing but the stub and the vDSO.
    pub(crate) fn new_process(&self) -> Result<i32, PlatformError> {
        self.ask(CLONE, 0, None)
    }

    /// Gives guests a descriptor; its number among theirs.
    pub(crate) fn give(&self, fd: BorrowedFd<'_>) -> Result<i32, PlatformError> {
        self.ask(TAKE, 0, Some(fd.as_raw_fd()))
    }

    /// Takes it from them again.
    pub(crate) fn take_back(&self, number: i32) {
        if let Some(socket) = self.socket.lock().as_ref() {
            let _ = send(socket.as_raw_fd(), CLOSE, number, None);
        }
    }

    /// Ends guardian and master.
    pub(crate) fn close(&self) {
        self.socket.lock().take();
    }
}

fn send(socket: RawFd, request: u8, number: RawFd, fd: Option<RawFd>) -> nix::Result<()> {
    let [a, b, c, d] = number.to_ne_bytes();
    let message = [request, a, b, c, d];
    let rights: Vec<RawFd> = fd.into_iter().collect();
    let control = [ControlMessage::ScmRights(&rights)];
    let control = if rights.is_empty() { &control[..0] } else { &control[..] };
    sendmsg::<()>(socket, &[std::io::IoSlice::new(&message)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// The guardian's life.
fn serve(socket: RawFd, mut master: Tracee) {
    loop {
        let mut message = [0; 5];
        let mut space = nix::cmsg_space!(RawFd);
        let mut iov = [std::io::IoSliceMut::new(&mut message)];
        let (len, fd) = match recvmsg::<()>(socket, &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Ok(received) => {
                let fd = received.cmsgs().ok().and_then(|mut all| match all.next() {
                    Some(ControlMessageOwned::ScmRights(fds)) => fds.first().copied(),
                    _ => None,
                });
                (received.bytes, fd)
            }
            Err(nix::Error::EINTR) => continue,
            Err(_) => break,
        };
        let [request, a, b, c, d] = message;
        if len != 5 {
            break;
        }
        let answer = match request {
            CLONE => master
                .call_at_gate([libc::SYS_clone as u64, CLONE_FORK, 0, 0, 0, 0, 0])
                .map_or(-1, |r| r as i32),
            TAKE => fd.unwrap_or(-1),
            CLOSE => {
                let _ = nix::unistd::close(i32::from_ne_bytes([a, b, c, d]));
                continue;
            }
            _ => break,
        };
        let answer = answer.to_ne_bytes();
        if nix::sys::socket::send(socket, &answer, MsgFlags::MSG_NOSIGNAL).is_err() {
            break;
        }
    }
    sys::kill(master.tgid);
    while sys::wait(master.tid).is_some_and(|status| matches!(status, sys::Status::Stopped(_))) {}
    sys::reap(master.tid);
}

/// Clones the Sentry and makes the clone a master.
fn launch(filter: &Program, vdso: Option<&Vdso>) -> Result<(Tracee, Facts), PlatformError> {
    let unsupported = |reason: String| PlatformError::Unsupported { platform: "ptrace", reason };
    let perch = Perch::new().map_err(host("mapping the master's first page"))?;
    if perch.address().abs_diff(STUB) < PAGE || perch.address().abs_diff(SCRATCH) < SCRATCH_LEN {
        return Err(PlatformError::Exhausted("memory"));
    }
    let pid = perch.launch().map_err(host("cloning the master"))?;
    let set_up = || {
        let mut master = Tracee::seize(pid, pid).map_err(|error| {
            unsupported(format!("a child cannot be traced (ptrace_scope, or a filter of ours?): {error}"))
        })?;
        (master.gate, master.filtered) = (perch.address() + GATE, false);
        let facts = Facts::of(pid)
            .ok_or_else(|| unsupported("the processor's state has no XSAVE area".to_owned()))?;
        SetUp { master: &mut master, filter, vdso }.run().map_err(unsupported)?;
        Ok((master, facts))
    };
    set_up().inspect_err(|_| {
        sys::kill(pid);
        while matches!(sys::wait(pid), Some(sys::Status::Stopped(_))) {}
        sys::reap(pid);
    })
}

/// What the master is made to do once.
struct SetUp<'a> {
    master: &'a mut Tracee,
    filter: &'a Program,
    vdso: Option<&'a Vdso>,
}

impl SetUp<'_> {
    fn run(mut self) -> Result<(), String> {
        let gone = |_| "it did not survive".to_owned();
        sys::unblock_signals(self.master.tid).map_err(|e| format!("its signal mask: {e}"))?;
        self.place_stub()?;
        self.write_data()?;
        for len in rseq::lengths() {
            self.try_call(libc::SYS_rseq, &[rseq::area(), len, rseq::UNREGISTER, rseq::SIGNATURE])
                .map_err(gone)?;
        }
        self.try_call(libc::SYS_setsid, &[]).map_err(gone)?;
        self.call(libc::SYS_prctl, &[libc::PR_SET_NO_NEW_PRIVS as u64, 1])?;
        self.call(libc::SYS_capset, &[CAP_HEADER, ZEROS])?;
        self.call(libc::SYS_prlimit64, &[0, libc::RLIMIT_CORE as u64, ZEROS, 0])?;
        self.try_call(libc::SYS_prctl, &[libc::PR_SET_NAME as u64, NAME]).map_err(gone)?;
        self.drop_memory()?;
        self.call(libc::SYS_seccomp, &[1, 0, FPROG])?; // SECCOMP_SET_MODE_FILTER
        self.master.filtered = true;
        self.call(libc::SYS_munmap, &[SCRATCH, SCRATCH_LEN])?;
        // mseal(2), where the kernel has it: the stub stays what it is whatever a guest does.
        self.try_call(462, &[STUB, PAGE, 0]).map_err(gone)?;
        Ok(())
    }

    fn try_call(&mut self, nr: i64, args: &[u64]) -> Result<i64, Gone> {
        let mut call = [0; 7];
        for (to, from) in call.iter_mut().zip([nr as u64].iter().chain(args)) {
            *to = *from;
        }
        self.master.call_at_gate(call)
    }

    fn call(&mut self, nr: i64, args: &[u64]) -> Result<(), String> {
        match self.try_call(nr, args) {
            Ok(result) if !(-4095..0).contains(&result) => Ok(()),
            Ok(result) => Err(format!("call {nr} in it failed with {result}")),
            Err(Gone) => Err(format!("call {nr} in it killed it")),
        }
    }

    fn map(&mut self, at: u64, len: u64) -> Result<(), String> {
        let flags = (libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        self.call(libc::SYS_mmap, &[at, len, 3, flags, u64::MAX, 0])
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), String> {
        let written = memory::write(self.master.tid, at, bytes);
        if written == bytes.len() { Ok(()) } else { Err("its memory cannot be written".to_owned()) }
    }

    fn place_stub(&mut self) -> Result<(), String> {
        self.map(STUB, PAGE)?;
        self.write(STUB, CODE)?;
        self.call(libc::SYS_mprotect, &[STUB, PAGE, 5])?;
        self.master.gate = STUB + GATE;
        Ok(())
    }

    fn write_data(&mut self) -> Result<(), String> {
        self.map(SCRATCH, SCRATCH_LEN)?;
        let insns = self.filter.insns();
        if insns.len() * 8 > (SCRATCH + SCRATCH_LEN - FILTER) as usize {
            return Err("its filter does not fit".to_owned());
        }
        let word = |insn: &bpf::Insn| {
            u64::from(insn.code)
                | u64::from(insn.jt) << 16
                | u64::from(insn.jf) << 24
                | u64::from(insn.k) << 32
        };
        let filter: Vec<u8> = insns.iter().flat_map(|insn| word(insn).to_le_bytes()).collect();
        self.write(FILTER, &filter)?;
        self.write(FPROG, &(insns.len() as u64).to_le_bytes())?;
        self.write(FPROG + 8, &FILTER.to_le_bytes())?;
        self.write(CAP_HEADER, &0x2008_0522u64.to_le_bytes())?; // version 3, of itself
        self.write(NAME, b"guest\0")
    }

    /// Unmaps all but the stub, the data and the vDSO, which is moved to where guests' kernels know it.
    fn drop_memory(&mut self) -> Result<(), String> {
        let mut kept = vec![(STUB, PAGE), (SCRATCH, SCRATCH_LEN)];
        if let Some(vdso) = self.vdso {
            for (from, to, len) in vdso.moves() {
                let _ = self.try_call(libc::SYS_mremap, &[from, len, len, 3, to]);
            }
            kept.push(vdso.kept());
        }
        kept.sort_unstable();
        let mut from = 0;
        for (at, len) in kept {
            if at > from {
                self.call(libc::SYS_munmap, &[from, at - from])?;
            }
            from = from.max(at + len);
        }
        self.call(libc::SYS_munmap, &[from, USER_END - from])
    }
}
