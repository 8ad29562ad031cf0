//! How credentials change: set-id calls, capability sets and secure bits (`capabilities(7)`,
//! `credentials(7)`).

use std::sync::Arc;

use abi::Errno;

use crate::{CapSet, Credentials};

/// No change of this id (`(uid_t) -1`).
pub const UNCHANGED: u32 = u32::MAX;

/// Capabilities do not follow the user ids.
pub const SECBIT_NO_SETUID_FIXUP: u32 = 1 << 2;
/// Permitted capabilities survive when no user id is root's any more.
pub const SECBIT_KEEP_CAPS: u32 = 1 << 4;
/// [`SECBIT_KEEP_CAPS`] can not be changed.
pub const SECBIT_KEEP_CAPS_LOCKED: u32 = 1 << 5;
/// No ambient capability can be raised.
pub const SECBIT_NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
/// Bits that mean something; the lock of each is the next higher one.
const SECBITS: u32 = 0x55;
const SECBIT_LOCKS: u32 = SECBITS << 1;

/// Why credentials were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredError {
    /// A capability is missing: `EPERM`.
    #[error("not permitted")]
    NotPermitted,
    /// An id is none, or a bit unknown: `EINVAL`.
    #[error("invalid")]
    Invalid,
}

impl From<CredError> for Errno {
    fn from(error: CredError) -> Self {
        match error {
            CredError::NotPermitted => Self::EPERM,
            CredError::Invalid => Self::EINVAL,
        }
    }
}

impl From<CredError> for abi::SysError {
    fn from(error: CredError) -> Self {
        Self::Errno(error.into())
    }
}

/// What a change gives.
pub type Changed = Result<Credentials, CredError>;

/// What file accesses as another user need (`CAP_FS_SET`).
const FILE_CAPS: CapSet = CapSet::CHOWN
    .union(CapSet::MKNOD)
    .union(CapSet::DAC_OVERRIDE)
    .union(CapSet::DAC_READ_SEARCH)
    .union(CapSet::FOWNER)
    .union(CapSet::FSETID)
    .union(CapSet::LINUX_IMMUTABLE)
    .union(CapSet::MAC_OVERRIDE);

fn require(good: bool, error: CredError) -> Result<(), CredError> {
    if good { Ok(()) } else { Err(error) }
}

/// May every id that is to change become one of `own`?
fn allowed(wanted: &[u32], own: &[u32], privileged: bool) -> Result<(), CredError> {
    let good = privileged || wanted.iter().all(|id| *id == UNCHANGED || own.contains(id));
    require(good, CredError::NotPermitted)
}

fn or(wanted: u32, old: u32) -> u32 {
    if wanted == UNCHANGED { old } else { wanted }
}

/// User ids.
impl Credentials {
    /// `setuid(2)`.
    pub fn set_uid(&self, uid: u32) -> Changed {
        require(uid != UNCHANGED, CredError::Invalid)?;
        let privileged = self.capable(CapSet::SETUID);
        allowed(&[uid], &[self.uid, self.suid], privileged)?;
        let (real, saved) = if privileged { (uid, uid) } else { (self.uid, self.suid) };
        Ok(Self { uid: real, euid: uid, suid: saved, fsuid: uid, ..self.clone() }.caps_after(self))
    }

    /// `setreuid(2)`.
    pub fn set_reuid(&self, real: u32, effective: u32) -> Changed {
        let privileged = self.capable(CapSet::SETUID);
        allowed(&[real], &[self.uid, self.euid], privileged)?;
        allowed(&[effective], &[self.uid, self.euid, self.suid], privileged)?;
        let euid = or(effective, self.euid);
        let saves = real != UNCHANGED || (effective != UNCHANGED && effective != self.uid);
        let suid = if saves { euid } else { self.suid };
        Ok(Self { uid: or(real, self.uid), euid, suid, fsuid: euid, ..self.clone() }.caps_after(self))
    }

    /// `setresuid(2)`.
    pub fn set_resuid(&self, real: u32, effective: u32, saved: u32) -> Changed {
        let own = [self.uid, self.euid, self.suid];
        allowed(&[real, effective, saved], &own, self.capable(CapSet::SETUID))?;
        let euid = or(effective, self.euid);
        let (uid, suid) = (or(real, self.uid), or(saved, self.suid));
        Ok(Self { uid, euid, suid, fsuid: euid, ..self.clone() }.caps_after(self))
    }

    /// `setfsuid(2)`; the call itself never fails.
    pub fn set_fsuid(&self, uid: u32) -> Changed {
        require(uid != UNCHANGED, CredError::Invalid)?;
        let own = [self.uid, self.euid, self.suid, self.fsuid];
        allowed(&[uid], &own, self.capable(CapSet::SETUID))?;
        let mut new = Self { fsuid: uid, ..self.clone() };
        if self.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
            if self.fsuid == 0 && uid != 0 {
                new.effective -= FILE_CAPS;
            } else if self.fsuid != 0 && uid == 0 {
                new.effective |= FILE_CAPS & self.permitted;
            }
        }
        Ok(new)
    }

    /// Capabilities follow the user ids to and from root.
    fn caps_after(mut self, old: &Self) -> Self {
        if self.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
            return self;
        }
        let was_root = old.uid == 0 || old.euid == 0 || old.suid == 0;
        if was_root && self.uid != 0 && self.euid != 0 && self.suid != 0 {
            if self.securebits & SECBIT_KEEP_CAPS == 0 {
                self.permitted = CapSet::empty();
                self.effective = CapSet::empty();
            }
            self.ambient = CapSet::empty();
        }
        if old.euid == 0 && self.euid != 0 {
            self.effective = CapSet::empty();
        } else if old.euid != 0 && self.euid == 0 {
            self.effective = self.permitted;
        }
        self
    }
}

