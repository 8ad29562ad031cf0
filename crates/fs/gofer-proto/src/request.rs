//! What the Sentry asks.

use abi::fs::{FileType, OpenFlags};

use crate::types::{NodeId, Ownership, RemoveKind, RenameFlags, SetAttr, XattrFlags};
use crate::wire::{Header, Reader, Writer};
use crate::{MAX_CLOSE, MAX_TARGET, MAX_WALK, MAX_XATTR_NAME, MAX_XATTR_VALUE, Name, ProtoError};

/// A request. Each variant says which [`Response`](crate::Response) answers it; any of them may be
/// answered by `Response::Error` instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The root of an attachment. Answered by `Node`.
    Mount {
        /// Index of the attachment in the Gofer's configuration.
        index: u32,
    },
    /// Looks names up, each in the one before, the first in `dir`. Stops at the first that is missing
    /// and after the first that is a symbolic link. Answered by `Walk`.
    WalkStat {
        /// Where the walk begins.
        dir: NodeId,
        /// What is looked up, at most [`MAX_WALK`].
        names: Vec<Name<'a>>,
    },
    /// `fstat(2)`. Answered by `Attr`.
    Stat {
        /// Of what.
        node: NodeId,
    },
    /// Changes attributes. Answered by `Attr`, with the attributes afterwards.
    SetStat {
        /// Of what.
        node: NodeId,
        /// What changes.
        changes: SetAttr,
    },
    /// Opens a regular file. Answered by `Opened`, with a descriptor.
    Open {
        /// What is opened.
        node: NodeId,
        /// Access mode and status flags; never creation flags.
        flags: OpenFlags,
    },
    /// Creates a regular file, which must not exist, and opens it. Answered by `Node`, with a
    /// descriptor.
    Create {
        /// Where.
        dir: NodeId,
        /// Its name.
        name: Name<'a>,
        /// Access mode and status flags.
        flags: OpenFlags,
        /// Permission bits; the umask has been applied.
        mode: u32,
        /// Whose it is.
        owner: Ownership,
    },
    /// Creates a regular file without a name, which `Link` may give it (`O_TMPFILE`), and opens it for
    /// reading and writing. Answered by `Node`, with a descriptor.
    CreateUnnamed {
        /// On whose file system.
        dir: NodeId,
        /// Permission bits.
        mode: u32,
        /// Whose it is.
        owner: Ownership,
    },
    /// `mkdir(2)`. Answered by `Node`.
    Mkdir {
        /// Where.
        dir: NodeId,
        /// Its name.
        name: Name<'a>,
        /// Permission bits.
        mode: u32,
        /// Whose it is.
        owner: Ownership,
    },
    /// `mknod(2)` of a regular file, a FIFO or a socket. Answered by `Node`.
    Mknod {
        /// Where.
        dir: NodeId,
        /// Its name.
        name: Name<'a>,
        /// Its type.
        file_type: FileType,
        /// Permission bits.
        mode: u32,
        /// Whose it is.
        owner: Ownership,
    },
    /// `symlink(2)`. Answered by `Node`.
    Symlink {
        /// Where.
        dir: NodeId,
        /// Its name.
        name: Name<'a>,
        /// What it says: 1 to [`MAX_TARGET`] bytes without NUL.
        target: &'a [u8],
        /// Whose it is.
        owner: Ownership,
    },
    /// `link(2)`. Answered by `Attr` of the node.
    Link {
        /// What gets another name.
        node: NodeId,
        /// Where.
        dir: NodeId,
        /// The other name.
        name: Name<'a>,
    },
    /// `unlink(2)` or `rmdir(2)`. Answered by `Done`.
    Unlink {
        /// Where.
        dir: NodeId,
        /// What.
        name: Name<'a>,
        /// Which of the two calls.
        kind: RemoveKind,
    },
    /// `renameat2(2)`. Answered by `Done`.
    Rename {
        /// Old directory.
        from_dir: NodeId,
        /// Old name.
        from: Name<'a>,
        /// New directory.
        to_dir: NodeId,
        /// New name.
        to: Name<'a>,
        /// How.
        flags: RenameFlags,
    },
    /// `readlink(2)`. Answered by `Bytes`.
    Readlink {
        /// The symbolic link.
        node: NodeId,
    },
    /// A piece of a directory. Answered by `Entries`.
    Readdir {
        /// The directory.
        node: NodeId,
        /// Where to go on: zero, or the cookie of the last entry seen.
        cookie: u64,
        /// Bytes of names and entries wanted, about.
        max: u32,
    },
    /// `fstatfs(2)`. Answered by `StatFs`.
    StatFs {
        /// A node on it.
        node: NodeId,
    },
    /// `getxattr(2)`. Answered by `Bytes`.
    GetXattr {
        /// Of what.
        node: NodeId,
        /// Name: 1 to 255 bytes without NUL.
        name: &'a [u8],
    },
    /// `setxattr(2)`. Answered by `Done`.
    SetXattr {
        /// Of what.
        node: NodeId,
        /// Name: 1 to 255 bytes without NUL.
        name: &'a [u8],
        /// Value.
        value: &'a [u8],
        /// How.
        flags: XattrFlags,
    },
    /// `listxattr(2)`. Answered by `Bytes`: names, each with its NUL.
    ListXattr {
        /// Of what.
        node: NodeId,
    },
    /// `removexattr(2)`. Answered by `Done`.
    RemoveXattr {
        /// Of what.
        node: NodeId,
        /// Name: 1 to 255 bytes without NUL.
        name: &'a [u8],
    },
    /// `fsync(2)` of a directory or a file. Answered by `Done`.
    Fsync {
        /// Of what.
        node: NodeId,
    },
    /// `syncfs(2)`. Answered by `Done`.
    SyncFs {
        /// A node on it.
        node: NodeId,
    },
    /// The client is done with these nodes. Unknown ones are passed over. Answered by `Done`.
    Close {
        /// At most [`MAX_CLOSE`] nodes.
        nodes: Vec<NodeId>,
    },
}

