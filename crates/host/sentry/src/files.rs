//! What `/proc` shows of a task's files.

use std::fmt::Write as _;
use std::sync::Arc;

use abi::Errno;
use kernel::Task;
use procfs::source::{FdFacts, LinkFacts, Which};
use procfs::view::FileView;
use vfs::{Mount, MountFlags, OpenFile, VfsPath};

/// The view of whatever task is asked about.
pub(crate) struct Files;

fn root(task: &Task) -> vfs::Result<VfsPath> {
    Ok(task.fs_context()?.get().root)
}

/// The mounts a task sees, and the paths that they have for it; those it cannot reach are not shown.
fn mounts(task: &Task) -> vfs::Result<Vec<(Arc<Mount>, String)>> {
    let context = task.fs_context()?.get();
    let shown = |mount: Arc<Mount>| {
        let (path, reachable) = VfsPath::root_of(&mount).components(&context.root);
        reachable.then(|| (mount, String::from_utf8_lossy(&path).into_owned()))
    };
    Ok(context.mounts.mounts().into_iter().filter_map(shown).collect())
}

fn open(task: &Task, fd: i32) -> vfs::Result<Arc<OpenFile>> {
    task.fd_table()?.get(fd).map_err(|_| Errno::ENOENT)
}

fn link_to(path: &VfsPath, root: &VfsPath) -> LinkFacts {
    LinkFacts { path: path.display(root), object: Some(Arc::new(path.clone())) }
}

impl FileView for Files {
    fn link(&self, task: &Task, which: Which) -> vfs::Result<LinkFacts> {
        let root = root(task)?;
        match which {
            Which::Cwd => Ok(link_to(&task.fs_context()?.get().cwd, &root)),
            Which::Root => Ok(link_to(&root, &root)),
            Which::Fd(fd) => Ok(link_to(open(task, fd)?.path(), &root)),
            Which::Exe => Ok(link_to(&task.exe().ok_or(Errno::ENOENT)?, &root)),
            Which::Namespace(name) => {
                let (path, object) = syscalls::nsfiles::link(task, name)?;
                Ok(LinkFacts { path, object: Some(Arc::new(object)) })
            }
        }
    }

    fn fds(&self, task: &Task) -> vfs::Result<Vec<i32>> {
        Ok(task.fd_table()?.numbers())
    }

    fn fd(&self, task: &Task, fd: i32) -> vfs::Result<FdFacts> {
        let file = open(task, fd)?;
        Ok(FdFacts {
            position: file.seek(vfs::SeekFrom::Current(0)).unwrap_or(0),
            flags: file.flags().bits(),
            mount_id: file.path().mount.id(),
            ino: file.inode().attr()?.ino,
            extra: Vec::new(),
        })
    }

    fn mounts(&self, task: &Task) -> vfs::Result<Vec<u8>> {
        let mut text = String::new();
        for (mount, at) in mounts(task)? {
            let _ = writeln!(
                text,
                "{} {} {} {} 0 0",
                mount.source(),
                at,
                mount.fs().type_name(),
                options(&mount)
            );
        }
        Ok(text.into_bytes())
    }

    fn mountinfo(&self, task: &Task) -> vfs::Result<Vec<u8>> {
        let mut text = String::new();
        for (mount, at) in mounts(task)? {
            let parent = mount.point().map_or(0, |point| point.mount.id());
            let dev = mount.fs().dev();
            let _ = writeln!(
                text,
                "{} {parent} {}:{} / {} {} - {} {} {}",
                mount.id(),
                abi::fs::dev_major(dev),
                abi::fs::dev_minor(dev),
                at,
                options(&mount),
                mount.fs().type_name(),
                mount.source(),
                options(&mount)
            );
        }
        Ok(text.into_bytes())
    }

    fn umask(&self, task: &Task) -> u32 {
        task.fs_context().map_or(0o022, |fs| u32::from(fs.get().umask))
    }
}

/// The options column of `/proc/mounts`.
fn options(mount: &Mount) -> String {
    let flags = mount.flags();
    let mut text = if flags.contains(MountFlags::RDONLY) { "ro" } else { "rw" }.to_owned();
    for (flag, name) in
        [(MountFlags::NOSUID, ",nosuid"), (MountFlags::NODEV, ",nodev"), (MountFlags::NOEXEC, ",noexec")]
    {
        if flags.contains(flag) {
            text.push_str(name);
        }
    }
    // What Linux does when nothing is said of it, and says.
    text.push_str(if flags.contains(MountFlags::NOATIME) { ",noatime" } else { ",relatime" });
    let own = mount.fs().options();
    if !own.is_empty() {
        text.push(',');
        text.push_str(&own);
    }
    text
}
