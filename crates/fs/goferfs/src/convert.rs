//! Between the protocol's types and `vfs`'s.

use abi::Errno;
use abi::fs::{Permissions, Stat};
use gofer_proto::{Attributes, Name, ProtoError};
use vfs::{Attr, SetAttr, SetTime};

/// Attributes as `vfs` has them. `root_dev` is the host device whose inode numbers are taken as they
/// are; those of another are moved, so that two host file systems below one mount do not collide.
pub(crate) fn attr(attributes: &Attributes, root_dev: u64) -> Attr {
    let stat = attributes.stat();
    Attr {
        ino: inode_number(stat, root_dev),
        kind: attributes.file_type(),
        perm: permissions(stat.mode),
        nlink: u32::try_from(stat.nlink).unwrap_or(u32::MAX),
        uid: stat.uid,
        gid: stat.gid,
        rdev: stat.rdev,
        size: stat.size.max(0).cast_unsigned(),
        blocks: stat.blocks.max(0).cast_unsigned(),
        blksize: u32::try_from(stat.blksize).unwrap_or(4096),
        atime: stat.atime,
        mtime: stat.mtime,
        ctime: stat.ctime,
        btime: None,
    }
}

fn inode_number(stat: &Stat, root_dev: u64) -> u64 {
    if stat.dev == root_dev { stat.ino } else { stat.ino ^ stat.dev.rotate_left(40) }
}

fn permissions(mode: u32) -> Permissions {
    u16::try_from(mode & 0o7777).map_or(Permissions::empty(), Permissions::from_bits_truncate)
}

/// A change as the protocol has it.
pub(crate) fn changes(change: &SetAttr) -> gofer_proto::SetAttr {
    gofer_proto::SetAttr {
        uid: change.uid,
        gid: change.gid,
        mode: change.perm.map(|perm| u32::from(perm.bits())),
        size: change.size,
        atime: change.atime.map(set_time),
        mtime: change.mtime.map(set_time),
    }
}

fn set_time(time: SetTime) -> gofer_proto::SetTime {
    match time {
        SetTime::Now => gofer_proto::SetTime::Now,
        SetTime::At(at) => gofer_proto::SetTime::At(at),
    }
}

/// A name as the protocol takes it; `vfs` promises that it is one, apart from its length.
pub(crate) fn name(bytes: &[u8]) -> Result<Name<'_>, Errno> {
    Name::new(bytes).map_err(|_: ProtoError| {
        if bytes.len() > abi::fs::NAME_MAX { Errno::ENAMETOOLONG } else { Errno::EINVAL }
    })
}
