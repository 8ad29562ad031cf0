//! Buffers of posted calls: at the edges of pages that are not there or cannot be written, for every argument of
//! every call of the table, and in memory that changes meanwhile.

use std::io::{Seek, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use abi::mm::Prot;
use guestmem::{MemExt, UserAddr, UserCStr, UserMem};
use memmap::{Backing, HostObject};
use parking_lot::Mutex;
use platform::{
    AddressSpace, GuestThread, HostExit, MapOp, NewThread, Platform, Registers, Resume, SyscallTrap,
    ThreadHandle, Trap, TrapHandler,
};

use crate::layout::{CELLS, MAILBOX};
use crate::marshal::{Pointer, ROWS, TEXT, TIMES};
use crate::window::HITS;
use crate::{Systrap, raw};

const CODE: u64 = 0x40_0000;
const RECORDS: u64 = 0x100_0000;
const ARENAS: u64 = 0x1000_0000;
/// Bytes of an arena: three pages, and one that is not there.
const ARENA: u64 = 0x4000;
const PAGE: u64 = 0x1000;
const END: u64 = libc::SYS_exit_group as u64;
const LIMIT: Duration = Duration::from_secs(240);

/// Makes the call of each record at r12, of which there are r13, r14 times, and checks result and registers.
const LOOP: &[u8] = b"\x4c\x89\xe3\x45\x31\xff\x48\x8b\x7b\x08\x48\x8b\x73\x10\x48\x8b\x53\x18\x4c\x8b\x53\x20\
\x4c\x8b\x43\x28\x4d\x89\xf9\x48\x8b\x03\x0f\x05\x48\x3d\x00\xf0\xff\xff\x49\x6b\xcf\x07\x48\xff\xc1\x48\x39\xc8\
\x75\x3f\x48\x3b\x7b\x08\x75\x39\x48\x3b\x73\x10\x75\x33\x48\x3b\x53\x18\x75\x2d\x4c\x3b\x53\x20\x75\x27\
\x4c\x3b\x43\x28\x75\x21\x4d\x39\xf9\x75\x1c\x48\x83\xc3\x30\x49\xff\xc7\x4d\x39\xef\x75\xa3\x49\xff\xce\x75\x98\
\x31\xff\xb8\xe7\x00\x00\x00\x0f\x05\x0f\x0b\x41\x8d\x7f\x01\xeb\xf1";
/// Offset in it of the branch for a wrong result.
const WRONG: usize = 0x32;

/// Where in its arena a buffer lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// On one page, or in the middle of some.
    Inside,
    /// Its end is that of the memory.
    Ends,
    /// It reaches beyond that.
    Crosses,
    /// It begins there.
    Beyond,
    /// It cannot be written.
    ReadOnly,
    /// The second half of it cannot be written.
    Reaches,
    /// There is no address.
    Null,
    /// Where no guest has memory.
    Foreign,
}

const EDGES: [Edge; 8] = [
    Edge::Inside,
    Edge::Ends,
    Edge::Crosses,
    Edge::Beyond,
    Edge::ReadOnly,
    Edge::Reaches,
    Edge::Null,
    Edge::Foreign,
];

/// What the guest's memory is to be.
#[derive(Default)]
struct Model {
    bytes: Vec<u8>,
    pages: Vec<Prot>,
}

impl Model {
    fn arena(&mut self, edge: Edge) -> u64 {
        let at = ARENAS + self.bytes.len() as u64;
        let last = if matches!(edge, Edge::ReadOnly | Edge::Reaches) { Prot::READ } else { WRITABLE };
        self.pages.extend([WRITABLE, WRITABLE, last, Prot::empty()]);
        self.bytes.extend((0..ARENA).map(|i| ((at + i) % 251) as u8 + 1));
        at
    }

    /// Places a buffer of `len` bytes, text or not.
    fn place(&mut self, edge: Edge, len: u64, text: bool) -> u64 {
        let arena = self.arena(edge);
        let at = arena
            + match edge {
                Edge::Inside => 0x123,
                Edge::Ends => 3 * PAGE - len,
                Edge::Crosses => 3 * PAGE - len.div_ceil(2).min(PAGE),
                Edge::Beyond => 3 * PAGE,
                Edge::ReadOnly => 2 * PAGE,
                Edge::Reaches => 2 * PAGE - len.div_ceil(2).min(PAGE),
                Edge::Null => return 0,
                Edge::Foreign => return MAILBOX,
            };
        if text && let Some(end) = self.bytes.get_mut((at + len - 1 - ARENAS) as usize) {
            *end = 0;
        }
        at
    }

