//! Directories.

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use abi::fs::FileType;
use vfs::{DirEntry, DirSink, File, FileContext, Result, SeekFrom};

use crate::node::{Spec, child_ino};

/// A name in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Place in the order of the listing: the same for the same name while it lasts (an index, a pid), so
    /// that a listing can go on where it stopped though names have come and gone. Below `i64::MAX`.
    pub key: u64,
    /// Name.
    pub name: Vec<u8>,
    /// Type.
    pub kind: FileType,
}

/// A directory as its owner sees it.
pub trait Directory: Send + Sync {
    /// The child called `name`; `ENOENT`.
    fn lookup(&self, name: &[u8]) -> Result<Spec>;

    /// All children with a key of at least `from`, in the order of their keys.
    fn list(&self, from: u64) -> Result<Vec<Listed>>;
}

/// A directory whose names never change.
#[derive(Default)]
pub struct StaticDir {
    children: Vec<(Vec<u8>, Spec)>,
}

impl StaticDir {
    /// Without children.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more; a later one of the same name is never found.
    #[must_use]
    pub fn with(mut self, name: impl Into<Vec<u8>>, child: Spec) -> Self {
        self.children.push((name.into(), child));
        self
    }

    /// With a text that never changes.
    #[must_use]
    pub fn constant(self, name: &str, text: impl Into<Vec<u8>>) -> Self {
        let text = text.into();
        self.with(name, Spec::text(0o444, move |_: &FileContext<'_>| Ok(text.clone())))
    }

    /// With a directory.
    #[must_use]
    pub fn dir(self, name: &str, dir: impl Directory + 'static) -> Self {
        self.with(name, Spec::dir(0o555, dir))
    }

    /// As what stands in a tree.
    pub fn spec(self) -> Spec {
        Spec::dir(0o555, self)
    }
}

impl Directory for StaticDir {
    fn lookup(&self, name: &[u8]) -> Result<Spec> {
        let found = self.children.iter().find(|(child, _)| child == name);
        found.map(|(_, spec)| spec.clone()).ok_or(Errno::ENOENT)
    }

    fn list(&self, from: u64) -> Result<Vec<Listed>> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let listed = |(index, (name, spec)): (usize, &(Vec<u8>, Spec))| Listed {
            key: index as u64,
            name: name.clone(),
            kind: spec.kind(),
        };
        Ok(self.children.iter().enumerate().skip(from).map(listed).collect())
    }
}

/// An open directory.
pub(crate) struct DirFile {
    pub(crate) dir: Arc<dyn Directory>,
    pub(crate) ino: u64,
}

impl File for DirFile {
    fn read(&self, _cx: &FileContext<'_>, _offset: u64, _sink: &mut dyn guestmem::IoSink) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn seek(&self, current: u64, to: SeekFrom) -> Result<u64> {
        crate::text::seek(current, to)
    }

    fn read_dir(&self, _cx: &FileContext<'_>, position: u64, sink: &mut dyn DirSink) -> Result<u64> {
        let mut position = position;
        for listed in self.dir.list(position)? {
            let next = listed.key.saturating_add(1);
            let ino = child_ino(self.ino, &listed.name);
            let entry = DirEntry { ino, next, kind: Some(listed.kind), name: &listed.name };
            if !sink.entry(entry) {
                break;
            }
            position = next;
        }
        Ok(position)
    }

    fn fsync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
