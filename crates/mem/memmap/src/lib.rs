//! The hinge between files and address spaces.
//!
//! A file that can be mapped says, as a [`Mappable`], which host memory object holds its pages; the
//! memory manager asks, and the platform maps. Neither knows the other: `mm` does not know what a
//! dentry is, and a file system does not know what a VMA is.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use abi::Errno;
use abi::mm::Prot;

/// A host memory object: a sealed memfd of ours, or a file the Gofer donated. Its open mode bounds what
/// a mapping of it can do, whatever a stub asks for.
pub struct HostObject {
    fd: OwnedFd,
    max_prot: Prot,
}

impl HostObject {
    /// Wraps a descriptor whose open mode allows shared mappings with at most `max_prot`.
    pub fn new(fd: OwnedFd, max_prot: Prot) -> Arc<Self> {
        Arc::new(Self { fd, max_prot })
    }

    /// What a *shared* mapping may allow. A private mapping may always be written.
    pub fn max_prot(&self) -> Prot {
        self.max_prot
    }
}

impl AsFd for HostObject {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for HostObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostObject").field("max_prot", &self.max_prot).finish_non_exhaustive()
    }
}

/// Where the pages of a piece of a file are.
#[derive(Clone, Debug)]
pub enum Backing {
    /// Zero pages of the address space's own (also a private mapping of `/dev/zero`).
    Anonymous,
    /// Pages of `object`, from byte `offset` (page-aligned) on.
    Host {
        /// The host object.
        object: Arc<HostObject>,
        /// Byte in it at which the mapping begins.
        offset: u64,
    },
}

/// How a mapping wants to use an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// First byte of the file, page-aligned.
    pub offset: u64,
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// Shared (writes reach the file) or private.
    pub shared: bool,
    /// Most the mapping may ever be given by `mprotect`.
    pub max_prot: Prot,
}

/// A file that can be mapped.
pub trait Mappable: Send + Sync {
    /// Says where the pages are. Called once a mapping, before anything is mapped; may bring the data
    /// into a memfd first. `ENODEV` for what cannot be mapped, `ETXTBSY`/`EPERM` for what may not be.
    fn backing(&self, request: MapRequest) -> Result<Backing, Errno>;

    /// Most that a shared mapping may ever allow, whatever the open mode (seals). Asked with the lock of the
    /// memory manager held: must take no lock that stands before it.
    fn shared_limit(&self) -> Prot {
        Prot::all()
    }

    /// A mapping with this request exists (also: split, moved or forked from an existing one).
    fn mapped(&self, _request: MapRequest) {}

    /// A mapping announced by [`mapped`](Self::mapped) is gone.
    fn unmapped(&self, _request: MapRequest) {}

    /// Writes dirty pages of a range back (`msync(MS_SYNC)`).
    fn sync(&self, _offset: u64, _len: u64) -> Result<(), Errno> {
        Ok(())
    }

    /// As [`Any`], where somebody asks a mapping what it is (`shmdt(2)`).
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }

    /// What `/proc/PID/maps` shows: device, inode, and the path at this moment.
    fn identity(&self) -> MapIdentity;
}

/// The file columns of a line of `/proc/PID/maps` (`proc(5)`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapIdentity {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Path, or what stands in its place.
    pub name: Vec<u8>,
}
