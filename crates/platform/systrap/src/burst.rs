//! Guests that make calls as fast as they can from rewritten sites, while signals come from all sides.

use std::io::{Seek, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use abi::mm::Prot;
use guestmem::UserAddr;
use memmap::{Backing, HostObject};
use parking_lot::Mutex;
use platform::{
    GuestThread, HostExit, MapOp, NewThread, Platform, Registers, Resume, ThreadHandle, Trap, TrapHandler,
};

use crate::Systrap;
use crate::filter::is_postable;
use crate::layout::CELLS;

const CODE: u64 = 0x40_0000;
const STACKS: u64 = 0x80_0000;
const MAPPED: u64 = 0x10_0000_0000;
const THREADS: usize = 8;
const SITES: u64 = 1200;
const ROUNDS: u64 = 4;
const LIMIT: Duration = Duration::from_secs(120);
const CLONE: u64 = libc::SYS_clone as u64;
const END: u64 = libc::SYS_exit_group as u64;

/// What call `nr` returns.
fn answer(nr: u64) -> u64 {
    nr * 7 + 1
}

/// What all threads of a guest share.
struct Guest {
    code: u64,
    handles: Mutex<Vec<Arc<dyn ThreadHandle>>>,
    threads: AtomicU64,
    calls: AtomicU64,
    interrupts: AtomicU64,
    ended: Sender<Result<u64, String>>,
}

/// Of the first thread, which clones, or of another, which does not although it runs the same code.
struct Handler(Arc<Guest>, Rank);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    First,
    Other,
}

impl Handler {
    fn fail(&self, what: String) -> Resume {
        let _ = self.0.ended.send(Err(what));
        Resume::ExitProcess
    }

    fn clone(&self, thread: &mut dyn GuestThread) -> Resume {
        let Ok(mut registers) = thread.registers() else { return self.fail("no registers".into()) };
        let index = self.0.threads.fetch_add(1, Ordering::SeqCst);
        registers.rax = answer(CLONE);
        registers.rsp = STACKS + (index + 1) * 0x400;
        let handler = Arc::new(Handler(Arc::clone(&self.0), Rank::Other));
        let new = NewThread { registers, fp_state: None, handler, clear_tid: 0 };
        match thread.clone_thread(new) {
            Ok(_) => Resume::Return(answer(CLONE)),
            Err(error) => self.fail(error.to_string()),
        }
    }
}

impl TrapHandler for Handler {
    fn started(&self, handle: Arc<dyn ThreadHandle>) {
        self.0.handles.lock().push(handle);
    }

    fn trap(&self, thread: &mut dyn GuestThread, trap: Trap) -> Resume {
        let guest = &self.0;
        let within = |ip: u64| (CODE..=CODE + guest.code).contains(&ip);
        match trap {
            Trap::Syscall(call) if !within(call.ip) => self.fail(format!("a call from {:#x}", call.ip)),
            Trap::Syscall(call) if call.nr == CLONE && self.1 == Rank::First => self.clone(thread),
            Trap::Syscall(call) if call.nr == CLONE => Resume::Return(answer(CLONE)),
            Trap::Syscall(call) if call.nr == END => {
                let _ = guest.ended.send(Ok(call.args[0]));
                Resume::Exit
            }
            Trap::Syscall(call) => {
                let count = guest.calls.fetch_add(1, Ordering::SeqCst);
                if count % 1000 == 999 {
                    // As a handler does that looks at all registers.
                    match thread.registers() {
                        Ok(registers) if registers.rip == call.ip && registers.gs_base == 0 => {}
                        other => return self.fail(format!("registers at {:#x}: {other:x?}", call.ip)),
                    }
                }
                if call.nr % 8 == 1
                    && let Err(what) = remap(thread, MAPPED + count * 4096)
                {
                    return self.fail(what);
                }
                Resume::Return(answer(call.nr))
            }
            Trap::Interrupted => {
                guest.interrupts.fetch_add(1, Ordering::SeqCst);
                match thread.registers() {
                    Ok(registers) if within(registers.rip) => Resume::Continue,
                    other => self.fail(format!("interrupted at {other:x?}")),
                }
            }
            Trap::Fault(fault) => self.fail(format!("{fault:x?} at {:x?}", thread.registers())),
        }
    }

