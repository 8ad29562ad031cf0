//! The work directory: where things are put together before they appear under their name, and where they
//! go to be taken apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use abi::fs::{FileType, OpenFlags, Permissions};
use vfs::{DirEntry, DirSink, File, FileContext, Inode, NewNode, RenameFlags, Result, XattrSet};

/// Extended attributes the overlay keeps for itself.
pub(crate) const PRIVATE: &[u8] = b"trusted.overlay.";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
const ORIGIN: &[u8] = b"trusted.overlay.origin";

/// Entries of a layer's directory looked at in one go.
pub(crate) const BATCH: usize = 64;

/// The name under which the whiteout that all others are links to is kept.
const WHITEOUT: &[u8] = b"whiteout";

/// A directory entry taken out of a listing.
pub(crate) struct Item {
    pub(crate) name: Vec<u8>,
    pub(crate) ino: u64,
    pub(crate) kind: Option<FileType>,
    /// Position behind it.
    pub(crate) next: u64,
}

/// Takes up to [`BATCH`] entries.
struct Batch(Vec<Item>);

impl DirSink for Batch {
    fn entry(&mut self, entry: DirEntry<'_>) -> bool {
        if self.0.len() == BATCH {
            return false;
        }
        let DirEntry { ino, next, kind, name } = entry;
        self.0.push(Item { name: name.to_vec(), ino, kind, next });
        true
    }
}

/// Some entries of a layer's directory from `position` on; none at the end.
pub(crate) fn entries(dir: &Arc<dyn Inode>, cx: &FileContext<'_>, position: u64) -> Result<Vec<Item>> {
    entries_of(&dir.open(cx, OpenFlags::DIRECTORY)?, cx, position)
}

/// The same of one that is open: it may know what comes next.
pub(crate) fn entries_of(dir: &Arc<dyn File>, cx: &FileContext<'_>, position: u64) -> Result<Vec<Item>> {
    let mut batch = Batch(Vec::new());
    dir.read_dir(cx, position, &mut batch)?;
    Ok(batch.0)
}

/// Does the inode stand for the absence of a name?
pub(crate) fn is_whiteout(inode: &Arc<dyn Inode>) -> Result<bool> {
    Ok(inode.kind() == FileType::CharDevice && inode.attr()?.rdev == 0)
}

/// The value of one of our attributes, where a layer has attributes at all.
fn mark(inode: &Arc<dyn Inode>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    match inode.xattr(name) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Does the directory hide those of its name below?
pub(crate) fn is_opaque(dir: &Arc<dyn Inode>) -> Result<bool> {
    Ok(mark(dir, OPAQUE)?.is_some_and(|value| value == b"y"))
}

/// Makes a directory hide those of its name below.
pub(crate) fn set_opaque(dir: &Arc<dyn Inode>) -> Result<()> {
    dir.set_xattr(OPAQUE, b"y", XattrSet::Any)
}

/// The inode number a copied file had below.
pub(crate) fn origin(inode: &Arc<dyn Inode>) -> Result<Option<u64>> {
    let value = mark(inode, ORIGIN)?;
    Ok(value.and_then(|value| value.try_into().ok()).map(u64::from_le_bytes))
}

/// Remembers the inode number a copied file had below.
pub(crate) fn set_origin(inode: &Arc<dyn Inode>, ino: u64) -> Result<()> {
    inode.set_xattr(ORIGIN, &ino.to_le_bytes(), XattrSet::Any)
}

/// The work directory.
pub(crate) struct Work {
    pub(crate) dir: Arc<dyn Inode>,
    next: AtomicU64,
    /// All whiteouts are links to this one, so that removing takes no inode.
    whiteout: Arc<dyn Inode>,
}

const NEW_WHITEOUT: NewNode =
    NewNode { kind: FileType::CharDevice, perm: Permissions::empty(), uid: 0, gid: 0, rdev: 0 };

impl Work {
    /// Takes a directory, and removes what an earlier user left.
    pub(crate) fn new(dir: Arc<dyn Inode>, cx: &FileContext<'_>) -> Result<Self> {
        loop {
            let left = entries(&dir, cx, 0)?;
            if left.is_empty() {
                break;
            }
            for item in left {
                discard(&dir, &item.name, cx)?;
            }
        }
        let whiteout = dir.create(WHITEOUT, &NEW_WHITEOUT)?;
        Ok(Self { dir, next: AtomicU64::new(0), whiteout })
    }

    /// A name nobody else uses.
    pub(crate) fn name(&self) -> Vec<u8> {
        format!("#{:x}", self.next.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }

    /// Makes `name` in `dir` a whiteout.
    pub(crate) fn whiteout(&self, dir: &Arc<dyn Inode>, name: &[u8]) -> Result<()> {
        match dir.link(name, &self.whiteout) {
            Err(Errno::EMLINK) => dir.create(name, &NEW_WHITEOUT).map(drop),
            linked => linked,
        }
    }

    /// Moves what was prepared as `name` to `to` in `dir`, where a whiteout is; if it cannot, it is gone.
    pub(crate) fn replace_whiteout(
        &self,
        name: &[u8],
        inode: &Arc<dyn Inode>,
        dir: &Arc<dyn Inode>,
        to: &[u8],
        cx: &FileContext<'_>,
    ) -> Result<()> {
        let moved = if inode.kind() == FileType::Directory {
            let exchanged = self.dir.rename(name, dir, to, RenameFlags::EXCHANGE);
            exchanged.and_then(|()| self.dir.unlink(name))
        } else {
            self.dir.rename(name, dir, to, RenameFlags::empty())
        };
        moved.inspect_err(|_| self.discard(name, cx))
    }

    /// Puts a whiteout in the place of `name` in `dir`, and returns the name that what was there has here.
    pub(crate) fn take_out(
        &self,
        dir: &Arc<dyn Inode>,
        name: &[u8],
        cx: &FileContext<'_>,
    ) -> Result<Vec<u8>> {
        let here = self.name();
        self.whiteout(&self.dir, &here)?;
        let exchanged = self.dir.rename(&here, dir, name, RenameFlags::EXCHANGE);
        exchanged.inspect_err(|_| self.discard(&here, cx))?;
        Ok(here)
    }

    /// Removes what has become superfluous. It is out of sight; should that fail, it costs memory only.
    pub(crate) fn discard(&self, name: &[u8], cx: &FileContext<'_>) {
        if let Err(error) = discard(&self.dir, name, cx) {
            tracing::warn!(?error, "an entry of an overlay's work directory stays");
        }
    }
}

/// Removes `name` from an upper directory; a directory may still have whiteouts in it.
pub(crate) fn discard(dir: &Arc<dyn Inode>, name: &[u8], cx: &FileContext<'_>) -> Result<()> {
    let inode = dir.lookup(name)?;
    if inode.kind() != FileType::Directory {
        return dir.unlink(name);
    }
    let mut position = 0;
    loop {
        let whiteouts = entries(&inode, cx, position)?;
        if whiteouts.is_empty() {
            return dir.rmdir(name);
        }
        for item in whiteouts {
            inode.unlink(&item.name)?;
            position = item.next;
        }
    }
}
