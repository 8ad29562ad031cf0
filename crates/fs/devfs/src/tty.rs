//! A pseudo-terminal and its two ends (`pty(7)`).
//!
//! The console of a container is one as well: the Sentry holds its [`MasterFile`] and moves bytes between
//! it and the terminal the host handed in.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use abi::Errno;
use abi::fs::OpenFlags;
use abi::poll::PollEvents;
use abi::signal::Signal;
use abi::tty::{LocalModes, Winsize, cc};
use guestmem::{IoSink, IoSource};
use sync::wait::WaitQueue;
use sync::{Mutex, order};
use vfs::{File, FileContext, IoctlRequest, Result};

use crate::job::JobControl;

mod ioctl;
mod ldisc;

use ldisc::{Effects, Ldisc, Readiness};

/// Bytes moved under one turn of the lock.
const PIECE: usize = 4096;
/// `TIOCPKT_DATA`: a packet with data.
const PKT_DATA: u8 = 0;

/// A terminal.
pub struct Tty {
    index: u32,
    rdev: u64,
    jobs: Arc<dyn JobControl>,
    state: Mutex<order::FileState, State>,
    master_queue: WaitQueue,
    slave_queue: WaitQueue,
}

#[derive(Debug, Default)]
struct State {
    ldisc: Ldisc,
    winsize: Winsize,
    session: Option<i32>,
    foreground: Option<i32>,
    slaves: u32,
    /// A slave was open once and none is now.
    slave_gone: bool,
    master_gone: bool,
    locked: bool,
    packet: bool,
    /// `TIOCPKT_*` bits the master has not read.
    packet_status: u8,
}

impl std::fmt::Debug for Tty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tty").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Tty {
    /// A terminal with number `index` and device number `rdev`, whose slave is locked if `locked`; and its
    /// master. Dropping the master hangs it up.
    pub fn new(index: u32, rdev: u64, locked: Locked, jobs: Arc<dyn JobControl>) -> (Arc<Self>, MasterFile) {
        let state = State { locked: locked == Locked::Yes, ..State::default() };
        let tty = Arc::new(Self {
            index,
            rdev,
            jobs,
            state: Mutex::new(state),
            master_queue: WaitQueue::new(),
            slave_queue: WaitQueue::new(),
        });
        let master = MasterFile { tty: Arc::clone(&tty), on_close: None };
        (tty, master)
    }

    /// Number in `/dev/pts`.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Device number of the slave.
    pub fn rdev(&self) -> u64 {
        self.rdev
    }

    /// Session it controls, if any.
    pub fn session(&self) -> Option<i32> {
        self.state.lock().session
    }

    /// Foreground process group.
    pub fn foreground(&self) -> Option<i32> {
        self.state.lock().foreground
    }

    /// Opens the slave; `EIO` while it is locked or without a master. A session leader without a
    /// controlling terminal gets this one unless `NOCTTY`.
    pub fn open_slave(self: &Arc<Self>, cx: &FileContext<'_>, flags: OpenFlags) -> Result<SlaveFile> {
        {
            let mut state = self.state.lock();
            if state.locked || state.master_gone {
                return Err(Errno::EIO);
            }
            state.slaves += 1;
            state.slave_gone = false;
        }
        let file = SlaveFile { tty: Arc::clone(self), flags: Mutex::new(flags) };
        let job = self.jobs.job(cx).filter(|job| job.is_leader && !job.has_terminal);
        if let Some(job) = job
            && !flags.contains(OpenFlags::NOCTTY)
            && self.session().is_none()
        {
            self.control(cx, job.session, job.group)?;
        }
        Ok(file)
    }

    /// Becomes the controlling terminal of the caller's session.
    fn control(self: &Arc<Self>, cx: &FileContext<'_>, session: i32, group: i32) -> Result<()> {
        self.jobs.attach(cx, self)?;
        let mut state = self.state.lock();
        (state.session, state.foreground) = (Some(session), Some(group));
        Ok(())
    }

    /// The kernel says that the session has ended or given the terminal up.
    pub fn disassociate(&self, session: i32) {
        let mut state = self.state.lock();
        if state.session == Some(session) {
            (state.session, state.foreground) = (None, None);
        }
    }

    /// Sets the window size and tells the foreground group (`SIGWINCH`).
    pub fn set_winsize(&self, winsize: Winsize) {
        let group = {
            let mut state = self.state.lock();
            if state.winsize == winsize {
                return;
            }
            state.winsize = winsize;
            state.foreground
        };
        self.signal(group, &[Signal::SIGWINCH]);
    }

    fn signal(&self, group: Option<i32>, signals: &[Signal]) {
        let Some(group) = group else { return };
        for signal in signals {
            self.jobs.signal_group(group, *signal);
        }
    }

    fn wake_both(&self) {
        self.master_queue.notify(PollEvents::READABLE | PollEvents::WRITABLE);
        self.slave_queue.notify(PollEvents::READABLE | PollEvents::WRITABLE);
    }

    /// May the caller, if in a background group, go on? `EAGAIN` stands for "interrupted": the signal is
    /// pending by then and ends the wait it leads to.
    fn check_background(&self, cx: &FileContext<'_>, signal: Signal) -> Result<()> {
        let Some(job) = self.jobs.job(cx) else { return Ok(()) };
        let (session, foreground) = {
            let state = self.state.lock();
            (state.session, state.foreground)
        };
        let background = session == Some(job.session) && foreground.is_some_and(|g| g != job.group);
        if !background || self.jobs.background(cx, signal)? { Ok(()) } else { Err(Errno::EAGAIN) }
    }
}

