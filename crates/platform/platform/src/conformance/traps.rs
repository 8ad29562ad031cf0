//! Calls, faults, interrupts, and what survives them.

use std::sync::mpsc::channel;

use abi::signal::Signal;

use super::kit::{self, DATA, run, script, space_with, thread};
use crate::{HostExit, Platform, Registers, Resume, Trap};

pub(super) fn syscall_arguments_and_result(platform: &dyn Platform) {
    // mov eax,1; mov edi,2; mov esi,3; mov edx,4; mov r10d,5; mov r8d,6; mov r9d,7; syscall;
    // mov edi,eax; mov eax,231; syscall
    let code =
        b"\xb8\x01\0\0\0\xbf\x02\0\0\0\xbe\x03\0\0\0\xba\x04\0\0\0\x41\xba\x05\0\0\0\x41\xb8\x06\0\0\0\
        \x41\xb9\x07\0\0\0\x0f\x05\x89\xc7\xb8\xe7\0\0\0\x0f\x05";
    let (tx, rx) = channel();
    let exit = run(platform, code, move |_, trap| {
        let Trap::Syscall(call) = trap else { panic!("unexpected {trap:?}") };
        let _ = tx.send(call);
        if call.nr == 231 { Resume::ExitProcess } else { Resume::Return(42) }
    });
    assert_eq!(exit, HostExit::Requested);
    let first = kit::received(&rx, "a call");
    assert_eq!((first.nr, first.args, first.ip), (1, [2, 3, 4, 5, 6, 7], kit::CODE + 40));
    let second = kit::received(&rx, "a second call");
    assert_eq!((second.nr, second.args.first()), (231, Some(&42)));
}

pub(super) fn registers_survive(platform: &dyn Platform) {
    // syscall; syscall
    let mut step = 0;
    let want = Registers {
        r15: 15,
        r14: 14,
        r13: 13,
        r12: 12,
        rbp: 16,
        rbx: 17,
        r10: 10,
        r9: 9,
        r8: 8,
        rdx: 18,
        rsi: 19,
        rdi: 20,
        rax: 39,
        fs_base: 0x1234_5000,
        gs_base: 0x4321_5000,
        ..Registers::entry(kit::CODE + 2, DATA + 64)
    };
    let exit = run(platform, b"\x0f\x05\x0f\x05", move |guest, _| {
        step += 1;
        if step == 1 {
            guest.set_registers(&want).expect("registers are set");
            return Resume::Continue;
        }
        let got = guest.registers().expect("registers");
        let same = Registers {
            rip: want.rip + 2,
            rax: -38i64 as u64,
            orig_rax: 39,
            rcx: got.rcx,
            r11: got.r11,
            rflags: got.rflags,
            ..want
        };
        assert_eq!(got, same);
        Resume::ExitProcess
    });
    assert_eq!(exit, HostExit::Requested);
}

pub(super) fn vectors_survive(platform: &dyn Platform) {
    // mov eax,0x1234; movd xmm7,eax; syscall; movd edi,xmm7; syscall; movd edi,xmm7; syscall
    let code = b"\xb8\x34\x12\0\0\x66\x0f\x6e\xf8\x0f\x05\x66\x0f\x7e\xff\x0f\x05\x66\x0f\x7e\xff\x0f\x05";
    let (mut step, mut saved) = (0, Vec::new());
    let exit = run(platform, code, move |guest, trap| {
        let Trap::Syscall(call) = trap else { panic!("unexpected {trap:?}") };
        step += 1;
        match step {
            1 => saved = guest.fp_state().expect("state"),
            2 => {
                assert_eq!(call.args.first(), Some(&0x1234));
                if let Some(low) = saved.get_mut(160 + 7 * 16) {
                    *low = 0x35;
                }
                guest.set_fp_state(&saved).expect("state is set");
            }
            _ => {
                assert_eq!(call.args.first(), Some(&0x1235));
                return Resume::ExitProcess;
            }
        }
        Resume::Return(0)
    });
    assert_eq!(exit, HostExit::Requested);
}

pub(super) fn faults_are_reported(platform: &dyn Platform) {
    // mov eax,[0x1000]; ud2
    let mut step = 0;
    let exit = run(platform, b"\x8b\x04\x25\0\x10\0\0\x0f\x0b", move |guest, trap| {
        let Trap::Fault(fault) = trap else { panic!("unexpected {trap:?}") };
        step += 1;
        let mut regs = guest.registers().expect("registers");
        if step == 1 {
            assert_eq!((fault.signal, fault.info.code, fault.cr2), (Signal::SIGSEGV, 1, 0x1000));
            assert_eq!((fault.trap_number, regs.rip), (14, kit::CODE));
            regs.rip += 7;
            guest.set_registers(&regs).expect("registers are set");
            return Resume::Continue;
        }
        assert_eq!((fault.signal, regs.rip), (Signal::SIGILL, kit::CODE + 7));
        Resume::ExitProcess
    });
    assert_eq!(exit, HostExit::Requested);
}

pub(super) fn interrupts_reach_user_code(platform: &dyn Platform) {
    // jmp $
    let (handler, watch) = script(|_, trap| {
        assert_eq!(trap, Trap::Interrupted);
        Resume::ExitProcess
    });
    let space = space_with(platform, b"\xeb\xfe");
    platform.spawn(&space, thread(handler)).expect("the thread starts");
    watch.handle().interrupt();
    assert_eq!(watch.end(), HostExit::Requested);
}

pub(super) fn kill_is_reported(platform: &dyn Platform) {
    let (handler, watch) = script(|_, _| Resume::ExitProcess);
    let space = space_with(platform, b"\xeb\xfe");
    platform.spawn(&space, thread(handler)).expect("the thread starts");
    watch.handle().kill_process();
    assert_eq!(watch.end(), HostExit::Requested);
}

pub(super) fn interrupts_reach_waits(platform: &dyn Platform) {
    if !platform.features().native_futex {
        return;
    }
    // mov eax,202; mov edi,DATA; xor esi,esi; xor edx,edx; xor r10d,r10d; syscall (futex wait for ever); syscall
    let code = b"\xb8\xca\0\0\0\xbf\0\0\x50\0\x31\xf6\x31\xd2\x45\x31\xd2\x0f\x05\x0f\x05";
    let (handler, watch) = script(|_, trap| match trap {
        Trap::Interrupted => Resume::ExitProcess,
        other => panic!("unexpected {other:?}"),
    });
    let space = space_with(platform, code);
    platform.spawn(&space, thread(handler)).expect("the thread starts");
    std::thread::sleep(std::time::Duration::from_millis(20));
    watch.handle().interrupt();
    assert_eq!(watch.end(), HostExit::Requested);
}

pub(super) fn interrupts_wait_for_handlers(platform: &dyn Platform) {
    // syscall; jmp $
    let exit = run(platform, b"\x0f\x05\xeb\xfe", |guest, trap| {
        if trap == Trap::Interrupted {
            return Resume::ExitProcess;
        }
        guest.handle().interrupt();
        Resume::Return(0)
    });
    assert_eq!(exit, HostExit::Requested);
}
