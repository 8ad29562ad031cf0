//! The requests: which function answers which, and those that look up and open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use gofer_proto::{Name, NodeAttr, NodeId, Request, Response};

use crate::node::{Node, NodeTable};
use crate::{Attach, Config, host};

/// What all connections share.
pub(crate) struct Shared {
    attachments: Vec<Attach>,
    proc_fd: OwnedFd,
    nodes: NodeTable,
    devices: bool,
    pub(crate) special_files: bool,
}

impl Shared {
    /// `budget` bounds the nodes in addition to the configuration.
    pub(crate) fn new(config: Config, budget: usize) -> Self {
        Self {
            attachments: config.attachments,
            proc_fd: config.proc_fd,
            nodes: NodeTable::new(config.max_nodes.min(budget)),
            devices: config.devices,
            special_files: config.special_files,
        }
    }
}

/// A reply, and a descriptor that goes with it.
pub(crate) type Answer = Result<(Response, Option<OwnedFd>), Errno>;

/// A directory being listed.
pub(crate) struct Listing {
    pub(crate) node: NodeId,
    pub(crate) dir: OwnedFd,
    /// The cookie at which it goes on.
    pub(crate) at: u64,
}

/// One connection.
pub(crate) struct Connection<'s> {
    pub(crate) shared: &'s Shared,
    /// The directory listed last, kept open: most listings go on where they stopped.
    pub(crate) listing: Option<Listing>,
}

impl<'s> Connection<'s> {
    pub(crate) fn new(shared: &'s Shared) -> Self {
        Self { shared, listing: None }
    }

    /// Carries a request out.
    pub(crate) fn answer(&mut self, request: &Request<'_>) -> (Response, Option<OwnedFd>) {
        let answer = match request {
            Request::Open { node, flags } => self.open(*node, *flags),
            Request::Create { dir, name, flags, mode, owner } => {
                self.create(*dir, *name, *flags, *mode, *owner)
            }
            Request::CreateUnnamed { dir, mode, owner } => self.create_unnamed(*dir, *mode, *owner),
            other => self.plain(other).map(|response| (response, None)),
        };
        answer.unwrap_or_else(|errno| (Response::Error(errno), None))
    }

    /// The requests that donate nothing.
    fn plain(&mut self, request: &Request<'_>) -> Result<Response, Errno> {
        match *request {
            Request::Mount { index } => self.mount(index),
            Request::WalkStat { dir, ref names } => self.walk(dir, names),
            Request::LookupMany { dir, ref names } => self.lookup_many(dir, names),
            Request::Stat { node } => Ok(Response::Attr(host::attributes(&*self.node(node)?)?)),
            Request::SetStat { node, ref changes } => self.set_stat(node, changes),
            Request::Mkdir { dir, name, mode, owner } => self.mkdir(dir, name, mode, owner),
            Request::Mknod { dir, name, file_type, mode, owner } => {
                self.mknod(dir, name, file_type, mode, owner)
            }
            Request::Symlink { dir, name, target, owner } => self.symlink(dir, name, target, owner),
            Request::Link { node, dir, name } => self.link(node, dir, name),
            Request::Unlink { dir, name, kind } => self.unlink(dir, name, kind),
            Request::Rename { from_dir, from, to_dir, to, flags } => {
                self.rename(from_dir, from, to_dir, to, flags)
            }
            Request::Readlink { node } => self.readlink(node),
            Request::Readdir { node, cookie, max } => self.readdir(node, cookie, max),
            Request::StatFs { node } => {
                Ok(Response::StatFs(hostsys::file::statfs(self.node(node)?.as_fd())?))
            }
            Request::GetXattr { node, name } => self.get_xattr(node, name),
            Request::SetXattr { node, name, value, flags } => self.set_xattr(node, name, value, flags),
            Request::ListXattr { node } => self.list_xattr(node),
            Request::RemoveXattr { node, name } => self.remove_xattr(node, name),
            Request::Fsync { node } => self.fsync(node),
            Request::SyncFs { node } => self.sync_fs(node),
            Request::Close { ref nodes } => {
                self.close(nodes);
                Ok(Response::Done)
            }
            Request::Open { .. } | Request::Create { .. } | Request::CreateUnnamed { .. } => {
                Err(Errno::EINVAL)
            }
        }
    }

