//! Mount namespaces: which tree of mounts a set of processes sees.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use abi::fs::FileType::Directory;
use sync::{Mutex, order};

use super::{Mount, Point, VfsPath, key};
use crate::Result;
use crate::dentry::Dentry;

/// Mounts a namespace may hold (`fs.mount-max` is 100000 on Linux).
const MOUNT_MAX: usize = 10_000;

/// The tree of mounts a set of processes sees (`mount_namespaces(7)`).
pub struct MountNamespace {
    inode: u64,
    root: Mutex<order::Leaf, Arc<Mount>>,
    /// Serialises changes of the tree; holds the number of mounts.
    count: Mutex<order::Mounts, usize>,
}

/// The number of the next namespace among files. The first has none that programs know.
static NEXT_INODE: AtomicU64 = AtomicU64::new(0xe000_0000);

impl std::fmt::Debug for MountNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountNamespace").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl MountNamespace {
    /// A namespace with one mount.
    pub fn new(root: Arc<Mount>) -> Arc<Self> {
        Self::of(root, 1)
    }

    fn of(root: Arc<Mount>, count: usize) -> Arc<Self> {
        let inode = NEXT_INODE.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { inode, root: Mutex::new(root), count: Mutex::new(count) })
    }

    /// Its number among files (`/proc/PID/ns/mnt`).
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Its root directory.
    pub fn root(&self) -> VfsPath {
        VfsPath::root_of(&self.top()).topmost()
    }

    /// The mount that everything else hangs from.
    fn top(&self) -> Arc<Mount> {
        Arc::clone(&self.root.lock())
    }

    /// Is something mounted here in this namespace? What is mounted in others does not keep a name
    /// (`unlink(2)`, `EBUSY`). May be asked with dentries locked, so a change under way may be seen or not.
    pub(crate) fn is_mount_point(&self, dentry: &Arc<Dentry>) -> bool {
        let here = |mount: &Arc<Mount>| mount.point().is_some_and(|point| Arc::ptr_eq(&point.dentry, dentry));
        dentry.mounts.load(Ordering::SeqCst) > 0 && subtree(&self.top()).iter().any(here)
    }

    /// Attaches `mount` at `at`, on top of what is there. `ENOTDIR` unless both are directories or
    /// neither is; `ENOSPC` when there are too many.
    pub fn attach(&self, mount: Arc<Mount>, at: &VfsPath) -> Result<()> {
        let mut count = self.count.lock();
        let at = place(&mount, at)?;
        if *count >= MOUNT_MAX {
            return Err(Errno::ENOSPC);
        }
        *count += 1;
        hang(&mount, &at);
        Ok(())
    }

    /// Attaches the tree at `from` at `at`, with everything that is mounted in it (`MS_BIND | MS_REC`).
    pub fn bind_tree(&self, from: &VfsPath, at: &VfsPath) -> Result<()> {
        let mut count = self.count.lock();
        let top = Mount::bind(from);
        let at = place(&top, at)?;
        let mut copies = HashMap::from([(from.mount.id, Arc::clone(&top))]);
        let mut inner = Vec::new();
        for mount in subtree(&from.mount).iter().skip(1) {
            let Some(point) = mount.point() else { continue };
            let Some(parent) = copies.get(&point.mount.id).cloned() else { continue };
            // Of what is mounted on the same mount, only what is in the tree.
            if Arc::ptr_eq(&point.mount, &from.mount) && !from.dentry.is_ancestor_of(&point.dentry) {
                continue;
            }
            let copy =
                Mount::of(Arc::clone(&mount.fs), Arc::clone(&mount.root), &mount.source, mount.flags());
            copies.insert(mount.id, Arc::clone(&copy));
            inner.push((copy, VfsPath { mount: parent, dentry: point.dentry }));
        }
        let more = 1 + inner.len();
        if *count + more > MOUNT_MAX {
            return Err(Errno::ENOSPC);
        }
        *count += more;
        for (mount, at) in &inner {
            hang(mount, at);
        }
        hang(&top, &at);
        Ok(())
    }

    /// Moves the mount whose root `from` is to `to` (`MS_MOVE`). `EINVAL` when it is none, `ELOOP` when `to` is
    /// in it.
    pub fn move_mount(&self, from: &VfsPath, to: &VfsPath) -> Result<()> {
        let _tree = self.count.lock();
        if !from.is_mount_root() || from.mount.point().is_none() {
            return Err(Errno::EINVAL);
        }
        let to = place(&from.mount, to).map_err(|error| match error {
            Errno::ENOTDIR => Errno::EINVAL,
            other => other,
        })?;
        let mut above = Some(Arc::clone(&to.mount));
        while let Some(mount) = above {
            if Arc::ptr_eq(&mount, &from.mount) {
                return Err(Errno::ELOOP);
            }
            above = mount.point().map(|point| point.mount);
        }
        unhang(&from.mount);
        hang(&from.mount, &to);
        Ok(())
    }

    /// Detaches the mount whose root `at` is (`umount2(2)`): `EINVAL` when it is none, `EBUSY` when
    /// something is mounted below it, unless `lazy`. Open files do not keep a mount busy.
    pub fn detach(&self, at: &VfsPath, lazy: bool) -> Result<()> {
        let mut count = self.count.lock();
        if !at.is_mount_root() || at.mount.point().is_none() {
            return Err(Errno::EINVAL);
        }
        let below = subtree(&at.mount);
        if below.len() > 1 && !lazy {
            return Err(Errno::EBUSY);
        }
        *count = count.saturating_sub(below.len());
        for mount in below.iter().rev() {
            unhang(mount);
        }
        drop(count);
        for mount in below {
            if mount.root.parent().is_none() {
                mount.root.shrink();
            }
        }
        Ok(())
    }

    /// Is `mount` one of it?
    pub fn holds(&self, mount: &Arc<Mount>) -> bool {
        let mut top = Arc::clone(mount);
        while let Some(point) = top.point() {
            top = point.mount;
        }
        Arc::ptr_eq(&top, &self.top())
    }

    /// Makes the mount `new` the root where `old` was, and hangs `old` at `put_old` (`pivot_root(2)`): `EINVAL`
    /// unless both are roots of mounts of this namespace and `put_old` is in `new`, `EBUSY` when it is one mount.
    pub fn pivot(&self, old: &VfsPath, new: &VfsPath, put_old: &VfsPath) -> Result<()> {
        if !self.holds(&new.mount) || !self.holds(&old.mount) || !self.holds(&put_old.mount) {
            return Err(Errno::EINVAL);
        }
        let _tree = self.count.lock();
        if new.dentry.is_unlinked() {
            return Err(Errno::ENOENT);
        }
        if Arc::ptr_eq(&new.mount, &old.mount) || Arc::ptr_eq(&put_old.mount, &old.mount) {
            return Err(Errno::EBUSY);
        }
        let (_, inside) = put_old.components(new);
        if !old.is_mount_root() || !new.is_mount_root() || new.mount.point().is_none() || !inside {
            return Err(Errno::EINVAL);
        }
        let place = old.mount.point();
        unhang(&new.mount);
        unhang(&old.mount);
        hang(&old.mount, put_old);
        match place {
            Some(place) => hang(&new.mount, &place),
            None => *self.root.lock() = Arc::clone(&new.mount),
        }
        Ok(())
    }

    /// All mounts, in the order they were made in (`/proc/PID/mountinfo`).
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        let _tree = self.count.lock();
        let mut mounts = subtree(&self.top());
        mounts.sort_by_key(|mount| mount.id());
        mounts
    }

    /// A copy of the tree (`CLONE_NEWNS`), and for each old mount (by id) its copy, so that the caller
    /// can move its root and working directory over.
    pub fn copy(&self) -> (Arc<Self>, HashMap<u64, Arc<Mount>>) {
        let _tree = self.count.lock();
        let old = subtree(&self.top());
        let mut copies: HashMap<u64, Arc<Mount>> = HashMap::new();
        let mut root = None;
        for mount in &old {
            let copy =
                Mount::of(Arc::clone(&mount.fs), Arc::clone(&mount.root), &mount.source, mount.flags());
            match mount.point().and_then(|at| Some((copies.get(&at.mount.id)?.clone(), at.dentry))) {
                Some((parent, dentry)) => hang(&copy, &VfsPath { mount: parent, dentry }),
                None => root = Some(Arc::clone(&copy)),
            }
            copies.insert(mount.id, copy);
        }
        let root = root.unwrap_or_else(|| self.top());
        (Self::of(root, old.len()), copies)
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        for mount in subtree(&self.top()).iter().rev() {
            unhang(mount);
        }
    }
}