    /// How many of `len` bytes at `addr` there are with `prot`.
    fn span(&self, addr: u64, len: u64, prot: Prot) -> u64 {
        let at = |i: u64| (addr + i).checked_sub(ARENAS).map(|offset| (offset / PAGE) as usize);
        let has = |i: &u64| at(*i).and_then(|page| self.pages.get(page)).is_some_and(|p| p.contains(prot));
        (0..len).take_while(has).count() as u64
    }

    fn get(&mut self, addr: u64, len: u64) -> &mut [u8] {
        let from = (addr - ARENAS) as usize;
        &mut self.bytes[from..from + len as usize]
    }
}

const WRITABLE: Prot = Prot::READ.union(Prot::WRITE);

/// A call: number and five arguments.
type Record = [u64; 6];

struct Plan {
    model: Model,
    records: Vec<Record>,
}

impl Plan {
    /// All edges for `row`'s pointers, with `count` where something counts.
    fn add(&mut self, row: &(i64, Pointer, Pointer), count: u64) {
        let (nr, taken, given) = *row;
        for edge in EDGES {
            for varied in [taken.0, given.0] {
                let mut record = [nr as u64, 0, 0, 0, 0, 0];
                for (argument, length) in [taken, given] {
                    if argument == 0 || record[argument as usize] != 0 {
                        continue;
                    }
                    let len = length_of(length, count);
                    let edge = if argument == varied { edge } else { Edge::Inside };
                    record[argument as usize] = self.model.place(edge, len, length == TEXT);
                    if length & TIMES != 0 {
                        record[argument as usize + 1] = count;
                    }
                }
                self.records.push(record);
            }
        }
    }
}

fn length_of(length: u16, count: u64) -> u64 {
    match length {
        TEXT => 37,
        times if times & TIMES != 0 => u64::from(times & !TIMES) * count,
        fixed => u64::from(fixed),
    }
}

/// Answers the calls, and compares.
struct Handler {
    plan: Mutex<Plan>,
    strict: bool,
    handle: Mutex<Option<Arc<dyn ThreadHandle>>>,
    ended: Sender<Result<(), String>>,
}

impl Handler {
    fn end(&self, result: Result<(), String>) -> Resume {
        let _ = self.ended.send(result);
        Resume::ExitProcess
    }

    fn call(&self, thread: &mut dyn GuestThread, call: &SyscallTrap) -> Result<u64, String> {
        let space = thread.address_space();
        let mut plan = self.plan.lock();
        let (nr, taken, given) = *ROWS.iter().find(|row| row.0 as u64 == call.nr).ok_or("another call")?;
        let (index, argument) = (call.args[5], |p: Pointer| call.args.get(usize::from(p.0).wrapping_sub(1)));
        let about = |what: &str| format!("{what}, call {nr} of record {index}: {:x?}", call.args);
        let count = |p: Pointer| call.args.get(usize::from(p.0)).copied().unwrap_or(0);
        if let Some(&addr) = argument(given) {
            // What was left for the stub the last time is there.
            compare(&*space, &mut plan.model, addr, length_of(given.1, count(given))).map_err(about)?;
        }
        if let Some(&addr) = argument(taken) {
            if taken.1 == TEXT {
                text(&*space, &mut plan.model, addr).map_err(about)?;
            } else {
                compare(&*space, &mut plan.model, addr, length_of(taken.1, count(taken))).map_err(about)?;
            }
        }
        if let Some(&addr) = argument(given) {
            let len = length_of(given.1, count(given));
            let half = len.div_ceil(2);
            let whole = change(&*space, &mut plan.model, addr, half).map_err(about)?
                && change(&*space, &mut plan.model, addr + half, len - half).map_err(about)?;
            if whole && index % 3 == 0 {
                compare(&*space, &mut plan.model, addr, len).map_err(about)?;
            }
        }
        if index % 17 == 16 {
            // Its thread is taken to its doorbell, with something left for it.
            thread.registers().map_err(|error| error.to_string())?;
        }
        Ok(index * 7 + 1)
    }

