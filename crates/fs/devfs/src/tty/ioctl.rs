//! Requests of terminals (`ioctl_tty(2)`).

use std::sync::Arc;

use abi::Errno;
use abi::ioctl as nr;
use abi::signal::Signal;
use abi::tty::{Termios, Termios2, Winsize};
use cred::CapSet;
use guestmem::{MemExt, UserPtr};
use vfs::{FileContext, IoctlRequest, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Tty;

/// Speed reported to those who ask: a pseudo-terminal has none.
const SPEED: u32 = 38400;
/// `TIOCPKT_FLUSHREAD`, `TIOCPKT_FLUSHWRITE`.
const PKT_FLUSH: [u8; 2] = [1, 2];

fn load<T: FromBytes + IntoBytes>(request: &IoctlRequest<'_>) -> Result<T> {
    Ok(request.mem.load(UserPtr::new(request.addr()))?)
}

fn store<T: IntoBytes + Immutable>(request: &IoctlRequest<'_>, value: &T) -> Result<u64> {
    request.mem.store(UserPtr::new(request.addr()), value)?;
    Ok(0)
}

fn store_len(request: &IoctlRequest<'_>, len: usize) -> Result<u64> {
    store(request, &i32::try_from(len).unwrap_or(i32::MAX))
}

/// Which queues `TCFLSH` and `TCSETSF` discard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Input,
    Output,
    Both,
}

impl Tty {
    /// What both ends understand.
    pub(super) fn common_ioctl(
        self: &Arc<Self>,
        cx: &FileContext<'_>,
        request: &IoctlRequest<'_>,
    ) -> Result<u64> {
        match request.cmd {
            nr::TCGETS => store(request, &self.termios()),
            nr::TCGETS2 => {
                store(request, &Termios2 { termios: self.termios(), ispeed: SPEED, ospeed: SPEED })
            }
            nr::TCSETS | nr::TCSETSW => self.set_termios(cx, load(request)?, None),
            nr::TCSETSF => self.set_termios(cx, load(request)?, Some(Flush::Input)),
            nr::TCSETS2 | nr::TCSETSW2 => self.set_termios(cx, load::<Termios2>(request)?.termios, None),
            nr::TCSETSF2 => self.set_termios(cx, load::<Termios2>(request)?.termios, Some(Flush::Input)),
            nr::TIOCGWINSZ => {
                let winsize = self.state.lock().winsize;
                store(request, &winsize)
            }
            nr::TIOCSWINSZ => {
                self.set_winsize(load::<Winsize>(request)?);
                Ok(0)
            }
            nr::FIONREAD => {
                let len = self.state.lock().ldisc.input_len();
                store_len(request, len)
            }
            nr::TIOCOUTQ => {
                let len = self.state.lock().ldisc.output_len();
                store_len(request, len)
            }
            nr::TCFLSH => self.tcflsh(cx, request.arg),
            nr::TCXONC => self.tcxonc(cx, request.arg),
            // Output reaches the master at once: there is nothing to wait for.
            nr::TCSBRK | nr::TCSBRKP | nr::TIOCEXCL | nr::TIOCNXCL => Ok(0),
            nr::TIOCGETD => store(request, &0i32),
            nr::TIOCSETD if load::<i32>(request)? == 0 => Ok(0),
            nr::TIOCSETD => Err(Errno::EINVAL),
            nr::TIOCSTI => Err(Errno::EIO),
            nr::TIOCGPGRP | nr::TIOCSPGRP | nr::TIOCGSID | nr::TIOCSCTTY | nr::TIOCNOTTY => {
                self.job_ioctl(cx, request)
            }
            _ => Err(Errno::ENOTTY),
        }
    }

    /// What the master understands.
    pub(super) fn master_ioctl(
        self: &Arc<Self>,
        cx: &FileContext<'_>,
        request: &IoctlRequest<'_>,
    ) -> Result<u64> {
        match request.cmd {
            nr::TIOCGPTN => store(request, &self.index),
            nr::TIOCSPTLCK => {
                let locked = load::<i32>(request)? != 0;
                self.state.lock().locked = locked;
                Ok(0)
            }
            nr::TIOCGPTLCK => {
                let locked = self.state.lock().locked;
                store(request, &i32::from(locked))
            }
            nr::TIOCPKT => {
                let packet = load::<i32>(request)? != 0;
                let mut state = self.state.lock();
                (state.packet, state.packet_status) = (packet, 0);
                Ok(0)
            }
            nr::TIOCGPKT => {
                let packet = self.state.lock().packet;
                store(request, &i32::from(packet))
            }
            nr::TIOCSIG => {
                let signal = i32::try_from(request.arg).ok().and_then(Signal::new).ok_or(Errno::EINVAL)?;
                let group = self.foreground();
                self.signal(group, &[signal]);
                Ok(0)
            }
            nr::FIONREAD => {
                let len = self.state.lock().ldisc.output_len();
                store_len(request, len)
            }
            // The master is nobody's terminal: its group is told without a look at the caller.
            nr::TIOCGPGRP => store(request, &self.jobs.number(cx, self.foreground().unwrap_or(0))),
            nr::TIOCGSID => store(request, &self.jobs.number(cx, self.session().ok_or(Errno::ENOTTY)?)),
            nr::TIOCSCTTY | nr::TIOCNOTTY => Err(Errno::ENOTTY),
            _ => self.common_ioctl(cx, request),
        }
    }

