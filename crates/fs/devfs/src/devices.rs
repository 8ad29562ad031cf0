//! Character devices by their numbers: memory devices (`null(4)`, `random(4)`) and the terminal of a process.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{OpenFlags, make_dev};
use abi::poll::PollEvents;
use guestmem::{IoSink, IoSource};
use kernfs::Spec;
use memmap::{Backing, MapIdentity, MapRequest, Mappable};
use sync::wait::WaitQueue;
use vfs::{File, FileContext, Result, SeekFrom};

use crate::job::JobControl;
use crate::pts::Devpts;
use crate::tty::Tty;

/// Bytes moved at once.
const PIECE: usize = 16384;
/// Bytes one call moves at most (`MAX_RW_COUNT`), which the caller has checked already.
static ZEROES: [u8; PIECE] = [0; PIECE];

/// Where random bytes come from: the host's generator, handed in.
pub trait Randomness: Send + Sync {
    /// Fills the buffer.
    fn fill(&self, buf: &mut [u8]) -> Result<()>;
}

/// Nodes that every `/dev` has, as major and minor number (OCI runtime spec, "Default Devices"); all may use them.
pub const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links that every `/dev` has, and where they lead.
pub const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// The number of `/dev/ptmx`.
pub const PTMX: (u32, u32) = (5, 2);

/// What is behind the numbers of character devices. Terminals of `/dev/pts` are not here: their nodes open only there.
pub struct Drivers {
    random: Arc<dyn Randomness>,
    jobs: Arc<dyn JobControl>,
    devpts: Arc<Devpts>,
}

impl Drivers {
    /// With random bytes, sessions and groups, and terminals from these.
    pub fn new(random: Arc<dyn Randomness>, jobs: Arc<dyn JobControl>, devpts: Arc<Devpts>) -> Self {
        Self { random, jobs, devpts }
    }

    /// Opens the device with this number, wherever its node is; `ENXIO` when there is none.
    pub fn open(&self, cx: &FileContext<'_>, rdev: u64, flags: OpenFlags) -> Result<Arc<dyn File>> {
        match (abi::fs::dev_major(rdev), abi::fs::dev_minor(rdev)) {
            (1, 3) => Ok(Arc::new(Null)),
            (1, 5) => Ok(Arc::new(Zero { full: false })),
            (1, 7) => Ok(Arc::new(Zero { full: true })),
            (1, 8 | 9) => Ok(Arc::new(Random { source: Arc::clone(&self.random), queue: WaitQueue::new() })),
            (5, 0) => {
                let tty = self.jobs.terminal(cx).ok_or(Errno::ENXIO)?;
                Ok(Arc::new(tty.open_slave(cx, flags | OpenFlags::NOCTTY)?))
            }
            PTMX => Ok(Arc::new(self.devpts.open_master(cx)?)),
            _ => Err(Errno::ENXIO),
        }
    }
}

/// `/dev/console` of a container that has a terminal: a file to be mounted there.
pub fn console(console: &Arc<Tty>) -> Spec {
    let console = Arc::clone(console);
    let open = move |cx: &FileContext<'_>, flags: OpenFlags| -> Result<Arc<dyn File>> {
        Ok(Arc::new(console.open_slave(cx, flags)?))
    };
    Spec::char_device(0o620, make_dev(5, 1), open).changeable()
}

/// Takes everything from a source and forgets it. As on Linux, the bytes are not even looked at.
fn swallow(source: &mut dyn IoSource) -> usize {
    source.remaining()
}

/// `/dev/null`.
struct Null;