    /// The same in memory that changes.
    fn storm(thread: &mut dyn GuestThread, call: &SyscallTrap) -> u64 {
        let (space, mut bytes) = (thread.address_space(), [0; 64]);
        let addr = UserAddr(call.args[1]);
        let _ = space.read(addr, &mut bytes).and_then(|()| space.write(addr, &bytes));
        call.args[5] * 7 + 1
    }
}

/// What can be read of `addr` is what it is to be.
fn compare(space: &dyn UserMem, model: &mut Model, addr: u64, len: u64) -> Result<(), &'static str> {
    let mut bytes = vec![0; len as usize];
    let there = model.span(addr, len, Prot::READ);
    let read = match space.read(UserAddr(addr), &mut bytes) {
        Ok(()) => len,
        Err(fault) => fault.copied as u64,
    };
    if read != there {
        return Err("too much or too little was read");
    }
    let same = there == 0 || bytes.starts_with(model.get(addr, there));
    if same { Ok(()) } else { Err("other bytes were read") }
}

fn text(space: &dyn UserMem, model: &mut Model, addr: u64) -> Result<(), &'static str> {
    let there = model.span(addr, 4096, Prot::READ);
    let expected = match there {
        0 => None,
        n => model.get(addr, n).split_inclusive(|b| *b == 0).next().and_then(|text| text.strip_suffix(&[0])),
    };
    let read = space.load_cstr(UserCStr(UserAddr(addr)), 4096);
    if read.ok().as_deref() == expected { Ok(()) } else { Err("another text") }
}

/// Writes something else. Whether all of it could be written.
fn change(space: &dyn UserMem, model: &mut Model, addr: u64, len: u64) -> Result<bool, &'static str> {
    let there = model.span(addr, len, Prot::WRITE);
    let bytes: Vec<u8> = match there {
        0 => vec![7; len as usize],
        _ => (0..len)
            .map(|i| model.get(addr, there).first().map_or(0, |b| b.wrapping_add(i as u8 | 1)))
            .collect(),
    };
    let written = match space.write(UserAddr(addr), &bytes) {
        Ok(()) => len,
        Err(fault) => fault.copied as u64,
    };
    if written != there {
        return Err("too much or too little was written");
    }
    if there > 0 {
        model.get(addr, there).copy_from_slice(&bytes[..there as usize]);
    }
    Ok(written == len)
}

impl TrapHandler for Handler {
    fn started(&self, handle: Arc<dyn ThreadHandle>) {
        *self.handle.lock() = Some(handle);
    }

    fn trap(&self, thread: &mut dyn GuestThread, trap: Trap) -> Resume {
        match trap {
            Trap::Syscall(call) if call.nr == END && call.args[0] == 0 => self.end(Ok(())),
            Trap::Syscall(call) if call.nr == END => {
                self.end(Err(format!("a wrong result or register of record {}", call.args[0] - 1)))
            }
            Trap::Syscall(call) if self.strict => match self.call(thread, &call) {
                Ok(value) => Resume::Return(value),
                Err(what) => self.end(Err(what)),
            },
            Trap::Syscall(call) => Resume::Return(Self::storm(thread, &call)),
            Trap::Interrupted => Resume::Continue,
            Trap::Fault(fault) => self.end(Err(format!("{fault:x?} at {:x?}", thread.registers()))),
        }
    }

    fn host_exit(&self, exit: HostExit) {
        let _ = self.ended.send(Err(format!("{exit:?}")));
    }
}

fn map(addr: u64, len: u64, prot: Prot, backing: Backing) -> MapOp {
    MapOp::Map { addr: UserAddr(addr), len, prot, backing, shared: false, no_reserve: false, populate: false }
}