    fn host_exit(&self, exit: HostExit) {
        let _ = self.0.ended.send(Err(format!("{exit:?}")));
    }
}

/// Has the guest map a page, as a handler of a posted call, and unmap it.
fn remap(thread: &mut dyn GuestThread, addr: u64) -> Result<(), String> {
    let space = thread.address_space();
    let map = map(addr, 4096, Prot::READ | Prot::WRITE, Backing::Anonymous);
    let apply = |op: MapOp| space.apply(&[op]).map_err(|error| error.to_string());
    apply(map)?;
    let (at, mut word) = (UserAddr(addr), [0; 8]);
    space.write(at, &addr.to_le_bytes()).map_err(|_| "a page is not there")?;
    space.read(at, &mut word).map_err(|_| "a page is gone")?;
    apply(MapOp::Unmap { addr: at, len: 4096 })?;
    if word != addr.to_le_bytes() || space.read(at, &mut word).is_ok() {
        return Err("another page".into());
    }
    Ok(())
}

fn map(addr: u64, len: u64, prot: Prot, backing: Backing) -> MapOp {
    let addr = UserAddr(addr);
    MapOp::Map { addr, len, prot, backing, shared: false, no_reserve: false, populate: false }
}

/// Code that makes a call from each of [`SITES`] sites, [`ROUNDS`] times, by [`THREADS`] threads.
fn many_sites() -> Vec<u8> {
    let mut code = Vec::new();
    for _ in 1..THREADS {
        code.extend([0xb8, CLONE as u8, 0, 0, 0, 0x0f, 0x05]); // mov $56, %eax; syscall
    }
    code.extend([0x41, 0xbf, ROUNDS as u8, 0, 0, 0]); // mov $ROUNDS, %r15d
    let again = code.len();
    let mut fixes = Vec::new();
    for i in 0..SITES {
        // The host's filters never see uretprobe and uprobe.
        let postable = |nr: &u64| is_postable(*nr) && !(335..337).contains(nr);
        let nr = if i % 2 == 0 {
            let nr = (i..).map(|n| n % 440).find(postable).unwrap_or(39);
            code.push(0xb8); // mov $nr, %eax; syscall
            code.extend((nr as u32).to_le_bytes());
            code.extend([0x0f, 0x05]);
            nr
        } else {
            let nr = (i..).map(|n| n % 127).find(postable).unwrap_or(39);
            code.extend([0x6a, nr as u8, 0x58, 0x0f, 0x05]); // push $nr; pop %rax; syscall
            code.extend([0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff]); // cmp $-4095, %rax
            nr
        };
        code.extend([0x48, 0x3d]); // cmp $answer, %rax
        code.extend((answer(nr) as u32).to_le_bytes());
        code.extend([0x0f, 0x85, 0, 0, 0, 0]); // jne wrong
        fixes.push(code.len());
    }
    code.extend([0x41, 0xff, 0xcf, 0x0f, 0x85]); // dec %r15d; jnz again
    code.extend((again as i32 - code.len() as i32 - 4).to_le_bytes());
    code.extend([0x31, 0xff, 0xb8, END as u8, 0, 0, 0, 0x0f, 0x05]); // xor %edi, %edi; end
    let wrong = code.len();
    code.extend([0x0f, 0x0b]); // ud2
    for at in fixes {
        code[at - 4..at].copy_from_slice(&((wrong - at) as u32).to_le_bytes());
    }
    code
}

