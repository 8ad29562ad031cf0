//! The tree of `/dev` and its memory devices (`mem(4)`, `null(4)`, `random(4)`).

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{OpenFlags, make_dev};
use abi::poll::PollEvents;
use guestmem::{IoSink, IoSource};
use kernfs::{Spec, StaticDir};
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

/// What `/dev` is made of.
pub struct DevConfig {
    /// Random bytes.
    pub random: Arc<dyn Randomness>,
    /// Sessions and groups.
    pub jobs: Arc<dyn JobControl>,
    /// Terminals for `ptmx`.
    pub devpts: Arc<Devpts>,
    /// `/dev/console`, when the container has a terminal.
    pub console: Option<Arc<Tty>>,
}

/// The tree to mount at `/dev` (type `devtmpfs`, or copied node by node into a tmpfs).
pub fn dev_tree(config: &DevConfig) -> StaticDir {
    let jobs = Arc::clone(&config.jobs);
    let tty = move |cx: &FileContext<'_>, flags: OpenFlags| -> Result<Arc<dyn File>> {
        let tty = jobs.terminal(cx).ok_or(Errno::ENXIO)?;
        Ok(Arc::new(tty.open_slave(cx, flags | OpenFlags::NOCTTY)?))
    };
    let dir = StaticDir::new()
        .with("null", memory(3, || Arc::new(Null)))
        .with("zero", memory(5, || Arc::new(Zero { full: false })))
        .with("full", memory(7, || Arc::new(Zero { full: true })))
        .with("random", random(8, &config.random))
        .with("urandom", random(9, &config.random))
        .with("tty", Spec::char_device(0o666, make_dev(5, 0), tty).changeable())
        .with("ptmx", config.devpts.ptmx(0o666).changeable())
        .with("fd", Spec::symlink("/proc/self/fd"))
        .with("stdin", Spec::symlink("/proc/self/fd/0"))
        .with("stdout", Spec::symlink("/proc/self/fd/1"))
        .with("stderr", Spec::symlink("/proc/self/fd/2"))
        .dir("pts", StaticDir::new())
        .dir("shm", StaticDir::new())
        .dir("mqueue", StaticDir::new());
    match &config.console {
        Some(console) => dir.with("console", console_spec(console)),
        None => dir,
    }
}

fn console_spec(console: &Arc<Tty>) -> Spec {
    let console = Arc::clone(console);
    let open = move |cx: &FileContext<'_>, flags: OpenFlags| -> Result<Arc<dyn File>> {
        Ok(Arc::new(console.open_slave(cx, flags)?))
    };
    Spec::char_device(0o620, make_dev(5, 1), open).changeable()
}

fn memory(minor: u32, make: impl Fn() -> Arc<dyn File> + Send + Sync + 'static) -> Spec {
    let open = move |_: &FileContext<'_>, _: OpenFlags| -> Result<Arc<dyn File>> { Ok(make()) };
    Spec::char_device(0o666, make_dev(1, minor), open).changeable()
}

fn random(minor: u32, source: &Arc<dyn Randomness>) -> Spec {
    let source = Arc::clone(source);
    memory(minor, move || Arc::new(Random { source: Arc::clone(&source), queue: WaitQueue::new() }))
}

/// Opens a memory device by number, for nodes that `mknod(2)` made in an ordinary file system; `ENXIO`
/// for others.
pub fn open_memory(rdev: u64, source: &Arc<dyn Randomness>) -> Result<Arc<dyn File>> {
    if abi::fs::dev_major(rdev) != 1 {
        return Err(Errno::ENXIO);
    }
    match abi::fs::dev_minor(rdev) {
        3 => Ok(Arc::new(Null)),
        5 => Ok(Arc::new(Zero { full: false })),
        7 => Ok(Arc::new(Zero { full: true })),
        8 | 9 => Ok(Arc::new(Random { source: Arc::clone(source), queue: WaitQueue::new() })),
        _ => Err(Errno::ENXIO),
    }
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
    use kernfs::Directory;

    struct Sevens;

    impl Randomness for Sevens {
        fn fill(&self, buf: &mut [u8]) -> Result<()> {
            buf.fill(7);
            Ok(())
        }
    }

    #[test]
    fn memory_devices_do_what_their_names_say() -> Result<()> {
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let random: Arc<dyn Randomness> = Arc::new(Sevens);
        let try_out = |minor| -> Result<(Vec<u8>, Result<usize>)> {
            let file = open_memory(make_dev(1, minor), &random)?;
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
    fn the_tty_of_a_process_without_one_does_not_open() -> Result<()> {
        let cred = Credentials::root();
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let jobs: Arc<dyn JobControl> = Arc::new(NoJobs);
        let config = DevConfig {
            random: Arc::new(Sevens),
            devpts: Devpts::new(Arc::clone(&jobs)),
            jobs,
            console: None,
        };
        let tree = dev_tree(&config);
        let kernfs::Content::Other { opener, .. } = tree.lookup(b"tty")?.content else {
            return Err(Errno::ENODEV);
        };
        assert_eq!(opener.open(&cx, OpenFlags::RDWR).err(), Some(Errno::ENXIO));
        assert_eq!(tree.list(0)?.len(), 14);
        Ok(())
    }
}
