//! What messages are made of.

use abi::fs::{FileType, Stat};
use abi::time::Timespec;
use bitflags::bitflags;

use crate::ProtoError;
use crate::wire::{Reader, Writer};

/// A file or directory the Gofer holds for the client. Zero is never one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// The attributes of a node: `struct stat`, of a known file type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(Stat);

impl Attributes {
    /// Checks that the mode has a type Linux uses, and that the size is not negative.
    pub fn new(stat: Stat) -> Result<Self, ProtoError> {
        if FileType::from_mode(stat.mode).is_none() {
            return Err(ProtoError::BadValue("mode"));
        }
        if stat.size < 0 {
            return Err(ProtoError::BadValue("size"));
        }
        Ok(Self(stat))
    }

    /// The numbers, as the host gave them.
    pub fn stat(&self) -> &Stat {
        &self.0
    }

    /// The file type.
    pub fn file_type(&self) -> FileType {
        FileType::from_mode(self.0.mode).unwrap_or(FileType::Regular)
    }
}

/// A node with its attributes at the time of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAttr {
    /// The node.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attributes,
}

/// Whose a new file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A new time stamp (`utimensat(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The host's time.
    Now,
    /// This time; nanoseconds are below one second.
    At(Timespec),
}

/// What `SetStat` changes; `None` leaves a field alone. Applied in the order of the fields here, and
/// not undone when a later one fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Permission bits, `0o7777`.
    pub mode: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of data.
    pub mtime: Option<SetTime>,
}

/// What `Unlink` is to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveKind {
    /// Anything but a directory (`unlink(2)`).
    File,
    /// An empty directory (`rmdir(2)`).
    Directory,
}

bitflags! {
    /// Flags of `renameat2(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        /// Fail when the new name exists.
        const NOREPLACE = 1;
        /// Swap the two.
        const EXCHANGE = 2;
    }
}

bitflags! {
    /// Flags of `setxattr(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct XattrFlags: u32 {
        /// Fail when the attribute exists.
        const CREATE = 1;
        /// Fail when it does not.
        const REPLACE = 2;
    }
}

/// Presence bits of a `SetAttr` on the wire.
mod present {
    pub(super) const UID: u32 = 1;
    pub(super) const GID: u32 = 2;
    pub(super) const MODE: u32 = 4;
    pub(super) const SIZE: u32 = 8;
    pub(super) const ATIME: u32 = 16;
    pub(super) const ATIME_NOW: u32 = 32;
    pub(super) const MTIME: u32 = 64;
    pub(super) const MTIME_NOW: u32 = 128;
    pub(super) const ALL: u32 = 255;
}

impl Ownership {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtoError> {
        Ok(Self { uid: reader.value()?, gid: reader.value()? })
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        writer.value(&self.uid);
        writer.value(&self.gid);
    }
}

impl NodeId {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtoError> {
        match reader.value()? {
            0 => Err(ProtoError::BadValue("node")),
            id => Ok(Self(id)),
        }
    }
}

impl Attributes {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtoError> {
        Self::new(reader.value()?)
    }
}

impl NodeAttr {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtoError> {
        Ok(Self { node: NodeId::read(reader)?, attr: Attributes::read(reader)? })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.value(&self.node.0);
        writer.value(self.attr.stat());
    }
}

impl SetAttr {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, ProtoError> {
        let bits: u32 = reader.value()?;
        if bits & !present::ALL != 0 {
            return Err(ProtoError::BadValue("changes"));
        }
        let uid: u32 = reader.value()?;
        let gid: u32 = reader.value()?;
        let mode: u32 = reader.value()?;
        let size: u64 = reader.value()?;
        let atime: Timespec = reader.value()?;
        let mtime: Timespec = reader.value()?;
        if mode & !0o7777 != 0 {
            return Err(ProtoError::BadValue("mode"));
        }
        let has = |bit: u32| bits & bit != 0;
        Ok(Self {
            uid: has(present::UID).then_some(uid),
            gid: has(present::GID).then_some(gid),
            mode: has(present::MODE).then_some(mode),
            size: has(present::SIZE).then_some(size),
            atime: time(has(present::ATIME), has(present::ATIME_NOW), atime)?,
            mtime: time(has(present::MTIME), has(present::MTIME_NOW), mtime)?,
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        let (atime, atime_bits) = split(self.atime, present::ATIME, present::ATIME_NOW);
        let (mtime, mtime_bits) = split(self.mtime, present::MTIME, present::MTIME_NOW);
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let bits = bit(self.uid.is_some(), present::UID)
            | bit(self.gid.is_some(), present::GID)
            | bit(self.mode.is_some(), present::MODE)
            | bit(self.size.is_some(), present::SIZE)
            | atime_bits
            | mtime_bits;
        writer.value(&bits);
        writer.value(&self.uid.unwrap_or(0));
        writer.value(&self.gid.unwrap_or(0));
        writer.value(&(self.mode.unwrap_or(0) & 0o7777));
        writer.value(&self.size.unwrap_or(0));
        writer.value(&atime);
        writer.value(&mtime);
    }
}

/// A time from its presence bits.
fn time(set: bool, now: bool, at: Timespec) -> Result<Option<SetTime>, ProtoError> {
    match (set, now) {
        (false, false) => Ok(None),
        (true, true) => Ok(Some(SetTime::Now)),
        (true, false) if (0..1_000_000_000).contains(&at.nsec) => Ok(Some(SetTime::At(at))),
        _ => Err(ProtoError::BadValue("time")),
    }
}

/// A time as its value and its presence bits.
fn split(time: Option<SetTime>, set: u32, now: u32) -> (Timespec, u32) {
    match time {
        None => (Timespec::default(), 0),
        Some(SetTime::Now) => (Timespec::default(), set | now),
        Some(SetTime::At(at)) => (at, set),
    }
}