/// Numbers of the requests on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "each is documented at the request of the same name")]
pub enum RequestKind {
    Mount = 1,
    WalkStat,
    Stat,
    SetStat,
    Open,
    Create,
    Mkdir,
    Mknod,
    Symlink,
    Link,
    Unlink,
    Rename,
    Readlink,
    Readdir,
    StatFs,
    GetXattr,
    SetXattr,
    ListXattr,
    RemoveXattr,
    Fsync,
    Close,
    SyncFs,
    CreateUnnamed,
}

impl RequestKind {
    /// Every kind, in the order of their numbers, which begin at 1.
    const ALL: [Self; 23] = [
        Self::Mount,
        Self::WalkStat,
        Self::Stat,
        Self::SetStat,
        Self::Open,
        Self::Create,
        Self::Mkdir,
        Self::Mknod,
        Self::Symlink,
        Self::Link,
        Self::Unlink,
        Self::Rename,
        Self::Readlink,
        Self::Readdir,
        Self::StatFs,
        Self::GetXattr,
        Self::SetXattr,
        Self::ListXattr,
        Self::RemoveXattr,
        Self::Fsync,
        Self::Close,
        Self::SyncFs,
        Self::CreateUnnamed,
    ];

    fn from_raw(raw: u16) -> Result<Self, ProtoError> {
        usize::from(raw)
            .checked_sub(1)
            .and_then(|index| Self::ALL.get(index).copied())
            .ok_or(ProtoError::UnknownKind(raw))
    }
}