/// Is a new slave locked?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// Until `TIOCSPTLCK` (`unlockpt(3)`).
    Yes,
    /// No.
    No,
}

/// The end a terminal emulator holds.
pub struct MasterFile {
    tty: Arc<Tty>,
    on_close: Option<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for MasterFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterFile").field("tty", &self.tty).finish_non_exhaustive()
    }
}

impl MasterFile {
    /// The terminal.
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }

    /// Runs `hook` when it is closed.
    pub(crate) fn on_close(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_close = Some(Box::new(hook));
        self
    }

    fn take(&self, want: usize) -> Result<Vec<u8>> {
        let mut state = self.tty.state.lock();
        if state.packet {
            let status = std::mem::take(&mut state.packet_status);
            if status != 0 {
                return Ok(vec![status]);
            }
        }
        if state.ldisc.output_len() == 0 {
            return Err(if state.slave_gone { Errno::EIO } else { Errno::EAGAIN });
        }
        let head = state.packet.then_some(PKT_DATA);
        let data = state.ldisc.take_output(want - usize::from(head.is_some()));
        Ok(head.into_iter().chain(data).collect())
    }
}

impl Drop for MasterFile {
    fn drop(&mut self) {
        let (session, foreground) = {
            let mut state = self.tty.state.lock();
            state.master_gone = true;
            (state.session.take(), state.foreground.take())
        };
        if let Some(session) = session {
            self.tty.jobs.detach(session, foreground, true);
        }
        self.tty.slave_queue.notify(PollEvents::HUP | PollEvents::READABLE | PollEvents::WRITABLE);
        if let Some(hook) = &self.on_close {
            hook();
        }
    }
}

impl File for MasterFile {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        let want = sink.remaining().min(16 * PIECE);
        if want == 0 {
            return Ok(0);
        }
        let bytes = self.take(want)?;
        let put = sink.put(&bytes);
        let n = *put.as_ref().unwrap_or(&0);
        if n < bytes.len() {
            let mut state = self.tty.state.lock();
            let skip = n.max(usize::from(state.packet));
            state.ldisc.give_output_back(bytes.get(skip..).unwrap_or_default());
        }
        self.tty.slave_queue.notify(PollEvents::WRITABLE);
        put
    }

    fn write(&self, _cx: &FileContext<'_>, _offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        let mut done = 0;
        while source.remaining() > 0 {
            let room = self.tty.state.lock().ldisc.input_room();
            let mut bytes = vec![0; room.min(source.remaining()).min(PIECE)];
            if bytes.is_empty() {
                return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) };
            }
            let n = match source.take(&mut bytes) {
                Ok(n) if n > 0 => n,
                Err(errno) if done == 0 => return Err(errno),
                _ => break,
            };
            let mut effects = Effects::default();
            let group = {
                let mut state = self.tty.state.lock();
                state.ldisc.receive(bytes.get(..n).unwrap_or_default(), &mut effects);
                state.foreground
            };
            self.tty.signal(group, &effects.signals);
            self.tty.wake_both();
            done += n;
        }
        Ok(done)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        let state = self.tty.state.lock();
        let mut events = PollEvents::empty();
        if state.ldisc.output_len() > 0 || (state.packet && state.packet_status != 0) {
            events |= PollEvents::READABLE;
        }
        if state.packet && state.packet_status != 0 {
            events |= PollEvents::PRI;
        }
        if state.ldisc.input_room() > 0 {
            events |= PollEvents::WRITABLE;
        }
        if state.slave_gone {
            events |= PollEvents::HUP;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.tty.master_queue)
    }

    fn ioctl(&self, cx: &FileContext<'_>, request: &IoctlRequest<'_>) -> Result<u64> {
        self.tty.master_ioctl(cx, request)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The end programs run on.
#[derive(Debug)]
pub struct SlaveFile {
    tty: Arc<Tty>,
    flags: Mutex<order::Leaf, OpenFlags>,
}

impl SlaveFile {
    /// The terminal.
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }

    /// How long a read that says `EAGAIN` may wait before it returns 0 (`VMIN` 0, `VTIME` set); `None`
    /// for ever.
    pub fn read_timeout(&self) -> Option<Duration> {
        let state = self.tty.state.lock();
        let termios = &state.ldisc.termios;
        let (min, time) = (termios.cc[cc::VMIN], termios.cc[cc::VTIME]);
        let raw = !termios.local().contains(LocalModes::ICANON);
        (raw && min == 0 && time > 0).then(|| Duration::from_millis(u64::from(time) * 100))
    }

    fn is_nonblocking(&self) -> bool {
        self.flags.lock().contains(OpenFlags::NONBLOCK)
    }

    fn take(&self, want: usize, partial: bool) -> Result<Vec<u8>> {
        let mut state = self.tty.state.lock();
        match state.ldisc.readiness(want, partial) {
            Readiness::Ready => Ok(state.ldisc.take_input(want)),
            Readiness::Empty => Ok(Vec::new()),
            Readiness::Wait if state.master_gone => Ok(Vec::new()),
            Readiness::Wait => Err(Errno::EAGAIN),
        }
    }
}

