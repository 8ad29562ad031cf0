//! Nodes: handles of host files, and the table of those the peer holds.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abi::Errno;
use abi::fs::FileType;
use gofer_proto::NodeId;

/// A file or directory of an attachment.
#[derive(Debug)]
pub(crate) struct Node {
    fd: OwnedFd,
    file_type: FileType,
    attachment: usize,
    readonly: bool,
}

impl Node {
    /// Wraps an `O_PATH` descriptor of a file of this type.
    pub(crate) fn new(fd: OwnedFd, file_type: FileType, attachment: usize, readonly: bool) -> Self {
        Self { fd, file_type, attachment, readonly }
    }

    /// Another file of the same attachment.
    pub(crate) fn sibling(&self, fd: OwnedFd, file_type: FileType) -> Self {
        Self::new(fd, file_type, self.attachment, self.readonly)
    }

    /// What it is.
    pub(crate) fn file_type(&self) -> FileType {
        self.file_type
    }

    /// `EROFS` when the attachment is read-only.
    pub(crate) fn check_writable(&self) -> Result<(), Errno> {
        if self.readonly { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// `ENOTDIR` when it is none.
    pub(crate) fn check_directory(&self) -> Result<(), Errno> {
        if self.file_type == FileType::Directory { Ok(()) } else { Err(Errno::ENOTDIR) }
    }

    /// `EXDEV` when the two are of different attachments.
    pub(crate) fn check_same_attachment(&self, other: &Self) -> Result<(), Errno> {
        if self.attachment == other.attachment { Ok(()) } else { Err(Errno::EXDEV) }
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The nodes the peer holds, of all its connections, at most `max`. Numbers are never used twice.
#[derive(Debug)]
pub(crate) struct NodeTable {
    max: usize,
    nodes: Mutex<Nodes>,
}

#[derive(Debug, Default)]
struct Nodes {
    last: u64,
    by_id: BTreeMap<u64, Arc<Node>>,
}

impl NodeTable {
    /// An empty table.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, nodes: Mutex::default() }
    }

    /// `EBADF` for a node the peer does not hold.
    pub(crate) fn find(&self, id: NodeId) -> Result<Arc<Node>, Errno> {
        self.lock().by_id.get(&id.0).cloned().ok_or(Errno::EBADF)
    }

    /// Gives a node a number; `ENFILE` when the table is full.
    pub(crate) fn insert(&self, node: Node) -> Result<NodeId, Errno> {
        let mut nodes = self.lock();
        if nodes.by_id.len() >= self.max {
            return Err(Errno::ENFILE);
        }
        let id = nodes.last.checked_add(1).ok_or(Errno::ENFILE)?;
        nodes.last = id;
        nodes.by_id.insert(id, Arc::new(node));
        Ok(NodeId(id))
    }

    /// Forgets nodes. Descriptors are closed after the lock is given up.
    pub(crate) fn remove(&self, ids: &[NodeId]) {
        let removed: Vec<_> = {
            let mut nodes = self.lock();
            ids.iter().filter_map(|id| nodes.by_id.remove(&id.0)).collect()
        };
        drop(removed);
    }

    /// A thread that panicked left the table whole: every change is one insertion or removal.
    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