    /// A node the peer holds.
    pub(crate) fn node(&self, id: NodeId) -> Result<Arc<Node>, Errno> {
        self.shared.nodes.find(id)
    }

    /// A directory the peer holds, in a writable attachment.
    pub(crate) fn writable_dir(&self, id: NodeId) -> Result<Arc<Node>, Errno> {
        let dir = self.node(id)?;
        dir.check_directory()?;
        dir.check_writable()?;
        Ok(dir)
    }

    /// `/proc/self/fd`.
    pub(crate) fn proc_fd(&self) -> BorrowedFd<'_> {
        self.shared.proc_fd.as_fd()
    }

    /// Makes a node of a handle of a file in the same attachment as `near`.
    pub(crate) fn adopt(&self, near: &Node, fd: OwnedFd) -> Result<NodeAttr, Errno> {
        let attr = host::attributes(&fd)?;
        let node = self.shared.nodes.insert(near.sibling(fd, attr.file_type()))?;
        Ok(NodeAttr { node, attr })
    }

    fn mount(&self, index: u32) -> Result<Response, Errno> {
        let index = usize::try_from(index).map_err(|_| Errno::ENODEV)?;
        let attach = self.shared.attachments.get(index).ok_or(Errno::ENODEV)?;
        let fd = attach.root.try_clone().map_err(|_| Errno::EMFILE)?;
        let attr = host::attributes(&fd)?;
        let node = Node::new(fd, attr.file_type(), index, attach.readonly);
        Ok(Response::Node(NodeAttr { node: self.shared.nodes.insert(node)?, attr }))
    }

    /// Nodes found before an error stay found: the peer gets them and the error.
    fn walk(&self, dir: NodeId, names: &[Name<'_>]) -> Result<Response, Errno> {
        let mut at = self.node(dir)?;
        let mut nodes = Vec::with_capacity(names.len());
        for name in names {
            if at.file_type() == FileType::Symlink && !nodes.is_empty() {
                break;
            }
            match self.step(&at, *name) {
                Ok((found, node)) => {
                    nodes.push(found);
                    at = node;
                }
                Err(errno) => return Ok(Response::Walk { nodes, stop: Some(errno) }),
            }
        }
        Ok(Response::Walk { nodes, stop: None })
    }

    /// Goes as far as there is room for nodes.
    fn lookup_many(&self, dir: NodeId, names: &[Name<'_>]) -> Result<Response, Errno> {
        let dir = self.node(dir)?;
        dir.check_directory()?;
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            match host::open_child(dir.as_fd(), *name).and_then(|fd| self.adopt(&dir, fd)) {
                Ok(node) => found.push(Some(node)),
                Err(Errno::ENFILE | Errno::EMFILE) => break,
                Err(_) => found.push(None),
            }
        }
        Ok(Response::Found(found))
    }

    fn step(&self, at: &Node, name: Name<'_>) -> Result<(NodeAttr, Arc<Node>), Errno> {
        at.check_directory()?;
        let found = self.adopt(at, host::open_child(at.as_fd(), name)?)?;
        Ok((found, self.node(found.node)?))
    }

    /// The type is the node's, which cannot change: what is opened is what was looked at.
    fn open(&self, id: NodeId, flags: OpenFlags) -> Answer {
        let node = self.node(id)?;
        match node.file_type() {
            FileType::Regular => {}
            FileType::CharDevice | FileType::BlockDevice if self.shared.devices => {}
            FileType::CharDevice | FileType::BlockDevice => return Err(Errno::EACCES),
            FileType::Fifo | FileType::Socket => return Err(Errno::ENXIO),
            FileType::Symlink => return Err(Errno::ELOOP),
            FileType::Directory => return Err(Errno::EISDIR),
        }
        if flags.writable() || flags.contains(OpenFlags::TRUNC) {
            node.check_writable()?;
        }
        let fd = host::reopen(self.proc_fd(), node.as_fd(), host::oflags(flags))?;
        Ok((Response::Opened, Some(fd)))
    }

    fn close(&mut self, nodes: &[NodeId]) {
        self.listing.take_if(|listing| nodes.contains(&listing.node));
        self.shared.nodes.remove(nodes);
    }
}
