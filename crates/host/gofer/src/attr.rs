//! Attributes: `SetStat`, `Fsync`, `Readlink`.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use abi::Errno;
use abi::fs::FileType;
use gofer_proto::{MAX_TARGET, NodeId, Response, SetAttr, SetTime};
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, fsync, ftruncate, syncfs};

use crate::host;
use crate::node::Node;
use crate::ops::Connection;

impl Connection<'_> {
    /// Applied in the order of `SetAttr`'s fields; the first failure ends it.
    pub(crate) fn set_stat(&self, id: NodeId, changes: &SetAttr) -> Result<Response, Errno> {
        let node = self.node(id)?;
        node.check_writable()?;
        if changes.uid.is_some() || changes.gid.is_some() {
            change_owner(&node, changes.uid, changes.gid)?;
        }
        if let Some(mode) = changes.mode {
            self.change_mode(&node, mode)?;
        }
        if let Some(size) = changes.size {
            self.truncate(&node, size)?;
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            self.change_times(&node, changes.atime, changes.mtime)?;
        }
        Ok(Response::Attr(host::attributes(&*node)?))
    }

    /// `fchmod(2)` refuses an `O_PATH` descriptor; its magic link leads to the same inode.
    pub(crate) fn change_mode(&self, node: &Node, mode: u32) -> Result<(), Errno> {
        if node.file_type() == FileType::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        let link = host::link_name(node.as_fd());
        let mode = Mode::from_bits_truncate(mode);
        fchmodat(self.proc_fd(), link.as_str(), mode, FchmodatFlags::FollowSymlink).map_err(host::errno)
    }

    fn truncate(&self, node: &Node, size: u64) -> Result<(), Errno> {
        let size = i64::try_from(size).map_err(|_| Errno::EFBIG)?;
        match node.file_type() {
            FileType::Regular => {}
            FileType::Directory => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        let file = host::reopen(self.proc_fd(), node.as_fd(), OFlag::O_WRONLY)?;
        ftruncate(&file, size).map_err(host::errno)
    }

    fn change_times(&self, node: &Node, atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<(), Errno> {
        let link = host::link_name(node.as_fd());
        let (atime, mtime) = (time_spec(atime), time_spec(mtime));
        utimensat(self.proc_fd(), link.as_str(), &atime, &mtime, UtimensatFlags::FollowSymlink)
            .map_err(host::errno)
    }

    pub(crate) fn fsync(&self, id: NodeId) -> Result<Response, Errno> {
        fsync(self.open_to_sync(id)?).map_err(host::errno)?;
        Ok(Response::Done)
    }

    pub(crate) fn sync_fs(&self, id: NodeId) -> Result<Response, Errno> {
        syncfs(self.open_to_sync(id)?).map_err(host::errno)?;
        Ok(Response::Done)
    }

    fn open_to_sync(&self, id: NodeId) -> Result<OwnedFd, Errno> {
        let node = self.node(id)?;
        match node.file_type() {
            FileType::Regular | FileType::Directory => {}
            _ => return Err(Errno::EINVAL),
        }
        host::reopen(self.proc_fd(), node.as_fd(), OFlag::O_RDONLY)
    }

    pub(crate) fn readlink(&self, id: NodeId) -> Result<Response, Errno> {
        let node = self.node(id)?;
        if node.file_type() != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        let target = readlinkat(&*node, "").map_err(host::errno)?.into_vec();
        if target.len() > MAX_TARGET {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(Response::Bytes(target))
    }
}

/// `fchownat(2)` of the node itself, a symbolic link included.
pub(crate) fn change_owner(node: &Node, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    fchownat(node, "", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::AT_EMPTY_PATH)
        .map_err(host::errno)
}

fn time_spec(time: Option<SetTime>) -> TimeSpec {
    match time {
        None => TimeSpec::UTIME_OMIT,
        Some(SetTime::Now) => TimeSpec::UTIME_NOW,
        Some(SetTime::At(at)) => TimeSpec::new(at.sec, at.nsec),
    }
}
