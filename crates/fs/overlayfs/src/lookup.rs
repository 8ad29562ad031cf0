//! Merging names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use abi::fs::FileType;
use vfs::{Inode, Result};

use crate::node::{Lower, Node};
use crate::work::{self, is_opaque, is_whiteout};

/// Names that were not there until the others are listed.
const MISSES: u32 = 4;

/// Bytes of the directories that are listed for that.
const LIST_MAX: u64 = 256 * 1024;

/// What the upper directory says about a name.
pub(crate) enum Above {
    /// Nothing.
    Absent,
    /// That it is gone.
    Whiteout,
    /// What it is.
    There(Arc<dyn Inode>),
}

impl Node {
    /// What the upper directory says about `name`.
    pub(crate) fn above(&self, name: &[u8]) -> Result<Above> {
        let Some(upper) = self.upper() else { return Ok(Above::Absent) };
        match upper.lookup(name) {
            Ok(inode) if is_whiteout(&inode)? => Ok(Above::Whiteout),
            Ok(inode) => Ok(Above::There(inode)),
            Err(Errno::ENOENT) => Ok(Above::Absent),
            Err(error) => Err(error),
        }
    }

    /// What lies below under `name`, merged: one file, or directories topmost first. Empty: nothing.
    pub(crate) fn below(&self, name: &[u8]) -> Result<Vec<Lower>> {
        let found = self.ask_below(name)?;
        if found.is_empty() && self.names.get().is_none() && !self.lowers().is_empty() {
            self.missed();
        }
        Ok(found)
    }

    /// Another name was not there. Who asks for many, to make them or along a search path, is answered sooner
    /// by the list of those that are; one too long is not worth it.
    fn missed(&self) {
        if self.misses.fetch_add(1, Ordering::Relaxed) + 1 != MISSES {
            return;
        }
        let size = |lower: &Lower| lower.inode.attr().map_or(u64::MAX, |attr| attr.size);
        if self.lowers().iter().map(size).fold(0, u64::saturating_add) <= LIST_MAX {
            // Without the list everything is asked for, as before.
            let _ = self.lower_names();
        }
    }

    fn ask_below(&self, name: &[u8]) -> Result<Vec<Lower>> {
        let mut found = Vec::new();
        if self.names.get().is_some_and(|names| names.find(name).is_none()) {
            return Ok(found);
        }
        let mut layers = self.lowers().iter();
        while let Some(layer) = layers.next() {
            let inode = match layer.inode.lookup(name) {
                Ok(inode) => inode,
                Err(Errno::ENOENT) => continue,
                Err(error) => return Err(error),
            };
            if is_whiteout(&inode)? {
                break;
            }
            let directory = inode.kind() == FileType::Directory;
            if !directory && !found.is_empty() {
                break;
            }
            // What nothing lies below need not be asked.
            let hides = !directory || (!layers.as_slice().is_empty() && is_opaque(&inode)?);
            found.push(Lower { inode, system: layer.system });
            if hides {
                break;
            }
        }
        Ok(found)
    }

    /// Is there anything below under `name`?
    pub(crate) fn is_below(&self, name: &[u8]) -> Result<bool> {
        Ok(!self.below(name)?.is_empty())
    }

    /// The child called `name`; `ENOENT`. Under the gate.
    pub(crate) fn child(&self, name: &[u8]) -> Result<Arc<Self>> {
        if !self.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if let Some(child) = self.lower_child(name) {
            return Ok(child);
        }
        match self.above(name)? {
            Above::Whiteout => Err(Errno::ENOENT),
            Above::Absent => self.adopt_lower(name, self.below(name)?),
            Above::There(inode) => {
                if let Some(known) = self.overlay().known(&inode) {
                    return Ok(known);
                }
                let lowers = self.merged(name, &inode)?;
                self.overlay().adopt(inode, lowers)
            }
        }
    }

    /// The directories below that `upper`, called `name` here, is merged with.
    fn merged(&self, name: &[u8], upper: &Arc<dyn Inode>) -> Result<Vec<Lower>> {
        if upper.kind() != FileType::Directory || self.lowers().is_empty() || is_opaque(upper)? {
            return Ok(Vec::new());
        }
        let mut lowers = self.below(name)?;
        lowers.retain(|lower| lower.inode.kind() == FileType::Directory);
        Ok(lowers)
    }

    /// Has the directory no name left? Under the gate.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        if let Some(upper) = self.upper() {
            let mut position = 0;
            loop {
                let items = work::entries(upper, &self.overlay().cx(), position)?;
                let Some(last) = items.last() else { break };
                position = last.next;
                for item in &items {
                    if !is_whiteout(&upper.lookup(&item.name)?)? {
                        return Ok(false);
                    }
                }
            }
        }
        for name in self.lower_names()?.iter() {
            if !matches!(self.above(&name.name)?, Above::Whiteout) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
