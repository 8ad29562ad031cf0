//! The seccomp filter of guests: everything stops for the tracer but what is listed here.
//!
//! A call that stops and has no tracer fails with `ENOSYS`, so a thread between two tracers, or one let go by
//! mistake, reaches nothing beyond these rows either.

use bpf::{Action, Arg, AsmError, Assembler, Field, Program, SeccompData, Target};

use crate::layout::{AFTER_PRCTL, GATE, STUB};

/// Futex operations without priority inheritance: only their own memory, at native speed.
const FUTEX: &[u32] = &[0, 1, 3, 4, 5, 9, 10];

/// Calls a guest makes by itself, with the reason.
const NATIVE: &[(i64, &str)] = &[
    (libc::SYS_sched_yield, "yields"),
    (libc::SYS_restart_syscall, "goes on with a native futex wait that the tracer stopped; else EINTR"),
];

/// Assembles it.
pub(crate) fn build() -> Result<Program, AsmError> {
    let mut asm = Assembler::new();
    let [good, allow, trace, open] = std::array::from_fn(|_| asm.label());
    asm.load_arch();
    asm.jeq(SeccompData::ARCH_X86_64, good, Target::Next);
    asm.ret(Action::KillProcess);
    // Numbers of x32 stop like all others, and the Sentry knows none of them.
    asm.bind(good);
    // What the tracer makes a thread call, it wants to see.
    asm.if_eq(Field::Ip, STUB + GATE + 2, trace, Target::Next);
    // A parked thread dies with the Sentry, where no tracer's end would kill it.
    asm.if_eq(Field::Ip, STUB + AFTER_PRCTL, Target::Next, open);
    asm.load_nr();
    asm.jeq(libc::SYS_prctl as u32, Target::Next, trace);
    asm.if_eq(Field::Arg(Arg::A0), libc::PR_SET_PDEATHSIG as u64, Target::Next, trace);
    asm.if_eq(Field::Arg(Arg::A1), libc::SIGKILL as u64, allow, trace);
    asm.bind(open);
    asm.load_nr();
    for (nr, _reason) in NATIVE {
        asm.jeq(*nr as u32, allow, Target::Next);
    }
    asm.jeq(libc::SYS_futex as u32, Target::Next, trace);
    asm.load_low(Field::Arg(Arg::A1));
    asm.alu(bpf::insn::AND, 0x7f);
    for op in FUTEX {
        asm.jeq(*op, allow, Target::Next);
    }
    asm.bind(trace);
    asm.ret(Action::Trace(0));
    asm.bind(allow);
    asm.ret(Action::Allow);
    asm.finish()
}

#[cfg(test)]
mod tests {
    use super::build;
    use crate::layout::{AFTER_PRCTL, GATE, STUB};
    use bpf::{Action, SeccompData};

    fn verdict(nr: i64, ip: u64, args: [u64; 6]) -> Action {
        let arch = SeccompData::ARCH_X86_64;
        let data = SeccompData { nr: nr as u32, arch, instruction_pointer: ip, args };
        Action::from_raw(build().expect("it assembles").run(&data))
    }

    #[test]
    fn little_is_native() {
        let stub = STUB + AFTER_PRCTL;
        assert_eq!(verdict(libc::SYS_futex, 0x40_0000, [0, 128, 0, 0, 0, 0]), Action::Allow);
        assert_eq!(verdict(libc::SYS_futex, 0x40_0000, [0, 6, 0, 0, 0, 0]), Action::Trace(0));
        assert_eq!(verdict(libc::SYS_futex, STUB + GATE + 2, [0; 6]), Action::Trace(0));
        assert_eq!(verdict(libc::SYS_prctl, stub, [1, 9, 0, 0, 0, 0]), Action::Allow);
        assert_eq!(verdict(libc::SYS_prctl, stub, [1, 8, 0, 0, 0, 0]), Action::Trace(0));
        assert_eq!(verdict(libc::SYS_prctl, 0x40_0000, [1, 9, 0, 0, 0, 0]), Action::Trace(0));
        for nr in (0..512).filter(|nr| ![libc::SYS_futex, libc::SYS_sched_yield, 219].contains(nr)) {
            assert_eq!(verdict(nr, 0x40_0000, [0; 6]), Action::Trace(0), "{nr}");
        }
    }

    #[test]
    fn other_architectures_are_killed() {
        let data = SeccompData { arch: 0x4000_0003, ..Default::default() };
        assert_eq!(Action::from_raw(build().expect("it assembles").run(&data)), Action::KillProcess);
    }
}
