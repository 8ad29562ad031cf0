//! A mount of an attachment of the Gofer.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::StatFs;
use gofer_proto::{Attributes, DirEntry, MAX_CLOSE, NodeAttr, NodeId, Request, Response};
use memmap::HostObject;
use sync::Mutex;
use sync::order::Leaf;
use vfs::{FileSystem, Inode};

use crate::ahead::Ahead;
use crate::client::Client;
use crate::inode::GoferInode;

/// How an attachment is mounted.
#[derive(Clone, Copy, Debug)]
pub struct MountOptions {
    /// Index of the attachment in the Gofer's configuration.
    pub attachment: u32,
    /// Device number its inodes report.
    pub dev: u64,
    /// Nobody but this sandbox changes the tree: dentries and attributes may be kept.
    pub exclusive: bool,
}

/// Nodes are closed when this many wait for it.
const CLOSE_BATCH: usize = 16;

/// Descriptors for reading that stay open after their last use.
const LINGERING: usize = 64;

/// Device and inode number on the host: which file it is.
pub(crate) type Key = (u64, u64);

/// A mounted attachment.
pub struct GoferFs {
    client: Arc<Client>,
    options: MountOptions,
    root: NodeAttr,
    this: Weak<Self>,
    /// One inode a file, whatever its names.
    inodes: Mutex<Leaf, HashMap<Key, Weak<GoferInode>>>,
    /// Nodes nobody needs any more. Inodes are dropped under locks, where nothing may wait for the
    /// Gofer; the next request closes them.
    dead: Mutex<Leaf, Vec<NodeId>>,
    /// The file created last, open: most are opened at once. One, so that a guest cannot hold more.
    fresh: Mutex<Leaf, Option<(Key, Arc<HostObject>)>>,
    /// What was opened last for reading, the oldest first: most files are opened again and again. None while names
    /// are removed, so that removed files give their room back.
    lingering: Mutex<Leaf, VecDeque<Arc<HostObject>>>,
    /// Counts changes of attributes and names; kept attributes are as good as the count they carry.
    changes: AtomicU64,
    ahead: Ahead,
}

impl GoferFs {
    /// Mounts an attachment.
    pub fn mount(client: Arc<Client>, options: MountOptions) -> Result<Arc<Self>, Errno> {
        let root = client.node(&Request::Mount { index: options.attachment })?;
        Ok(Arc::new_cyclic(|this| Self {
            client,
            options,
            root,
            this: Weak::clone(this),
            inodes: Mutex::new(HashMap::new()),
            dead: Mutex::new(Vec::new()),
            fresh: Mutex::new(None),
            lingering: Mutex::default(),
            changes: AtomicU64::new(0),
            ahead: Ahead::default(),
        }))
    }

    /// The connections, after closing nodes that wait for it.
    pub(crate) fn client(&self) -> &Client {
        let batch = {
            let mut dead = self.dead.lock();
            if dead.len() < CLOSE_BATCH {
                Vec::new()
            } else {
                let keep = dead.len().saturating_sub(MAX_CLOSE);
                dead.split_off(keep)
            }
        };
        if !batch.is_empty() {
            // It fails on a broken connection only, which is logged and breaks what comes next as well.
            let _ = self.client.done(&Request::Close { nodes: batch });
        }
        &self.client
    }

    /// As an `Arc`. There is one: whoever calls got here through it, or through an inode's.
    fn arc(&self) -> Arc<Self> {
        self.this.upgrade().expect("a file system is used through an Arc")
    }

    /// Host device of the root.
    pub(crate) fn root_dev(&self) -> u64 {
        self.root.attr.stat().dev
    }

    /// Are kept attributes to be believed?
    pub(crate) fn exclusive(&self) -> bool {
        self.options.exclusive
    }

    /// How many changes there have been.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Something was changed: what was read before is stale. Returns the count that attributes which
    /// came with the change may be kept under, when there had been `before` changes before it; one that
    /// is never current, when somebody else changed something in the meantime.
    pub(crate) fn changed(&self, before: u64) -> u64 {
        let now = self.changes.fetch_add(1, Ordering::AcqRel);
        if now == before { now.wrapping_add(1) } else { u64::MAX }
    }