/// Maps `code` from a file and runs it; what each of `threads` ends with.
fn run(platform: &Systrap, code: &[u8], threads: usize) -> Arc<Guest> {
    let path = std::env::temp_dir().join(format!("rampart-burst-{}-{}", std::process::id(), code.len()));
    let mut file =
        std::fs::OpenOptions::new().create_new(true).read(true).write(true).open(&path).expect("a file");
    file.write_all(code).expect("written");
    file.rewind().expect("a start");
    let space = platform.new_address_space().expect("a space");
    let len = (code.len() as u64).next_multiple_of(4096);
    let backing = Backing::Host { object: HostObject::new(file.into(), Prot::empty()), offset: 0 };
    let stacks = map(STACKS, 0x4000, Prot::READ | Prot::WRITE, Backing::Anonymous);
    space.apply(&[map(CODE, len, Prot::READ | Prot::EXEC, backing), stacks]).expect("mapped");
    // Mapped is what somebody looks at.
    space.read(UserAddr(CODE), &mut [0]).expect("readable");
    std::fs::remove_file(&path).expect("removed");
    let patched = platform.shared.patches.as_ref().expect("the fast path is there").site(CELLS);
    assert!(patched.is_some(), "the file's code is rewritten");
    let (ended, ends) = channel();
    let guest = Arc::new(Guest {
        code: code.len() as u64,
        handles: Mutex::default(),
        threads: AtomicU64::new(1),
        calls: AtomicU64::new(0),
        interrupts: AtomicU64::new(0),
        ended,
    });
    let handler = Arc::new(Handler(Arc::clone(&guest), Rank::First));
    let registers = Registers::entry(CODE, STACKS + 0x400);
    platform
        .spawn(&space, NewThread { registers, fp_state: None, handler, clear_tid: 0 })
        .expect("it starts");
    let mut left = threads;
    let began = std::time::Instant::now();
    while left > 0 {
        match ends.recv_timeout(Duration::from_micros(200)) {
            Ok(Ok(value)) => {
                assert_eq!(value, 0);
                left -= 1;
            }
            Ok(Err(what)) => panic!("{what}"),
            Err(_) => guest.handles.lock().iter().for_each(|handle| handle.interrupt()),
        }
        assert!(began.elapsed() < LIMIT, "{left} threads do not end");
    }
    guest
}

#[test]
fn fresh_sites_of_many_threads_answer_rightly_under_signals() {
    let platform = Systrap::new().expect("this machine can run systrap");
    let guest = run(&platform, &many_sites(), THREADS);
    assert_eq!(guest.calls.load(Ordering::SeqCst), THREADS as u64 * SITES * ROUNDS);
    assert!(guest.interrupts.load(Ordering::SeqCst) > 0, "signals came");
}

#[test]
fn whoever_jumps_into_the_middle_of_a_site_makes_its_call() {
    let platform = Systrap::new().expect("this machine can run systrap");
    let code = [
        &[0x31, 0xed][..],                                   // xor %ebp, %ebp
        &[0xb8, 102, 0, 0, 0, 0x0f, 0x05],                   // mov $102, %eax; syscall
        &[0x85, 0xed, 0x75, 11],                             // test %ebp, %ebp; jnz +11
        &[0xff, 0xc5, 0x89, 0xc3],                           // inc %ebp; mov %eax, %ebx
        &[0xb8, 104, 0, 0, 0, 0xeb, 0xef],                   // mov $104, %eax; jmp to the syscall
        &[0x81, 0xeb, 0xcb, 2, 0, 0],                        // sub $715, %ebx: what 102 returned
        &[0x2d, 0xd9, 2, 0, 0, 0x09, 0xc3],                  // sub $729, %eax; or %eax, %ebx
        &[0xb8, 0xff, 0xff, 0xff, 0xff, 0xeb, 2],            // mov $-1, %eax; jmp behind the next syscall
        &[0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff],   // syscall; cmp $-4095, %rax
        &[0x73, 2, 0xff, 0xc8],                              // jae +2; dec %eax: -1 of 32 bits is less
        &[0x83, 0xc0, 2, 0x09, 0xc3],                        // add $2, %eax; or %eax, %ebx
        &[0x89, 0xdf, 0xb8, END as u8, 0, 0, 0, 0x0f, 0x05], // mov %ebx, %edi; end
    ]
    .concat();
    run(&platform, &code, 1);
}
