//! Permission checks (`path_resolution(7)`, `inode(7)`).

use abi::Errno;
use abi::fs::{FileType, Permissions};
use bitflags::bitflags;
use cred::{CapSet, Credentials};

use crate::{Attr, Result};

bitflags! {
    /// What a caller wants to do with an object; the bits of a permission triple.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u16 {
        /// Read.
        const READ = 4;
        /// Write.
        const WRITE = 2;
        /// Execute, or search a directory.
        const EXECUTE = 1;
    }
}

/// May `cred` do `want` with an object of these attributes? `EACCES` when not.
pub fn check(attr: &Attr, want: Access, cred: &Credentials) -> Result<()> {
    let bits = attr.perm.bits();
    let granted = if cred.fsuid == attr.uid {
        bits >> 6
    } else if cred.in_group(attr.gid) {
        bits >> 3
    } else {
        bits
    };
    if want.bits() & !(granted & 7) == 0 || overrides(attr, want, cred) { Ok(()) } else { Err(Errno::EACCES) }
}

/// Do capabilities allow what the bits do not?
fn overrides(attr: &Attr, want: Access, cred: &Credentials) -> bool {
    let directory = attr.kind == FileType::Directory;
    if cred.capable(CapSet::DAC_OVERRIDE)
        && (directory || !want.contains(Access::EXECUTE) || attr.perm.intersects(Permissions::EXECUTE))
    {
        return true;
    }
    let harmless = if directory { !want.contains(Access::WRITE) } else { want == Access::READ };
    harmless && cred.capable(CapSet::DAC_READ_SEARCH)
}

/// Owns `cred` the object, or may it act as if?
pub fn is_owner(attr: &Attr, cred: &Credentials) -> bool {
    cred.fsuid == attr.uid || cred.capable(CapSet::FOWNER)
}

/// May `cred` remove `victim` from `dir`? Write and search permission, and the sticky bit (`EPERM`).
pub fn check_delete(dir: &Attr, victim: &Attr, cred: &Credentials) -> Result<()> {
    check(dir, Access::WRITE | Access::EXECUTE, cred)?;
    let restricted = dir.perm.contains(Permissions::STICKY)
        && cred.fsuid != victim.uid
        && cred.fsuid != dir.uid
        && !cred.capable(CapSet::FOWNER);
    if restricted { Err(Errno::EPERM) } else { Ok(()) }
}

/// The permission bits left once somebody without `CAP_FSETID` has written to the file.
pub fn without_set_id(attr: &Attr) -> Permissions {
    let mut perm = attr.perm;
    perm.remove(Permissions::SETUID);
    if perm.contains(Permissions::GROUP_EXECUTE) {
        perm.remove(Permissions::SETGID);
    }
    perm
}
