//! Open regular files.
//!
//! One that was opened for reading, and is copied up by somebody else, shows the copy from then on.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use abi::Errno;
use abi::fs::OpenFlags;
use abi::mm::Prot;
use abi::poll::PollEvents;
use guestmem::{IoSink, IoSource};
use memmap::{Backing, MapIdentity, MapRequest, Mappable};
use sync::wait::WaitQueue;
use vfs::{File, FileContext, FileSystem, Inode, IoctlRequest, Result, SeekFrom};

use crate::copy_up::WHOLE;
use crate::node::Node;

/// Opens a regular file; one that is only below is copied up before it can be written.
pub(crate) fn open(node: Arc<Node>, cx: &FileContext<'_>, flags: OpenFlags) -> Result<Arc<dyn File>> {
    if flags.writable() {
        node.copy_up(WHOLE)?;
    }
    let upper = node.upper().is_some();
    let opened = node.real()?.open(cx, flags)?;
    Ok(Arc::new(OverlayFile { opened, upper, copy: OnceLock::new(), flags, node }))
}

struct OverlayFile {
    /// The file of the layer it was opened in.
    opened: Arc<dyn File>,
    /// Was that the upper one?
    upper: bool,
    /// The copy that was made since.
    copy: OnceLock<Arc<dyn File>>,
    flags: OpenFlags,
    node: Arc<Node>,
}

impl OverlayFile {
    fn real(&self) -> Result<&Arc<dyn File>> {
        if self.upper {
            return Ok(&self.opened);
        }
        if let Some(copy) = self.copy.get() {
            return Ok(copy);
        }
        let Some(upper) = self.node.upper() else { return Ok(&self.opened) };
        let copy = upper.open(&self.node.overlay().cx(), self.flags)?;
        Ok(self.copy.get_or_init(|| copy))
    }
}

impl File for OverlayFile {
    fn read(&self, cx: &FileContext<'_>, offset: u64, sink: &mut dyn IoSink) -> Result<usize> {
        self.real()?.read(cx, offset, sink)
    }

    fn write(&self, cx: &FileContext<'_>, offset: u64, source: &mut dyn IoSource) -> Result<usize> {
        self.real()?.write(cx, offset, source)
    }

    fn append(&self, cx: &FileContext<'_>, source: &mut dyn IoSource) -> Result<(usize, u64)> {
        self.real()?.append(cx, source)
    }

    fn is_seekable(&self) -> bool {
        self.opened.is_seekable()
    }

    fn seek(&self, current: u64, to: SeekFrom) -> Result<u64> {
        self.real()?.seek(current, to)
    }

    fn poll(&self) -> PollEvents {
        self.real().map_or(PollEvents::ERR, |file| file.poll())
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        self.real().ok()?.wait_queue()
    }

    fn ioctl(&self, cx: &FileContext<'_>, request: &IoctlRequest<'_>) -> Result<u64> {
        self.real()?.ioctl(cx, request)
    }

    fn mappable(&self) -> Option<Arc<dyn Mappable>> {
        let real = self.real().ok()?.mappable()?;
        Some(Arc::new(Mapping { real, node: Arc::clone(&self.node) }))
    }

    fn fsync(&self, data_only: bool) -> Result<()> {
        self.real()?.fsync(data_only)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.real()?.allocate(mode, offset, len)
    }

    fn set_flags(&self, flags: OpenFlags) -> Result<()> {
        self.real()?.set_flags(flags)
    }

    fn flush(&self, cx: &FileContext<'_>) -> Result<()> {
        self.real()?.flush(cx)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A mapped file: the layer's, under the number the union shows.
struct Mapping {
    real: Arc<dyn Mappable>,
    node: Arc<Node>,
}

impl Mappable for Mapping {
    fn backing(&self, request: MapRequest) -> std::result::Result<Backing, Errno> {
        self.real.backing(request)
    }

    fn shared_limit(&self) -> Prot {
        self.real.shared_limit()
    }

    fn mapped(&self, request: MapRequest) {
        self.real.mapped(request);
    }

    fn unmapped(&self, request: MapRequest) {
        self.real.unmapped(request);
    }

    fn sync(&self, offset: u64, len: u64) -> std::result::Result<(), Errno> {
        self.real.sync(offset, len)
    }

    fn identity(&self) -> MapIdentity {
        let ino = self.node.attr().map_or(0, |attr| attr.ino);
        MapIdentity { dev: self.node.overlay().dev(), ino, name: self.real.identity().name }
    }
}
