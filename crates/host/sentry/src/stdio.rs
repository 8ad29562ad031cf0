//! The guest's standard input, output and error: descriptors of the host.
//!
//! They may be terminals, pipes, sockets or files that other processes share, so their flags are not
//! touched: `O_NONBLOCK` belongs to the open file description, and setting it would break whoever else
//! holds it. Readiness is asked with `poll(2)` before every transfer, and a [`Watcher`] wakes those who
//! wait.
//!
//! A file's offset belongs to the description too: a shell that runs one command after another into one
//! file relies on it. The guest keeps its own, begins where the host's is, and moves the host's along.

use std::any::Any;
use std::fs::File as HostFd;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use abi::poll::PollEvents;
use guestmem::{IoSink, IoSource};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::stat::fstat;
use sync::wait::WaitQueue;
use vfs::{File, FileContext, IoctlRequest, Result, SeekFrom};

use crate::watch::{Ready, Watcher};

/// Bytes moved between guest and host at a time.
const PIECE: usize = 64 << 10;

/// A descriptor of the host as a file of the guest.
pub(crate) struct HostFile {
    fd: HostFd,
    /// A regular file or block device: has an offset, is always ready.
    seekable: bool,
    kind: FileType,
    wait: WaitQueue,
    /// Who tells us; `None` when it is always ready.
    watcher: Option<Arc<Watcher>>,
}

impl HostFile {
    /// Takes a descriptor over.
    pub(crate) fn new(fd: OwnedFd, watcher: &Arc<Watcher>) -> std::io::Result<Arc<Self>> {
        let stat = fstat(&fd)?;
        let kind = FileType::from_mode(stat.st_mode).unwrap_or(FileType::CharDevice);
        let seekable = matches!(kind, FileType::Regular | FileType::BlockDevice);
        let watched = (!seekable).then(|| Arc::clone(watcher));
        let file =
            Arc::new(Self { fd: HostFd::from(fd), seekable, kind, wait: WaitQueue::new(), watcher: watched });
        if !seekable {
            watcher.add(&(file.clone() as Arc<dyn Ready>));
        }
        Ok(file)
    }

    /// What kind of object it is.
    pub(crate) fn kind(&self) -> FileType {
        self.kind
    }

    /// The access mode it was opened with.
    pub(crate) fn flags(&self) -> OpenFlags {
        let flags = nix::fcntl::fcntl(&self.fd, nix::fcntl::FcntlArg::F_GETFL).unwrap_or_default();
        OpenFlags::from_bits_truncate(flags as u32)
            & (OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::APPEND)
    }

    /// Where the host's offset is; zero for what has none.
    pub(crate) fn position(&self) -> u64 {
        (&self.fd).stream_position().unwrap_or(0)
    }

    /// Is `other` the same open file description (`2>&1`)? Two descriptors of one file that share no offset
    /// are two descriptions; whoever moves one sees whether the other moves along.
    pub(crate) fn shares_offset(&self, other: &Self) -> bool {
        let identity = |file: &Self| fstat(&file.fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        if !self.seekable || !other.seekable || identity(self) != identity(other) {
            return false;
        }
        let (ours, theirs) = (self.position(), other.position());
        if ours != theirs {
            return false;
        }
        self.moved_to(ours.saturating_add(1));
        let follows = other.position() != theirs;
        self.moved_to(ours);
        follows
    }

    /// Moves the host's offset along with the guest's.
    fn moved_to(&self, position: u64) {
        let moved = (&self.fd).seek(std::io::SeekFrom::Start(position));
        if let Err(error) = moved {
            tracing::debug!(%error, "an offset of the host did not move along");
        }
    }

    fn ready(&self, wanted: PollFlags) -> PollFlags {
        let mut fds = [PollFd::new(self.fd.as_fd(), wanted)];
        match nix::poll::poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) => fds.first().and_then(|fd| fd.revents()).unwrap_or(PollFlags::empty()),
            Err(_) => PollFlags::empty(),
        }
    }

    /// `EAGAIN` unless a transfer would not wait.
    fn require(&self, wanted: PollFlags) -> Result<()> {
        if self.seekable || self.ready(wanted).intersects(wanted | PollFlags::POLLHUP | PollFlags::POLLERR) {
            Ok(())
        } else {
            Err(Errno::EAGAIN)
        }
    }
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().and_then(Errno::from_raw).unwrap_or(Errno::EIO)
}

impl File for HostFile {
    fn read(&self, _: &FileContext<'_>, offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        let mut piece = vec![0; sink.remaining().min(PIECE)];
        if piece.is_empty() {
            return Ok(0);
        }
        self.require(PollFlags::POLLIN)?;
        let got =
            if self.seekable { self.fd.read_at(&mut piece, offset) } else { (&self.fd).read(&mut piece) };
        let n = got.map_err(|error| errno(&error))?;
        if self.seekable {
            self.moved_to(offset.saturating_add(n as u64));
        }
        sink.put(piece.get(..n).unwrap_or_default())
    }

