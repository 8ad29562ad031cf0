//! Merging listings.
//!
//! What lies below does not change, so its names, sorted, have positions that stay: they come first, each
//! as the upper directory overrules it. Then come the upper directory's own names, at its positions. So a
//! listing goes on where it stopped whatever was removed meanwhile, and no open directory needs a copy.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use vfs::{DirEntry, DirSink, File, FileContext, Result};

use crate::lookup::Above;
use crate::node::{Node, upper_number};
use crate::work::{self, BATCH, Item, is_opaque, is_whiteout};

/// A name below.
pub(crate) struct LowerName {
    pub(crate) name: Vec<u8>,
    ino: u64,
    kind: FileType,
}

/// The names a directory has below, sorted.
pub(crate) struct LowerNames(Vec<LowerName>);

impl LowerNames {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, LowerName> {
        self.0.iter()
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<&LowerName> {
        let at = self.0.binary_search_by(|known| known.name.as_slice().cmp(name)).ok()?;
        self.0.get(at)
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

impl Node {
    /// The names below. They are kept: an image decides how many there are, not the guest.
    pub(crate) fn lower_names(&self) -> Result<Arc<LowerNames>> {
        if let Some(names) = self.names.get() {
            return Ok(Arc::clone(names));
        }
        let names = Arc::new(self.read_lower_names()?);
        Ok(Arc::clone(self.names.get_or_init(|| names)))
    }

    fn read_lower_names(&self) -> Result<LowerNames> {
        // `None`: removed by a whiteout of a lower tree.
        let mut names: BTreeMap<Vec<u8>, Option<(u64, FileType)>> = BTreeMap::new();
        let cx = self.overlay().cx();
        for layer in self.lowers() {
            let open = layer.inode.open(&cx, OpenFlags::DIRECTORY)?;
            let mut position = 0;
            loop {
                let items = work::entries_of(&open, &cx, position)?;
                let Some(last) = items.last() else { break };
                position = last.next;
                for Item { name, ino, kind, .. } in items {
                    if names.contains_key(&name) {
                        continue;
                    }
                    let seen = match kind {
                        Some(kind) if kind != FileType::CharDevice => Some(kind),
                        _ => {
                            let inode = layer.inode.lookup(&name)?;
                            if is_whiteout(&inode)? { None } else { Some(inode.kind()) }
                        }
                    };
                    let ino = self.overlay().lower_number(layer.system, ino);
                    names.insert(name, seen.map(|kind| (ino, kind)));
                }
            }
        }
        let there = names.into_iter().filter_map(|(name, seen)| {
            let (ino, kind) = seen?;
            Some(LowerName { name, ino, kind })
        });
        Ok(LowerNames(there.collect()))
    }

    /// A name below as the upper directory overrules it.
    fn overruled(&self, below: &LowerName) -> Result<Option<(u64, FileType)>> {
        let inode = match self.above(&below.name)? {
            Above::Absent => return Ok(Some((below.ino, below.kind))),
            Above::Whiteout => return Ok(None),
            Above::There(inode) => inode,
        };
        let kind = inode.kind();
        let merged = kind == FileType::Directory && below.kind == kind && !is_opaque(&inode)?;
        let ino = if merged { below.ino } else { upper_number(self.overlay(), &inode)? };
        Ok(Some((ino, kind)))
    }
}

/// An open directory.
pub(crate) struct OverlayDir {
    node: Arc<Node>,
}

/// A piece of a listing, and where to go on; `None` at the end.
struct Piece {
    items: Vec<Item>,
    next: Option<u64>,
}

impl OverlayDir {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    fn piece(&self, position: u64) -> Result<Piece> {
        let names = self.node.lower_names()?;
        let _gate = self.node.gate();
        if position < names.len() {
            self.piece_below(&names, position)
        } else {
            self.piece_above(&names, position)
        }
    }

    fn piece_below(&self, names: &LowerNames, position: u64) -> Result<Piece> {
        let mut items = Vec::new();
        let mut next = position;
        for below in names.iter().skip(position as usize).take(BATCH) {
            next += 1;
            if let Some((ino, kind)) = self.node.overruled(below)? {
                items.push(Item { name: below.name.clone(), ino, kind: Some(kind), next });
            }
        }
        Ok(Piece { items, next: Some(next) })
    }

    fn piece_above(&self, names: &LowerNames, position: u64) -> Result<Piece> {
        let fs = self.node.overlay();
        let Some(upper) = self.node.upper() else { return Ok(Piece { items: Vec::new(), next: None }) };
        let found = work::entries(upper, &fs.cx(), position.saturating_sub(names.len()))?;
        let shifted = |next: u64| next.saturating_add(names.len());
        let next = found.last().map(|last| shifted(last.next));
        let mut items = Vec::new();
        for item in found.into_iter().filter(|item| names.find(&item.name).is_none()) {
            let inode = match upper.lookup(&item.name) {
                Ok(inode) => inode,
                Err(Errno::ENOENT) => continue,
                Err(error) => return Err(error),
            };
            if !is_whiteout(&inode)? {
                let ino = upper_number(fs, &inode)?;
                items.push(Item { ino, kind: Some(inode.kind()), next: shifted(item.next), ..item });
            }
        }
        Ok(Piece { items, next })
    }
}

impl File for OverlayDir {
    fn read_dir(&self, _cx: &FileContext<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64> {
        let mut position = position;
        loop {
            let Piece { items, next } = self.piece(position)?;
            for Item { name, ino, kind, next } in &items {
                if !sink.entry(DirEntry { ino: *ino, next: *next, kind: *kind, name }) {
                    return Ok(position);
                }
                position = *next;
            }
            match next {
                Some(next) => position = next,
                None => return Ok(position),
            }
        }
    }

    fn fsync(&self, data_only: bool) -> Result<()> {
        let fs = self.node.overlay();
        match self.node.upper() {
            Some(upper) => upper.open(&fs.cx(), abi::fs::OpenFlags::DIRECTORY)?.fsync(data_only),
            None => Ok(()),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
