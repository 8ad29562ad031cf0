//! `poll(2)`, `ppoll(2)`, `select(2)`, `pselect(2)`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::poll::PollEvents;
use abi::signal::SigSet;
use abi::time::{Timespec, Timeval};
use abi::{Errno, Restart, SysError, SysResult};
use guestmem::{MemExt, UserAddr, UserPtr};
use kernel::BlockError;
use vfs::OpenFile;

use crate::cx::Cx;
use crate::epolls::Deadline;
use crate::restart::later;

/// Most descriptors a bitmap names (`fs.nr_open`).
const MAX_FDS: i32 = 1 << 20;

/// `struct pollfd` as a word: descriptor, events, results.
pub(crate) type PollFd = [u8; 8];

/// A signal mask for the duration of one call.
pub(crate) struct TemporaryMask(Option<SigSet>);

impl TemporaryMask {
    /// Null is none. `EINVAL` for another size than ours.
    pub(crate) fn load(cx: &Cx<'_>, mask: UserPtr<SigSet>, size: usize) -> SysResult<Self> {
        let Some(mask) = mask.non_null() else { return Ok(Self(None)) };
        if size != size_of::<SigSet>() {
            return Err(Errno::EINVAL.into());
        }
        Ok(Self(Some(cx.mm().load(mask)?)))
    }

    /// Runs `call` under the mask. After an interruption the mask stays for the handler, and the kernel
    /// takes it back when that has begun.
    pub(crate) fn during<T>(self, cx: &Cx<'_>, call: impl FnOnce(&Cx<'_>) -> SysResult<T>) -> SysResult<T> {
        let Some(mask) = self.0 else { return call(cx) };
        cx.task.set_temporary_mask(mask);
        let result = call(cx);
        match result {
            Err(SysError::Restart(_) | SysError::Errno(Errno::EINTR)) => {}
            _ => cx.task.clear_temporary_mask(),
        }
        result
    }
}

/// A timeout of milliseconds; negative is for ever.
pub(crate) fn deadline_in_millis(millis: i32) -> Deadline {
    match u64::try_from(millis) {
        Ok(0) => Deadline::Now,
        Ok(millis) => deadline_in(Duration::from_millis(millis)),
        Err(_) => Deadline::Never,
    }
}

fn deadline_in(time: Duration) -> Deadline {
    if time.is_zero() {
        return Deadline::Now;
    }
    Instant::now().checked_add(time).map_or(Deadline::Never, Deadline::At)
}

/// One descriptor watched.
struct Watched {
    file: Option<Arc<OpenFile>>,
    interest: PollEvents,
}

impl Watched {
    /// Events that are there now; `NVAL` without a file.
    fn ready(&self) -> PollEvents {
        match &self.file {
            Some(file) => file.file().poll() & self.interest,
            None => PollEvents::NVAL,
        }
    }
}

/// How a wait for several files ended.
enum Ended {
    /// With this many ready, or none at the deadline.
    Ready(usize),
    Interrupted,
}

/// Waits until some are ready. `look` counts them.
fn wait(cx: &Cx<'_>, watched: &[Watched], deadline: Deadline, mut look: impl FnMut() -> usize) -> Ended {
    let found = look();
    if found > 0 || deadline == Deadline::Now {
        return Ended::Ready(found);
    }
    let task = cx.task;
    task.parker().clear_notification();
    let queues = watched.iter().filter_map(|one| {
        let queue = one.file.as_ref()?.file().wait_queue()?;
        Some(queue.register(task.parker().clone(), one.interest))
    });
    let _waiters: Vec<_> = queues.collect();
    let until = if let Deadline::At(at) = deadline { Some(at) } else { None };
    loop {
        let found = look();
        if found > 0 {
            return Ended::Ready(found);
        }
        match task.block(until) {
            Ok(()) => {}
            Err(BlockError::TimedOut) => return Ended::Ready(look()),
            Err(BlockError::Interrupted) => return Ended::Interrupted,
        }
    }
}

/// `poll(2)`.
pub(crate) fn poll(cx: &mut Cx<'_>, fds: UserPtr<PollFd>, count: u32, millis: i32) -> SysResult<u64> {
    poll_until(cx, fds, count, deadline_in_millis(millis))
}