impl<'a> Request<'a> {
    /// Its number.
    pub fn kind(&self) -> RequestKind {
        match self {
            Self::Mount { .. } => RequestKind::Mount,
            Self::WalkStat { .. } => RequestKind::WalkStat,
            Self::Stat { .. } => RequestKind::Stat,
            Self::SetStat { .. } => RequestKind::SetStat,
            Self::Open { .. } => RequestKind::Open,
            Self::Create { .. } => RequestKind::Create,
            Self::Mkdir { .. } => RequestKind::Mkdir,
            Self::Mknod { .. } => RequestKind::Mknod,
            Self::Symlink { .. } => RequestKind::Symlink,
            Self::Link { .. } => RequestKind::Link,
            Self::Unlink { .. } => RequestKind::Unlink,
            Self::Rename { .. } => RequestKind::Rename,
            Self::Readlink { .. } => RequestKind::Readlink,
            Self::Readdir { .. } => RequestKind::Readdir,
            Self::StatFs { .. } => RequestKind::StatFs,
            Self::GetXattr { .. } => RequestKind::GetXattr,
            Self::SetXattr { .. } => RequestKind::SetXattr,
            Self::ListXattr { .. } => RequestKind::ListXattr,
            Self::RemoveXattr { .. } => RequestKind::RemoveXattr,
            Self::Fsync { .. } => RequestKind::Fsync,
            Self::Close { .. } => RequestKind::Close,
            Self::SyncFs { .. } => RequestKind::SyncFs,
            Self::CreateUnnamed { .. } => RequestKind::CreateUnnamed,
        }
    }

    /// Writes the message into `out`, whose content is replaced.
    pub fn encode(&self, id: u64, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        let mut writer = Writer::new(out);
        self.write(&mut writer)?;
        writer.finish(self.kind() as u16, id)
    }

    /// The only way from bytes to a request. Strings borrow from `message`.
    pub fn decode(message: &'a [u8]) -> Result<(u64, Self), ProtoError> {
        let (Header { kind, id, .. }, mut reader) = Reader::message(message)?;
        let request = Self::read(RequestKind::from_raw(kind)?, &mut reader)?;
        reader.finish()?;
        Ok((id, request))
    }

    /// Writes the fields, in the order in which they are declared.
    fn write(&self, w: &mut Writer<'_>) -> Result<(), ProtoError> {
        match self {
            Self::Mount { index } => w.value(index),
            Self::WalkStat { dir, names } => {
                w.value(&dir.0);
                w.count(names.len(), MAX_WALK, "walk")?;
                for name in names {
                    w.name(*name)?;
                }
            }
            Self::Stat { node }
            | Self::Readlink { node }
            | Self::StatFs { node }
            | Self::ListXattr { node }
            | Self::Fsync { node }
            | Self::SyncFs { node } => w.value(&node.0),
            Self::SetStat { node, changes } => {
                w.value(&node.0);
                changes.write(w);
            }
            Self::Open { node, flags } => {
                w.value(&node.0);
                w.value(&flags.bits());
            }
            Self::Readdir { node, cookie, max } => {
                w.value(&node.0);
                w.value(cookie);
                w.value(max);
            }
            Self::Close { nodes } => {
                w.count(nodes.len(), MAX_CLOSE, "close")?;
                nodes.iter().for_each(|node| w.value(&node.0));
            }
            Self::GetXattr { node, name } | Self::RemoveXattr { node, name } => {
                w.value(&node.0);
                w.bytes(name, MAX_XATTR_NAME, "xattr name")?;
            }
            Self::SetXattr { node, name, value, flags } => {
                w.value(&node.0);
                w.bytes(name, MAX_XATTR_NAME, "xattr name")?;
                w.bytes(value, MAX_XATTR_VALUE, "xattr value")?;
                w.value(&flags.bits());
            }
            _ => self.write_entry(w)?,
        }
        Ok(())
    }

