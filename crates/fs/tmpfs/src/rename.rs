//! Moving names, and removing directories: what looks at several inodes at once.
//!
//! Both hold the file system's `rename` lock, and nobody without it locks a second inode, so the inodes can
//! be locked in any order.

use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, Permissions};
use sync::{MutexGuard, order};
use vfs::{NewNode, RenameFlags, Result};

use crate::node::{Body, Node, State, now};

/// What `RENAME_WHITEOUT` leaves.
const WHITEOUT: NewNode =
    NewNode { kind: FileType::CharDevice, perm: Permissions::empty(), uid: 0, gid: 0, rdev: 0 };

/// The two directories of a rename, locked; they may be one.
struct Both<'a> {
    from: MutexGuard<'a, order::Inode, State>,
    to: Option<MutexGuard<'a, order::Inode, State>>,
}

impl<'a> Both<'a> {
    fn lock(from: &'a Node, to: &'a Node) -> Self {
        let first = from.state.lock();
        Self { from: first, to: (!std::ptr::eq(from, to)).then(|| to.state.lock()) }
    }

    fn to(&mut self) -> &mut State {
        self.to.as_deref_mut().unwrap_or(&mut self.from)
    }

    fn touch(&mut self) {
        self.from.touch();
        if let Some(to) = &mut self.to {
            to.touch();
        }
    }
}

fn count(state: &mut State, node: &Node, by: i32) {
    if node.kind == FileType::Directory {
        state.attr.nlink = state.attr.nlink.saturating_add_signed(by);
    }
}

/// One end of a rename.
type End<'a> = (&'a Node, &'a [u8]);

impl Node {
    /// Moves `name` to `new_name` in `to`: at one moment, whoever else is at work in either directory.
    pub(crate) fn move_child(
        &self,
        name: &[u8],
        to: &Self,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        let fs = self.tmpfs()?;
        let left = match flags.contains(RenameFlags::WHITEOUT) {
            true => Some(self.make(&WHITEOUT, Body::Special)?),
            false => None,
        };
        // What was replaced may be the last of it, and is dropped without a lock.
        let replaced = {
            let _renames = fs.rename.lock();
            let mut both = Both::lock(self, to);
            if both.to().attr.nlink == 0 {
                return Err(Errno::ENOENT);
            }
            if flags.contains(RenameFlags::EXCHANGE) {
                exchange(&mut both, (self, name), (to, new_name))?;
                None
            } else {
                replace(&mut both, (self, name), (to, new_name), flags, left)?
            }
        };
        drop(replaced);
        Ok(())
    }

    /// Loses a name to a rename; `ENOTEMPTY` for a directory that has some itself.
    fn die(&self, from: &Self, to: &Self) -> Result<()> {
        // Only a caller that did not check ancestry gets here with one of the parents.
        if std::ptr::eq(self, from) || std::ptr::eq(self, to) {
            return Err(Errno::ENOTEMPTY);
        }
        self.state.lock().lose_name()
    }

    /// Has got another name. (One of the parents has only when the caller did not check ancestry.)
    fn moved(&self, from: &Self, to: &Self) {
        if !std::ptr::eq(self, from) && !std::ptr::eq(self, to) {
            self.state.lock().attr.ctime = now();
        }
    }

    /// Removes the empty directory `name`. It is dead from then on: nothing can be made in it.
    pub(crate) fn remove_dir(&self, name: &[u8]) -> Result<()> {
        let fs = self.tmpfs()?;
        let gone = {
            let _renames = fs.rename.lock();
            let mut state = self.state.lock();
            let node = state.dir()?.get(name)?;
            if node.kind != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            node.state.lock().lose_name()?;
            count(&mut state, &node, -1);
            state.dir()?.remove(name);
            state.touch();
            node
        };
        drop(gone);
        Ok(())
    }
}

/// Moves, and returns what was there before.
fn replace(
    both: &mut Both<'_>,
    from: End<'_>,
    to: End<'_>,
    flags: RenameFlags,
    left: Option<Arc<Node>>,
) -> Result<Option<Arc<Node>>> {
    let node = both.from.dir()?.get(from.1)?;
    let target = both.to().dir()?.get(to.1).ok();
    if let Some(target) = &target {
        if flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EEXIST);
        }
        if Arc::ptr_eq(target, &node) {
            return Ok(None);
        }
        target.die(from.0, to.0)?;
        count(both.to(), target, -1);
    }
    both.from.dir()?.remove(from.1);
    count(&mut both.from, &node, -1);
    both.to().dir()?.insert(to.1, Arc::clone(&node));
    count(both.to(), &node, 1);
    if let Some(left) = left {
        both.from.dir()?.insert(from.1, left);
    }
    both.touch();
    node.moved(from.0, to.0);
    Ok(target)
}

fn exchange(both: &mut Both<'_>, from: End<'_>, to: End<'_>) -> Result<()> {
    let one = both.from.dir()?.get(from.1)?;
    let two = both.to().dir()?.get(to.1)?;
    both.from.dir()?.insert(from.1, Arc::clone(&two));
    both.to().dir()?.insert(to.1, Arc::clone(&one));
    count(&mut both.from, &one, -1);
    count(&mut both.from, &two, 1);
    count(both.to(), &two, -1);
    count(both.to(), &one, 1);
    both.touch();
    one.moved(from.0, to.0);
    two.moved(from.0, to.0);
    Ok(())
}
