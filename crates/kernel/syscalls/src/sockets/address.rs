//! `sockaddr`s as calls take and give them, and socket inodes by path.

use abi::fs::FileType;
use abi::socket::SOCKADDR_MAX;
use abi::{Errno, SysResult};
use guestmem::{MemExt, UserAddr, UserMem, UserPtr};
use socket::{Asker, Node, Paths};
use vfs::{Access, Caller, FsContext, VfsPath, WalkFlags};

use crate::cx::{Cx, Who};

/// Mode of a socket's inode before the umask.
const SOCKET_MODE: u32 = 0o777;

/// The calling task, as sockets see it.
pub(super) struct Me {
    who: Who,
    fs: FsContext,
}

impl Me {
    pub(super) fn new(cx: &Cx<'_>) -> SysResult<Self> {
        Ok(Self { who: cx.who(), fs: cx.task.fs_context()?.get() })
    }

    pub(super) fn asker(&self) -> Asker<'_> {
        let cx = self.who.cx();
        Asker { cred: cx.cred, pid: cx.pid, paths: self }
    }

    fn caller(&self) -> Caller<'_> {
        Caller::new(&self.fs, self.who.cx())
    }
}

fn node(path: &VfsPath) -> vfs::Result<Node> {
    let inode = path.inode();
    Ok(Node { dev: inode.fs().dev(), ino: inode.attr()?.ino })
}

impl Paths for Me {
    fn find(&self, path: &[u8]) -> vfs::Result<Node> {
        let (path, attr) = self.caller().stat(path, WalkFlags::FOLLOW)?;
        vfs::perm::check(&attr, Access::WRITE, &self.who.cred)?;
        if attr.kind == FileType::Socket { node(&path) } else { Err(Errno::ECONNREFUSED) }
    }

    fn make(&self, path: &[u8]) -> vfs::Result<Node> {
        match self.caller().mknod(path, FileType::Socket, SOCKET_MODE, 0) {
            Ok(path) => node(&path),
            Err(Errno::EEXIST) => Err(Errno::EADDRINUSE),
            Err(errno) => Err(errno),
        }
    }
}

/// Reads an address: `EINVAL` for an impossible length.
pub(super) fn load_address(cx: &Cx<'_>, address: UserAddr, len: i32) -> SysResult<Vec<u8>> {
    let len = usize::try_from(len).ok().filter(|len| *len <= SOCKADDR_MAX).ok_or(Errno::EINVAL)?;
    let mut bytes = vec![0; len];
    if len > 0 {
        cx.mm().read(address, &mut bytes)?;
    }
    Ok(bytes)
}

/// Writes an address, cut to what there is room for, and its whole length.
pub(super) fn store_address(
    mem: &dyn UserMem,
    bytes: &[u8],
    address: UserAddr,
    len: UserPtr<i32>,
) -> SysResult<()> {
    let room = usize::try_from(mem.load(len)?).map_err(|_| Errno::EINVAL)?;
    let cut = bytes.get(..room).unwrap_or(bytes);
    if !cut.is_empty() {
        mem.write(address, cut)?;
    }
    Ok(mem.store(len, &(bytes.len() as i32))?)
}
