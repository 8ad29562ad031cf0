//! Copies of mounts by descriptor, and an empty root.

mod raw;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use abi::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;

use crate::errno;

const NONE: Option<&str> = None;

/// What is below a tree that is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submounts {
    /// Copied too, as they are.
    Copied,
    /// Left out: what they covered is seen.
    LeftOut,
}

/// Whether a copy can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// As the original.
    ReadWrite,
    /// Not at all.
    ReadOnly,
}

/// Opens a copy of the mount at `path`, a directory or a file: a tree of its own that is mounted nowhere,
/// out of which no `..` leads (`open_tree(2)`). Set-user-id bits and devices have no effect in it. It goes
/// with the last descriptor that the returned one was duplicated to. `EPERM` without `CAP_SYS_ADMIN` over
/// the mount namespace.
pub fn copy_tree(path: &Path, submounts: Submounts, access: Access) -> Result<OwnedFd, Errno> {
    let tree = raw::open_tree(path, submounts == Submounts::Copied)?;
    raw::restrict(tree.as_fd(), access == Access::ReadOnly)?;
    Ok(tree)
}

/// Opens a handle of `path`, with everything mounted below it and a way up; for who may not copy.
pub fn handle(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(errno)
}

/// Ends the propagation of mounts between the host and the mount namespace of ours.
pub fn isolate() -> Result<(), Errno> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(errno)
}

/// Mounts a procfs over `/proc` that shows the processes of our own pid namespace and nothing else.
/// `EPERM` in a user namespace where the host's procfs is partly hidden.
pub fn mount_own_proc() -> Result<(), Errno> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, Some("subset=pid")).map_err(errno)
}

/// Makes an empty read-only directory the root of our mount namespace, and drops everything that was
/// mounted. What is open stays open. [`isolate`] comes first.
pub fn enter_empty_root() -> Result<(), Errno> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Any directory does as the place; this one is there because this program was started through it.
    mount(Some("tmpfs"), "/proc", Some("tmpfs"), flags, Some("nr_blocks=1,nr_inodes=1,mode=0555"))
        .map_err(errno)?;
    nix::unistd::chdir("/proc").map_err(errno)?;
    // The old root lands on top of the new one, where it is then taken off (`pivot_root(2)`, NOTES).
    nix::unistd::pivot_root(".", ".").map_err(errno)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(errno)?;
    nix::unistd::chdir("/").map_err(errno)?;
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, "/", NONE, flags, NONE).map_err(errno)
}

#[cfg(test)]
mod tests {
    use super::{Access, Submounts, copy_tree, handle};
    use abi::Errno;
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, fstat};

    #[test]
    fn a_copy_has_no_way_out_and_can_be_read_only() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("file"), b"text").expect("write");
        let tree = copy_tree(dir.path(), Submounts::LeftOut, Access::ReadOnly).expect("copies");
        let up = openat(&tree, "..", OFlag::O_PATH, Mode::empty()).expect("opens");
        assert_eq!(fstat(&up).expect("stat").st_ino, fstat(&tree).expect("stat").st_ino);
        let write = openat(&tree, "file", OFlag::O_WRONLY, Mode::empty());
        assert_eq!(write.err(), Some(nix::Error::EROFS));
        openat(&tree, "file", OFlag::O_RDONLY, Mode::empty()).expect("reads");
        let missing = copy_tree(&dir.path().join("no"), Submounts::Copied, Access::ReadWrite);
        assert_eq!(missing.err(), Some(Errno::ENOENT));
        let plain = handle(dir.path()).expect("opens");
        assert_eq!(fstat(&plain).expect("stat").st_ino, fstat(&tree).expect("stat").st_ino);
    }
}
