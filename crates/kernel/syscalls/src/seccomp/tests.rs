//! Filters of one guest.

use std::sync::Arc;

use abi::Errno;
use abi::raw::prctl::{PR_GET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP};
use abi::signal::{SigAction, Signal};
use abi::syscall as nr;
use bpf::insn::{ABS, IMM, JEQ, JMP, K, LD, RET};
use bpf::{Action, Insn};
use cred::Credentials;
use platform::Resume;

use crate::testkit::{DATA, Guest};

/// `A = nr; if A == call return action; return ALLOW`, at its place in the guest: a `sock_fprog`.
fn filter(guest: &Guest, call: u32, action: Action) -> u64 {
    let insns = [
        Insn::stmt(LD | ABS, 0),
        Insn::jump(JMP | JEQ | K, call, 0, 1),
        Insn::stmt(RET | K, action.to_raw()),
        Insn::stmt(RET | K, Action::Allow.to_raw()),
    ];
    program(guest, &insns)
}

fn program(guest: &Guest, insns: &[Insn]) -> u64 {
    let bytes: Vec<u8> = insns
        .iter()
        .flat_map(|i| [&i.code.to_ne_bytes()[..], &[i.jt, i.jf], &i.k.to_ne_bytes()].concat())
        .collect();
    guest.put(DATA + 4096, &bytes);
    guest.put(DATA + 8, &(DATA + 4096).to_le_bytes());
    guest.put(DATA, &(insns.len() as u64).to_le_bytes())
}

fn add(guest: &mut Guest, call: u32, action: Action) -> Result<u64, Errno> {
    let at = filter(guest, call, action);
    guest.call(nr::seccomp, [1, 0, at])
}

#[test]
fn the_harshest_filter_decides_and_of_equals_the_newest() {
    let mut guest = Guest::new();
    assert_eq!(add(&mut guest, nr::getppid, Action::Errno(13)), Ok(0));
    assert_eq!(guest.call(nr::getppid, []), Err(Errno::EACCES));
    assert_eq!(guest.call(nr::getpid, []), Ok(1));
    assert_eq!(add(&mut guest, nr::getppid, Action::Errno(0)), Ok(0));
    assert_eq!(guest.call(nr::getppid, []), Ok(0));
    assert_eq!(add(&mut guest, nr::getppid, Action::Trace(0)), Ok(0));
    assert_eq!(guest.call(nr::getppid, []), Ok(0));
    assert_eq!(add(&mut guest, nr::getpid, Action::UserNotif), Ok(0));
    assert_eq!(guest.call(nr::getpid, []), Err(Errno::ENOSYS));
    assert_eq!(guest.task.seccomp_filters(), 4);
    assert_eq!(guest.call(nr::prctl, [u64::from(PR_GET_SECCOMP)]), Ok(2));
}

#[test]
fn a_filter_is_inherited_and_cannot_be_left() {
    let mut guest = Guest::new();
    assert_eq!(add(&mut guest, nr::getppid, Action::Errno(13)), Ok(0));
    assert_eq!(guest.call(nr::fork, []), Ok(2));
    let child = guest.kernel.task(2).expect("a child");
    assert_eq!(child.seccomp_filters(), 1);
    assert_eq!(guest.call(nr::seccomp, [0, 0, 0]), Err(Errno::EINVAL));
}

