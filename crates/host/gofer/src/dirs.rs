//! Directories: making, naming, removing and listing entries.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use gofer_proto::{DirEntry, Name, NodeAttr, NodeId, Ownership, RemoveKind, RenameFlags, Response};
use nix::fcntl::{AtFlags, OFlag, renameat2};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, Whence, linkat, lseek, symlinkat, unlinkat};

use crate::attr::change_owner;
use crate::host::{self, errno, os};
use crate::node::Node;
use crate::ops::{Answer, Connection, Listing};

/// Set-user-id and set-group-id, which a change of owner may clear.
const SET_ID_BITS: u32 = 0o6000;
/// Bounds of the buffer for one reply of `Readdir`, in bytes.
const LISTING_BYTES: (u32, u32) = (4096, 32 * 1024);

impl Connection<'_> {
    pub(crate) fn create(
        &self,
        dir: NodeId,
        name: Name<'_>,
        flags: OpenFlags,
        mode: u32,
        owner: Ownership,
    ) -> Answer {
        let dir = self.writable_dir(dir)?;
        let file = host::create_child(dir.as_fd(), name, flags, mode)?;
        // From here on the new file is held by a descriptor; nobody can put another in its place.
        let made = host::handle_of(self.proc_fd(), file.as_fd())
            .and_then(|handle| self.finish_new(&dir, handle, FileType::Regular, mode, owner));
        let node = undo_unless(made, &dir, name, UnlinkatFlags::NoRemoveDir)?;
        Ok((Response::Node(node), Some(file)))
    }

    pub(crate) fn create_unnamed(&self, dir: NodeId, mode: u32, owner: Ownership) -> Answer {
        let dir = self.writable_dir(dir)?;
        let file = host::create_unnamed(dir.as_fd(), mode)?;
        let handle = host::handle_of(self.proc_fd(), file.as_fd())?;
        let node = self.finish_new(&dir, handle, FileType::Regular, mode, owner)?;
        Ok((Response::Node(node), Some(file)))
    }

    pub(crate) fn mkdir(
        &self,
        dir: NodeId,
        name: Name<'_>,
        mode: u32,
        owner: Ownership,
    ) -> Result<Response, Errno> {
        let dir = self.writable_dir(dir)?;
        mkdirat(&*dir, os(name), Mode::from_bits_truncate(mode)).map_err(errno)?;
        let made = self.found_new(&dir, name, FileType::Directory, mode, owner);
        undo_unless(made, &dir, name, UnlinkatFlags::RemoveDir).map(Response::Node)
    }

    /// A regular file is made by creating it; FIFOs and sockets only when configured.
    pub(crate) fn mknod(
        &self,
        dir: NodeId,
        name: Name<'_>,
        file_type: FileType,
        mode: u32,
        owner: Ownership,
    ) -> Result<Response, Errno> {
        let kind = match file_type {
            FileType::Regular => {
                return self.create(dir, name, OpenFlags::empty(), mode, owner).map(|(r, _)| r);
            }
            FileType::Fifo if self.shared.special_files => SFlag::S_IFIFO,
            FileType::Socket if self.shared.special_files => SFlag::S_IFSOCK,
            _ => return Err(Errno::EPERM),
        };
        let dir = self.writable_dir(dir)?;
        mknodat(&*dir, os(name), kind, Mode::from_bits_truncate(mode), 0).map_err(errno)?;
        let made = self.found_new(&dir, name, file_type, mode, owner);
        undo_unless(made, &dir, name, UnlinkatFlags::NoRemoveDir).map(Response::Node)
    }

    pub(crate) fn symlink(
        &self,
        dir: NodeId,
        name: Name<'_>,
        target: &[u8],
        owner: Ownership,
    ) -> Result<Response, Errno> {
        let dir = self.writable_dir(dir)?;
        symlinkat(OsStr::from_bytes(target), &*dir, os(name)).map_err(errno)?;
        let made = self.found_new(&dir, name, FileType::Symlink, 0, owner);
        undo_unless(made, &dir, name, UnlinkatFlags::NoRemoveDir).map(Response::Node)
    }

    /// Looks up what was just made by name. Whoever else writes to the host directory may have put
    /// something else there, which must not get the new owner and mode: a different type is `ESTALE`.
    fn found_new(
        &self,
        dir: &Node,
        name: Name<'_>,
        file_type: FileType,
        mode: u32,
        owner: Ownership,
    ) -> Result<NodeAttr, Errno> {
        let handle = host::open_child(dir.as_fd(), name)?;
        self.finish_new(dir, handle, file_type, mode, owner)
    }

    fn finish_new(
        &self,
        dir: &Node,
        handle: OwnedFd,
        file_type: FileType,
        mode: u32,
        owner: Ownership,
    ) -> Result<NodeAttr, Errno> {
        if host::attributes(&handle)?.file_type() != file_type {
            return Err(Errno::ESTALE);
        }
        let node = dir.sibling(handle.try_clone().map_err(|_| Errno::EMFILE)?, file_type);
        change_owner(&node, Some(owner.uid), Some(owner.gid))?;
        if mode & SET_ID_BITS != 0 {
            self.change_mode(&node, mode)?;
        }
        self.adopt(dir, handle)
    }

    /// The node's magic link names it: `AT_EMPTY_PATH` would need a capability in the first user
    /// namespace.
    pub(crate) fn link(&self, node: NodeId, dir: NodeId, name: Name<'_>) -> Result<Response, Errno> {
        let node = self.node(node)?;
        let dir = self.writable_dir(dir)?;
        node.check_same_attachment(&dir)?;
        if node.file_type() == FileType::Directory {
            return Err(Errno::EPERM);
        }
        let link = host::link_name(node.as_fd());
        linkat(self.proc_fd(), link.as_str(), &*dir, os(name), AtFlags::AT_SYMLINK_FOLLOW).map_err(errno)?;
        Ok(Response::Attr(host::attributes(&*node)?))
    }

    pub(crate) fn unlink(&self, dir: NodeId, name: Name<'_>, kind: RemoveKind) -> Result<Response, Errno> {
        let dir = self.writable_dir(dir)?;
        let flag = match kind {
            RemoveKind::File => UnlinkatFlags::NoRemoveDir,
            RemoveKind::Directory => UnlinkatFlags::RemoveDir,
        };
        unlinkat(&*dir, os(name), flag).map_err(errno)?;
        Ok(Response::Done)
    }

    pub(crate) fn rename(
        &self,
        from_dir: NodeId,
        from: Name<'_>,
        to_dir: NodeId,
        to: Name<'_>,
        flags: RenameFlags,
    ) -> Result<Response, Errno> {
        let from_dir = self.writable_dir(from_dir)?;
        let to_dir = self.writable_dir(to_dir)?;
        from_dir.check_same_attachment(&to_dir)?;
        let flags = nix::fcntl::RenameFlags::from_bits_truncate(flags.bits());
        renameat2(&*from_dir, os(from), &*to_dir, os(to), flags).map_err(errno)?;
        Ok(Response::Done)
    }

    /// Cookies are the host's offsets. Goes on reading while there are only `.` and `..`, because an
    /// empty reply means the end.
    pub(crate) fn readdir(&mut self, id: NodeId, cookie: u64, max: u32) -> Result<Response, Errno> {
        let mut listing = self.take_listing(id, cookie)?;
        let mut buffer = vec![0; max.clamp(LISTING_BYTES.0, LISTING_BYTES.1) as usize];
        loop {
            let len = hostsys::file::read_dir(listing.dir.as_fd(), &mut buffer)?;
            let mut entries = Vec::new();
            for entry in hostsys::file::dir_entries(buffer.get(..len).unwrap_or_default()) {
                listing.at = entry.next.cast_unsigned();
                if Name::new(entry.name).is_ok() {
                    entries.push(DirEntry {
                        ino: entry.ino,
                        cookie: listing.at,
                        file_type: FileType::from_mode(u32::from(entry.d_type) << 12),
                        name: entry.name.to_vec(),
                    });
                }
            }
            if len == 0 {
                return Ok(Response::Entries(Vec::new()));
            }
            if !entries.is_empty() {
                self.listing = Some(listing);
                return Ok(Response::Entries(entries));
            }
        }
    }

    /// The directory, open, at `cookie`: the kept one when it is that, else opened anew.
    fn take_listing(&mut self, id: NodeId, cookie: u64) -> Result<Listing, Errno> {
        let node = self.node(id)?;
        node.check_directory()?;
        if let Some(kept) = self.listing.take()
            && kept.node == id
            && kept.at == cookie
            && cookie != 0
        {
            return Ok(kept);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let dir = host::reopen(self.proc_fd(), node.as_fd(), flags)?;
        if cookie != 0 {
            lseek(&dir, cookie.cast_signed(), Whence::SeekSet).map_err(errno)?;
        }
        Ok(Listing { node: id, dir, at: cookie })
    }
}

/// Removes the new entry again when it could not be finished, except when it is no longer ours.
fn undo_unless(
    made: Result<NodeAttr, Errno>,
    dir: &Node,
    name: Name<'_>,
    flag: UnlinkatFlags,
) -> Result<NodeAttr, Errno> {
    if let Err(error) = made
        && error != Errno::ESTALE
    {
        // Failing to clean up leaves an entry the peer was told does not exist; it can see it anyway.
        let _ = unlinkat(dir, os(name), flag);
    }
    made
}
