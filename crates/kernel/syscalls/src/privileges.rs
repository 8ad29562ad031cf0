//! What a program gains or loses by being executed: set-id bits and capabilities (`execve(2)`,
//! `capabilities(7)`).

use abi::fs::Permissions;
use cred::{CapSet, Credentials};
use vfs::{Attr, MountFlags, VfsPath};

/// `SECBIT_NOROOT`.
const NOROOT: u32 = 1;
/// The attribute that holds a file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// Credentials of the new program.
pub(crate) struct Gained {
    pub(crate) cred: Credentials,
    /// It must not trust its environment (`AT_SECURE`).
    pub(crate) secure: bool,
}

/// A file's capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FileCaps {
    permitted: CapSet,
    inheritable: CapSet,
    effective: bool,
}

impl FileCaps {
    /// Versions 2 and 3 of `struct vfs_cap_data`; a root other than the sandbox's has no say here.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = [0u32; 6];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        let [magic, permitted, inheritable, permitted_high, inheritable_high, root] = words;
        let fits = match magic >> 24 {
            2 => bytes.len() == 20,
            3 => bytes.len() == 24 && root == 0,
            _ => false,
        };
        let set = |low: u32, high: u32| CapSet::from_bits_truncate(u64::from(high) << 32 | u64::from(low));
        fits.then(|| Self {
            permitted: set(permitted, permitted_high),
            inheritable: set(inheritable, inheritable_high),
            effective: magic & 1 != 0,
        })
    }
}

/// What `old` becomes by executing the file at `path`.
pub(crate) fn after_exec(old: &Credentials, path: &VfsPath, attr: &Attr) -> Gained {
    let trusted = !path.mount.flags().contains(MountFlags::NOSUID) && !old.no_new_privs;
    let caps = if trusted { path.inode().xattr(CAPABILITY).ok() } else { None };
    let caps = caps.as_deref().and_then(FileCaps::parse);
    transform(old, attr, trusted, caps)
}

fn transform(old: &Credentials, attr: &Attr, trusted: bool, caps: Option<FileCaps>) -> Gained {
    let mut cred = old.clone();
    if trusted && attr.perm.contains(Permissions::SETUID) {
        cred.euid = attr.uid;
    }
    if trusted && attr.perm.contains(Permissions::SETGID | Permissions::GROUP_EXECUTE) {
        cred.egid = attr.gid;
    }
    let changed = cred.euid != old.euid || cred.egid != old.egid;
    let root_counts = cred.securebits & NOROOT == 0;
    // Root by its real id alone has no effective set; a file's own capabilities come before root's.
    let as_root = root_counts && (cred.uid == 0 || cred.euid == 0) && (caps.is_none() || cred.uid == 0);
    let file = match caps {
        _ if as_root => {
            FileCaps { permitted: CapSet::all(), inheritable: CapSet::all(), effective: cred.euid == 0 }
        }
        Some(caps) => caps,
        None => FileCaps::default(),
    };
    if changed || caps.is_some() {
        cred.ambient = CapSet::empty();
    }
    let granted = (cred.inheritable & file.inheritable) | (file.permitted & cred.bounding);
    // Not even root gains what it had given up.
    let granted = if old.no_new_privs { granted & old.permitted } else { granted };
    cred.permitted = granted | cred.ambient;
    cred.effective = if file.effective { cred.permitted } else { cred.ambient };
    (cred.suid, cred.fsuid) = (cred.euid, cred.euid);
    (cred.sgid, cred.fsgid) = (cred.egid, cred.egid);
    // SECBIT_KEEP_CAPS does not outlive a program.
    cred.securebits &= !(1 << 4);
    let by_file = !as_root && !(granted - cred.ambient).is_empty();
    let secure = cred.uid != cred.euid || cred.gid != cred.egid || by_file;
    Gained { cred, secure }
}

#[cfg(test)]
mod tests {
    use abi::fs::{FileType, Permissions};
    use abi::time::Timespec;
    use cred::{CapSet, Credentials};
    use vfs::Attr;

    use super::{FileCaps, transform};

    fn file(perm: u16, uid: u32) -> Attr {
        Attr {
            ino: 1,
            kind: FileType::Regular,
            perm: Permissions::from_bits_truncate(perm),
            nlink: 1,
            uid,
            gid: 5,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: Timespec::default(),
            mtime: Timespec::default(),
            ctime: Timespec::default(),
            btime: None,
        }
    }

    #[test]
    fn root_keeps_its_bounding_set_and_a_user_nothing() {
        let mut root = Credentials::root();
        root.bounding = CapSet::CHOWN | CapSet::KILL;
        let new = transform(&root, &file(0o755, 0), true, None).cred;
        assert_eq!((new.permitted, new.effective), (root.bounding, root.bounding));
        let mut user = Credentials::user(7, 7);
        (user.permitted, user.effective) = (CapSet::KILL, CapSet::KILL);
        let new = transform(&user, &file(0o755, 0), true, None).cred;
        assert_eq!((new.permitted, new.effective), (CapSet::empty(), CapSet::empty()));
    }

    #[test]
    fn root_without_new_privileges_gains_none() {
        let mut root = Credentials::root();
        (root.permitted, root.effective) = (CapSet::KILL, CapSet::KILL);
        assert_eq!(transform(&root, &file(0o755, 0), true, None).cred.permitted, CapSet::all());
        root.no_new_privs = true;
        let new = transform(&root, &file(0o755, 0), false, None).cred;
        assert_eq!((new.permitted, new.effective), (CapSet::KILL, CapSet::KILL));
    }

    #[test]
    fn set_id_bits_change_ids_unless_nobody_may_gain() {
        let user = Credentials::user(7, 7);
        let gained = transform(&user, &file(0o6755, 0), true, None);
        assert_eq!((gained.cred.uid, gained.cred.euid, gained.cred.suid, gained.cred.egid), (7, 0, 0, 5));
        assert!(gained.secure && gained.cred.effective == CapSet::all());
        let same = transform(&user, &file(0o6755, 0), false, None);
        assert_eq!((same.cred.euid, same.secure), (7, false));
        // Set-gid without group execute marks mandatory locking, and means nothing here.
        assert_eq!(transform(&user, &file(0o2745, 0), true, None).cred.egid, 7);
    }

    #[test]
    fn file_capabilities_are_read_and_bounded() {
        let bytes = [1, 0, 0, 2, 0x21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let caps = FileCaps::parse(&bytes).expect("version 2");
        assert_eq!(caps.permitted, CapSet::CHOWN | CapSet::KILL);
        assert_eq!(FileCaps::parse(&bytes[..19]), None);
        let mut user = Credentials::user(7, 7);
        user.bounding = CapSet::KILL;
        let gained = transform(&user, &file(0o755, 0), true, Some(caps));
        assert_eq!((gained.cred.effective, gained.secure), (CapSet::KILL, true));
    }
}
