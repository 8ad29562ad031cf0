//! Copying up: giving a file that exists only below an inode in the upper tree.
//!
//! The copy is complete before it gets its name: a regular file is made without one, everything else in
//! the work directory.

use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use guestmem::{SliceSink, SliceSource};
use vfs::{Attr, File, Inode, NewNode, RenameFlags, Result, SeekFrom, SetAttr, XattrSet};

use crate::fs::{OverlayFs, times};
use crate::node::{Lower, Node};
use crate::work::{self, PRIVATE};

/// All data is wanted.
pub(crate) const WHOLE: u64 = u64::MAX;

/// Bytes copied at a time.
const CHUNK: usize = 128 * 1024;

/// A finished copy.
struct Copy {
    inode: Arc<dyn Inode>,
    /// Its name in the work directory, where it has one.
    name: Option<Vec<u8>>,
}

impl Node {
    /// The upper inode; made, with those of all parents, when there is none. Of a regular file that is
    /// only below, at most `keep` bytes are copied.
    pub(crate) fn copy_up(&self, keep: u64) -> Result<&Arc<dyn Inode>> {
        if self.upper().is_none() {
            let mut missing = vec![self.arc()?];
            while let Some(place) = missing.last().and_then(|node| node.place())
                && place.parent.upper().is_none()
            {
                missing.push(place.parent);
            }
            while let Some(node) = missing.pop() {
                node.copy_up_alone(keep)?;
            }
        }
        self.upper().ok_or(Errno::EIO)
    }

    /// As [`copy_up`](Self::copy_up), when the parent is up already.
    fn copy_up_alone(&self, keep: u64) -> Result<()> {
        let _copying = self.lock_copying();
        if self.upper().is_some() {
            return Ok(());
        }
        let place = self.place().ok_or(Errno::EIO)?;
        let lower = self.lowers().first().ok_or(Errno::EIO)?;
        let copy = self.overlay().copy(lower, keep)?;
        let _gate = place.parent.gate_mut();
        let settled = match self.is_removed() {
            // Somebody has it open still; the copy is as nameless as the original.
            true => self.overlay().leave_unnamed(&copy),
            false => self.overlay().name_copy(&copy, place.parent.upper().ok_or(Errno::EIO)?, &place.name),
        };
        if settled.is_err()
            && let Some(name) = &copy.name
        {
            self.overlay().work.discard(name, &self.overlay().cx());
        }
        settled?;
        place.parent.forget_lower(&place.name);
        self.set_upper(copy.inode)
    }
}

impl OverlayFs {
    /// A copy of `lower`, out of sight.
    fn copy(&self, lower: &Lower, keep: u64) -> Result<Copy> {
        let attr = lower.inode.attr()?;
        let copy = self.make_copy(lower, &attr)?;
        let filled = self.fill_copy(lower, &attr, &copy.inode, keep);
        if filled.is_err()
            && let Some(name) = &copy.name
        {
            self.work.discard(name, &self.cx());
        }
        filled.map(|()| copy)
    }

    fn make_copy(&self, lower: &Lower, attr: &Attr) -> Result<Copy> {
        let Attr { kind, perm, uid, gid, rdev, .. } = *attr;
        let new = NewNode { kind, perm, uid, gid, rdev };
        let name = self.work.name();
        let inode = match kind {
            FileType::Regular => {
                return Ok(Copy { inode: self.work.dir.create_unnamed(&new)?, name: None });
            }
            FileType::Symlink => self.work.dir.symlink(&name, &lower.inode.readlink()?, uid, gid)?,
            _ => self.work.dir.create(&name, &new)?,
        };
        Ok(Copy { inode, name: Some(name) })
    }

    fn fill_copy(&self, lower: &Lower, attr: &Attr, copy: &Arc<dyn Inode>, keep: u64) -> Result<()> {
        copy_xattrs(&lower.inode, copy)?;
        if attr.kind == FileType::Regular {
            let cx = self.cx();
            let from = lower.inode.open(&cx, OpenFlags::empty())?;
            let to = copy.open(&cx, OpenFlags::WRONLY)?;
            self.copy_data(&*from, &*to, attr.size.min(keep))?;
            copy.set_attr(&SetAttr { size: Some(attr.size.min(keep)), ..SetAttr::default() })?;
        }
        // Hard links come apart, and must not be taken for each other. A directory is merged with what is
        // below, which gives it its number.
        if attr.nlink <= 1 && attr.kind != FileType::Directory {
            work::set_origin(copy, self.lower_number(lower.system, attr.ino))?;
        }
        copy.set_attr(&times(attr))
    }

    /// Copies `size` bytes; holes stay holes.
    fn copy_data(&self, from: &dyn File, to: &dyn File, size: u64) -> Result<()> {
        let cx = self.cx();
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
        let mut at = 0;
        while at < size {
            at = match from.seek(0, SeekFrom::Data(at)) {
                Ok(data) => data.max(at),
                Err(Errno::ENXIO) => return Ok(()),
                Err(_) => at,
            };
            let end = match from.seek(0, SeekFrom::Hole(at)) {
                Ok(hole) if hole > at => hole.min(size),
                _ => size,
            };
            while at < end {
                let want = usize::try_from(end - at).unwrap_or(CHUNK).min(buffer.len());
                let mut sink = SliceSink::new(buffer.get_mut(..want).ok_or(Errno::EIO)?);
                let read = from.read(&cx, at, &mut sink)?;
                if read == 0 {
                    return Ok(());
                }
                write_all(&cx, to, at, buffer.get(..read).ok_or(Errno::EIO)?)?;
                at += read as u64;
            }
        }
        Ok(())
    }

    /// Gives a copy its name in `dir`, whose times do not change by that. Under the gate.
    fn name_copy(&self, copy: &Copy, dir: &Arc<dyn Inode>, name: &[u8]) -> Result<()> {
        let before = dir.attr()?;
        match &copy.name {
            None => dir.link(name, &copy.inode)?,
            Some(prepared) => self.work.dir.rename(prepared, dir, name, RenameFlags::empty())?,
        }
        dir.set_attr(&times(&before))
    }

    fn leave_unnamed(&self, copy: &Copy) -> Result<()> {
        match &copy.name {
            None => Ok(()),
            Some(name) => work::discard(&self.work.dir, name, &self.cx()),
        }
    }
}

fn write_all(cx: &vfs::FileContext<'_>, to: &dyn File, at: u64, bytes: &[u8]) -> Result<()> {
    let (mut at, mut left) = (at, bytes);
    while !left.is_empty() {
        // A new source each time: more may be taken from one than is written.
        match to.write(cx, at, &mut SliceSource(left))? {
            0 => return Err(Errno::EIO),
            n => {
                at += n as u64;
                left = left.get(n..).unwrap_or_default();
            }
        }
    }
    Ok(())
}

fn copy_xattrs(from: &Arc<dyn Inode>, to: &Arc<dyn Inode>) -> Result<()> {
    let names = match from.list_xattr() {
        Ok(names) => names,
        Err(Errno::EOPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names.iter().filter(|name| !name.starts_with(PRIVATE)) {
        match from.xattr(name) {
            Ok(value) => to.set_xattr(name, &value, XattrSet::Any)?,
            // Not for everybody's eyes, or not for the upper file system.
            Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
