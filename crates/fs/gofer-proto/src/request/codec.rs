//! The fields of each request on the wire.

use abi::fs::{FileType, OpenFlags};

use super::{Request, RequestKind};
use crate::types::{NodeId, Ownership, RemoveKind, RenameFlags, SetAttr, XattrFlags};
use crate::wire::{Reader, Writer};
use crate::{
    MAX_CLOSE, MAX_LOOKUPS, MAX_TARGET, MAX_WALK, MAX_XATTR_NAME, MAX_XATTR_VALUE, Name, ProtoError,
};

impl<'a> Request<'a> {
    /// Writes the fields, in the order in which they are declared.
    pub(super) fn write(&self, w: &mut Writer<'_>) -> Result<(), ProtoError> {
        match self {
            Self::Mount { index } => w.value(index),
            Self::WalkStat { dir, names } => write_names(w, *dir, names, (MAX_WALK, "walk"))?,
            Self::LookupMany { dir, names } => write_names(w, *dir, names, (MAX_LOOKUPS, "lookups"))?,
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
    pub(super) fn read(kind: RequestKind, r: &mut Reader<'a>) -> Result<Self, ProtoError> {
        Ok(match kind {
            RequestKind::Mount => Self::Mount { index: r.value()? },
            RequestKind::WalkStat => {
                let (dir, names) = read_names(r, (MAX_WALK, "walk"))?;
                Self::WalkStat { dir, names }
            }
            RequestKind::LookupMany => {
                let (dir, names) = read_names(r, (MAX_LOOKUPS, "lookups"))?;
                Self::LookupMany { dir, names }
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

fn write_names(
    w: &mut Writer<'_>,
    dir: NodeId,
    names: &[Name<'_>],
    (max, what): (usize, &'static str),
) -> Result<(), ProtoError> {
    w.value(&dir.0);
    w.count(names.len(), max, what)?;
    names.iter().try_for_each(|name| w.name(*name))
}

fn read_names<'a>(
    r: &mut Reader<'a>,
    (max, what): (usize, &'static str),
) -> Result<(NodeId, Vec<Name<'a>>), ProtoError> {
    let dir = NodeId::read(r)?;
    let count = r.count(max, what)?;
    Ok((dir, (0..count).map(|_| r.name()).collect::<Result<_, _>>()?))
}
