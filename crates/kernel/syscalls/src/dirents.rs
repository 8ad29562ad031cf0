//! Directories read: `getdents64(2)` and `getdents(2)`.

use abi::{Errno, SysResult};
use guestmem::{UserAddr, UserMem};
use vfs::{DirEntry, DirSink};

use crate::args::Fd;
use crate::cx::Cx;

/// Most bytes gathered for one call, whatever the buffer's size.
const MAX_BYTES: usize = 256 << 10;
/// Bytes of an entry before its name: inode number, position, length; `getdents64` also has the type.
const HEAD: usize = 18;

/// Which of the two layouts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `struct linux_dirent`: the type is the last byte of the entry.
    Old,
    /// `struct linux_dirent64`: the type comes before the name.
    Large,
}

/// Entries in the layout of the guest.
struct Entries {
    layout: Layout,
    room: usize,
    bytes: Vec<u8>,
    /// An entry has been refused.
    full: bool,
}

impl DirSink for Entries {
    fn entry(&mut self, entry: DirEntry<'_>) -> bool {
        let kind = entry.kind.map_or(0, abi::fs::FileType::dirent_type);
        // Name, its NUL, and the type before or behind it.
        let len = (HEAD + entry.name.len() + 2).next_multiple_of(8);
        if self.bytes.len() + len > self.room {
            self.full = true;
            return false;
        }
        let end = self.bytes.len() + len;
        self.bytes.extend_from_slice(&entry.ino.to_le_bytes());
        self.bytes.extend_from_slice(&entry.next.to_le_bytes());
        self.bytes.extend_from_slice(&(len as u16).to_le_bytes());
        if self.layout == Layout::Large {
            self.bytes.push(kind);
        }
        self.bytes.extend_from_slice(entry.name);
        self.bytes.resize(end, 0);
        if self.layout == Layout::Old
            && let Some(last) = self.bytes.last_mut()
        {
            *last = kind;
        }
        true
    }
}

fn list(cx: &Cx<'_>, fd: Fd, buf: UserAddr, count: u32, layout: Layout) -> SysResult<usize> {
    let file = cx.io_file(fd)?;
    let root = cx.task.fs_context()?.get().root;
    let room = (count as usize).min(MAX_BYTES);
    let mut entries = Entries { layout, room, bytes: Vec::new(), full: false };
    file.read_dir(&cx.who().cx(), &root, &mut entries)?;
    if entries.bytes.is_empty() && entries.full {
        return Err(Errno::EINVAL.into());
    }
    cx.mm().write(buf, &entries.bytes)?;
    Ok(entries.bytes.len())
}

/// `getdents64(2)`.
pub(crate) fn getdents64(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: u32) -> SysResult<usize> {
    list(cx, fd, buf, count, Layout::Large)
}

/// `getdents(2)`.
pub(crate) fn getdents(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: u32) -> SysResult<usize> {
    list(cx, fd, buf, count, Layout::Old)
}