    /// The requests that change a directory.
    fn write_entry(&self, w: &mut Writer<'_>) -> Result<(), ProtoError> {
        match self {
            Self::Create { dir, name, flags, mode, owner } => {
                w.value(&dir.0);
                w.name(*name)?;
                w.value(&flags.bits());
                w.value(mode);
                owner.write(w);
            }
            Self::CreateUnnamed { dir, mode, owner } => {
                w.value(&dir.0);
                w.value(mode);
                owner.write(w);
            }
            Self::Mkdir { dir, name, mode, owner } => {
                w.value(&dir.0);
                w.name(*name)?;
                w.value(mode);
                owner.write(w);
            }
            Self::Mknod { dir, name, file_type, mode, owner } => {
                w.value(&dir.0);
                w.name(*name)?;
                w.value(&(file_type.bits() | mode));
                owner.write(w);
            }
            Self::Symlink { dir, name, target, owner } => {
                w.value(&dir.0);
                w.name(*name)?;
                w.bytes(target, MAX_TARGET, "target")?;
                owner.write(w);
            }
            Self::Link { node, dir, name } => {
                w.value(&node.0);
                w.value(&dir.0);
                w.name(*name)?;
            }
            Self::Unlink { dir, name, kind } => {
                w.value(&dir.0);
                w.name(*name)?;
                w.value(&u32::from(*kind == RemoveKind::Directory));
            }
            Self::Rename { from_dir, from, to_dir, to, flags } => {
                w.value(&from_dir.0);
                w.name(*from)?;
                w.value(&to_dir.0);
                w.name(*to)?;
                w.value(&flags.bits());
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads the fields of a request.
    fn read(kind: RequestKind, r: &mut Reader<'a>) -> Result<Self, ProtoError> {
        Ok(match kind {
            RequestKind::Mount => Self::Mount { index: r.value()? },
            RequestKind::WalkStat => {
                let dir = NodeId::read(r)?;
                let count = r.count(MAX_WALK, "walk")?;
                let names = (0..count).map(|_| r.name()).collect::<Result<_, _>>()?;
                Self::WalkStat { dir, names }
            }
            RequestKind::Stat => Self::Stat { node: NodeId::read(r)? },
            RequestKind::Readlink => Self::Readlink { node: NodeId::read(r)? },
            RequestKind::StatFs => Self::StatFs { node: NodeId::read(r)? },
            RequestKind::ListXattr => Self::ListXattr { node: NodeId::read(r)? },
            RequestKind::Fsync => Self::Fsync { node: NodeId::read(r)? },
            RequestKind::SyncFs => Self::SyncFs { node: NodeId::read(r)? },
            RequestKind::SetStat => Self::SetStat { node: NodeId::read(r)?, changes: SetAttr::read(r)? },
            RequestKind::Open => Self::Open { node: NodeId::read(r)?, flags: open_flags(r)? },
            RequestKind::Readdir => {
                Self::Readdir { node: NodeId::read(r)?, cookie: r.value()?, max: r.value()? }
            }
            RequestKind::Close => {
                let count = r.count(MAX_CLOSE, "close")?;
                let nodes = (0..count).map(|_| NodeId::read(r)).collect::<Result<_, _>>()?;
                Self::Close { nodes }
            }
            RequestKind::GetXattr => Self::GetXattr { node: NodeId::read(r)?, name: xattr_name(r)? },
            RequestKind::RemoveXattr => Self::RemoveXattr { node: NodeId::read(r)?, name: xattr_name(r)? },
            RequestKind::SetXattr => Self::SetXattr {
                node: NodeId::read(r)?,
                name: xattr_name(r)?,
                value: r.bytes(MAX_XATTR_VALUE, "xattr value")?,
                flags: XattrFlags::from_bits(r.value()?).ok_or(ProtoError::BadValue("xattr flags"))?,
            },
            _ => Self::read_entry(kind, r)?,
        })
    }

    /// The requests that change a directory. Fields are evaluated in the order they are written in.
    fn read_entry(kind: RequestKind, r: &mut Reader<'a>) -> Result<Self, ProtoError> {
        Ok(match kind {
            RequestKind::Create => Self::Create {
                dir: NodeId::read(r)?,
                name: r.name()?,
                flags: open_flags(r)?,
                mode: permissions(r.value()?)?,
                owner: Ownership::read(r)?,
            },
            RequestKind::CreateUnnamed => Self::CreateUnnamed {
                dir: NodeId::read(r)?,
                mode: permissions(r.value()?)?,
                owner: Ownership::read(r)?,
            },
            RequestKind::Mkdir => Self::Mkdir {
                dir: NodeId::read(r)?,
                name: r.name()?,
                mode: permissions(r.value()?)?,
                owner: Ownership::read(r)?,
            },
            RequestKind::Mknod => {
                let (dir, name) = (NodeId::read(r)?, r.name()?);
                let raw: u32 = r.value()?;
                let file_type = match FileType::from_mode(raw) {
                    Some(t @ (FileType::Regular | FileType::Fifo | FileType::Socket)) => t,
                    _ => return Err(ProtoError::BadValue("file type")),
                };
                let mode = permissions(raw & !FileType::MASK)?;
                Self::Mknod { dir, name, file_type, mode, owner: Ownership::read(r)? }
            }
            RequestKind::Symlink => Self::Symlink {
                dir: NodeId::read(r)?,
                name: r.name()?,
                target: string(r.bytes(MAX_TARGET, "target")?, "target")?,
                owner: Ownership::read(r)?,
            },
            RequestKind::Link => {
                Self::Link { node: NodeId::read(r)?, dir: NodeId::read(r)?, name: r.name()? }
            }
            RequestKind::Unlink => Self::Unlink {
                dir: NodeId::read(r)?,
                name: r.name()?,
                kind: match r.value::<u32>()? {
                    0 => RemoveKind::File,
                    1 => RemoveKind::Directory,
                    _ => return Err(ProtoError::BadValue("kind of removal")),
                },
            },
            RequestKind::Rename => Self::Rename {
                from_dir: NodeId::read(r)?,
                from: r.name()?,
                to_dir: NodeId::read(r)?,
                to: r.name()?,
                flags: RenameFlags::from_bits(r.value()?).ok_or(ProtoError::BadValue("rename flags"))?,
            },
            other => return Err(ProtoError::UnknownKind(other as u16)),
        })
    }
}

/// Flags an open may carry: no creation, no handles for a path, and a sensible access mode.
fn open_flags(r: &mut Reader<'_>) -> Result<OpenFlags, ProtoError> {
    const ALLOWED: OpenFlags = OpenFlags::WRONLY
        .union(OpenFlags::RDWR)
        .union(OpenFlags::TRUNC)
        .union(OpenFlags::APPEND)
        .union(OpenFlags::NONBLOCK)
        .union(OpenFlags::DSYNC)
        .union(OpenFlags::SYNC_BIT)
        .union(OpenFlags::DIRECT)
        .union(OpenFlags::LARGEFILE)
        .union(OpenFlags::NOATIME);
    let flags = OpenFlags::from_bits(r.value()?).ok_or(ProtoError::BadValue("open flags"))?;
    if !ALLOWED.contains(flags) || !(flags.readable() || flags.writable()) {
        return Err(ProtoError::BadValue("open flags"));
    }
    Ok(flags)
}

/// Permission bits and nothing else.
fn permissions(mode: u32) -> Result<u32, ProtoError> {
    if mode & !0o7777 == 0 { Ok(mode) } else { Err(ProtoError::BadValue("mode")) }
}

/// A name of an extended attribute.
fn xattr_name<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], ProtoError> {
    string(r.bytes(MAX_XATTR_NAME, "xattr name")?, "xattr name")
}

/// Bytes that can be passed to the host as a C string, and are not empty.
fn string<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a [u8], ProtoError> {
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(ProtoError::BadValue(what));
    }
    Ok(bytes)
}
