//! An in-memory file system whose data can be mapped.
//!
//! - [`TmpFs`]: limits and the device number; [`Node`]: its inodes.
//! - [`data`]: the bytes of a regular file: pages of the heap while it is small and not mapped, a host
//!   memory object from then on. The object comes from a [`MemoryProvider`], because this crate does
//!   not call the host.
//!
//! Missing: `fallocate` other than growth and hole punching, huge pages. Pages that only a mapping touched are not counted
//! towards the size.
#![forbid(unsafe_code)]

pub mod data;
mod file;
mod node;
mod rename;
mod seals;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::{Permissions, StatFs};
use memmap::HostObject;
use sync::{Mutex, order};
use vfs::{FileSystem, Inode, NewNode, Result, Seals};

pub use node::Node;

/// Host memory that holds one file's bytes: shared by all mappings of it, read and written here.
pub trait SharedMemory: Send + Sync {
    /// The object a mapping names; `None` where there is no host (tests), then nothing can be mapped.
    fn object(&self) -> Option<Arc<HostObject>>;

    /// Fills `buf` from `offset`; beyond the end, zeroes.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Writes all of `buf` at `offset`, growing the object.
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()>;

    /// Zeroes `len` bytes from `offset`, within its size, and gives their memory back.
    fn punch(&self, offset: u64, len: u64) -> Result<()>;

    /// Makes it `size` bytes long.
    fn set_len(&self, size: u64) -> Result<()>;
}

/// Makes host memory objects.
pub trait MemoryProvider: Send + Sync {
    /// A new, empty object. `ENOMEM` when the host gives none.
    fn create(&self) -> Result<Arc<dyn SharedMemory>>;
}

/// How a file system begins.
#[derive(Clone, Debug)]
pub struct Options {
    /// Device number.
    pub dev: u64,
    /// Type shown in `/proc/mounts` (`tmpfs`, `devtmpfs`).
    pub type_name: &'static str,
    /// Most bytes of file data (`size=`).
    pub size: u64,
    /// Most inodes (`nr_inodes=`).
    pub inodes: u64,
    /// Mode of the root (`mode=`).
    pub mode: Permissions,
    /// Owner of the root.
    pub uid: u32,
    /// Group of the root.
    pub gid: u32,
}

impl Options {
    /// A gigabyte, a million inodes, a root like `/tmp`.
    pub fn new(dev: u64) -> Self {
        Self {
            dev,
            type_name: "tmpfs",
            size: 1 << 30,
            inodes: 1 << 20,
            mode: Permissions::from_bits_truncate(0o1777),
            uid: 0,
            gid: 0,
        }
    }
}

/// One tmpfs.
pub struct TmpFs {
    me: Weak<Self>,
    options: Options,
    memory: Arc<dyn MemoryProvider>,
    next_ino: AtomicU64,
    inodes: AtomicU64,
    pages: AtomicU64,
    /// Held by who locks more than one inode.
    rename: Mutex<order::Rename, ()>,
    root: std::sync::OnceLock<Arc<Node>>,
}

impl std::fmt::Debug for TmpFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TmpFs").field("options", &self.options).finish_non_exhaustive()
    }
}

impl TmpFs {
    /// An empty file system.
    pub fn new(options: Options, memory: Arc<dyn MemoryProvider>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            options,
            memory,
            next_ino: AtomicU64::new(1),
            inodes: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            rename: Mutex::default(),
            root: std::sync::OnceLock::new(),
        })
    }

    fn root_node(&self) -> &Arc<Node> {
        self.root.get_or_init(|| Node::root(self.me.clone(), &self.options))
    }

    /// A file without a name (`memfd_create(2)`). With [`Seals::SEAL`] in `seals` it cannot be sealed.
    pub fn memfd(&self, node: &NewNode, seals: Seals) -> Result<Arc<dyn Inode>> {
        let inode = self.root_node().create_unnamed_node(node)?;
        inode.set_seals(&mut inode.state.lock(), seals);
        Ok(inode)
    }

    fn next_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts one inode more; `ENOSPC` at the limit.
    fn charge_inode(&self) -> Result<()> {
        charge(&self.inodes, 1, self.options.inodes)
    }

    fn uncharge_inode(&self) {
        self.inodes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts `pages` more of data; `ENOSPC` at the limit.
    fn charge_pages(&self, pages: u64) -> Result<()> {
        charge(&self.pages, pages, self.options.size / abi::PAGE_SIZE)
    }

    fn uncharge_pages(&self, pages: u64) {
        self.pages.fetch_sub(pages, Ordering::Relaxed);
    }
}

fn charge(counter: &AtomicU64, more: u64, limit: u64) -> Result<()> {
    let fits = |used: u64| used.checked_add(more).filter(|sum| *sum <= limit);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(|_| ()).map_err(|_| Errno::ENOSPC)
}

impl FileSystem for TmpFs {
    fn type_name(&self) -> &'static str {
        self.options.type_name
    }

    fn dev(&self) -> u64 {
        self.options.dev
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(self.root_node()) as Arc<dyn Inode>
    }

    fn statfs(&self) -> Result<StatFs> {
        let blocks = self.options.size / abi::PAGE_SIZE;
        let free = blocks.saturating_sub(self.pages.load(Ordering::Relaxed));
        Ok(StatFs {
            fs_type: 0x0102_1994,
            bsize: abi::PAGE_SIZE as i64,
            blocks,
            bfree: free,
            bavail: free,
            files: self.options.inodes,
            ffree: self.options.inodes.saturating_sub(self.inodes.load(Ordering::Relaxed)),
            namelen: abi::fs::NAME_MAX as i64,
            frsize: abi::PAGE_SIZE as i64,
            ..StatFs::default()
        })
    }

    fn options(&self) -> String {
        format!("size={}k,nr_inodes={}", self.options.size / 1024, self.options.inodes)
    }
}

/// Memory without a host: for tests, and where nothing need be mapped.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapMemory;

struct Heap(std::sync::Mutex<Vec<u8>>);

impl Heap {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl MemoryProvider for HeapMemory {
    fn create(&self) -> Result<Arc<dyn SharedMemory>> {
        Ok(Arc::new(Heap(std::sync::Mutex::default())))
    }
}

impl SharedMemory for Heap {
    fn object(&self) -> Option<Arc<HostObject>> {
        None
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let bytes = self.bytes();
        let from = bytes.get(offset as usize..).unwrap_or_default();
        for (index, to) in buf.iter_mut().enumerate() {
            *to = from.get(index).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<()> {
        let mut bytes = self.bytes();
        let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let end = start.checked_add(buf.len()).ok_or(Errno::EFBIG)?;
        if bytes.len() < end {
            grow(&mut bytes, end)?;
        }
        bytes.get_mut(start..end).ok_or(Errno::EIO)?.copy_from_slice(buf);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let mut bytes = self.bytes();
        let end = bytes.len().min((offset + len) as usize);
        bytes.get_mut(offset as usize..end).unwrap_or_default().fill(0);
        Ok(())
    }

    fn set_len(&self, size: u64) -> Result<()> {
        let size = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        let mut bytes = self.bytes();
        if size > bytes.len() {
            return grow(&mut bytes, size);
        }
        bytes.truncate(size);
        Ok(())
    }
}

/// There are no holes on the heap: a file with a far end may not fit.
fn grow(bytes: &mut Vec<u8>, size: usize) -> Result<()> {
    const MOST: usize = 1 << 30;
    if size > MOST || bytes.try_reserve(size - bytes.len()).is_err() {
        return Err(Errno::ENOSPC);
    }
    bytes.resize(size, 0);
    Ok(())
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
