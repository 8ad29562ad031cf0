//! Any call with any arguments: nothing a guest can say makes the Sentry panic, hang, or take memory
//! without bound.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use abi::process::WaitStatus;
use abi::signal::Signal;
use abi::syscall as nr;
use kernel::Task;

use platform::Resume;

use crate::testkit::{DATA, Guest};
use crate::x86_64::X86_64;

/// Calls that end the guest of a test, or wait for a child that nobody runs.
const NOT_HERE: &[u32] =
    &[nr::clone, nr::clone3, nr::fork, nr::vfork, nr::exit, nr::exit_group, nr::rt_sigreturn, nr::seccomp];

/// How many, and how many calls each may make.
const GUESTS: u32 = 12;
const CALLS: u32 = 1000;

/// xorshift64*: the same calls every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An argument: a descriptor, a flag, a size, a pointer to something or nothing.
    fn argument(&mut self) -> u64 {
        match self.below(12) {
            0..=2 => self.below(12),
            3 => 1 << self.below(64),
            4 => (1u64 << self.below(64)).wrapping_sub(1),
            5 => (-(self.below(200) as i64)) as u64,
            6 => DATA + 0x10_0000 + self.below(PATHS.len() as u64) * 0x2000,
            7..=9 => DATA + self.below(64) * 8,
            10 => self.below(1 << 16),
            _ => self.next(),
        }
    }

    /// What lies where pointers lead.
    fn word(&mut self) -> u64 {
        if self.below(3) == 0 { self.argument() } else { self.below(40) }
    }
}

const PATHS: &[&str] =
    &["/", ".", "", "/f", "/d", "/d/e", "/d/..", "/fifo", "l", "f/g", "//d//", "/d/e/../../f"];

fn furnish(guest: &mut Guest) {
    for (slot, path) in (0..).zip(PATHS) {
        guest.path(slot, path);
    }
    let at = |slot: u64| DATA + 0x10_0000 + slot * 0x2000;
    let _ = guest.call(nr::mkdir, [at(4), 0o755]);
    let _ = guest.call(nr::mknod, [at(7), 0o010666, 0]);
    let _ = guest.call(nr::symlink, [at(4), at(8)]);
    let _ = guest.call(nr::open, [at(3), 0o102, 0o666]);
    let _ = guest.call(nr::pipe2, [DATA, 0]);
    let _ = guest.call(nr::socketpair, [1, 1, 0, DATA]);
    let _ = guest.call(nr::epoll_create1, [0]);
    let _ = guest.call(nr::timerfd_create, [1, 0]);
    let _ = guest.call(nr::eventfd2, [0, 0]);
}

/// What is called now, for the watcher.
type Now = Option<(Instant, Arc<Task>, u32, [u64; 6])>;

/// How long a call may sleep before its guest is killed.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long it may take to notice that.
const LIMIT: Duration = Duration::from_secs(20);

/// Kills guests that sleep, which is their right; whoever does not even end then hangs.
fn watch(now: &Mutex<Now>, over: Receiver<()>) {
    while over.recv_timeout(PATIENCE / 4) == Err(RecvTimeoutError::Timeout) {
        let Some((since, task, number, args)) = now.lock().expect("no panic").clone() else { continue };
        if since.elapsed() > LIMIT {
            eprintln!("{:?} hangs with {args:x?}", abi::syscall::name(u64::from(number)));
            std::process::abort();
        }
        if since.elapsed() > PATIENCE {
            task.kernel().end_group(task.group(), WaitStatus::Signaled(Signal::SIGKILL, false));
        }
    }
}

/// Makes random calls, for some guests one after the other.
fn call(random: &mut Random, now: &Mutex<Now>) {
    let calls: Vec<u32> =
        X86_64.rows().map(|row| row.nr).filter(|number| !NOT_HERE.contains(number)).collect();
    for _ in 0..GUESTS {
        let mut guest = Guest::new();
        furnish(&mut guest);
        for _ in 0..CALLS {
            let index = random.below(calls.len() as u64) as usize;
            let number = calls.get(index).copied().expect("one of them");
            let args: [u64; 6] = std::array::from_fn(|_| random.argument());
            let words: Vec<u8> = (0..64).flat_map(|_| random.word().to_le_bytes()).collect();
            guest.put(DATA, &words);
            *now.lock().expect("no panic") = Some((Instant::now(), Arc::clone(&guest.task), number, args));
            let resume = guest.thread.call(u64::from(number), args);
            *now.lock().expect("no panic") = None;
            if matches!(resume, Resume::Exit | Resume::ExitProcess) {
                break;
            }
        }
    }
}

#[test]
fn no_call_with_any_arguments_is_too_much() {
    let now = Mutex::new(None);
    let (end, over) = channel();
    std::thread::scope(|scope| {
        let now = &now;
        let watcher = scope.spawn(move || watch(now, over));
        call(&mut Random(0x9e37_79b9_7f4a_7c15), now);
        drop(end);
        watcher.join().expect("the watcher");
    });
}