    fn write(&self, _: &FileContext<'_>, offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        let mut done = 0;
        while source.remaining() > 0 {
            if let Err(errno) = self.require(PollFlags::POLLOUT) {
                return if done > 0 { Ok(done) } else { Err(errno) };
            }
            // A pipe that is ready takes PIPE_BUF without waiting; more might wait for its reader.
            let limit = if self.seekable { PIECE } else { 4096 };
            let mut piece = vec![0; source.remaining().min(limit)];
            let n = source.take(&mut piece)?;
            let piece = piece.get(..n).unwrap_or_default();
            let wrote = if self.seekable {
                self.fd.write_at(piece, offset.saturating_add(done as u64))
            } else {
                (&self.fd).write(piece)
            };
            match wrote {
                Ok(taken) => {
                    done += taken;
                    if self.seekable {
                        self.moved_to(offset.saturating_add(done as u64));
                    }
                    // What the host did not take has left the source: the guest writes it again.
                    if taken < n {
                        return Ok(done);
                    }
                }
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(done)
    }

    fn append(&self, cx: &FileContext<'_>, source: &mut dyn IoSource) -> Result<(usize, u64)> {
        let end = self.fd.metadata().map_err(|error| errno(&error))?.len();
        let n = self.write(cx, end, source)?;
        Ok((n, end.saturating_add(n as u64)))
    }

    fn is_seekable(&self) -> bool {
        self.seekable
    }

    fn seek(&self, current: u64, to: SeekFrom) -> Result<u64> {
        if !self.seekable {
            return Err(Errno::ESPIPE);
        }
        let end = self.fd.metadata().map_err(|error| errno(&error))?.len();
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => current.checked_add_signed(by),
            SeekFrom::End(by) => end.checked_add_signed(by),
            SeekFrom::Data(at) => return if at < end { Ok(at) } else { Err(Errno::ENXIO) },
            SeekFrom::Hole(at) => return if at < end { Ok(end) } else { Err(Errno::ENXIO) },
        };
        target.ok_or(Errno::EINVAL)
    }

    fn poll(&self) -> PollEvents {
        if self.seekable {
            return PollEvents::READABLE | PollEvents::WRITABLE;
        }
        let ready = self.ready(PollFlags::POLLIN | PollFlags::POLLOUT);
        let mut events = PollEvents::from_bits_truncate(ready.bits() as u32);
        events.set(PollEvents::RDNORM, events.contains(PollEvents::IN));
        events.set(PollEvents::WRNORM, events.contains(PollEvents::OUT));
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        (!self.seekable).then_some(&self.wait)
    }

    fn ioctl(&self, _: &FileContext<'_>, _: &IoctlRequest<'_>) -> Result<u64> {
        Err(Errno::ENOTTY)
    }

    fn fsync(&self, _: bool) -> Result<()> {
        if self.seekable { self.fd.sync_all().map_err(|error| errno(&error)) } else { Err(Errno::EINVAL) }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Ready for HostFile {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn ready(&self, events: PollEvents) {
        self.wait.notify(events);
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.forget(self.fd.as_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::{Duration, Instant};

    use abi::Errno;
    use abi::poll::PollEvents;
    use cred::Credentials;
    use guestmem::{SliceSource, VecSink};
    use sync::wait::{Parker, Wake};
    use vfs::{File, FileContext};

    use super::HostFile;
    use crate::watch::Watcher;

    #[test]
    fn a_pipe_is_read_when_it_has_data_and_wakes_who_waits() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let file = HostFile::new(reader.into(), &Watcher::start().expect("a thread")).expect("a descriptor");
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let mut sink = VecSink::new(16);
        assert_eq!(file.read(&cx, 0, &mut sink), Err(Errno::EAGAIN));
        let parker = Parker::new();
        let queue = file.wait_queue().expect("not seekable");
        let _waiter = queue.register(parker.clone(), PollEvents::IN);
        writer.write_all(b"data").expect("room");
        assert_eq!(parker.park(Some(Instant::now() + Duration::from_secs(10))), Wake::Notified);
        assert_eq!(file.read(&cx, 0, &mut sink), Ok(4));
        drop(writer);
        // A process that another test is just starting may have a copy of the writing end a little longer.
        let end = loop {
            parker.clear_notification();
            match file.read(&cx, 0, &mut sink) {
                Err(Errno::EAGAIN) => {
                    let woken = parker.park(Some(Instant::now() + Duration::from_secs(10)));
                    assert_eq!(woken, Wake::Notified);
                }
                end => break end,
            }
        };
        assert_eq!(end, Ok(0));
        assert_eq!(sink.bytes, b"data");
    }

    #[test]
    fn a_file_is_written_where_the_guest_says() {
        let file = HostFile::new(tempfile(), &Watcher::start().expect("a thread")).expect("a descriptor");
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        assert_eq!(file.write(&cx, 3, &mut SliceSource(b"xyz")), Ok(3));
        let mut sink = VecSink::new(16);
        assert_eq!(file.read(&cx, 0, &mut sink), Ok(6));
        assert_eq!(sink.bytes, b"\0\0\0xyz");
        assert_eq!(file.seek(0, vfs::SeekFrom::End(-2)), Ok(4));
    }

    #[test]
    fn a_copy_of_a_descriptor_is_told_from_another_opening() {
        let watcher = Watcher::start().expect("a thread");
        let fd = tempfile();
        let copy = fd.try_clone().expect("a descriptor");
        let again = std::fs::File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)));
        let file = HostFile::new(fd, &watcher).expect("a descriptor");
        let copy = HostFile::new(copy, &watcher).expect("a descriptor");
        let again = HostFile::new(again.expect("opens").into(), &watcher).expect("a descriptor");
        let other = HostFile::new(tempfile(), &watcher).expect("a descriptor");
        assert!(file.shares_offset(&copy) && copy.shares_offset(&file));
        assert!(!file.shares_offset(&again) && !file.shares_offset(&other));
        assert_eq!((file.position(), again.position()), (0, 0));
    }

    fn tempfile() -> std::os::fd::OwnedFd {
        nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).expect("a memfd")
    }
}
