//! Path walk (`path_resolution(7)`).

use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, MAX_SYMLINKS, NAME_MAX, PATH_MAX};
use bitflags::bitflags;
use cred::Credentials;

use crate::mount::{MountNamespace, VfsPath};
use crate::perm::{self, Access};
use crate::{LinkTarget, Result};

/// A task's root, working directory and umask (`CLONE_FS`). A plain value: a caller copies it out of
/// its lock before a walk.
#[derive(Clone, Debug)]
pub struct FsContext {
    /// Where `/` is.
    pub root: VfsPath,
    /// Where relative paths begin.
    pub cwd: VfsPath,
    /// Bits creations lose (`umask(2)`).
    pub umask: u16,
    /// Where mounts are made and seen. Here, because whoever shares root and working directory must share it.
    pub mounts: Arc<MountNamespace>,
}

impl FsContext {
    /// Everything at the root of `mounts`, umask `022`.
    pub fn new(mounts: &Arc<MountNamespace>) -> Self {
        let root = mounts.root();
        Self { cwd: root.clone(), root, umask: 0o022, mounts: Arc::clone(mounts) }
    }

    /// The same places in a copy of the mount namespace (`CLONE_NEWNS`).
    pub fn apart(&self) -> Self {
        let (mounts, copies) = self.mounts.copy();
        let moved = |path: &VfsPath| match copies.get(&path.mount.id()) {
            Some(mount) => VfsPath { mount: Arc::clone(mount), dentry: Arc::clone(&path.dentry) },
            // What is in no tree stays what it is.
            None => path.clone(),
        };
        Self { root: moved(&self.root), cwd: moved(&self.cwd), umask: self.umask, mounts }
    }
}

bitflags! {
    /// How a walk treats its path.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct WalkFlags: u32 {
        /// Follow a symbolic link in the last component.
        const FOLLOW = 1;
        /// The result must be a directory.
        const DIRECTORY = 2;
        /// An empty path means the start (`AT_EMPTY_PATH`).
        const EMPTY_PATH = 4;
        /// Follow no symbolic link at all (`RESOLVE_NO_SYMLINKS`).
        const NO_SYMLINKS = 8;
        /// Follow no magic link (`RESOLVE_NO_MAGICLINKS`).
        const NO_MAGICLINKS = 16;
        /// Cross no mount (`RESOLVE_NO_XDEV`).
        const NO_XDEV = 32;
        /// Stay below the start (`RESOLVE_BENEATH`).
        const BENEATH = 64;
        /// A slash behind the last component does not make a link there followed (creations, removals).
        const PARENT = 128;
    }
}

/// Where a walk begins.
#[derive(Clone, Copy, Debug)]
pub struct WalkStart<'a> {
    /// Where absolute paths begin; `..` does not leave it.
    pub root: &'a VfsPath,
    /// Where relative paths begin.
    pub at: &'a VfsPath,
}

impl<'a> From<&'a FsContext> for WalkStart<'a> {
    fn from(fs: &'a FsContext) -> Self {
        Self { root: &fs.root, at: &fs.cwd }
    }
}

/// What the last component of a path was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastName {
    /// A name.
    Name(Vec<u8>),
    /// `.`, or an empty path.
    Dot,
    /// `..`.
    DotDot,
    /// There was none: `/`, or a magic link was followed.
    None,
}

/// A walk up to the last component, and a look at that.
#[derive(Clone, Debug)]
pub struct Last {
    /// The directory the last component is in.
    pub parent: VfsPath,
    /// The component.
    pub name: LastName,
    /// What is there, mounts crossed.
    pub target: Option<VfsPath>,
    /// Did a slash follow?
    pub trailing_slash: bool,
}

/// Walks `path` to its end.
pub fn walk(start: WalkStart<'_>, path: &[u8], flags: WalkFlags, cred: &Credentials) -> Result<VfsPath> {
    let last = walk_last(start, path, flags, cred)?;
    let target = last.target.ok_or(Errno::ENOENT)?;
    let directory = last.trailing_slash || flags.contains(WalkFlags::DIRECTORY);
    if directory && target.inode().kind() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    Ok(target)
}

/// Walks `path`, and reports its last component whether it exists or not.
pub fn walk_last(start: WalkStart<'_>, path: &[u8], flags: WalkFlags, cred: &Credentials) -> Result<Last> {
    if path.len() >= PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let at = start.at.clone();
    if path.is_empty() {
        if !flags.contains(WalkFlags::EMPTY_PATH) {
            return Err(Errno::ENOENT);
        }
        let target = Some(at.clone());
        return Ok(Last { parent: at, name: LastName::Dot, target, trailing_slash: false });
    }
    Walker { root: start.root, start: start.at, at, links: 0, flags, cred }.run(path)
}

struct Walker<'a> {
    root: &'a VfsPath,
    start: &'a VfsPath,
    at: VfsPath,
    links: u32,
    flags: WalkFlags,
    cred: &'a Credentials,
}

fn trim_slashes(path: &[u8]) -> &[u8] {
    let begin = path.iter().position(|b| *b != b'/').unwrap_or(path.len());
    path.get(begin..).unwrap_or_default()
}

