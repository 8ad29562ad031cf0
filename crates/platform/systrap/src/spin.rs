//! Looking for posted calls: the spinner.
//!
//! A thread whose calls follow each other closely is *armed*: one OS thread, the spinner, looks at its mailbox
//! and serves what it posts, and neither enters the host. It is a thread of its own, as a receiver that
//! spins sits on the very processor its guest needs. A guest looks for its result only while the spinner says that it
//! looks, and rings when nobody takes the call for some microseconds, so nothing depends on the spinner but speed.
//!
//! The spinner is to use idle time only. It stops when nothing was posted for [`PATIENCE`], and when somebody else
//! wanted its processor, which shows as a gap in its time in which it was preempted, or in calls that it did not take
//! in time; then it stays away, longer each time. It is not `SCHED_IDLE`: what it serves takes locks of the kernel, others would wait for it behind everything that runs, and
//! nobody but the host's root can raise such a thread again. Where there is one processor, or a quota, there is none.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::host::Host;
use crate::layout::{OFF_SPIN, OFF_STATE, POSTED};
use crate::raw::sys;
use crate::space::Space;
use crate::task;

/// Calls in a row after which a thread is armed.
const BURST: u32 = 4;
/// Most time between two of them.
const CLOSE: Duration = Duration::from_micros(if cfg!(test) { 10_000 } else { 60 });
/// How long the spinner looks at a thread that posts nothing.
const PATIENCE: Duration = Duration::from_micros(if cfg!(test) { 1000 } else { 100 });
/// Looks between two looks at the clock.
const LOOKS: u32 = 16;
/// A gap in the spinner's time that shows that another had its processor. Tests want calls posted on busy machines
/// too.
const GAP: Duration = Duration::from_micros(if cfg!(test) { 1_000_000 } else { 80 });
/// How many calls it may not take in time, of threads it looks at: it shares its processor with them then.
const MISSED: u32 = if cfg!(test) { 1_000_000 } else { 2 };
/// How long it may take from arming a thread to looking at it, on a machine with an idle processor.
const SOON: Duration = Duration::from_micros(if cfg!(test) { 1_000_000 } else { 400 });
/// Looking was not worth while for fewer calls than this, and is not tried again for a moment.
const FEW: u32 = 8;
/// How long that is.
const REST: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 1 });
/// How long it stays away when somebody wants its processor, at first and at most.
const AWAY: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(500));
/// Threads it looks at, at most.
const MOST: usize = 64;
/// Parked threads kept for when one that serves a call comes to sleep.
const SPARE: usize = 1;

/// How closely a thread's calls follow each other.
#[derive(Default)]
pub(crate) struct Streak {
    last: AtomicU64,
    count: AtomicU32,
    armed: AtomicBool,
    /// The spinner has begun to look at it.
    looked_at: AtomicBool,
}

/// A thread that is looked at.
struct Hot {
    host: Arc<Host>,
    space: Arc<Space>,
    last: Instant,
}

impl Hot {
    fn is_posted(&self) -> bool {
        self.space.mailbox.load(self.host.slot, OFF_STATE) == POSTED
    }

    fn cool(&self) {
        self.space.mailbox.store(self.host.slot, OFF_SPIN, 0);
        self.host.streak.count.store(0, Ordering::Relaxed);
        self.host.streak.looked_at.store(false, Ordering::Relaxed);
        self.host.streak.armed.store(false, Ordering::Release);
    }
}

