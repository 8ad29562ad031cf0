//! Extended attributes, of the `user.` namespace only (`xattr(7)`).
//!
//! The others carry authority on the host (`security.capability`, ACLs, `trusted.`): a guest's are not
//! the host's business, and are `EOPNOTSUPP` here.

use std::os::fd::{AsFd, OwnedFd};

use abi::Errno;
use abi::fs::FileType;
use gofer_proto::{MAX_XATTR_VALUE, NodeId, Response, XattrFlags};
use nix::fcntl::OFlag;

use crate::host;
use crate::node::Node;
use crate::ops::Connection;

const USER: &[u8] = b"user.";

impl Connection<'_> {
    pub(crate) fn get_xattr(&self, id: NodeId, name: &[u8]) -> Result<Response, Errno> {
        let file = self.xattr_file(&*self.node(id)?, name)?;
        Ok(Response::Bytes(hostsys::file::get_xattr(file.as_fd(), name, MAX_XATTR_VALUE)?))
    }

    pub(crate) fn set_xattr(
        &self,
        id: NodeId,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<Response, Errno> {
        let node = self.node(id)?;
        node.check_writable()?;
        let file = self.xattr_file(&node, name)?;
        let flags = flags.bits().cast_signed();
        hostsys::file::set_xattr(file.as_fd(), name, value, flags)?;
        Ok(Response::Done)
    }

    pub(crate) fn remove_xattr(&self, id: NodeId, name: &[u8]) -> Result<Response, Errno> {
        let node = self.node(id)?;
        node.check_writable()?;
        let file = self.xattr_file(&node, name)?;
        hostsys::file::remove_xattr(file.as_fd(), name)?;
        Ok(Response::Done)
    }

    /// A node that cannot have any has an empty list.
    pub(crate) fn list_xattr(&self, id: NodeId) -> Result<Response, Errno> {
        let node = self.node(id)?;
        let Ok(file) = self.xattr_file(&node, USER) else {
            return Ok(Response::Bytes(Vec::new()));
        };
        let all = hostsys::file::list_xattr(file.as_fd(), MAX_XATTR_VALUE)?;
        let names = all.split_inclusive(|&b| b == 0).filter(|name| name.starts_with(USER));
        Ok(Response::Bytes(names.flatten().copied().collect()))
    }

    /// The host refuses attributes through an `O_PATH` descriptor, so the node is opened.
    fn xattr_file(&self, node: &Node, name: &[u8]) -> Result<OwnedFd, Errno> {
        let has_any = matches!(node.file_type(), FileType::Regular | FileType::Directory);
        if !name.starts_with(USER) || !has_any {
            return Err(Errno::EOPNOTSUPP);
        }
        host::reopen(self.proc_fd(), node.as_fd(), OFlag::O_RDONLY)
    }
}
