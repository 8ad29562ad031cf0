//! The pipes behind fifos, and behind `/proc/PID/fd/N` of a pipe.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use anonfs::Pipe;
use sync::{Mutex, order};
use vfs::{Attr, DeviceOpener, File, FileContext, Inode, VfsPath};

/// Device and inode number.
type Key = (u64, u64);

/// Opens what has no opening of its own: fifos here, devices by what was handed in.
pub(crate) struct Openers {
    devices: Arc<dyn DeviceOpener>,
    pipes: Mutex<order::Leaf, HashMap<Key, Weak<Pipe>>>,
}

impl Openers {
    pub(crate) fn new(devices: Arc<dyn DeviceOpener>) -> Self {
        Self { devices, pipes: Mutex::default() }
    }

    /// Remembers the pipe behind an inode of pipefs, so that it can be opened once more.
    pub(crate) fn remember(&self, inode: &Arc<dyn Inode>, pipe: &Arc<Pipe>) -> vfs::Result<()> {
        let key = (inode.fs().dev(), inode.attr()?.ino);
        let mut pipes = self.pipes.lock();
        forget_dead(&mut pipes);
        pipes.insert(key, Arc::downgrade(pipe));
        Ok(())
    }

    fn pipe(&self, key: Key) -> Arc<Pipe> {
        let mut pipes = self.pipes.lock();
        if let Some(pipe) = pipes.get(&key).and_then(Weak::upgrade) {
            return pipe;
        }
        forget_dead(&mut pipes);
        let pipe = Pipe::fifo();
        pipes.insert(key, Arc::downgrade(&pipe));
        pipe
    }
}

/// Now and then, so that a guest's many short-lived pipes do not add up.
fn forget_dead(pipes: &mut HashMap<Key, Weak<Pipe>>) {
    if pipes.len() >= 64 && pipes.len() == pipes.capacity() {
        pipes.retain(|_, pipe| pipe.strong_count() > 0);
    }
}

impl DeviceOpener for Openers {
    fn open(
        &self,
        cx: &FileContext<'_>,
        path: &VfsPath,
        attr: &Attr,
        flags: OpenFlags,
    ) -> vfs::Result<Arc<dyn File>> {
        match attr.kind {
            FileType::Fifo => {
                let key = (path.inode().fs().dev(), attr.ino);
                Ok(Arc::new(self.pipe(key).open(flags)?))
            }
            FileType::CharDevice | FileType::BlockDevice => self.devices.open(cx, path, attr, flags),
            _ => Err(Errno::ENXIO),
        }
    }
}
