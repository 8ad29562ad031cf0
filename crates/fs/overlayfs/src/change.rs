//! Making and removing names.

use std::sync::Arc;

use abi::Errno;
use abi::fs::FileType;
use vfs::{Inode, NewNode, Result};

use crate::copy_up::WHOLE;
use crate::lookup::Above;
use crate::node::Node;
use crate::work;

/// Why a name can be made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vacancy {
    /// There is nothing.
    Free,
    /// There is a whiteout, which something below may need.
    Whiteout,
}

impl Node {
    /// Can `name` be made? `EEXIST`, or `ENOENT` when the directory has been removed. Under the gate.
    fn vacancy(&self, name: &[u8]) -> Result<Vacancy> {
        if self.is_removed() {
            return Err(Errno::ENOENT);
        }
        match self.above(name)? {
            Above::There(_) => Err(Errno::EEXIST),
            Above::Whiteout => Ok(Vacancy::Whiteout),
            Above::Absent if self.is_below(name)? => Err(Errno::EEXIST),
            Above::Absent => Ok(Vacancy::Free),
        }
    }

    /// Lets `make` make an upper inode under a name in a directory, and sees to it that it ends up as `name`
    /// here.
    fn enter_new(
        &self,
        name: &[u8],
        make: impl FnOnce(&Arc<dyn Inode>, &[u8]) -> Result<Arc<dyn Inode>>,
    ) -> Result<Arc<dyn Inode>> {
        let upper = self.copy_up(WHOLE)?;
        let (work, cx) = (&self.overlay().work, self.overlay().cx());
        let _gate = self.gate_mut();
        if self.vacancy(name)? == Vacancy::Free {
            return make(upper, name);
        }
        let prepared = work.name();
        let inode = make(&work.dir, &prepared)?;
        if inode.kind() == FileType::Directory {
            work::set_opaque(&inode).inspect_err(|_| work.discard(&prepared, &cx))?;
        }
        work.replace_whiteout(&prepared, &inode, upper, name, &cx)?;
        Ok(inode)
    }

    /// A file, directory, fifo, socket or device node.
    pub(crate) fn make(&self, name: &[u8], new: &NewNode) -> Result<Arc<Self>> {
        if new.kind == FileType::CharDevice && new.rdev == 0 {
            return Err(Errno::EPERM);
        }
        let inode = self.enter_new(name, |dir, name| dir.create(name, new))?;
        self.overlay().adopt(inode, Vec::new())
    }

    pub(crate) fn make_symlink(&self, name: &[u8], target: &[u8], uid: u32, gid: u32) -> Result<Arc<Self>> {
        let inode = self.enter_new(name, |dir, name| dir.symlink(name, target, uid, gid))?;
        self.overlay().adopt(inode, Vec::new())
    }

    pub(crate) fn make_link(&self, name: &[u8], target: &Arc<Self>) -> Result<()> {
        if target.is_dir() {
            return Err(Errno::EPERM);
        }
        let inode = target.copy_up(WHOLE)?;
        self.enter_new(name, |dir, name| dir.link(name, inode).map(|()| Arc::clone(inode))).map(drop)
    }

    pub(crate) fn remove_file(&self, name: &[u8]) -> Result<()> {
        let upper = self.copy_up(WHOLE)?;
        let _gate = self.gate_mut();
        let child = self.child(name)?;
        if child.is_dir() {
            return Err(Errno::EISDIR);
        }
        self.take_away(upper, name, &child)
    }

    pub(crate) fn remove_dir(&self, name: &[u8]) -> Result<()> {
        let upper = self.copy_up(WHOLE)?;
        let _several = self.overlay().lock_several();
        let _gate = self.gate_mut();
        let child = self.child(name)?;
        if !child.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        let _child_gate = child.gate_mut();
        if !child.is_empty()? {
            return Err(Errno::ENOTEMPTY);
        }
        self.take_away(upper, name, &child)
    }

    /// Removes `name`, which is `child`'s. Under the gate; a directory is empty, and its gate is held.
    fn take_away(&self, upper: &Arc<dyn Inode>, name: &[u8], child: &Arc<Self>) -> Result<()> {
        let (work, cx) = (&self.overlay().work, self.overlay().cx());
        let above = matches!(self.above(name)?, Above::There(_));
        match (above, self.is_below(name)?) {
            (true, true) => {
                let taken = work.take_out(upper, name, &cx)?;
                work.discard(&taken, &cx);
            }
            (true, false) => work::discard(upper, name, &cx)?,
            (false, _) => work.whiteout(upper, name)?,
        }
        self.child_removed(name, child);
        Ok(())
    }

    /// `child` is not called `name` any more. Under the gate.
    pub(crate) fn child_removed(&self, name: &[u8], child: &Self) {
        self.forget_lower(name);
        // One with other names is still somewhere; only what has none, or is only below, ends here.
        if child.is_dir() || child.upper().is_none() {
            child.set_removed();
        }
    }
}