/// A poll that goes on with its deadline after a signal without a handler.
fn poll_until(cx: &Cx<'_>, fds: UserPtr<PollFd>, count: u32, deadline: Deadline) -> SysResult<u64> {
    match poll_files(cx, fds, count, deadline)? {
        Ended::Ready(found) => Ok(found as u64),
        Ended::Interrupted => Err(later(cx, move |cx| poll_until(cx, fds, count, deadline))),
    }
}

/// `ppoll(2)`: what is left of the timeout is written back.
pub(crate) fn ppoll(
    cx: &mut Cx<'_>,
    fds: UserPtr<PollFd>,
    count: u32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<SigSet>,
    size: usize,
) -> SysResult<usize> {
    let deadline = match timeout.non_null() {
        Some(timeout) => deadline_in(cx.mm().load(timeout)?.to_duration().ok_or(Errno::EINVAL)?),
        None => Deadline::Never,
    };
    let mask = TemporaryMask::load(cx, mask, size)?;
    mask.during(cx, |cx| {
        let ended = poll_files(cx, fds, count, deadline);
        if let Some(timeout) = timeout.non_null() {
            // As on Linux, not being able to say what is left is no error.
            let _ = cx.mm().store(timeout, &Timespec::from(left(deadline)));
        }
        match ended? {
            Ended::Ready(found) => Ok(found),
            Ended::Interrupted => Err(Restart::NoHandler.into()),
        }
    })
}

/// Time until a deadline.
fn left(deadline: Deadline) -> Duration {
    match deadline {
        Deadline::At(at) => at.saturating_duration_since(Instant::now()),
        Deadline::Now | Deadline::Never => Duration::ZERO,
    }
}

fn poll_files(cx: &Cx<'_>, fds: UserPtr<PollFd>, count: u32, deadline: Deadline) -> SysResult<Ended> {
    if u64::from(count) > cx.max_fds() {
        return Err(Errno::EINVAL.into());
    }
    let mm = cx.mm();
    let mut entries = if count == 0 { Vec::new() } else { mm.load_array(fds, count as usize)? };
    let table = cx.fds()?;
    // Negative descriptors are skipped, and have no results.
    let mut watched = Vec::with_capacity(entries.len());
    let mut places = Vec::with_capacity(entries.len());
    for (place, [a, b, c, d, low, high, ..]) in entries.iter().copied().enumerate() {
        let fd = i32::from_le_bytes([a, b, c, d]);
        if fd < 0 {
            continue;
        }
        let events = PollEvents::from_bits_truncate(u32::from(u16::from_le_bytes([low, high])));
        let file = table.get(fd).ok().filter(|file| file.require_io().is_ok());
        watched.push(Watched { file, interest: events | PollEvents::ALWAYS });
        places.push(place);
    }
    let mut results = vec![PollEvents::empty(); entries.len()];
    let ended = wait(cx, &watched, deadline, || {
        let mut found = 0;
        for (one, place) in watched.iter().zip(&places) {
            let ready = one.ready();
            found += usize::from(!ready.is_empty());
            if let Some(result) = results.get_mut(*place) {
                *result = ready;
            }
        }
        found
    });
    for (entry, result) in entries.iter_mut().zip(&results) {
        let [low, high] = (result.bits() as u16).to_le_bytes();
        let [.., a, b] = entry;
        (*a, *b) = (low, high);
    }
    if let Ended::Ready(_) = ended {
        mm.store_array(fds, &entries)?;
    }
    Ok(ended)
}

/// `select(2)`: what is left of the timeout is written back.
pub(crate) fn select(
    cx: &mut Cx<'_>,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    timeout: UserPtr<Timeval>,
) -> SysResult<usize> {
    let deadline = match timeout.non_null() {
        Some(timeout) => {
            let time = cx.mm().load(timeout)?;
            // Microseconds may be more than a second.
            let (sec, usec) = (u64::try_from(time.sec), u64::try_from(time.usec));
            let (Ok(sec), Ok(usec)) = (sec, usec) else { return Err(Errno::EINVAL.into()) };
            deadline_in(Duration::from_secs(sec).saturating_add(Duration::from_micros(usec)))
        }
        None => Deadline::Never,
    };
    let result = select_files(cx, count, [read, write, except], deadline);
    if let Some(timeout) = timeout.non_null() {
        let _ = cx.mm().store(timeout, &Timeval::from(left(deadline)));
    }
    result
}

