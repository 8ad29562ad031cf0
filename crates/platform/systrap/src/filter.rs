//! The seccomp filter of guests: the one table of what they reach on the host.
//!
//! Every rule keyed on the stub is safe for *any* registers, as a guest can jump there.

use bpf::{Action, Arg, AsmError, Assembler, Field, Program};
use hostproc::ops::CLONE_THREAD;

use crate::layout::{CLONE_FORK, CLONE_SHARED, DOORBELL, MAILBOX, MAILBOX_LEN, STUB, STUB_LEN, WAIT};

/// What a row demands of the arguments.
#[derive(Clone, Copy)]
enum Check {
    /// Nothing.
    Any,
    /// The first argument lies below the stub.
    BelowStub,
    /// The first two arguments are these.
    FirstTwo(u64, u64),
    /// The first argument is one of these.
    First(&'static [u64]),
    /// The low 7 bits of the second argument are one of these (futex operations).
    FutexOp(&'static [u32]),
    /// The third argument is one of these.
    Third(&'static [u32]),
}

/// Calls a thread may make from the stub, with the reason.
const STUB_CALLS: &[(i64, Check, &str)] = &[
    (libc::SYS_mmap, Check::BelowStub, "memory of its own, or a descriptor the Sentry put there"),
    (libc::SYS_munmap, Check::Any, "its own memory; losing the stub kills only itself"),
    (libc::SYS_mprotect, Check::BelowStub, "its own memory"),
    (libc::SYS_mremap, Check::BelowStub, "its own memory"),
    (
        libc::SYS_madvise,
        Check::Third(&[3, 4, 8, 10, 11, 14, 15, 18, 19, 22, 23]),
        "its own memory; advice without effect on others",
    ),
    (libc::SYS_close, Check::Any, "only descriptors the Sentry placed exist"),
    (
        libc::SYS_clone,
        Check::First(&[CLONE_THREAD, CLONE_FORK, CLONE_SHARED]),
        "exact flags; a thread the Sentry does not expect is killed at its first doorbell",
    ),
    (
        libc::SYS_prctl,
        Check::FirstTwo(libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64),
        "a cloned process dies with the Sentry; nothing else can be set",
    ),
    (libc::SYS_rt_sigreturn, Check::Any, "its own registers; the kernel sanitises them"),
    (libc::SYS_futex, Check::FutexOp(&[1, 10]), "wakes threads that share the word"),
    (libc::SYS_exit, Check::Any, "ends itself; the reaper sees processes go"),
    (libc::SYS_exit_group, Check::Any, "ends itself"),
    (libc::SYS_gettid, Check::Any, "tells nothing new"),
];

/// Calls that enter by SIGSYS, because they need all registers or change mappings: answering them from
/// a notification would cost a second entry.
const TRAPPED: &[i64] = &[
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_shmat,
    libc::SYS_shmdt,
    libc::SYS_rt_sigreturn,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_arch_prctl,
];

/// Futex operations without priority inheritance: only their own memory, at native speed.
const APP_FUTEX: &[u32] = &[0, 1, 3, 4, 5, 9, 10];

/// Calls of [`TRAPPED`] that may be posted all the same: they need no registers, only somebody to act.
pub(crate) const ACTING: &[i64] = &[
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_madvise,
];

/// Calls that are never posted, beside the trapped ones: those the host answers, those that mostly wait, and
/// those that do not return.
const UNPOSTED: &[i64] = &[
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_exit_group,
    libc::SYS_pause,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_restart_syscall,
];

/// The calls that may be posted, a bit each.
pub(crate) const POSTABLE: [u64; 8] = postable();

const fn postable() -> [u64; 8] {
    let mut map = [u64::MAX; 8];
    let lists = [TRAPPED, UNPOSTED];
    let mut list = 0;
    while list < lists.len() {
        let mut i = 0;
        while i < lists[list].len() {
            let nr = lists[list][i] as usize;
            map[nr / 64] &= !(1 << (nr % 64));
            i += 1;
        }
        list += 1;
    }
    let mut i = 0;
    while i < ACTING.len() {
        let nr = ACTING[i] as usize;
        map[nr / 64] |= 1 << (nr % 64);
        i += 1;
    }
    map
}

/// Whether call `nr` may be posted.
pub(crate) fn is_postable(nr: u64) -> bool {
    POSTABLE.get((nr / 64) as usize).is_some_and(|word| word >> (nr % 64) & 1 != 0)
}

fn row(asm: &mut Assembler, nr: i64, check: Check) {
    let (allow, next, deny) = (asm.label(), asm.label(), asm.label());
    asm.load_nr();
    asm.jeq(nr as u32, bpf::Target::Next, next);
    match check {
        Check::Any => {}
        Check::BelowStub => asm.if_ge(Field::Arg(Arg::A0), STUB, deny, allow),
        Check::FirstTwo(first, second) => {
            asm.if_eq(Field::Arg(Arg::A0), first, bpf::Target::Next, deny);
            asm.if_eq(Field::Arg(Arg::A1), second, allow, deny);
        }
        Check::First(values) => {
            for value in values {
                asm.if_eq(Field::Arg(Arg::A0), *value, allow, bpf::Target::Next);
            }
            asm.jump(deny);
        }
        Check::FutexOp(ops) => {
            asm.load_low(Field::Arg(Arg::A1));
            asm.alu(bpf::insn::AND, 0x7f);
            for op in ops {
                asm.jeq(*op, allow, bpf::Target::Next);
            }
            asm.jump(deny);
        }
        Check::Third(values) => {
            asm.load_low(Field::Arg(Arg::A2));
            for value in values {
                asm.jeq(*value, allow, bpf::Target::Next);
            }
            asm.jump(deny);
        }
    }
    asm.bind(allow);
    asm.ret(Action::Allow);
    asm.bind(deny);
    asm.ret(Action::KillProcess);
    asm.bind(next);
}

/// Assembles it.
pub(crate) fn build() -> Result<Program, AsmError> {
    let mut asm = Assembler::new();
    let [good, stub, app, own, trap, other] = std::array::from_fn(|_| asm.label());
    asm.load_arch();
    asm.jeq(bpf::SeccompData::ARCH_X86_64, good, bpf::Target::Next);
    asm.ret(Action::KillProcess);
    asm.bind(good);
    asm.if_in_range(Field::Ip, STUB..STUB + STUB_LEN, stub, app);
    asm.bind(stub);
    let not_bell = asm.label();
    asm.load_nr();
    let bell = asm.label();
    asm.jeq(DOORBELL, bell, bpf::Target::Next);
    asm.jeq(WAIT, bpf::Target::Next, not_bell);
    asm.bind(bell);
    asm.ret(Action::UserNotif);
    asm.bind(not_bell);
    // A forked child maps its own mailbox and keeps it from its children: exactly these two calls.
    for (nr, third) in [(libc::SYS_mmap, 3), (libc::SYS_madvise, 10)] {
        let skip = asm.label();
        asm.load_nr();
        asm.jeq(nr as u32, bpf::Target::Next, skip);
        asm.if_eq(Field::Arg(Arg::A0), MAILBOX, bpf::Target::Next, skip);
        asm.if_eq(Field::Arg(Arg::A1), MAILBOX_LEN, bpf::Target::Next, skip);
        asm.if_eq(Field::Arg(Arg::A2), third, bpf::Target::Next, skip);
        asm.ret(Action::Allow);
        asm.bind(skip);
    }
    for (nr, check, _reason) in STUB_CALLS {
        row(&mut asm, *nr, *check);
    }
    asm.ret(Action::KillProcess);
    asm.bind(app);
    asm.load_nr();
    asm.jeq(libc::SYS_sched_yield as u32, own, bpf::Target::Next);
    for nr in TRAPPED {
        asm.jeq(*nr as u32, trap, bpf::Target::Next);
    }
    asm.jeq(libc::SYS_futex as u32, bpf::Target::Next, other);
    asm.load_low(Field::Arg(Arg::A1));
    asm.alu(bpf::insn::AND, 0x7f);
    for op in APP_FUTEX {
        asm.jeq(*op, own, bpf::Target::Next);
    }
    asm.bind(other);
    asm.ret(Action::UserNotif);
    asm.bind(trap);
    asm.ret(Action::Trap(0));
    asm.bind(own);
    asm.ret(Action::Allow);
    asm.finish()
}

#[cfg(test)]
mod tests {
    use super::build;

    #[test]
    fn assembles_and_fits() {
        assert!(build().is_ok_and(|p| p.len() < 1000));
    }
}