#[test]
fn a_trapped_call_becomes_a_signal() {
    let mut guest = Guest::new();
    let handler = SigAction { handler: 0x5000, flags: 0x0400_0004, ..SigAction::default() };
    guest.task.sigaction(Signal::SIGSYS, Some(handler)).expect("may be handled");
    assert_eq!(add(&mut guest, nr::getppid, Action::Trap(77)), Ok(0));
    assert_eq!(guest.thread.call(nr::getppid.into(), [0; 6]), Resume::Continue);
    let r = guest.thread.registers;
    assert_eq!((r.rip, r.rdi), (0x5000, 31));
    // signo, errno, code; then address, number and architecture.
    let info = guest.bytes(r.rsi, 32);
    assert_eq!(info[..12], [31, 0, 0, 0, 77, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(info[24..], [110, 0, 0, 0, 0x3e, 0, 0, 0xc0]);
}

#[test]
fn killed_calls_end_the_process() {
    for action in [Action::KillProcess, Action::KillThread, Action::Trap(0)] {
        let mut guest = Guest::new();
        assert_eq!(add(&mut guest, nr::getppid, action), Ok(0));
        assert_eq!(guest.thread.call(nr::getppid.into(), [0; 6]), Resume::ExitProcess);
        assert_eq!(guest.task.group().ended().map(|status| status.word()), Some(31));
    }
    let mut guest = Guest::new();
    assert_eq!(guest.call(nr::prctl, [u64::from(PR_SET_SECCOMP), 1]), Ok(0));
    assert_eq!(guest.call(nr::read, [9, 0, 0]), Err(Errno::EBADF));
    assert_eq!(guest.thread.call(nr::getpid.into(), [0; 6]), Resume::ExitProcess);
    assert_eq!(guest.task.group().ended().map(|status| status.word()), Some(9));
}

#[test]
fn threads_are_synchronised_unless_they_went_their_own_way() {
    let mut guest = Guest::new();
    let thread = 0x0001_0900;
    assert_eq!(guest.call(nr::clone, [thread, 0x6000_0000]), Ok(2));
    let other = guest.kernel.task(2).expect("a thread");
    let at = filter(&guest, nr::getppid, Action::Errno(1));
    assert_eq!(guest.call(nr::seccomp, [1, 1, at]), Ok(0));
    assert_eq!(other.seccomp_filters(), 1);
    // The other thread adds one that we have not.
    let mut theirs = guest.thread.children.pop().expect("a thread");
    assert_eq!(theirs.call(nr::seccomp.into(), [1, 0, at, 0, 0, 0]), Resume::Return(0));
    assert_eq!(guest.call(nr::seccomp, [1, 1, at]), Ok(2));
    assert_eq!(guest.call(nr::seccomp, [1, 17, at]), Err(Errno::ESRCH));
    assert_eq!(guest.call(nr::seccomp, [1, 0, at]), Ok(0));
}

#[test]
fn what_is_no_filter_is_refused() {
    let mut guest = Guest::new();
    let at = program(&guest, &[Insn::stmt(LD | IMM, 0)]);
    assert_eq!(guest.call(nr::seccomp, [1, 0, at]), Err(Errno::EINVAL));
    let at = program(&guest, &[]);
    assert_eq!(guest.call(nr::seccomp, [1, 0, at]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::seccomp, [1, 0, 0]), Err(Errno::EFAULT));
    assert_eq!(guest.call(nr::seccomp, [1, 8, at]), Err(Errno::EINVAL));
    assert_eq!(guest.call(nr::seccomp, [3, 0, at]), Err(Errno::EINVAL));
    guest.put(DATA, &Action::Errno(0).to_raw().to_le_bytes());
    assert_eq!(guest.call(nr::seccomp, [2, 0, DATA]), Ok(0));
    guest.put(DATA, &Action::UserNotif.to_raw().to_le_bytes());
    assert_eq!(guest.call(nr::seccomp, [2, 0, DATA]), Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_user_first_gives_up_privileges() {
    let mut guest = Guest::new();
    guest.task.set_cred(Arc::new(Credentials::user(7, 7)));
    assert_eq!(add(&mut guest, nr::getppid, Action::Errno(1)), Err(Errno::EACCES));
    assert_eq!(guest.call(nr::prctl, [u64::from(PR_SET_NO_NEW_PRIVS), 1]), Ok(0));
    assert_eq!(add(&mut guest, nr::getppid, Action::Errno(1)), Ok(0));
}

#[test]
fn a_path_of_filters_has_an_end() {
    let mut guest = Guest::new();
    let mut insns = vec![Insn::stmt(LD | IMM, 0); 4095];
    insns.push(Insn::stmt(RET | K, Action::Allow.to_raw()));
    let at = program(&guest, &insns);
    for _ in 0..7 {
        assert_eq!(guest.call(nr::seccomp, [1, 0, at]), Ok(0));
    }
    assert_eq!(guest.call(nr::seccomp, [1, 0, at]), Err(Errno::ENOMEM));
}
