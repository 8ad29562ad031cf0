//! Address spaces.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use abi::Errno;
use guestmem::{Fault, UserAddr, UserMem};
use hostproc::{memory, ops};
use parking_lot::{Mutex, RwLock};
use platform::space::MemoryUse;
use platform::{AddressSpace, MapError, MapOp, PlatformError};

use crate::carry::Planned;
use crate::host::{Hand, Host, Process, Shared};
use crate::layout::{ACT_CMPXCHG, OFF_READY, SLOTS};
use crate::patch::{Patched, Site};
use crate::raw::mailbox::Mailbox;
use crate::raw::sys;
use crate::serve::Listener;
use crate::window;

thread_local! {
    /// The thread whose trap this OS thread handles.
    pub(crate) static CURRENT: RefCell<Option<Arc<Host>>> = const { RefCell::new(None) };
}

/// After what time of waiting for a new process to look whether it lives.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// How long a new process may take to reach the stub.
const START_LIMIT: Duration = Duration::from_secs(10);

/// One guest address space: a mailbox, and the host threads that run in it.
pub(crate) struct Space {
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Mailbox,
    pub(crate) hosts: Mutex<Vec<Weak<Host>>>,
    /// The parked first thread, until it is started.
    pub(crate) parked: Mutex<Option<Arc<Host>>>,
    /// Slots not in use. The oldest is taken first, so that a thread on its way out has long left it.
    slots: Mutex<VecDeque<usize>>,
    /// Pieces of files of which it has rewritten copies.
    pub(crate) patched: RwLock<Vec<Patched>>,
    /// What is to be mapped before anything else happens here.
    pub(crate) planned: Planned,
    me: Weak<Space>,
}

fn host_error(doing: &'static str) -> impl Fn(std::io::Error) -> PlatformError {
    move |source| PlatformError::Host { doing, source }
}

impl Space {
    /// One without a process.
    pub(crate) fn empty(shared: &Arc<Shared>) -> Result<Arc<Self>, PlatformError> {
        let mailbox = Mailbox::new().map_err(host_error("making a mailbox"))?;
        let space = Arc::new_cyclic(|me| Self {
            shared: Arc::clone(shared),
            mailbox,
            hosts: Mutex::default(),
            parked: Mutex::default(),
            slots: Mutex::new((0..SLOTS).collect()),
            patched: RwLock::default(),
            planned: Planned::default(),
            me: Weak::clone(me),
        });
        shared.spaces.lock().insert(Arc::as_ptr(&space).addr(), Arc::downgrade(&space));
        Ok(space)
    }

    /// One with a parked process.
    pub(crate) fn fresh(shared: &Arc<Shared>) -> Result<Arc<Self>, PlatformError> {
        let space = Self::empty(shared)?;
        let slot = space.take_slot()?;
        let process = Arc::new(Process::default());
        let pid = shared.children.clone_zygote(space.mailbox.raw_fd(), &process)?;
        let host = match space.meet(pid, slot, &process) {
            Ok(host) => host,
            Err(error) => {
                process.kill();
                return Err(error);
            }
        };
        let (at, len) = shared.children.leftover;
        let actions =
            [[libc::SYS_close as u64, 0, 0, 0, 0, 0, 0], [libc::SYS_munmap as u64, at, len, 0, 0, 0, 0]];
        host.wait()?;
        if host.run(&space, &actions)?.iter().any(|r| *r < 0) {
            process.kill();
            return Err(PlatformError::Exhausted("memory"));
        }
        *space.parked.lock() = Some(host);
        Ok(space)
    }

    /// Makes the calling thread hear the parked thread itself, until it is started.
    pub(crate) fn attend(&self) {
        let Some(host) = self.parked.lock().clone().filter(|host| !host.listener.is_led_here()) else {
            return;
        };
        if let Some(served) = CURRENT.with_borrow(Clone::clone) {
            served.listener.hand_over();
        }
        host.listener.attend();
    }

    /// Ends that.
    pub(crate) fn leave(&self) {
        if let Some(host) = &*self.parked.lock() {
            host.listener.leave();
        }
    }