    fn termios(&self) -> Termios {
        self.state.lock().ldisc.termios
    }

    fn set_termios(&self, cx: &FileContext<'_>, termios: Termios, flush: Option<Flush>) -> Result<u64> {
        self.check_background(cx, Signal::SIGTTOU)?;
        if let Some(flush) = flush {
            self.flush(flush);
        }
        self.state.lock().ldisc.set_termios(termios);
        self.wake_both();
        Ok(0)
    }

    fn flush(&self, what: Flush) {
        let mut state = self.state.lock();
        if what != Flush::Output {
            state.ldisc.flush_input();
            state.packet_status |= PKT_FLUSH[0];
        }
        if what != Flush::Input {
            state.ldisc.flush_output();
            state.packet_status |= PKT_FLUSH[1];
        }
    }

    fn tcflsh(&self, cx: &FileContext<'_>, arg: u64) -> Result<u64> {
        self.check_background(cx, Signal::SIGTTOU)?;
        let what = match arg {
            0 => Flush::Input,
            1 => Flush::Output,
            2 => Flush::Both,
            _ => return Err(Errno::EINVAL),
        };
        self.flush(what);
        self.wake_both();
        Ok(0)
    }

    fn tcxonc(&self, cx: &FileContext<'_>, arg: u64) -> Result<u64> {
        self.check_background(cx, Signal::SIGTTOU)?;
        match arg {
            0 | 1 => self.state.lock().ldisc.stopped = arg == 0,
            // Sending the other side a stop or start character means nothing to a pseudo-terminal.
            2 | 3 => {}
            _ => return Err(Errno::EINVAL),
        }
        self.wake_both();
        Ok(0)
    }

    fn job_ioctl(self: &Arc<Self>, cx: &FileContext<'_>, request: &IoctlRequest<'_>) -> Result<u64> {
        let job = self.jobs.job(cx).ok_or(Errno::ENOTTY)?;
        let (session, foreground) = (self.session(), self.foreground());
        if request.cmd == nr::TIOCSCTTY {
            return self.tiocsctty(cx, request.arg);
        }
        if session != Some(job.session) {
            return Err(Errno::ENOTTY);
        }
        match request.cmd {
            nr::TIOCGPGRP => store(request, &self.jobs.number(cx, foreground.unwrap_or(0))),
            nr::TIOCGSID => store(request, &self.jobs.number(cx, job.session)),
            nr::TIOCSPGRP => {
                self.check_background(cx, Signal::SIGTTOU)?;
                let group = load::<i32>(request)?;
                if group < 0 {
                    return Err(Errno::EINVAL);
                }
                let group = self.jobs.id(cx, group).ok_or(Errno::ESRCH)?;
                if !self.jobs.group_in_session(group, job.session) {
                    return Err(Errno::EPERM);
                }
                self.state.lock().foreground = Some(group);
                Ok(0)
            }
            _ => {
                // `TIOCNOTTY`: the leader takes the terminal from everybody, others only from themselves,
                // which is the kernel's to record.
                if job.is_leader {
                    self.disassociate(job.session);
                }
                self.jobs.detach(job.session, foreground, job.is_leader);
                Ok(0)
            }
        }
    }

    fn tiocsctty(self: &Arc<Self>, cx: &FileContext<'_>, arg: u64) -> Result<u64> {
        let job = self.jobs.job(cx).ok_or(Errno::ENOTTY)?;
        let owner = self.session();
        if job.is_leader && owner == Some(job.session) {
            return Ok(0);
        }
        if !job.is_leader || job.has_terminal {
            return Err(Errno::EPERM);
        }
        if let Some(owner) = owner {
            if arg != 1 || !cx.cred.capable(CapSet::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            self.disassociate(owner);
            self.jobs.detach(owner, None, false);
        }
        self.control(cx, job.session, job.group)?;
        Ok(0)
    }
}
