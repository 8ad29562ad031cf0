//! `/dev/pts` and `/dev/ptmx` (`pts(4)`).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use abi::Errno;
use abi::fs::{FileType, OpenFlags, make_dev};
use abi::time::Timespec;
use kernfs::{Directory, FsInfo, KernFs, Listed, Opener, Spec};
use sync::{Mutex, order};
use vfs::{File, FileContext, Result};

use crate::job::JobControl;
use crate::tty::{Locked, MasterFile, Tty};

/// Terminals one instance may have (`/proc/sys/kernel/pty/max`).
pub const MAX_PTYS: u32 = 4096;
/// Major number of slaves.
const SLAVE_MAJOR: u32 = 136;
/// `DEVPTS_SUPER_MAGIC`.
const MAGIC: i64 = 0x1cd1;
/// Group of slaves (`gid=5`, `tty`) and their mode.
const TTY_GROUP: u32 = 5;
const SLAVE_MODE: u16 = 0o620;

/// An instance of devpts: the terminals that exist.
pub struct Devpts {
    me: Weak<Self>,
    jobs: Arc<dyn JobControl>,
    slaves: Mutex<order::Leaf, BTreeMap<u32, Spec>>,
}

impl std::fmt::Debug for Devpts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Devpts").field("slaves", &self.slaves.lock().len()).finish_non_exhaustive()
    }
}

impl Devpts {
    /// Without terminals.
    pub fn new(jobs: Arc<dyn JobControl>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self { me: me.clone(), jobs, slaves: Mutex::default() })
    }

    /// The file system to mount at `/dev/pts`.
    pub fn mount(self: &Arc<Self>, dev: u64, now: Timespec) -> Arc<KernFs> {
        let info = FsInfo { type_name: "devpts", magic: MAGIC, dev, now, stable: false };
        KernFs::new(info, Spec::dir(0o755, PtsDir(Arc::clone(self))))
    }

    /// The node `ptmx`: each open makes a terminal.
    pub fn ptmx(self: &Arc<Self>, mode: u16) -> Spec {
        Spec::char_device(mode, make_dev(5, 2), Ptmx(Arc::clone(self)))
    }

    /// A new terminal, owned by the caller (`posix_openpt(3)`); `ENOSPC` when there are too many.
    pub fn open_master(&self, cx: &FileContext<'_>) -> Result<MasterFile> {
        self.make(cx, Locked::Yes)
    }

    /// As [`open_master`](Self::open_master), with a slave that can be opened at once.
    pub fn open_unlocked(&self, cx: &FileContext<'_>) -> Result<MasterFile> {
        self.make(cx, Locked::No)
    }

    fn make(&self, cx: &FileContext<'_>, locked: Locked) -> Result<MasterFile> {
        let mut slaves = self.slaves.lock();
        let index = (0..MAX_PTYS).find(|n| !slaves.contains_key(n)).ok_or(Errno::ENOSPC)?;
        let rdev = make_dev(SLAVE_MAJOR, index);
        let (tty, master) = Tty::new(index, rdev, locked, Arc::clone(&self.jobs));
        let opener = move |cx: &FileContext<'_>, flags: OpenFlags| -> Result<Arc<dyn File>> {
            Ok(Arc::new(tty.open_slave(cx, flags)?))
        };
        let spec = Spec::char_device(SLAVE_MODE, rdev, opener).owned(cx.cred.fsuid, TTY_GROUP).changeable();
        slaves.insert(index, spec);
        let me = self.me.clone();
        Ok(master.on_close(move || {
            let spec = me.upgrade().and_then(|devpts| devpts.slaves.lock().remove(&index));
            drop(spec);
        }))
    }
}

struct Ptmx(Arc<Devpts>);

impl Opener for Ptmx {
    fn open(&self, cx: &FileContext<'_>, _flags: OpenFlags) -> Result<Arc<dyn File>> {
        Ok(Arc::new(self.0.open_master(cx)?))
    }
}

struct PtsDir(Arc<Devpts>);

impl Directory for PtsDir {
    fn lookup(&self, name: &[u8]) -> Result<Spec> {
        if name == b"ptmx" {
            return Ok(self.0.ptmx(0o666));
        }
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let index: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
        // "007" is not "7".
        if index.to_string() != text {
            return Err(Errno::ENOENT);
        }
        self.0.slaves.lock().get(&index).cloned().ok_or(Errno::ENOENT)
    }

    fn list(&self, from: u64) -> Result<Vec<Listed>> {
        let slaves = self.0.slaves.lock();
        let number = |index: &u32| (u64::from(*index) + 1, index.to_string());
        let names = std::iter::once((0, "ptmx".to_owned())).chain(slaves.keys().map(number));
        let listed =
            |(key, name): (u64, String)| Listed { key, name: name.into_bytes(), kind: FileType::CharDevice };
        Ok(names.filter(|(key, _)| *key >= from).map(listed).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::NoJobs;
    use cred::Credentials;
    use vfs::FileSystem;

    #[test]
    fn a_terminal_has_a_name_while_its_master_is_open() -> Result<()> {
        let cred = Credentials::user(7, 7);
        let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
        let devpts = Devpts::new(Arc::new(NoJobs));
        let root = devpts.mount(4, Timespec::default()).root();
        assert_eq!(root.lookup(b"0").err(), Some(Errno::ENOENT));
        let master = root.lookup(b"ptmx")?.open(&cx, OpenFlags::RDWR)?;
        let attr = root.lookup(b"0")?.attr()?;
        assert_eq!((attr.uid, attr.gid, attr.rdev), (7, 5, make_dev(136, 0)));
        assert_eq!(root.lookup(b"00").err(), Some(Errno::ENOENT));
        assert_eq!(root.lookup(b"0")?.open(&cx, OpenFlags::RDWR).err(), Some(Errno::EIO));
        drop(master);
        assert_eq!(root.lookup(b"0").err(), Some(Errno::ENOENT));
        Ok(())
    }
}