/// A space with the loop from a file, the records, and the model's memory.
fn space(platform: &Systrap, code: &[u8], plan: &Plan, name: &str) -> Arc<dyn AddressSpace> {
    let path = std::env::temp_dir().join(format!("rampart-travel-{}-{name}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().create_new(true).read(true).write(true).open(&path).expect("a file");
    file.write_all(code).expect("written");
    file.rewind().expect("a start");
    let space = platform.new_address_space().expect("a space");
    let backing = Backing::Host { object: HostObject::new(file.into(), Prot::empty()), offset: 0 };
    space.apply(&[map(CODE, PAGE, Prot::READ | Prot::EXEC, backing)]).expect("mapped");
    let records: Vec<u8> = plan.records.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
    let len = (records.len() as u64).next_multiple_of(PAGE);
    space.apply(&[map(RECORDS, len, WRITABLE, Backing::Anonymous)]).expect("mapped");
    space.write(UserAddr(RECORDS), &records).expect("written");
    let len = plan.model.bytes.len() as u64;
    space.apply(&[map(ARENAS, len, WRITABLE, Backing::Anonymous)]).expect("mapped");
    space.write(UserAddr(ARENAS), &plan.model.bytes).expect("written");
    for (i, prot) in plan.model.pages.iter().enumerate().filter(|(_, prot)| **prot != WRITABLE) {
        let (addr, len) = (UserAddr(ARENAS + i as u64 * PAGE), PAGE);
        space.apply(&[MapOp::Protect { addr, len, prot: *prot }]).expect("protected");
    }
    std::fs::remove_file(&path).expect("removed");
    let patched = platform.shared.patches.as_ref().expect("the fast path is there").site(CELLS);
    assert!(patched.is_some(), "the file's code is rewritten");
    space
}

/// Runs the loop; `meanwhile` again and again beside it.
fn run(code: &[u8], plan: Plan, rounds: u64, name: &str, meanwhile: impl Fn(&dyn AddressSpace, u64)) {
    let platform = Systrap::new().expect("this machine can run systrap");
    let space = space(&platform, code, &plan, name);
    let (ended, ends) = channel();
    let registers =
        Registers { r12: RECORDS, r13: plan.records.len() as u64, r14: rounds, ..Registers::entry(CODE, 0) };
    let strict = code == LOOP;
    let handler = Arc::new(Handler { plan: Mutex::new(plan), strict, handle: Mutex::default(), ended });
    let new = NewThread {
        registers,
        fp_state: None,
        handler: Arc::clone(&handler) as Arc<dyn TrapHandler>,
        clear_tid: 0,
    };
    platform.spawn(&space, new).expect("it starts");
    let (began, mut turn) = (std::time::Instant::now(), 0);
    loop {
        match ends.recv_timeout(Duration::from_micros(300)) {
            Ok(result) => return result.expect("what is to be"),
            Err(_) => {
                turn += 1;
                meanwhile(&*space, turn);
                if let Some(handle) = handler.handle.lock().as_ref().filter(|_| turn % 8 == 0) {
                    handle.interrupt();
                }
            }
        }
        assert!(began.elapsed() < LIMIT, "the guest does not end");
    }
}

#[test]
fn buffers_at_every_edge_are_what_linux_says() {
    let before = HITS.load(Ordering::Relaxed);
    // On a busy machine few calls are posted.
    for _ in 0..10 {
        let mut plan = Plan { model: Model::default(), records: Vec::new() };
        for row in ROWS {
            plan.add(row, 3);
        }
        for count in [0, 1, 4095, 4096, 4097, 5000] {
            for row in ROWS.iter().filter(|row| [libc::SYS_read, libc::SYS_write].contains(&row.0)) {
                plan.add(row, count);
            }
        }
        run(LOOP, plan, 3, "edges", |_, _| {});
        if HITS.load(Ordering::Relaxed) - before > 1000 {
            break;
        }
    }
    assert!(HITS.load(Ordering::Relaxed) > before, "nothing travelled");
    assert!(raw::stub::code().len() < 4096);
}

#[test]
fn memory_that_changes_meanwhile_costs_the_guest_at_most_its_result() {
    let mut plan = Plan { model: Model::default(), records: Vec::new() };
    for nr in [libc::SYS_read, libc::SYS_write, libc::SYS_fstat] {
        for row in ROWS.iter().filter(|row| row.0 == nr) {
            plan.add(row, 64);
        }
    }
    let mut code = LOOP.to_vec();
    code[WRONG..WRONG + 2].copy_from_slice(&[0x90, 0x90]);
    let pages = plan.model.pages.len() as u64;
    run(&code, plan, 100, "storm", |space, turn| {
        let (addr, len) = (UserAddr(ARENAS + turn * 7 % pages * PAGE), PAGE);
        let ops = match turn % 3 {
            0 => MapOp::Unmap { addr, len },
            1 => MapOp::Protect { addr, len, prot: Prot::READ },
            _ => map(addr.0, len, WRITABLE, Backing::Anonymous),
        };
        let _ = space.apply(&[ops]);
    });
}