impl Drop for SlaveFile {
    fn drop(&mut self) {
        let gone = {
            let mut state = self.tty.state.lock();
            state.slaves -= 1;
            state.slave_gone = state.slaves == 0;
            state.slave_gone
        };
        if gone {
            self.tty.master_queue.notify(PollEvents::HUP | PollEvents::READABLE);
        }
    }
}

impl File for SlaveFile {
    fn read(&self, cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        self.tty.check_background(cx, Signal::SIGTTIN)?;
        let want = sink.remaining().min(ldisc::QUEUE_MAX);
        if want == 0 {
            return Ok(0);
        }
        let bytes = self.take(want, self.is_nonblocking())?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let put = sink.put(&bytes);
        let n = *put.as_ref().unwrap_or(&0);
        if n < bytes.len() {
            self.tty.state.lock().ldisc.give_back(bytes.get(n..).unwrap_or_default());
        }
        self.tty.master_queue.notify(PollEvents::WRITABLE);
        put
    }

    fn write(&self, cx: &FileContext<'_>, _offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        let tostop = self.tty.state.lock().ldisc.termios.local().contains(LocalModes::TOSTOP);
        if tostop {
            self.tty.check_background(cx, Signal::SIGTTOU)?;
        }
        let mut done = 0;
        while source.remaining() > 0 {
            let (room, gone) = {
                let state = self.tty.state.lock();
                (state.ldisc.output_room(), state.master_gone)
            };
            if gone {
                return if done > 0 { Ok(done) } else { Err(Errno::EIO) };
            }
            let mut bytes = vec![0; room.min(source.remaining()).min(PIECE)];
            if bytes.is_empty() {
                return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) };
            }
            let n = match source.take(&mut bytes) {
                Ok(n) if n > 0 => n,
                Err(errno) if done == 0 => return Err(errno),
                _ => break,
            };
            self.tty.state.lock().ldisc.write(bytes.get(..n).unwrap_or_default());
            self.tty.master_queue.notify(PollEvents::READABLE);
            done += n;
        }
        Ok(done)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self) -> PollEvents {
        let state = self.tty.state.lock();
        let mut events = PollEvents::empty();
        if state.ldisc.readiness(usize::MAX, false) == Readiness::Ready {
            events |= PollEvents::READABLE;
        }
        if state.ldisc.output_room() > 0 {
            events |= PollEvents::WRITABLE;
        }
        if state.master_gone {
            events |= PollEvents::HUP | PollEvents::ERR | PollEvents::READABLE | PollEvents::WRITABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.tty.slave_queue)
    }

    fn ioctl(&self, cx: &FileContext<'_>, request: &IoctlRequest<'_>) -> Result<u64> {
        if self.tty.state.lock().master_gone {
            return Err(Errno::EIO);
        }
        self.tty.common_ioctl(cx, request)
    }

    fn set_flags(&self, flags: OpenFlags) -> Result<()> {
        *self.flags.lock() = flags;
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests;
