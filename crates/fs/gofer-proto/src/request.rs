//! What the Sentry asks.

mod codec;

use abi::fs::{FileType, OpenFlags};

use crate::types::{NodeId, Ownership, RemoveKind, RenameFlags, SetAttr, XattrFlags};
use crate::wire::{Header, Reader, Writer};
use crate::{Name, ProtoError};

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
        /// What is looked up, at most [`MAX_WALK`](crate::MAX_WALK).
        names: Vec<Name<'a>>,
    },
    /// Looks names up in one directory, each by itself. Answered by `Found`.
    LookupMany {
        /// Where.
        dir: NodeId,
        /// What is looked up, at most [`MAX_LOOKUPS`](crate::MAX_LOOKUPS).
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
        /// What it says: 1 to [`MAX_TARGET`](crate::MAX_TARGET) bytes without NUL.
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
        /// At most [`MAX_CLOSE`](crate::MAX_CLOSE) nodes.
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
    LookupMany,
}

impl RequestKind {
    /// Every kind, in the order of their numbers, which begin at 1.
    const ALL: [Self; 24] = [
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
        Self::LookupMany,
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
            Self::LookupMany { .. } => RequestKind::LookupMany,
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
}
