//! The container's console: a terminal of the guest whose master end is a terminal of the host.
//!
//! The guest has a whole terminal with a line discipline of its own (`devfs`), so that job control and
//! echo are the guest kernel's; the host's terminal must be in raw mode, which is `runsc`'s business.
//! Two threads carry the bytes; neither takes part when the container has no terminal.

use std::fs::File as HostFd;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use abi::Errno;
use abi::poll::PollEvents;
use cred::Credentials;
use devfs::Devpts;
use devfs::tty::{MasterFile, Tty};
use guestmem::{SliceSource, VecSink};
use nix::poll::{PollFd, PollFlags, poll};
use sync::wait::Parker;
use vfs::{File, FileContext};

use crate::BootError;

/// Bytes carried at a time.
const PIECE: usize = 4096;
/// How often to look at the size of the window, in milliseconds.
const LOOK_MS: u16 = 500;

/// Makes the console, a terminal of `owner` in the guest's `/dev/pts`, and starts to carry bytes between it and the host's terminal.
pub(crate) fn start(
    input: OwnedFd,
    output: OwnedFd,
    devpts: &Devpts,
    owner: &Credentials,
) -> Result<Arc<Tty>, BootError> {
    let cx = FileContext { cred: owner, pid: 0, tid: 0 };
    let master = Arc::new(devpts.open_unlocked(&cx).map_err(BootError::Start)?);
    let tty = Arc::clone(master.tty());
    let (for_input, for_output, sized) = (Arc::clone(&master), master, Arc::clone(&tty));
    spawn("console-in", move || carry_in(HostFd::from(input), &sized, &for_input))?;
    spawn("console-out", move || carry_out(HostFd::from(output), &for_output))?;
    Ok(tty)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), BootError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map(drop).map_err(|source| BootError::Host { doing: "starting a thread for the console", source })
}

/// From the host's terminal to the guest's, until the host's hangs up. On the way it looks at the size of
/// the window: nobody tells a process of another session when that changes.
fn carry_in(mut host: HostFd, tty: &Tty, master: &MasterFile) {
    let cred = Credentials::root();
    let cx = FileContext { cred: &cred, pid: 0, tid: 0 };
    let mut piece = [0; PIECE];
    loop {
        if let Ok(size) = hostsys::file::window_size(host.as_fd()) {
            tty.set_winsize(size);
        }
        match poll(&mut [PollFd::new(host.as_fd(), PollFlags::POLLIN)], LOOK_MS) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            _ => {}
        }
        let Ok(n @ 1..) = host.read(&mut piece) else { return };
        let mut source = SliceSource(piece.get(..n).unwrap_or_default());
        while !source.0.is_empty() {
            match master.write(&cx, 0, &mut source) {
                Ok(_) => {}
                Err(Errno::EAGAIN) => wait(master, PollEvents::OUT),
                Err(_) => return,
            }
        }
    }
}

/// From the guest's terminal to the host's, until the guest has closed it for good.
fn carry_out(mut host: HostFd, master: &MasterFile) {
    let cred = Credentials::root();
    let cx = FileContext { cred: &cred, pid: 0, tid: 0 };
    loop {
        let mut sink = VecSink::new(PIECE);
        match master.read(&cx, 0, &mut sink) {
            Ok(_) if host.write_all(&sink.bytes).is_ok() => {}
            Err(Errno::EAGAIN | Errno::EIO) => wait(master, PollEvents::IN),
            _ => return,
        }
    }
}

/// Sleeps until one of `events` may be there.
fn wait(master: &MasterFile, events: PollEvents) {
    let Some(queue) = master.wait_queue() else { return };
    let parker = Parker::new();
    let _waiter = queue.register(parker.clone(), events);
    if !master.poll().intersects(events) {
        parker.park(None);
    }
}
