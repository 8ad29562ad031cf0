//! Clones, forks and exec.

use std::sync::mpsc::channel;

use guestmem::UserAddr;

use super::kit::{DATA, eventually, received, run, script, space_with, word};
use crate::{HostExit, NewThread, Platform, Registers, Resume, Trap};

/// `syscall; mov [DATA],eax; syscall`: stores what the first call returns, then reports.
const STORE: &[u8] = b"\x0f\x05\x89\x04\x25\x00\x00\x50\x00\x0f\x05";

pub(super) fn forks_are_independent(platform: &dyn Platform) {
    let (tx, rx) = channel();
    let (child, watch) = script(move |guest, _| {
        let _ = tx.send(word(&*guest.address_space(), DATA));
        Resume::ExitProcess
    });
    let mut step = 0;
    let exit = run(platform, STORE, move |guest, _| {
        step += 1;
        if step == 1 {
            let mut registers = guest.registers().expect("registers");
            registers.rax = 7;
            let new = NewThread { registers, fp_state: None, handler: child.clone(), clear_tid: 0 };
            guest.fork(new).expect("forked");
            return Resume::Return(9);
        }
        assert_eq!(word(&*guest.address_space(), DATA), 9);
        Resume::ExitProcess
    });
    assert_eq!(exit, HostExit::Requested);
    assert_eq!(watch.end(), HostExit::Requested);
    assert_eq!(received(&rx, "the child's report"), 7);
}

pub(super) fn threads_share(platform: &dyn Platform) {
    let (tx, rx) = channel();
    let (child, _watch) = script(move |_, _| {
        let _ = tx.send(());
        Resume::Exit
    });
    let mut step = 0;
    let exit = run(platform, STORE, move |guest, _| {
        step += 1;
        if step == 1 {
            let mut registers = guest.registers().expect("registers");
            registers.rax = 7;
            guest.address_space().write(UserAddr(DATA + 8), &[1; 4]).expect("written");
            let new = NewThread { registers, fp_state: None, handler: child.clone(), clear_tid: DATA + 8 };
            guest.clone_thread(new).expect("cloned");
            received(&rx, "the thread's report");
            assert_eq!(word(&*guest.address_space(), DATA), 7);
            let space = guest.address_space();
            eventually("the thread's word is cleared", || word(&*space, DATA + 8) == 0);
            return Resume::Return(9);
        }
        Resume::ExitProcess
    });
    assert_eq!(exit, HostExit::Requested);
}

pub(super) fn a_handler_that_sleeps_untold_holds_up_nobody(platform: &dyn Platform) {
    let (tx, rx) = channel();
    let (child, _watch) = script(move |_, _| {
        let _ = tx.send(());
        Resume::Exit
    });
    let mut step = 0;
    let exit = run(platform, STORE, move |guest, _| {
        step += 1;
        if step == 1 {
            let registers = guest.registers().expect("registers");
            let new = NewThread { registers, fp_state: None, handler: child.clone(), clear_tid: 0 };
            guest.clone_thread(new).expect("cloned");
            // Not through the kit, which tells.
            rx.recv_timeout(std::time::Duration::from_secs(60)).expect("the thread's report");
            return Resume::Return(9);
        }
        Resume::ExitProcess
    });
    assert_eq!(exit, HostExit::Requested);
}

pub(super) fn shared_processes_share(platform: &dyn Platform) {
    let (child, watch) = script(move |_, _| Resume::ExitProcess);
    let mut step = 0;
    let watch = std::sync::Mutex::new(watch);
    let exit = run(platform, STORE, move |guest, _| {
        step += 1;
        if step == 1 {
            let mut registers = guest.registers().expect("registers");
            registers.rax = 7;
            let new = NewThread { registers, fp_state: None, handler: child.clone(), clear_tid: 0 };
            guest.clone_shared(new).expect("cloned");
            assert_eq!(watch.lock().expect("whole").end(), HostExit::Requested);
            assert_eq!(word(&*guest.address_space(), DATA), 7);
            return Resume::Return(9);
        }
        Resume::ExitProcess
    });
    assert_eq!(exit, HostExit::Requested);
}

pub(super) fn exec_moves_the_thread(platform: &dyn Platform) {
    // mov eax,77; syscall
    let next = space_with(platform, b"\xb8\x4d\0\0\0\x0f\x05");
    let mut next = Some(next);
    let exit = run(platform, b"\x0f\x05", move |guest, trap| {
        if let Some(space) = next.take() {
            guest.exec_into(space).expect("moved");
            guest.set_registers(&Registers::entry(super::CODE, DATA + 8192)).expect("registers are set");
            return Resume::Continue;
        }
        let Trap::Syscall(call) = trap else { panic!("unexpected {trap:?}") };
        assert_eq!(call.nr, 77);
        Resume::ExitProcess
    });
    assert_eq!(exit, HostExit::Requested);
}