    /// Whether a first thread waits in it to be started.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.lock().as_ref().is_some_and(|host| !host.process.is_buried())
    }

    /// Takes over the listener of a new process, and expects its thread at the doorbell.
    fn meet(
        self: &Arc<Self>,
        pid: i32,
        slot: usize,
        process: &Arc<Process>,
    ) -> Result<Arc<Host>, PlatformError> {
        let fd = self.fetch_listener(pid, slot, process)?;
        let listener = Listener::new(fd, &self.shared.children);
        let host = Host::new(Arc::clone(&listener), Arc::clone(process), self, slot, false);
        listener.know(pid as u32, &host);
        if process.is_buried() {
            return Err(PlatformError::Gone);
        }
        listener.attend();
        Ok(host)
    }

    fn fetch_listener(&self, pid: i32, slot: usize, process: &Process) -> Result<OwnedFd, PlatformError> {
        let began = Instant::now();
        loop {
            self.mailbox.wait_while_zero(slot, OFF_READY, LOOK_AFTER);
            let ready = self.mailbox.get(slot, OFF_READY) as u32;
            if ready != 0 {
                return sys::take_fd(pid, ready as i32 - 1).map_err(host_error("fetching a listener"));
            }
            if began.elapsed() > START_LIMIT || process.is_buried() {
                return Err(PlatformError::Unsupported {
                    platform: "systrap",
                    reason: "a guest process did not reach its stub".to_owned(),
                });
            }
        }
    }

    /// A slot for a new thread.
    pub(crate) fn take_slot(&self) -> Result<usize, PlatformError> {
        self.slots.lock().pop_front().ok_or(PlatformError::Exhausted("thread slots"))
    }

    /// A thread is gone.
    pub(crate) fn release(&self, host: &Host) {
        self.hosts.lock().retain(|h| h.as_ptr() != std::ptr::from_ref(host) && h.strong_count() > 0);
        self.slots.lock().push_back(host.slot);
    }

    /// A thread that is at its doorbell for us: the one whose trap this OS thread serves, or the parked one.
    fn own_actor(&self) -> Option<Arc<Host>> {
        let current =
            CURRENT.with_borrow(Clone::clone).filter(|h| std::ptr::eq(h.space.as_ptr(), self.me.as_ptr()));
        current.or_else(|| self.parked.lock().clone())
    }

    /// Calls `f` with some thread of this space in hand: our own, one that happens to be held, or one
    /// that is fetched from its guest's code.
    pub(crate) fn act<T>(
        &self,
        f: impl FnOnce(&Hand<'_>) -> Result<T, PlatformError>,
    ) -> Result<T, PlatformError> {
        if let Some(host) = self.own_actor() {
            return f(&host.hold_where_it_is()?);
        }
        let hosts: Vec<_> = self.hosts.lock().iter().filter_map(Weak::upgrade).collect();
        for host in &hosts {
            if let Some(hand) = host.try_hold() {
                return f(&hand);
            }
        }
        for host in &hosts {
            if let Ok(hand) = host.hold() {
                return f(&hand);
            }
        }
        Err(PlatformError::Gone)
    }

    /// An id by which the host finds the memory.
    pub(crate) fn pid(&self) -> i32 {
        let hosts = self.hosts.lock();
        hosts
            .iter()
            .filter_map(Weak::upgrade)
            .map(|h| h.tid.load(Ordering::SeqCst))
            .find(|t| *t > 0)
            .unwrap_or(0)
    }

    /// Whether these bytes are at `at`, which may be outside of what a guest can map.
    pub(crate) fn holds(&self, at: u64, bytes: &[u8]) -> bool {
        let mut found = vec![0; bytes.len()];
        memory::read(self.pid(), at, &mut found) == bytes.len() && found == bytes
    }

    /// Makes it have the rewritten code of another, of which it is a copy.
    pub(crate) fn inherit(&self, from: &Self) {
        *self.patched.write() = from.patched.read().clone();
    }

    /// Where the file of a rewritten site is mapped.
    pub(crate) fn base_of(&self, site: Site) -> Option<u64> {
        self.patched.read().iter().find(|patched| patched.copy.file == site.file).map(|patched| patched.base)
    }

    /// The site whose cell has the instruction at `ip`, where its file is, and where the instruction would be there.
    pub(crate) fn site(&self, ip: u64) -> Option<(Site, u64, u64)> {
        let (site, place) = self.shared.patches.as_ref()?.site(ip)?;
        let base = self.base_of(site)?;
        let there = match place {
            std::cmp::Ordering::Less => site.begin(base),
            std::cmp::Ordering::Equal => site.call(base),
            std::cmp::Ordering::Greater => site.after(base),
        };
        Some((site, base, there))
    }

    /// The site whose cell has its call at exactly `ip`, and where its file is.
    pub(crate) fn site_of_call(&self, ip: u64) -> Option<(Site, u64)> {
        let site = self.shared.patches.as_ref()?.site_of_call(ip)?;
        Some((site, self.base_of(site)?))
    }

    /// Where to go on instead of at `ip`, which is in the middle of a rewritten site.
    pub(crate) fn redirect(&self, ip: u64) -> Option<u64> {
        self.patched.read().iter().find_map(|patched| patched.redirect(ip))
    }
}

