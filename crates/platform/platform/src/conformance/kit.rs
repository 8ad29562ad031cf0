//! A kernel of one closure, and the set-up of a guest.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use abi::mm::Prot;
use guestmem::{UserAddr, UserMem};
use memmap::Backing;

use crate::{
    AddressSpace, GuestThread, HostExit, MapOp, NewThread, Platform, Registers, Resume, ThreadHandle, Trap,
    TrapHandler,
};

/// Where guest code lies.
pub const CODE: u64 = 0x40_0000;
/// Where guest data lies; two pages.
pub const DATA: u64 = 0x50_0000;
/// How long anything may take.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

type Act = dyn FnMut(&mut dyn GuestThread, Trap) -> Resume + Send;

/// What another guest sends; a failure when it does not within the limit.
pub(super) fn received<T>(from: &Receiver<T>, what: &str) -> T {
    sync::block::will_block();
    match from.recv_timeout(LIMIT) {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Waits until `done` says yes; a failure when it does not within the limit.
pub(super) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    sync::block::will_block();
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::yield_now();
    }
}

/// A handler that does what a closure says.
pub(super) struct Script {
    act: Mutex<Box<Act>>,
    ended: Sender<HostExit>,
    handle: Sender<Arc<dyn ThreadHandle>>,
}

/// What comes out of a script.
pub(super) struct Watch {
    ended: Receiver<HostExit>,
    handle: Receiver<Arc<dyn ThreadHandle>>,
}

impl Watch {
    /// Waits for the end of the process.
    pub(super) fn end(&self) -> HostExit {
        received(&self.ended, "the process ends")
    }

    /// Whether the process ended within `time`.
    pub(super) fn ended_within(&self, time: Duration) -> bool {
        self.ended.recv_timeout(time).is_ok()
    }

    /// Waits for the start.
    pub(super) fn handle(&self) -> Arc<dyn ThreadHandle> {
        received(&self.handle, "the thread starts")
    }
}

impl TrapHandler for Script {
    fn started(&self, handle: Arc<dyn ThreadHandle>) {
        let _ = self.handle.send(handle);
    }

    fn trap(&self, thread: &mut dyn GuestThread, trap: Trap) -> Resume {
        (self.act.lock().expect("no test panicked"))(thread, trap)
    }

    fn host_exit(&self, exit: HostExit) {
        let _ = self.ended.send(exit);
    }
}

/// A handler from a closure.
pub(super) fn script(
    act: impl FnMut(&mut dyn GuestThread, Trap) -> Resume + Send + 'static,
) -> (Arc<dyn TrapHandler>, Watch) {
    let (ended, ended_rx) = channel();
    let (handle, handle_rx) = channel();
    let script = Script { act: Mutex::new(Box::new(act)), ended, handle };
    (Arc::new(script), Watch { ended: ended_rx, handle: handle_rx })
}

/// Maps zero pages.
pub(super) fn anonymous(addr: u64, len: u64, prot: Prot) -> MapOp {
    MapOp::Map {
        addr: UserAddr(addr),
        len,
        prot,
        backing: Backing::Anonymous,
        shared: false,
        no_reserve: false,
        populate: false,
    }
}

/// A space with `code` at [`CODE`] and two pages at [`DATA`].
pub(super) fn space_with(platform: &dyn Platform, code: &[u8]) -> Arc<dyn AddressSpace> {
    let space = platform.new_address_space().expect("a space");
    let all = Prot::READ | Prot::WRITE | Prot::EXEC;
    space
        .apply(&[anonymous(CODE, 4096, all), anonymous(DATA, 8192, Prot::READ | Prot::WRITE)])
        .expect("mappings");
    space.write(UserAddr(CODE), code).expect("code is written");
    space
}

/// A thread that begins at [`CODE`] with its stack at the end of [`DATA`].
pub(super) fn thread(handler: Arc<dyn TrapHandler>) -> NewThread {
    NewThread { registers: Registers::entry(CODE, DATA + 8192), fp_state: None, handler, clear_tid: 0 }
}

/// Runs `code` under `act` until its process is gone.
pub(super) fn run(
    platform: &dyn Platform,
    code: &[u8],
    act: impl FnMut(&mut dyn GuestThread, Trap) -> Resume + Send + 'static,
) -> HostExit {
    let (handler, watch) = script(act);
    let space = space_with(platform, code);
    platform.spawn(&space, thread(handler)).expect("the thread starts");
    watch.end()
}

/// The word at `addr`.
pub(super) fn word(mem: &(impl UserMem + ?Sized), addr: u64) -> u32 {
    let mut bytes = [0; 4];
    mem.read(UserAddr(addr), &mut bytes).expect("readable");
    u32::from_ne_bytes(bytes)
}
