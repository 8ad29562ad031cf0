//! Files that guests map shared: windows of ours into them, which the machine sees as its memory.
//!
//! A file may become shorter under a window. Who touches it then gets nothing (a fault of the guest, or of a copy by
//! the host), which is why bytes of windows are copied by the host and never by us.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::mm::Prot;
use memmap::HostObject;
use nix::sys::mman::ProtFlags;
use nix::sys::stat::fstat;
use parking_lot::Mutex;

use crate::raw::memory::Window;
use crate::slots::{OpenWindow, Slots, WINDOW};

/// Device, inode, and whether it may be written by it.
type Key = (u64, u64, bool);

/// One file, as far as it is mapped.
pub(crate) struct SharedFile {
    object: Arc<HostObject>,
    slots: Arc<Slots>,
    writable: bool,
    windows: Mutex<HashMap<u64, Arc<OpenWindow>>>,
}

impl SharedFile {
    /// The window with byte `offset` in it, and where in it that is.
    pub(crate) fn window(&self, offset: u64) -> Result<(Arc<OpenWindow>, usize), Errno> {
        let number = offset / WINDOW;
        let mut windows = self.windows.lock();
        if let Some(window) = windows.get(&number) {
            return Ok((Arc::clone(window), (offset % WINDOW) as usize));
        }
        let mut prot = ProtFlags::PROT_READ;
        prot.set(ProtFlags::PROT_WRITE, self.writable);
        let len = NonZeroUsize::new(WINDOW as usize).ok_or(Errno::ENOMEM)?;
        let window = Window::of_file(self.object.as_fd(), number * WINDOW, len, prot);
        let window =
            self.slots.open(window.map_err(|_| Errno::ENOMEM)?, WINDOW).map_err(|_| Errno::ENOMEM)?;
        let window = Arc::new(window);
        windows.insert(number, Arc::clone(&window));
        Ok((window, (offset % WINDOW) as usize))
    }

    /// Whether there is something at `offset` now.
    pub(crate) fn reaches(&self, offset: u64) -> bool {
        fstat(self.object.as_fd())
            .is_ok_and(|stat| u64::try_from(stat.st_size).is_ok_and(|size| offset < size))
    }

    /// Whether a mapping may let it be written.
    pub(crate) fn allows(&self, prot: Prot) -> bool {
        !prot.contains(Prot::WRITE) || self.writable
    }
}

/// Those that are mapped.
pub(crate) struct SharedFiles {
    slots: Arc<Slots>,
    known: Mutex<HashMap<Key, Weak<SharedFile>>>,
}

impl SharedFiles {
    /// None yet.
    pub(crate) fn new(slots: &Arc<Slots>) -> Self {
        Self { slots: Arc::clone(slots), known: Mutex::default() }
    }

    /// The one that `object` is of.
    pub(crate) fn of(&self, object: &Arc<HostObject>) -> Result<Arc<SharedFile>, Errno> {
        let stat = fstat(object.as_fd()).map_err(|e| Errno::from_raw(e as i32).unwrap_or(Errno::ENOMEM))?;
        let writable = object.max_prot().contains(Prot::WRITE);
        let mut known = self.known.lock();
        if let Some(file) = known.get(&(stat.st_dev, stat.st_ino, writable)).and_then(Weak::upgrade) {
            return Ok(file);
        }
        known.retain(|_, file| file.strong_count() > 0);
        let file = Arc::new(SharedFile {
            object: Arc::clone(object),
            slots: Arc::clone(&self.slots),
            writable,
            windows: Mutex::default(),
        });
        known.insert((stat.st_dev, stat.st_ino, writable), Arc::downgrade(&file));
        Ok(file)
    }
}
