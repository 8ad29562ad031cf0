//! What other OS threads do to a space while its guest runs, waits or is being served.

use std::sync::Arc;
use std::sync::mpsc::channel;

use abi::mm::Prot;
use guestmem::UserAddr;

use super::kit::{DATA, anonymous, eventually, received, script, space_with, thread, word};
use crate::{AddressSpace, HostExit, MapOp, Platform, Resume, Trap};

const FAR: u64 = 0x7000_0000_0000;

/// Maps, exchanges, wakes and unmaps.
fn change(space: &Arc<dyn AddressSpace>) {
    for round in 0..20 {
        let mapped = space.apply(&[anonymous(FAR, 8192, Prot::READ | Prot::WRITE)]);
        mapped.expect("mapped from elsewhere");
        assert_eq!(space.compare_exchange_u32(UserAddr(FAR), 0, round + 1), Ok(0));
        assert_eq!(word(&**space, FAR), round + 1);
        assert_eq!(space.futex_wake(UserAddr(FAR), 1, u32::MAX), Ok(0));
        space.apply(&[MapOp::Unmap { addr: UserAddr(FAR), len: 8192 }]).expect("unmapped from elsewhere");
        assert!(space.read(UserAddr(FAR), &mut [0; 4]).is_err());
    }
}

pub(super) fn spaces_are_changed_from_elsewhere(platform: &dyn Platform) {
    // again: inc dword [DATA]; jmp again (it makes no call at all)
    let code = b"\xff\x04\x25\x00\x00\x50\x00\xeb\xf7";
    let (handler, watch) = script(|_, trap| panic!("unexpected {trap:?}"));
    let space = space_with(platform, code);
    platform.spawn(&space, thread(handler)).expect("the thread starts");
    eventually("the guest runs", || word(&*space, DATA) != 0);
    change(&space);
    let before = word(&*space, DATA);
    eventually("the guest still runs", || word(&*space, DATA) != before);
    watch.handle().kill_process();
    assert_eq!(watch.end(), HostExit::Requested);
    assert!(space.apply(&[anonymous(FAR, 4096, Prot::READ)]).is_err());
}

pub(super) fn waiters_are_woken_from_elsewhere(platform: &dyn Platform) {
    if !platform.features().native_futex {
        return;
    }
    // mov eax,202; mov edi,DATA; mov esi,128 (private wait); xor edx,edx; xor r10d,r10d; syscall; mov edi,eax;
    // mov eax,231; syscall
    let code = b"\xb8\xca\0\0\0\xbf\0\0\x50\0\xbe\x80\0\0\0\x31\xd2\x45\x31\xd2\x0f\x05\x89\xc7\
        \xb8\xe7\0\0\0\x0f\x05";
    let (tx, rx) = channel();
    let (handler, watch) = script(move |_, trap| {
        let _ = tx.send(trap);
        Resume::ExitProcess
    });
    let space = space_with(platform, code);
    platform.spawn(&space, thread(handler)).expect("the thread starts");
    // Let it reach the wait, mostly; whichever it is, a changed word and one wake must do.
    std::thread::sleep(std::time::Duration::from_millis(20));
    space.write(UserAddr(DATA), &[1, 0, 0, 0]).expect("written");
    let woken = space.futex_wake(UserAddr(DATA), 1, u32::MAX);
    assert!(woken.is_ok_and(|woken| woken <= 1), "{woken:?}");
    let Trap::Syscall(call) = received(&rx, "the call after the wait") else { panic!("not a call") };
    // Woken, or EAGAIN: the word had changed when it looked again.
    assert!(call.nr == 231 && [0, -11i32 as u32 as u64].contains(&call.args[0]), "{call:?}");
    assert_eq!(watch.end(), HostExit::Requested);
}

pub(super) fn held_threads_act_for_others(platform: &dyn Platform) {
    // syscall; syscall
    let (entered_tx, entered) = channel();
    let (go, go_rx) = channel::<()>();
    let mut step = 0;
    let (handler, watch) = script(move |guest, _| {
        step += 1;
        if step == 1 {
            let _ = entered_tx.send(());
            received(&go_rx, "leave to go on");
            assert_eq!(guest.registers().expect("registers").rip, super::CODE + 2);
            return Resume::Return(3);
        }
        Resume::ExitProcess
    });
    let space = space_with(platform, b"\x0f\x05\x0f\x05");
    platform.spawn(&space, thread(handler)).expect("the thread starts");
    received(&entered, "the first call");
    change(&space);
    let _ = go.send(());
    assert_eq!(watch.end(), HostExit::Requested);
}