/// Group ids.
impl Credentials {
    /// `setgid(2)`.
    pub fn set_gid(&self, gid: u32) -> Changed {
        require(gid != UNCHANGED, CredError::Invalid)?;
        let privileged = self.capable(CapSet::SETGID);
        allowed(&[gid], &[self.gid, self.sgid], privileged)?;
        let (real, saved) = if privileged { (gid, gid) } else { (self.gid, self.sgid) };
        Ok(Self { gid: real, egid: gid, sgid: saved, fsgid: gid, ..self.clone() })
    }

    /// `setregid(2)`.
    pub fn set_regid(&self, real: u32, effective: u32) -> Changed {
        let privileged = self.capable(CapSet::SETGID);
        allowed(&[real], &[self.gid, self.egid], privileged)?;
        allowed(&[effective], &[self.gid, self.egid, self.sgid], privileged)?;
        let egid = or(effective, self.egid);
        let saves = real != UNCHANGED || (effective != UNCHANGED && effective != self.gid);
        let sgid = if saves { egid } else { self.sgid };
        Ok(Self { gid: or(real, self.gid), egid, sgid, fsgid: egid, ..self.clone() })
    }

    /// `setresgid(2)`.
    pub fn set_resgid(&self, real: u32, effective: u32, saved: u32) -> Changed {
        let own = [self.gid, self.egid, self.sgid];
        allowed(&[real, effective, saved], &own, self.capable(CapSet::SETGID))?;
        let egid = or(effective, self.egid);
        let (gid, sgid) = (or(real, self.gid), or(saved, self.sgid));
        Ok(Self { gid, egid, sgid, fsgid: egid, ..self.clone() })
    }

    /// `setfsgid(2)`; the call itself never fails.
    pub fn set_fsgid(&self, gid: u32) -> Changed {
        require(gid != UNCHANGED, CredError::Invalid)?;
        let own = [self.gid, self.egid, self.sgid, self.fsgid];
        allowed(&[gid], &own, self.capable(CapSet::SETGID))?;
        Ok(Self { fsgid: gid, ..self.clone() })
    }

    /// `setgroups(2)`.
    pub fn set_groups(&self, mut groups: Vec<u32>) -> Changed {
        require(self.capable(CapSet::SETGID), CredError::NotPermitted)?;
        require(!groups.contains(&UNCHANGED), CredError::Invalid)?;
        groups.sort_unstable();
        Ok(Self { groups: Arc::from(groups), ..self.clone() })
    }
}

/// Capabilities.
impl Credentials {
    /// `capset(2)`. Unknown bits are dropped by the caller's conversion.
    pub fn set_caps(&self, effective: CapSet, permitted: CapSet, inheritable: CapSet) -> Changed {
        let free = self.capable(CapSet::SETPCAP) || (self.inheritable | self.permitted).contains(inheritable);
        let good = free
            && (self.inheritable | self.bounding).contains(inheritable)
            && self.permitted.contains(permitted)
            && permitted.contains(effective);
        require(good, CredError::NotPermitted)?;
        let ambient = self.ambient & permitted & inheritable;
        Ok(Self { effective, permitted, inheritable, ambient, ..self.clone() })
    }

    /// `PR_CAPBSET_DROP`.
    pub fn drop_bounding(&self, cap: CapSet) -> Changed {
        require(self.capable(CapSet::SETPCAP), CredError::NotPermitted)?;
        Ok(Self { bounding: self.bounding - cap, ..self.clone() })
    }

    /// `PR_CAP_AMBIENT_RAISE`.
    pub fn raise_ambient(&self, cap: CapSet) -> Changed {
        let good = (self.permitted & self.inheritable).contains(cap)
            && self.securebits & SECBIT_NO_CAP_AMBIENT_RAISE == 0;
        require(good, CredError::NotPermitted)?;
        Ok(Self { ambient: self.ambient | cap, ..self.clone() })
    }

    /// `PR_SET_SECUREBITS`.
    pub fn set_securebits(&self, bits: u32) -> Changed {
        let (locks, changed) = (self.securebits & SECBIT_LOCKS, self.securebits ^ bits);
        let good = (locks >> 1) & changed == 0
            && locks & !bits == 0
            && bits & !(SECBITS | SECBIT_LOCKS) == 0
            && self.capable(CapSet::SETPCAP);
        require(good, CredError::NotPermitted)?;
        Ok(Self { securebits: bits, ..self.clone() })
    }

    /// `PR_SET_KEEPCAPS`.
    pub fn set_keep_caps(&self, keep: bool) -> Changed {
        require(self.securebits & SECBIT_KEEP_CAPS_LOCKED == 0, CredError::NotPermitted)?;
        let others = self.securebits & !SECBIT_KEEP_CAPS;
        let securebits = if keep { others | SECBIT_KEEP_CAPS } else { others };
        Ok(Self { securebits, ..self.clone() })
    }
}

#[cfg(test)]
mod tests;
