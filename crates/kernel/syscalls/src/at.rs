//! Paths as the path calls take them: a descriptor to begin from, and a string.

use abi::fs::{AT_FDCWD, AtFlags, PATH_MAX};
use abi::{Errno, SysResult};
use cred::{CapSet, Credentials};
use guestmem::{MemExt, UserCStr};
use std::sync::Arc;
use vfs::{Caller, FsContext, VfsPath, WalkFlags};

use crate::args::Fd;
use crate::cx::{Cx, Who};

/// A path, where it begins, and who walks it: what a [`Caller`] borrows from.
pub(crate) struct At {
    fs: FsContext,
    who: Who,
    dir: Option<VfsPath>,
    pub(crate) path: Vec<u8>,
}

/// Reads a path: `EFAULT`, `ENAMETOOLONG`.
pub(crate) fn load_path(cx: &Cx<'_>, path: UserCStr) -> SysResult<Vec<u8>> {
    Ok(cx.mm().load_cstr(path, PATH_MAX)?)
}

impl At {
    /// Reads `path` first and looks at `dirfd` afterwards, unless the path is absolute.
    pub(crate) fn new(cx: &Cx<'_>, dirfd: Fd, path: UserCStr) -> SysResult<Self> {
        let path = load_path(cx, path)?;
        Self::of(cx, dirfd, path)
    }

    /// From the working directory.
    pub(crate) fn cwd(cx: &Cx<'_>, path: UserCStr) -> SysResult<Self> {
        Self::new(cx, Fd(AT_FDCWD), path)
    }

    /// With a path that has been read.
    pub(crate) fn of(cx: &Cx<'_>, dirfd: Fd, path: Vec<u8>) -> SysResult<Self> {
        let fs = cx.task.fs_context()?.get();
        let dir = match dirfd.0 {
            AT_FDCWD => None,
            _ if path.first() == Some(&b'/') => None,
            _ => Some(cx.file(dirfd)?.path().clone()),
        };
        Ok(Self { fs, who: cx.who(), dir, path })
    }

    /// Makes the start the root, too (`RESOLVE_IN_ROOT`).
    pub(crate) fn enclose(&mut self) {
        let start = self.dir.take().unwrap_or_else(|| self.fs.cwd.clone());
        self.fs.root = start.clone();
        self.fs.cwd = start;
    }

    /// Walks and checks with the real ids instead (`access(2)`). The capabilities of an effective id that
    /// is not the real one do not count.
    pub(crate) fn with_real_ids(mut self) -> Self {
        let cred = &self.who.cred;
        let effective = if cred.uid == 0 { cred.permitted } else { CapSet::empty() };
        let real = Credentials { fsuid: cred.uid, fsgid: cred.gid, effective, ..(**cred).clone() };
        self.who.cred = Arc::new(real);
        self
    }

    /// For operations.
    pub(crate) fn caller(&self) -> Caller<'_> {
        let caller = Caller::new(&self.fs, self.who.cx());
        match &self.dir {
            Some(dir) => caller.from(dir),
            None => caller,
        }
    }

    /// Where the path leads.
    pub(crate) fn lookup(&self, flags: WalkFlags) -> SysResult<VfsPath> {
        Ok(self.caller().lookup(&self.path, flags)?)
    }
}

/// Flags of a call that follows links unless told otherwise; `EINVAL` for those not in `allowed`.
pub(crate) fn at_flags(raw: u32, allowed: AtFlags) -> SysResult<AtFlags> {
    Ok(AtFlags::from_bits(raw).filter(|flags| allowed.contains(*flags)).ok_or(Errno::EINVAL)?)
}

/// How such a call walks.
pub(crate) fn walk_flags(flags: AtFlags) -> WalkFlags {
    let mut walk = WalkFlags::empty();
    walk.set(WalkFlags::FOLLOW, !flags.contains(AtFlags::SYMLINK_NOFOLLOW));
    walk.set(WalkFlags::EMPTY_PATH, flags.contains(AtFlags::EMPTY_PATH));
    walk
}