/// Where exactly `mount` comes to hang: on top of what is at `at`. `ENOTDIR` unless both are directories or
/// neither is.
fn place(mount: &Mount, at: &VfsPath) -> Result<VfsPath> {
    let at = at.clone().topmost();
    if (mount.root.inode().kind() == Directory) != (at.inode().kind() == Directory) {
        return Err(Errno::ENOTDIR);
    }
    if at.dentry.is_unlinked() { Err(Errno::ENOENT) } else { Ok(at) }
}

fn hang(mount: &Arc<Mount>, at: &VfsPath) {
    at.dentry.mounts.fetch_add(1, Ordering::SeqCst);
    *mount.point.lock() = Some(Point { parent: Arc::downgrade(&at.mount), dentry: Arc::clone(&at.dentry) });
    at.mount.children.lock().insert(key(&at.dentry), Arc::clone(mount));
}

fn unhang(mount: &Arc<Mount>) {
    let Some(point) = mount.point.lock().take() else { return };
    point.dentry.mounts.fetch_sub(1, Ordering::SeqCst);
    if let Some(parent) = point.parent.upgrade() {
        let gone = parent.children.lock().remove(&key(&point.dentry));
        drop(gone);
    }
}

/// `top` and everything mounted below, parents first.
fn subtree(top: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let mut list = vec![Arc::clone(top)];
    let mut next = 0;
    while let Some(mount) = list.get(next) {
        let mut children = mount.child_list();
        children.sort_by_key(|child| child.id);
        list.extend(children);
        next += 1;
    }
    list
}
