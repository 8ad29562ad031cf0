//! `/proc/PID/fd`, `fdinfo`, and the magic links of a process.

use std::sync::Arc;

use abi::Errno;
use abi::fs::FileType;
use cred::{CapSet, Credentials};
use kernfs::{Directory, Link, Listed, Spec};
use vfs::{FileContext, LinkTarget, Result};

use crate::root::parse_id;
use crate::source::{Process, Which};

/// A link that leads straight to an object.
pub(crate) struct MagicLink {
    process: Arc<dyn Process>,
    which: Which,
}

impl MagicLink {
    pub(crate) fn new(process: &Arc<dyn Process>, which: Which) -> Self {
        Self { process: Arc::clone(process), which }
    }
}

/// May `cred` look into the process? As `ptrace(2)` access for reading, without the dumpable flag.
fn check_access(process: &dyn Process, cred: &Credentials) -> Result<()> {
    let target = process.facts()?.cred;
    let same_user = [target.uid, target.euid, target.suid].iter().all(|id| *id == cred.fsuid);
    let same_group = [target.gid, target.egid, target.sgid].iter().all(|id| *id == cred.fsgid);
    if (same_user && same_group) || cred.capable(CapSet::SYS_PTRACE) { Ok(()) } else { Err(Errno::EACCES) }
}

impl Link for MagicLink {
    fn readlink(&self) -> Result<Vec<u8>> {
        Ok(self.process.link(self.which)?.path)
    }

    fn follow(&self, cred: &Credentials) -> Result<LinkTarget> {
        check_access(self.process.as_ref(), cred)?;
        self.process.link(self.which)?.object.map(LinkTarget::Jump).ok_or(Errno::ENOENT)
    }
}

fn listing(process: &dyn Process, from: u64, kind: FileType) -> Result<Vec<Listed>> {
    let listed =
        |fd: i32| Listed { key: u64::from(fd.unsigned_abs()), name: fd.to_string().into_bytes(), kind };
    Ok(process.fds()?.into_iter().map(listed).filter(|listed| listed.key >= from).collect())
}

/// `/proc/PID/fd`.
pub(crate) struct FdDir(pub(crate) Arc<dyn Process>);

impl Directory for FdDir {
    fn lookup(&self, name: &[u8]) -> Result<Spec> {
        let fd = parse_id(name).ok_or(Errno::ENOENT)?;
        let flags = self.0.fd(fd)?.flags;
        // The owner's bits say how the file is open.
        let mode = match flags & 3 {
            0 => 0o500,
            1 => 0o300,
            _ => 0o700,
        };
        let cred = self.0.facts()?.cred;
        let link = Arc::new(MagicLink::new(&self.0, Which::Fd(fd)));
        Ok(Spec::new(mode, kernfs::Content::Link(link)).owned(cred.euid, cred.egid))
    }

    fn list(&self, from: u64) -> Result<Vec<Listed>> {
        listing(self.0.as_ref(), from, FileType::Symlink)
    }
}

/// `/proc/PID/fdinfo`.
pub(crate) struct FdInfoDir(pub(crate) Arc<dyn Process>);

impl Directory for FdInfoDir {
    fn lookup(&self, name: &[u8]) -> Result<Spec> {
        let fd = parse_id(name).ok_or(Errno::ENOENT)?;
        self.0.fd(fd)?;
        let process = Arc::clone(&self.0);
        let text = move |_: &FileContext<'_>| {
            let facts = process.fd(fd)?;
            let head = format!(
                "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t{}\nino:\t{}\n",
                facts.position, facts.flags, facts.mount_id, facts.ino
            );
            Ok([head.into_bytes(), facts.extra].concat())
        };
        Ok(Spec::text(0o444, text))
    }

    fn list(&self, from: u64) -> Result<Vec<Listed>> {
        listing(self.0.as_ref(), from, FileType::Regular)
    }
}