thread_local! {
    /// What the spinner looks at, while it is this thread.
    static ROLE: RefCell<Option<Vec<Hot>>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct State {
    /// Armed, and not looked at yet.
    armed: Vec<Hot>,
    spinning: bool,
    idle: usize,
    away: Duration,
}

/// See the module.
pub(crate) struct Spinner {
    state: Mutex<State>,
    woken: Condvar,
    /// `State::armed` has some.
    more: AtomicBool,
    /// The spinner serves a call.
    serving: AtomicBool,
    /// Calls that it should have taken and has not.
    missed: AtomicU32,
    began: Instant,
    /// Nanoseconds since `began` before which it stays away.
    away_until: AtomicU64,
}

impl Spinner {
    /// One that has nothing to look at.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            woken: Condvar::new(),
            more: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            missed: AtomicU32::new(0),
            began: Instant::now(),
            away_until: AtomicU64::new(0),
        })
    }

    /// A thread makes a call that it could have posted.
    pub(crate) fn notice(self: &Arc<Self>, host: &Arc<Host>, space: &Arc<Space>) {
        let streak = &host.streak;
        let now = self.began.elapsed().as_nanos() as u64;
        let last = streak.last.swap(now, Ordering::Relaxed);
        if now.saturating_sub(last) > CLOSE.as_nanos() as u64 {
            return streak.count.store(1, Ordering::Relaxed);
        }
        let count = streak.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count < BURST || now < self.away_until.load(Ordering::Relaxed) {
            return;
        }
        if !streak.armed.swap(true, Ordering::AcqRel) {
            self.arm(Hot { host: Arc::clone(host), space: Arc::clone(space), last: Instant::now() });
        } else if streak.looked_at.load(Ordering::Relaxed)
            && !self.serving.load(Ordering::Relaxed)
            && space.mailbox.load(host.slot, OFF_SPIN) == 0
        {
            // It has given up on a spinner that had nothing else to do, and so had no processor.
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn arm(self: &Arc<Self>, hot: Hot) {
        let mut state = self.state.lock();
        if state.armed.len() >= MOST {
            drop(state);
            return hot.cool();
        }
        state.armed.push(hot);
        self.more.store(true, Ordering::Release);
        self.call_one(&mut state);
    }

    /// Has somebody look, if there is anything and nobody does.
    fn call_one(self: &Arc<Self>, state: &mut State) {
        if state.spinning || state.armed.is_empty() {
            return;
        }
        if state.idle > 0 {
            state.idle -= 1;
            state.spinning = true;
            self.woken.notify_one();
            return;
        }
        let spinner = Arc::clone(self);
        let thread = std::thread::Builder::new().name("systrap-spin".into()).stack_size(1 << 20);
        state.spinning = thread.spawn(move || spinner.run()).is_ok();
        if !state.spinning {
            state.armed.drain(..).for_each(|hot| hot.cool());
        }
    }

    fn run(self: Arc<Self>) {
        loop {
            let still = self.spin();
            let mut state = self.state.lock();
            if still && !state.armed.is_empty() {
                continue;
            }
            state.spinning &= !still;
            if state.idle >= SPARE {
                return;
            }
            state.idle += 1;
            // Whoever calls takes one off, and one wakes for each.
            self.woken.wait(&mut state);
        }
    }

    /// Looks and serves until there is nothing to look at. Whether this thread still is the spinner.
    fn spin(self: &Arc<Self>) -> bool {
        ROLE.set(Some(Vec::new()));
        let (mut seen, mut looks, began) = (Instant::now(), 0, Instant::now());
        let (preempted, mut served) = (sys::preemptions(), 0u32);
        self.missed.store(0, Ordering::Relaxed);
        loop {
            if self.more.swap(false, Ordering::Acquire) && !self.take_over() {
                self.stay_away(Instant::now(), AWAY.0);
                break;
            }
            match posted() {
                Some((host, space)) => {
                    let at = Arc::as_ptr(&host);
                    if let Some(call) = host.take_posted(&space) {
                        self.serving.store(true, Ordering::Relaxed);
                        task::posted(host, space, call);
                    }
                    if ROLE.with_borrow(Option::is_none) {
                        return false;
                    }
                    self.serving.store(false, Ordering::Relaxed);
                    served += 1;
                    seen = Instant::now();
                    looked_at(at, seen);
                }
                None => std::hint::spin_loop(),
            }
            looks += 1;
            if looks % LOOKS != 0 {
                continue;
            }
            let now = Instant::now();
            // A gap may be the hypervisor's, too.
            let gap = now.duration_since(seen) > GAP && sys::preemptions() != preempted;
            if gap || self.missed.load(Ordering::Relaxed) >= MISSED {
                self.stay_away(now, self.next_time_away(now.duration_since(began)));
                break;
            }
            seen = now;
            if !keep_warm(now) && !self.more.load(Ordering::Acquire) {
                if served < FEW {
                    self.stay_away(now, REST);
                }
                break;
            }
        }
        ROLE.take().into_iter().flatten().for_each(|hot| hot.cool());
        true
    }

    /// Begins to look at what was armed. Whether that was but now: a machine where it takes long has no idle processor.
    fn take_over(&self) -> bool {
        let armed = std::mem::take(&mut self.state.lock().armed);
        let (now, mut soon) = (Instant::now(), true);
        ROLE.with_borrow_mut(|role| {
            let Some(role) = role else { return };
            for mut hot in armed {
                soon &= now.duration_since(hot.last) < SOON;
                if role.len() >= MOST {
                    hot.cool();
                    continue;
                }
                hot.last = now;
                hot.space.mailbox.store(hot.host.slot, OFF_SPIN, 1);
                hot.host.streak.looked_at.store(true, Ordering::Relaxed);
                role.push(hot);
            }
        });
        soon
    }

    /// This thread comes to sleep over the call of `host`: another looks at the rest.
    fn hand_over(self: &Arc<Self>, host: &Arc<Host>) {
        let Some(role) = ROLE.take() else { return };
        self.serving.store(false, Ordering::Relaxed);
        let (ours, others): (Vec<_>, Vec<_>) = role.into_iter().partition(|hot| Arc::ptr_eq(&hot.host, host));
        ours.iter().for_each(Hot::cool);
        let mut state = self.state.lock();
        state.spinning = false;
        state.armed.extend(others);
        if !state.armed.is_empty() {
            self.more.store(true, Ordering::Release);
        }
        self.call_one(&mut state);
    }

    /// How long to stay away when somebody else has wanted the processor after so long.
    fn next_time_away(&self, spun: Duration) -> Duration {
        let mut state = self.state.lock();
        // After a good while it was a coincidence.
        state.away = if spun > AWAY.1 { AWAY.0 } else { (state.away * 2).clamp(AWAY.0, AWAY.1) };
        state.away
    }

    /// Looks at nothing for some time.
    fn stay_away(&self, now: Instant, time: Duration) {
        let mut state = self.state.lock();
        let until = now.duration_since(self.began) + time;
        self.away_until.store(until.as_nanos() as u64, Ordering::Relaxed);
        state.armed.drain(..).for_each(|hot| hot.cool());
    }
}

/// Some thread that has posted a call.
fn posted() -> Option<(Arc<Host>, Arc<Space>)> {
    ROLE.with_borrow(|role| {
        let hot = role.as_ref()?.iter().find(|hot| hot.is_posted())?;
        Some((Arc::clone(&hot.host), Arc::clone(&hot.space)))
    })
}

/// This OS thread comes to sleep over the call of `host`. Whether it was the spinner, which another is now.
pub(crate) fn comes_to_sleep(host: &Arc<Host>) -> bool {
    let spins = ROLE.with_borrow(Option::is_some);
    if let Some(space) = host.space.upgrade().filter(|_| spins) {
        host.slow_down(&space);
        if let Some(spinner) = &space.shared.spinner {
            spinner.hand_over(host);
        }
    }
    spins
}

/// Notes that a thread posted something. It goes last, so that others have their turn.
fn looked_at(host: *const Host, now: Instant) {
    ROLE.with_borrow_mut(|role| {
        let Some(role) = role else { return };
        if let Some(at) = role.iter().position(|hot| std::ptr::eq(Arc::as_ptr(&hot.host), host)) {
            if let Some(hot) = role.get_mut(at) {
                hot.last = now;
            }
            if let Some(behind) = role.get_mut(at..) {
                behind.rotate_left(1);
            }
        }
    });
}

/// Looks no longer at threads that have posted nothing for long. Whether any are left.
fn keep_warm(now: Instant) -> bool {
    ROLE.with_borrow_mut(|role| {
        let Some(role) = role else { return false };
        role.retain(|hot| {
            let warm = now.duration_since(hot.last) < PATIENCE;
            if !warm {
                hot.cool();
            } else if hot.space.mailbox.load(hot.host.slot, OFF_SPIN) == 0 {
                // It has given up on us, and we look all the same.
                hot.space.mailbox.store(hot.host.slot, OFF_SPIN, 1);
            }
            warm
        });
        !role.is_empty()
    })
}