    /// The inode of a node the Gofer has just given us; the node belongs to the inode from now on. The
    /// host cannot use an inode number again while we hold a node of it, so equal keys are one file.
    /// `changes` is the count from before the Gofer was asked.
    pub(crate) fn adopt(&self, found: NodeAttr, changes: u64) -> Arc<GoferInode> {
        let (fs, key) = (self.arc(), key_of(&found.attr));
        let (inode, known) = {
            let mut inodes = self.inodes.lock();
            let known = inodes.get(&key).and_then(Weak::upgrade);
            match known {
                Some(inode) => (inode, true),
                None => {
                    let inode = Arc::new(GoferInode::new(fs, found));
                    inodes.insert(key, Arc::downgrade(&inode));
                    (inode, false)
                }
            }
        };
        if known {
            self.discard(found.node);
        }
        inode.keep(found.attr, changes);
        inode
    }

    /// The inode of this file, when there is one.
    pub(crate) fn known(&self, key: Key) -> Option<Arc<GoferInode>> {
        self.inodes.lock().get(&key).and_then(Weak::upgrade)
    }

    /// Nobody needs this node any more.
    fn discard(&self, node: NodeId) {
        if node != self.root.node {
            self.dead.lock().push(node);
        }
    }

    /// An inode is gone.
    pub(crate) fn release(&self, key: Key, node: NodeId) {
        {
            let mut inodes = self.inodes.lock();
            // Another inode of the same file may have come in the meantime.
            if inodes.get(&key).is_some_and(|inode| inode.strong_count() == 0) {
                inodes.remove(&key);
            }
        }
        self.discard(node);
    }

    /// Entries of `dir` were listed when there had been `changes`, from its beginning if `first`.
    pub(crate) fn listed(&self, dir: NodeId, changes: u64, first: bool, entries: &VecDeque<DirEntry>) {
        if self.exclusive() {
            let names = entries.iter().map(|entry| entry.name.as_slice());
            let gone = self.ahead.listed(dir, changes, first, names);
            gone.into_iter().for_each(|node| self.discard(node));
        }
    }

    /// What was found of `name` ahead.
    pub(crate) fn looked_up(
        &self,
        dir: NodeId,
        name: &[u8],
        changes: u64,
    ) -> Result<Option<NodeAttr>, Errno> {
        if !self.exclusive() {
            return Ok(None);
        }
        let (found, gone) = self.ahead.lookup(self.client(), dir, name, changes)?;
        gone.into_iter().for_each(|node| self.discard(node));
        Ok(found)
    }

    /// Remembers the descriptor of a file just created.
    pub(crate) fn keep_fresh(&self, key: Key, object: Arc<HostObject>) {
        let before = self.fresh.lock().replace((key, object));
        drop(before);
    }

    /// Takes it, when it is of this file.
    pub(crate) fn take_fresh(&self, key: Key) -> Option<Arc<HostObject>> {
        self.fresh.lock().take_if(|(fresh, _)| *fresh == key).map(|(_, object)| object)
    }
}

impl GoferFs {
    /// Keeps a descriptor for a while.
    pub(crate) fn linger(&self, object: &Arc<HostObject>) {
        let oldest = {
            let mut lingering = self.lingering.lock();
            lingering.push_back(Arc::clone(object));
            if lingering.len() > LINGERING { lingering.pop_front() } else { None }
        };
        drop(oldest);
    }

    /// Keeps none of them any longer.
    pub(crate) fn end_lingering(&self) {
        let all = std::mem::take(&mut *self.lingering.lock());
        drop(all);
    }
}

impl FileSystem for GoferFs {
    fn type_name(&self) -> &'static str {
        "gofer"
    }

    fn dev(&self) -> u64 {
        self.options.dev
    }

    fn root(&self) -> Arc<dyn Inode> {
        // Attributes from the time of the mount are never fresh: no count is that high.
        self.adopt(self.root, u64::MAX)
    }

    fn statfs(&self) -> Result<StatFs, Errno> {
        match self.client().ask(&Request::StatFs { node: self.root.node })? {
            Response::StatFs(stat) => Ok(stat),
            _ => Err(Errno::EIO),
        }
    }

    fn caches_lookups(&self) -> bool {
        self.options.exclusive
    }

    fn sync(&self) -> Result<(), Errno> {
        self.client().done(&Request::SyncFs { node: self.root.node })
    }
}

impl Drop for GoferFs {
    fn drop(&mut self) {
        let mut nodes = std::mem::take(self.dead.get_mut());
        nodes.push(self.root.node);
        nodes.extend(self.ahead.nodes());
        for nodes in nodes.chunks(MAX_CLOSE) {
            // A Gofer that is gone has nothing to close.
            let _ = self.client.done(&Request::Close { nodes: nodes.to_vec() });
        }
    }
}

/// Which file attributes are of.
pub(crate) fn key_of(attr: &Attributes) -> Key {
    (attr.stat().dev, attr.stat().ino)
}