/// `pselect6(2)`. The mask comes with its size, behind one more pointer.
pub(crate) fn pselect6(
    cx: &mut Cx<'_>,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<[u64; 2]>,
) -> SysResult<usize> {
    let deadline = match timeout.non_null() {
        Some(timeout) => deadline_in(cx.mm().load(timeout)?.to_duration().ok_or(Errno::EINVAL)?),
        None => Deadline::Never,
    };
    let [mask, size] = mask.non_null().map(|mask| cx.mm().load(mask)).transpose()?.unwrap_or_default();
    let mask = TemporaryMask::load(cx, UserPtr::new(UserAddr(mask)), size as usize)?;
    mask.during(cx, |cx| {
        let result = select_files(cx, count, [read, write, except], deadline);
        if let Some(timeout) = timeout.non_null() {
            let _ = cx.mm().store(timeout, &Timespec::from(left(deadline)));
        }
        result
    })
}

/// What each of the three sets waits for, and what of it sets a bit.
const SETS: [PollEvents; 3] = [
    PollEvents::READABLE.union(PollEvents::RDBAND).union(PollEvents::HUP).union(PollEvents::ERR),
    PollEvents::WRITABLE.union(PollEvents::WRBAND).union(PollEvents::ERR),
    PollEvents::PRI,
];

fn select_files(cx: &Cx<'_>, count: i32, sets: [UserPtr<u64>; 3], deadline: Deadline) -> SysResult<usize> {
    let count = u32::try_from(count.min(MAX_FDS)).map_err(|_| Errno::EINVAL)?;
    let (mm, words) = (cx.mm(), count.div_ceil(64) as usize);
    let mut wanted: [Vec<u64>; 3] = [const { Vec::new() }; 3];
    for (to, from) in wanted.iter_mut().zip(sets) {
        *to = match from.non_null() {
            Some(from) if words > 0 => mm.load_array(from, words)?,
            _ => vec![0; words],
        };
    }
    let (watched, fds) = watch(cx, count, &wanted)?;
    let mut results = wanted.clone();
    let ended = wait(cx, &watched, deadline, || {
        let mut found = 0;
        results.iter_mut().for_each(|set| set.fill(0));
        for (one, fd) in watched.iter().zip(&fds) {
            let ready = one.ready();
            for ((result, wanted), events) in results.iter_mut().zip(&wanted).zip(SETS) {
                if is_set(wanted, *fd) && ready.intersects(events) {
                    found += 1;
                    if let Some(word) = result.get_mut((fd / 64) as usize) {
                        *word |= 1 << (fd % 64);
                    }
                }
            }
        }
        found
    });
    let Ended::Ready(found) = ended else { return Err(Restart::NoHandler.into()) };
    for (to, result) in sets.iter().zip(&results) {
        if let Some(to) = to.non_null().filter(|_| words > 0) {
            mm.store_array(to, result)?;
        }
    }
    Ok(found)
}

fn is_set(set: &[u64], fd: u32) -> bool {
    set.get((fd / 64) as usize).is_some_and(|word| word >> (fd % 64) & 1 != 0)
}

/// Files of all bits below `count`; `EBADF` for one that is not open.
fn watch(cx: &Cx<'_>, count: u32, wanted: &[Vec<u64>; 3]) -> SysResult<(Vec<Watched>, Vec<u32>)> {
    let table = cx.fds()?;
    let (mut watched, mut fds) = (Vec::new(), Vec::new());
    for fd in 0..count {
        let mut interest = PollEvents::empty();
        for (set, events) in wanted.iter().zip(SETS) {
            if is_set(set, fd) {
                interest |= events;
            }
        }
        if interest.is_empty() {
            continue;
        }
        let file = table.get(fd as i32)?;
        file.require_io()?;
        watched.push(Watched { file: Some(file), interest: interest | PollEvents::ALWAYS });
        fds.push(fd);
    }
    Ok((watched, fds))
}
