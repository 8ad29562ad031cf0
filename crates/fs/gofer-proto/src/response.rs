//! What the Gofer answers.

use abi::Errno;
use abi::fs::{FileType, StatFs};

use crate::types::{Attributes, NodeAttr};
use crate::wire::{Header, Reader, Writer};
use crate::{MAX_ENTRIES, MAX_LOOKUPS, MAX_WALK, MAX_XATTR_VALUE, Name, ProtoError};

/// An entry of a directory. `.` and `..` are never sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Inode number.
    pub ino: u64,
    /// Where to go on after this entry.
    pub cookie: u64,
    /// Type; `None` when the host's file system does not say.
    pub file_type: Option<FileType>,
    /// A valid name.
    pub name: Vec<u8>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The request failed, or nothing of it was done.
    Error(Errno),
    /// It was done.
    Done,
    /// A node.
    Node(NodeAttr),
    /// Attributes.
    Attr(Attributes),
    /// The nodes of a walk. Fewer than asked with `stop` unset means that the last one is a symbolic
    /// link.
    Walk {
        /// One a component found.
        nodes: Vec<NodeAttr>,
        /// Why the next component was not found: `ENOENT`, `ENOTDIR`, ...
        stop: Option<Errno>,
    },
    /// What was found of names in one directory, in their order, of the first ones at least. `None` for one
    /// that is to be looked up by itself, to learn why it was not found.
    Found(Vec<Option<NodeAttr>>),
    /// A descriptor comes with this message.
    Opened,
    /// A target of a symbolic link, or a value or list of extended attributes.
    Bytes(Vec<u8>),
    /// A piece of a directory; empty at its end only.
    Entries(Vec<DirEntry>),
    /// A file system.
    StatFs(StatFs),
}

const ERROR: u16 = 1;
const DONE: u16 = 2;
const NODE: u16 = 3;
const ATTR: u16 = 4;
const WALK: u16 = 5;
const OPENED: u16 = 6;
const BYTES: u16 = 7;
const ENTRIES: u16 = 8;
const STAT_FS: u16 = 9;
const FOUND: u16 = 10;

/// Bytes of an entry beside its name.
const ENTRY_OVERHEAD: usize = 8 + 8 + 4 + 4;

impl DirEntry {
    /// Bytes it takes in a reply.
    pub fn encoded_len(&self) -> usize {
        ENTRY_OVERHEAD + self.name.len()
    }
}

impl Response {
    /// Writes the message into `out`, whose content is replaced.
    pub fn encode(&self, id: u64, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        let mut w = Writer::new(out);
        let kind = match self {
            Self::Error(errno) => {
                w.value(&u32::from(errno.raw()));
                ERROR
            }
            Self::Done => DONE,
            Self::Node(node) => {
                node.write(&mut w);
                NODE
            }
            Self::Attr(attr) => {
                w.value(attr.stat());
                ATTR
            }
            Self::Walk { nodes, stop } => {
                w.value(&stop.map_or(0, |errno| u32::from(errno.raw())));
                w.count(nodes.len(), MAX_WALK, "walk")?;
                nodes.iter().for_each(|node| node.write(&mut w));
                WALK
            }
            Self::Found(nodes) => {
                w.count(nodes.len(), MAX_LOOKUPS, "lookups")?;
                for node in nodes {
                    w.value(&u32::from(node.is_some()));
                    node.iter().for_each(|node| node.write(&mut w));
                }
                FOUND
            }
            Self::Opened => OPENED,
            Self::Bytes(bytes) => {
                w.bytes(bytes, MAX_XATTR_VALUE, "bytes")?;
                BYTES
            }
            Self::Entries(entries) => {
                write_entries(entries, &mut w)?;
                ENTRIES
            }
            Self::StatFs(stat) => {
                w.value(stat);
                STAT_FS
            }
        };
        w.finish(kind, id)
    }

    /// The only way from bytes to a response.
    pub fn decode(message: &[u8]) -> Result<(u64, Self), ProtoError> {
        let (Header { kind, id, .. }, mut r) = Reader::message(message)?;
        let response = match kind {
            ERROR => Self::Error(errno(r.value()?)?.ok_or(ProtoError::BadValue("errno"))?),
            DONE => Self::Done,
            NODE => Self::Node(NodeAttr::read(&mut r)?),
            ATTR => Self::Attr(Attributes::read(&mut r)?),
            WALK => {
                let stop = errno(r.value()?)?;
                let count = r.count(MAX_WALK, "walk")?;
                let nodes = (0..count).map(|_| NodeAttr::read(&mut r)).collect::<Result<_, _>>()?;
                Self::Walk { nodes, stop }
            }
            FOUND => {
                let count = r.count(MAX_LOOKUPS, "lookups")?;
                Self::Found((0..count).map(|_| maybe_node(&mut r)).collect::<Result<_, _>>()?)
            }
            OPENED => Self::Opened,
            BYTES => Self::Bytes(r.bytes(MAX_XATTR_VALUE, "bytes")?.to_vec()),
            ENTRIES => Self::Entries(read_entries(&mut r)?),
            STAT_FS => Self::StatFs(r.value()?),
            other => return Err(ProtoError::UnknownKind(other)),
        };
        r.finish()?;
        Ok((id, response))
    }
}

fn maybe_node(r: &mut Reader<'_>) -> Result<Option<NodeAttr>, ProtoError> {
    match r.value::<u32>()? {
        0 => Ok(None),
        1 => NodeAttr::read(r).map(Some),
        _ => Err(ProtoError::BadValue("found")),
    }
}

/// An errno, or zero for none.
fn errno(raw: u32) -> Result<Option<Errno>, ProtoError> {
    if raw == 0 {
        return Ok(None);
    }
    let raw = i32::try_from(raw).map_err(|_| ProtoError::BadValue("errno"))?;
    Errno::from_raw(raw).map(Some).ok_or(ProtoError::BadValue("errno"))
}

fn write_entries(entries: &[DirEntry], w: &mut Writer<'_>) -> Result<(), ProtoError> {
    w.count(entries.len(), MAX_ENTRIES / ENTRY_OVERHEAD, "entries")?;
    for entry in entries {
        w.value(&entry.ino);
        w.value(&entry.cookie);
        w.value(&entry.file_type.map_or(0, FileType::bits));
        w.name(Name::new(&entry.name)?)?;
    }
    Ok(())
}

fn read_entries(r: &mut Reader<'_>) -> Result<Vec<DirEntry>, ProtoError> {
    let count = r.count(r.remaining() / ENTRY_OVERHEAD, "entries")?;
    (0..count)
        .map(|_| {
            Ok(DirEntry {
                ino: r.value()?,
                cookie: r.value()?,
                file_type: match r.value::<u32>()? {
                    0 => None,
                    bits => match FileType::from_mode(bits) {
                        Some(file_type) if file_type.bits() == bits => Some(file_type),
                        _ => return Err(ProtoError::BadValue("file type")),
                    },
                },
                name: r.name()?.as_bytes().to_vec(),
            })
        })
        .collect()
}
