//! What a spec wants hidden, read-only or set in the guest's tree: masked paths, read-only paths and sysctls.

use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use cred::Credentials;
use guestmem::SliceSource;
use tmpfs::TmpFs;
use vfs::{Caller, FileContext, FsContext, Mount, MountFlags, MountNamespace, WalkFlags};

use crate::BootError;
use crate::boot::BootConfig;
use crate::memory::HostMemory;

/// Device number of the empty directory over masked ones.
const EMPTY: (u32, u32) = (0, 8);

/// Does all three, once everything is mounted.
pub(crate) fn apply(
    config: &BootConfig,
    namespace: &Arc<MountNamespace>,
    context: &FsContext,
) -> Result<(), BootError> {
    let cred = Credentials::root();
    let cx = FileContext { cred: &cred, pid: 1, tid: 1 };
    let caller = Caller::new(context, cx);
    for (name, value) in &config.sysctls {
        match set(&caller, &cx, name, value) {
            // Engines set some for every container, and what they are about need not be there.
            Err(errno) if name.starts_with("net.") => tracing::warn!(name, %errno, "a sysctl is not set"),
            other => other.map_err(|errno| BootError::Sysctl { name: name.clone(), errno })?,
        }
    }
    let fail = |path: &String| {
        let target = path.clone();
        move |errno| BootError::Mount { target, errno }
    };
    for path in &config.readonly_paths {
        protect(&caller, namespace, path).map_err(fail(path))?;
    }
    for path in &config.masked_paths {
        mask(&caller, namespace, path).map_err(fail(path))?;
    }
    Ok(())
}

/// Missing paths have nothing to hide.
fn find(caller: &Caller<'_>, path: &str) -> vfs::Result<Option<vfs::VfsPath>> {
    match caller.lookup(path.as_bytes(), WalkFlags::FOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn protect(caller: &Caller<'_>, namespace: &MountNamespace, path: &str) -> vfs::Result<()> {
    let Some(at) = find(caller, path)? else { return Ok(()) };
    namespace.bind_tree(&at, &at)?;
    let Some(bound) = find(caller, path)? else { return Ok(()) };
    bound.mount.set_flags(bound.mount.flags() | MountFlags::RDONLY);
    Ok(())
}

fn mask(caller: &Caller<'_>, namespace: &MountNamespace, path: &str) -> vfs::Result<()> {
    let Some(at) = find(caller, path)? else { return Ok(()) };
    if at.inode().attr()?.kind == FileType::Directory {
        let options = tmpfs::Options::new(abi::fs::make_dev(EMPTY.0, EMPTY.1));
        let empty = TmpFs::new(options, Arc::new(HostMemory));
        return namespace.attach(Mount::new(empty, "tmpfs", MountFlags::RDONLY), &at);
    }
    match find(caller, "/dev/null")? {
        Some(null) => namespace.attach(Mount::bind(&null), &at),
        None => Ok(()),
    }
}

fn set(caller: &Caller<'_>, cx: &FileContext<'_>, name: &str, value: &str) -> vfs::Result<()> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let found = caller.lookup(path.as_bytes(), WalkFlags::FOLLOW)?;
    let file = found.inode().open(cx, OpenFlags::WRONLY)?;
    file.write(cx, 0, &mut SliceSource(value.as_bytes())).map(drop)
}