impl Walker<'_> {
    fn run(&mut self, path: &[u8]) -> Result<Last> {
        let mut path = path.to_vec();
        loop {
            if path.first() == Some(&b'/') {
                self.go_to_root()?;
            }
            match self.components(trim_slashes(&path))? {
                Step::Done(last) => return Ok(last),
                Step::Restart(next) => path = next,
            }
        }
    }

    fn go_to_root(&mut self) -> Result<()> {
        if self.flags.contains(WalkFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        if self.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(&self.at.mount, &self.root.mount) {
            return Err(Errno::EXDEV);
        }
        self.at = self.root.clone();
        Ok(())
    }

    /// Walks `rest`, relative to `at`, until its end or the next symbolic link.
    fn components(&mut self, mut rest: &[u8]) -> Result<Step> {
        if rest.is_empty() {
            return Ok(Step::Done(self.done(LastName::None, false)));
        }
        loop {
            let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            let further = trim_slashes(after);
            let last = further.is_empty();
            let trailing_slash = last && !after.is_empty();
            self.check_search()?;
            match name {
                b"." if last => return Ok(Step::Done(self.done(LastName::Dot, trailing_slash))),
                b".." => {
                    let from = self.at.clone();
                    self.ascend()?;
                    if last {
                        let done = self.done(LastName::DotDot, trailing_slash);
                        return Ok(Step::Done(Last { parent: from, ..done }));
                    }
                }
                b"." => {}
                name => {
                    if let Some(step) = self.descend(name, after, last, trailing_slash)? {
                        return Ok(step);
                    }
                }
            }
            rest = further;
        }
    }

    /// One ordinary component. `None`: gone into the directory it names.
    fn descend(&mut self, name: &[u8], after: &[u8], last: bool, slash: bool) -> Result<Option<Step>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let found = match self.at.dentry.lookup(name) {
            Ok(dentry) => VfsPath { mount: Arc::clone(&self.at.mount), dentry }.topmost(),
            Err(Errno::ENOENT) if last => {
                let parent = self.at.clone();
                let name = LastName::Name(name.to_vec());
                return Ok(Some(Step::Done(Last { parent, name, target: None, trailing_slash: slash })));
            }
            Err(error) => return Err(error),
        };
        if self.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(&found.mount, &self.at.mount) {
            return Err(Errno::EXDEV);
        }
        let slash_follows = slash && !self.flags.contains(WalkFlags::PARENT);
        let follow = !last || slash_follows || self.flags.contains(WalkFlags::FOLLOW);
        if follow && found.inode().kind() == FileType::Symlink {
            return self.follow(&found, after).map(Some);
        }
        if last {
            let parent = self.at.clone();
            let name = LastName::Name(name.to_vec());
            return Ok(Some(Step::Done(Last { parent, name, target: Some(found), trailing_slash: slash })));
        }
        self.at = found;
        Ok(None)
    }

    fn follow(&mut self, link: &VfsPath, after: &[u8]) -> Result<Step> {
        self.links += 1;
        if self.links > MAX_SYMLINKS || self.flags.contains(WalkFlags::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        let target = link.inode().follow(self.cred)?;
        link.mount.accessed(link.inode());
        match target {
            LinkTarget::Path(target) if target.is_empty() => Err(Errno::ENOENT),
            LinkTarget::Path(mut target) => {
                target.extend_from_slice(after);
                Ok(Step::Restart(target))
            }
            LinkTarget::Jump(to) => {
                if self.flags.contains(WalkFlags::NO_MAGICLINKS) {
                    return Err(Errno::ELOOP);
                }
                if self.flags.contains(WalkFlags::BENEATH) {
                    return Err(Errno::EXDEV);
                }
                let to = to.downcast_ref::<VfsPath>().ok_or(Errno::ENOENT)?;
                self.at = to.clone();
                if trim_slashes(after).is_empty() {
                    return Ok(Step::Done(self.done(LastName::None, !after.is_empty())));
                }
                Ok(Step::Restart(trim_slashes(after).to_vec()))
            }
        }
    }

    fn ascend(&mut self) -> Result<()> {
        if self.flags.contains(WalkFlags::BENEATH) && self.at == *self.start {
            return Err(Errno::EXDEV);
        }
        let up = self.at.parent(self.root);
        if self.flags.contains(WalkFlags::NO_XDEV) && !Arc::ptr_eq(&up.mount, &self.at.mount) {
            return Err(Errno::EXDEV);
        }
        self.at = up;
        Ok(())
    }

    fn check_search(&self) -> Result<()> {
        let inode = self.at.inode();
        if inode.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        perm::check(&inode.attr()?, Access::EXECUTE, self.cred)
    }

    fn done(&self, name: LastName, trailing_slash: bool) -> Last {
        Last { parent: self.at.clone(), name, target: Some(self.at.clone()), trailing_slash }
    }
}

enum Step {
    Done(Last),
    /// Go on with this path, from `at` or from the root.
    Restart(Vec<u8>),
}
