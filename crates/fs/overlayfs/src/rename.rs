//! Moving names.

use std::sync::{Arc, RwLockWriteGuard};

use abi::Errno;
use vfs::{Inode, RenameFlags, Result};

use crate::copy_up::WHOLE;
use crate::lookup::Above;
use crate::node::Node;
use crate::work::{self, set_opaque};

/// One end of a rename.
struct End<'a> {
    dir: &'a Node,
    upper: &'a Arc<dyn Inode>,
    name: &'a [u8],
}

impl Node {
    /// `renameat2(2)`: `name` here becomes `new_name` in `to`. `EXDEV` for directories that are below.
    pub(crate) fn move_child(
        &self,
        name: &[u8],
        to: &Self,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        // What moves is copied before the gates close: a big file takes its time.
        self.copy_movable(name)?;
        if exchange {
            to.copy_movable(new_name)?;
        }
        let from = End { dir: self, upper: self.copy_up(WHOLE)?, name };
        let to = End { dir: to, upper: to.copy_up(WHOLE)?, name: new_name };
        let _several = self.overlay().lock_several();
        let _gates = lock_both(&from, &to);
        let source = from.dir.child(from.name)?;
        if to.dir.is_removed() || source.upper().is_none() {
            return Err(Errno::ENOENT);
        }
        if exchange {
            return swap(&from, &source, &to);
        }
        let target = match to.dir.child(to.name) {
            Ok(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EEXIST),
            Ok(target) => Some(target),
            Err(Errno::ENOENT) => None,
            Err(error) => return Err(error),
        };
        replace(&from, &source, &to, target.as_deref())
    }

    /// Copies the child `name` up, if it is of those that can be moved.
    fn copy_movable(&self, name: &[u8]) -> Result<()> {
        let child = {
            let _gate = self.gate();
            self.child(name)?
        };
        check_movable(&child)?;
        child.copy_up(WHOLE).map(drop)
    }
}

/// A directory that is merged, or only below, would have to leave a redirect.
fn check_movable(node: &Node) -> Result<()> {
    if node.is_dir() && !node.lowers().is_empty() { Err(Errno::EXDEV) } else { Ok(()) }
}

/// Closes both gates. Which comes first does not matter: nobody else who holds one wants another.
fn lock_both<'a>(
    from: &End<'a>,
    to: &End<'a>,
) -> (RwLockWriteGuard<'a, ()>, Option<RwLockWriteGuard<'a, ()>>) {
    let first = from.dir.gate_mut();
    let second = (!std::ptr::eq(from.dir, to.dir)).then(|| to.dir.gate_mut());
    (first, second)
}

/// Hides what is below under the end's name, if a directory comes to be there.
fn hide_below(node: &Node, end: &End<'_>) -> Result<()> {
    if node.is_dir() && end.dir.is_below(end.name)? {
        set_opaque(node.upper().ok_or(Errno::EIO)?)?;
    }
    Ok(())
}

fn swap(from: &End<'_>, source: &Node, to: &End<'_>) -> Result<()> {
    let target = to.dir.child(to.name)?;
    if target.upper().is_none() {
        return Err(Errno::ENOENT);
    }
    check_movable(source)?;
    check_movable(&target)?;
    hide_below(source, to)?;
    hide_below(&target, from)?;
    from.upper.rename(from.name, to.upper, to.name, RenameFlags::EXCHANGE)
}

fn replace(from: &End<'_>, source: &Node, to: &End<'_>, target: Option<&Node>) -> Result<()> {
    check_movable(source)?;
    let Some(target) = target else {
        return settle(from, source, to);
    };
    if !target.is_dir() {
        settle(from, source, to)?;
    } else {
        let _target_gate = target.gate_mut();
        if !target.is_empty()? {
            return Err(Errno::ENOTEMPTY);
        }
        settle(from, source, to)?;
        target.set_removed();
    }
    to.dir.child_removed(to.name, target);
    Ok(())
}

/// Moves the source over whatever the upper directory has under the new name: nothing, a whiteout, or what
/// is being replaced.
fn settle(from: &End<'_>, source: &Node, to: &End<'_>) -> Result<()> {
    let fs = source.overlay();
    let (work, cx) = (&fs.work, fs.cx());
    hide_below(source, to)?;
    let there = match to.dir.above(to.name)? {
        Above::Absent => None,
        Above::Whiteout => Some(false),
        Above::There(inode) => Some(inode.kind() == abi::fs::FileType::Directory),
    };
    // Something below needs a whiteout where the source was: it goes by way of the work directory.
    let leaves_whiteout = from.dir.is_below(from.name)?;
    let taken = if leaves_whiteout { Some(work.take_out(from.upper, from.name, &cx)?) } else { None };
    let (dir, name) = match &taken {
        Some(name) => (&work.dir, name.as_slice()),
        None => (from.upper, from.name),
    };
    let exchange = there.is_some_and(|directory| directory || source.is_dir());
    let flags = if exchange { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
    if let Err(error) = dir.rename(name, to.upper, to.name, flags) {
        if taken.is_some() {
            let _ = work.dir.rename(name, from.upper, from.name, RenameFlags::EXCHANGE);
            work.discard(name, &cx);
        }
        return Err(error);
    }
    if exchange {
        // What was replaced is where the source came from.
        work::discard(dir, name, &cx)?;
    }
    Ok(())
}