impl File for Null {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, _sink: &mut dyn IoSink) -> Result<usize> {
        Ok(0)
    }

    fn write(&self, _cx: &FileContext<'_>, _offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        Ok(swallow(source))
    }

    fn append(&self, _cx: &FileContext<'_>, source: &mut dyn IoSource) -> Result<(usize, u64)> {
        Ok((swallow(source), 0))
    }

    fn seek(&self, _current: u64, _to: SeekFrom) -> Result<u64> {
        Ok(0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// `/dev/zero`, and `/dev/full`, which takes nothing.
struct Zero {
    full: bool,
}

impl File for Zero {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        let mut done = 0;
        while sink.remaining() > 0 {
            match sink.put(&ZEROES) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn write(&self, _cx: &FileContext<'_>, _offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        if self.full { Err(Errno::ENOSPC) } else { Ok(swallow(source)) }
    }

    fn append(&self, cx: &FileContext<'_>, source: &mut dyn IoSource) -> Result<(usize, u64)> {
        self.write(cx, 0, source).map(|n| (n, 0))
    }

    fn seek(&self, _current: u64, _to: SeekFrom) -> Result<u64> {
        Ok(0)
    }

    fn mappable(&self) -> Option<Arc<dyn Mappable>> {
        if self.full { None } else { Some(Arc::new(ZeroPages)) }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct ZeroPages;

impl Mappable for ZeroPages {
    /// Private mappings only: a shared one needs a memory object, which tmpfs has (`MAP_ANONYMOUS`).
    fn backing(&self, request: MapRequest) -> core::result::Result<Backing, Errno> {
        if request.shared { Err(Errno::ENODEV) } else { Ok(Backing::Anonymous) }
    }

    fn identity(&self) -> MapIdentity {
        MapIdentity { dev: 0, ino: 0, name: b"/dev/zero".to_vec() }
    }
}

/// `/dev/random` and `/dev/urandom`: the same, as on Linux once it has started.
struct Random {
    source: Arc<dyn Randomness>,
    queue: WaitQueue,
}

impl File for Random {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        let mut done = 0;
        let mut buf = [0u8; 512];
        while sink.remaining() > 0 {
            let n = sink.remaining().min(buf.len());
            let Some(piece) = buf.get_mut(..n) else { break };
            self.source.fill(piece)?;
            match sink.put(piece) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Accepted and not mixed in: a guest does not feed the host's generator.
    fn write(&self, _cx: &FileContext<'_>, _offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        Ok(swallow(source))
    }

    fn append(&self, _cx: &FileContext<'_>, source: &mut dyn IoSource) -> Result<(usize, u64)> {
        Ok((swallow(source), 0))
    }

    fn seek(&self, _current: u64, _to: SeekFrom) -> Result<u64> {
        Ok(0)
    }

    fn poll(&self) -> PollEvents {
        PollEvents::READABLE | PollEvents::WRITABLE
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::NoJobs;
    use cred::Credentials;
    use guestmem::{SliceSource, VecSink};

    struct Sevens;

    impl Randomness for Sevens {
        fn fill(&self, buf: &mut [u8]) -> Result<()> {
            buf.fill(7);
            Ok(())
        }
    }

    fn drivers() -> Drivers {
        let jobs: Arc<dyn JobControl> = Arc::new(NoJobs);
        Drivers::new(Arc::new(Sevens), Arc::clone(&jobs), Devpts::new(jobs))
    }

    #[test]
    fn memory_devices_do_what_their_names_say() -> Result<()> {
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let drivers = drivers();
        let try_out = |minor| -> Result<(Vec<u8>, Result<usize>)> {
            let file = drivers.open(&cx, make_dev(1, minor), OpenFlags::RDWR)?;
            let mut sink = VecSink::new(3);
            file.read(&cx, 0, &mut sink)?;
            Ok((sink.bytes, file.write(&cx, 0, &mut SliceSource(b"abc"))))
        };
        assert_eq!(try_out(3)?, (vec![], Ok(3)));
        assert_eq!(try_out(5)?, (vec![0; 3], Ok(3)));
        assert_eq!(try_out(7)?, (vec![0; 3], Err(Errno::ENOSPC)));
        assert_eq!(try_out(9)?, (vec![7; 3], Ok(3)));
        assert_eq!(try_out(1).err(), Some(Errno::ENXIO));
        Ok(())
    }

    #[test]
    fn terminals_open_where_there_are_any() -> Result<()> {
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let open = |major, minor| drivers().open(&cx, make_dev(major, minor), OpenFlags::RDWR);
        assert_eq!(open(5, 0).err(), Some(Errno::ENXIO));
        assert!(open(5, 2)?.as_any().is::<crate::tty::MasterFile>());
        assert_eq!(open(136, 0).err(), Some(Errno::ENXIO));
        Ok(())
    }
}
