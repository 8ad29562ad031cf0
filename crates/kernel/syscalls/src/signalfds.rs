//! `signalfd(2)`: pending signals as a file.
//!
//! A read takes the signals of the task that reads; readiness is that of the process that made it.

use std::any::Any;
use std::sync::{Arc, Weak};

use abi::fs::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::{SI_TIMER, SigInfo, SigSet, Signal};
use abi::{Errno, SysResult};
use guestmem::{IoSink, MemExt, UserPtr};
use kernel::{Kernel, Task};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::{File, FileContext, Result};

use crate::anon::{creation_flags, install};
use crate::args::Fd;
use crate::cx::Cx;

/// Bytes of `struct signalfd_siginfo`.
const RECORD: usize = 128;

struct SignalFd {
    kernel: Weak<Kernel>,
    owner: Weak<Task>,
    set: Mutex<order::Leaf, SigSet>,
    queue: WaitQueue,
}

/// The record of a signal: the same facts in other places, by what kind of signal it is.
fn record(signal: Signal, info: &SigInfo) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    let mut put = |at: usize, from: usize, len: usize| {
        let (to, from) = (out.get_mut(at..at + len), info.fields.get(from..from + len));
        if let (Some(to), Some(from)) = (to, from) {
            to.copy_from_slice(from);
        }
    };
    match signal {
        Signal::SIGCHLD if info.code > 0 => {
            put(12, 0, 8);
            put(40, 8, 4);
            put(56, 16, 16);
        }
        Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE | Signal::SIGTRAP
            if info.code > 0 =>
        {
            put(72, 0, 8);
        }
        _ if info.code == SI_TIMER => {
            put(24, 0, 4);
            put(32, 4, 4);
            put(44, 8, 4);
            put(48, 8, 8);
        }
        _ => {
            put(12, 0, 8);
            put(44, 8, 4);
            put(48, 8, 8);
        }
    }
    let head = [u32::from(signal.number()), info.errno as u32, info.code as u32];
    for (to, from) in out.iter_mut().zip(head.iter().flat_map(|word| word.to_le_bytes())) {
        *to = from;
    }
    out
}

impl File for SignalFd {
    fn read(&self, cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        if sink.remaining() < RECORD {
            return Err(Errno::EINVAL);
        }
        let task = self.kernel.upgrade().and_then(|kernel| kernel.task(cx.tid)).ok_or(Errno::ESRCH)?;
        let set = *self.set.lock();
        let mut done = 0;
        while sink.remaining() >= RECORD {
            let Some((signal, info)) = task.dequeue(set) else { break };
            match sink.put(&record(signal, &info)) {
                Ok(n) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        let pending = self.owner.upgrade().map(|task| task.all_pending()).unwrap_or_default();
        let set = *self.set.lock();
        if pending.intersection(set).is_empty() { PollEvents::empty() } else { PollEvents::READABLE }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `signalfd(2)`.
pub(crate) fn signalfd(cx: &mut Cx<'_>, fd: Fd, set: UserPtr<SigSet>, size: usize) -> SysResult<Fd> {
    signalfd4(cx, fd, set, size, 0)
}

/// `signalfd4(2)`: with -1 makes one, else changes the set of one.
pub(crate) fn signalfd4(
    cx: &mut Cx<'_>,
    fd: Fd,
    set: UserPtr<SigSet>,
    size: usize,
    flags: u32,
) -> SysResult<Fd> {
    if size != size_of::<SigSet>() {
        return Err(Errno::EINVAL.into());
    }
    let set = cx.mm().load(set)?.difference(SigSet::UNBLOCKABLE);
    let flags = creation_flags(flags, OpenFlags::empty())?;
    if fd.0 != -1 {
        let file = cx.io_file(fd)?;
        let signals: &SignalFd = file.file().as_any().downcast_ref().ok_or(Errno::EINVAL)?;
        *signals.set.lock() = set;
        signals.queue.notify(PollEvents::READABLE);
        return Ok(fd);
    }
    let signals = SignalFd {
        kernel: Arc::downgrade(cx.task.kernel()),
        owner: Arc::downgrade(cx.task),
        set: Mutex::new(set),
        queue: cx.task.group().signal_events().clone(),
    };
    install(cx, "[signalfd]", Arc::new(signals), flags | OpenFlags::RDWR)
}

#[cfg(test)]
mod tests {
    use abi::signal::{SI_USER, SigInfo, Signal};

    use super::record;

    #[test]
    fn facts_move_to_their_places() {
        let word =
            |record: &[u8], at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four"));
        let sent = record(Signal::SIGUSR1, &SigInfo::from_sender(Signal::SIGUSR1, SI_USER, 7, 8));
        assert_eq!((word(&sent, 0), word(&sent, 12), word(&sent, 16)), (10, 7, 8));
        let child = record(Signal::SIGCHLD, &SigInfo::child(1, 9, 3, 42, 0, 0));
        assert_eq!((word(&child, 8), word(&child, 12), word(&child, 40)), (1, 9, 42));
    }
}