impl UserMem for Space {
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), Fault> {
        if window::read(self, addr, buf, false).is_some() {
            return Ok(());
        }
        if addr.0.checked_add(buf.len() as u64).is_none_or(|end| end > crate::layout::MAX_ADDRESS) {
            return Err(Fault { copied: 0 });
        }
        self.settle().map_err(|_| Fault { copied: 0 })?;
        memory::load(self.pid(), addr, buf)
    }

    fn read_some(&self, addr: UserAddr, buf: &mut [u8]) -> Result<usize, Fault> {
        if let Some(read) = window::read(self, addr, buf, true) {
            return Ok(read);
        }
        self.read(addr, buf).map(|()| buf.len())
    }

    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        if window::write(self, addr, buf) {
            return Ok(());
        }
        if addr.0.checked_add(buf.len() as u64).is_none_or(|end| end > crate::layout::MAX_ADDRESS) {
            return Err(Fault { copied: 0 });
        }
        self.settle().map_err(|_| Fault { copied: 0 })?;
        memory::store(self.pid(), addr, buf)
    }

    fn compare_exchange_u32(&self, addr: UserAddr, old: u32, new: u32) -> Result<u32, Fault> {
        let fault = Fault { copied: 0 };
        window::give_way(self, addr, 4);
        let mut now = [0; 4];
        self.read(addr, &mut now)?;
        if !addr.0.is_multiple_of(4) {
            return Err(fault);
        }
        if u32::from_ne_bytes(now) != old {
            return Ok(u32::from_ne_bytes(now));
        }
        // The stub must not fault: make the page writable first, or learn that it is not.
        let populate = [libc::SYS_madvise as u64, addr.page_down().0, 4096, 23, 0, 0, 0];
        let exchange = [ACT_CMPXCHG, addr.0, u64::from(old), u64::from(new), 0, 0, 0];
        let results = self.act(|actor| actor.run(self, &[populate, exchange])).map_err(|_| fault)?;
        match results.as_slice() {
            [0, was] => Ok(*was as u32),
            _ => Err(fault),
        }
    }
}

impl AddressSpace for Space {
    fn apply(&self, ops: &[MapOp]) -> Result<(), MapError> {
        self.map(ops)
    }

    fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), Fault> {
        window::give_way(self, addr, buf.len());
        self.settle().map_err(|_| Fault { copied: 0 })?;
        self.shared.view.write_forced(self.pid(), addr, buf)
    }

    fn memory_use(&self) -> MemoryUse {
        // What has failed to be mapped takes none.
        let _ = self.settle();
        self.shared.view.memory_use(self.pid())
    }

    fn resident_pages(&self, addr: UserAddr, pages: usize) -> Result<Vec<bool>, Errno> {
        self.settle()?;
        self.shared.view.resident_pages(self.pid(), addr, pages)
    }

    fn map_vdso(&self, addr: UserAddr) -> Result<(UserAddr, u64), MapError> {
        let failed = |errno| MapError { index: 0, errno };
        let vdso = self.shared.vdso.get().ok_or(failed(Errno::ENOSYS))?;
        self.settle()?;
        let calls = vdso.calls_to(addr);
        let results = self.act(|actor| actor.run(self, &calls)).map_err(|error| failed(error.into()))?;
        for result in results {
            ops::outcome(result).map_err(failed)?;
        }
        Ok(vdso.placed(addr))
    }

    fn futex_wake(&self, addr: UserAddr, count: u32, bitset: u32) -> Result<u32, Errno> {
        self.act(|actor| {
            ops::wake(addr, count, bitset, |call| {
                Ok(actor.run(self, &[call])?.first().copied().unwrap_or(-3))
            })
        })?
    }

    fn cpu_time(&self) -> (Duration, Duration) {
        self.shared.view.times(&self.pid().to_string())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.shared.spaces.lock().remove(&self.me.as_ptr().addr());
        if let Some(host) = self.parked.get_mut().take() {
            host.process.kill();
        }
    }
}
