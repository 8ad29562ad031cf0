//! `/dev`: a tmpfs with nodes and links in it, as runtimes make it for a container.
//!
//! What is behind a node is found by its number ([`devfs::Drivers`]), so a guest may make and remove nodes as on Linux.
//! Only the console is mounted over its node, as each container has its own.

use std::sync::Arc;

use abi::Errno;
use abi::fs::{FileType, make_dev};
use cred::Credentials;
use devfs::devices::{LINKS, NODES, PTMX, console};
use kernfs::{FsInfo, KernFs};
use vfs::{Caller, FileContext, FsContext, Mount, MountFlags, MountNamespace, WalkFlags};

use crate::boot::{Device, DeviceKind};
use crate::tree::{Builder, place};

/// What `/dev/ptmx` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ptmx {
    /// A node, as in the devtmpfs of a machine.
    Node,
    /// A link into `pts`, as in containers.
    Link,
}

/// Fills the directory `/dev`, and adds `devices`, wherever they are.
pub(crate) fn fill(
    (namespace, context): (&Arc<MountNamespace>, &FsContext),
    builder: &Builder<'_>,
    ptmx: Ptmx,
    devices: &[Device],
) -> vfs::Result<()> {
    let cred = Credentials::root();
    // Modes are given as they are to be.
    let context = FsContext { umask: 0, ..context.clone() };
    let caller = Caller::new(&context, FileContext { cred: &cred, pid: 1, tid: 1 });
    let node = |name: &str, major, minor| {
        let path = format!("/dev/{name}");
        caller.mknod(path.as_bytes(), FileType::CharDevice, 0o666, make_dev(major, minor))
    };
    for (name, major, minor) in NODES {
        node(name, major, minor)?;
    }
    match ptmx {
        Ptmx::Node => drop(node("ptmx", PTMX.0, PTMX.1)?),
        Ptmx::Link => drop(caller.symlink(b"pts/ptmx", b"/dev/ptmx")?),
    }
    for (name, target) in LINKS {
        caller.symlink(target.as_bytes(), format!("/dev/{name}").as_bytes())?;
    }
    devices.iter().try_for_each(|device| add(&caller, &context, device))?;
    let Some(tty) = &builder.own.console else { return Ok(()) };
    let info = FsInfo { type_name: "devpts", ..builder.pseudo_info() };
    let fs = KernFs::new(info, console(tty));
    let at = place(&context, b"/dev/console", FileType::CharDevice)?;
    namespace.attach(Mount::new(fs, "devpts", MountFlags::empty()), &at)
}

/// Makes the node of a spec, in place of what has its name.
fn add(caller: &Caller<'_>, context: &FsContext, device: &Device) -> vfs::Result<()> {
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    };
    let path = device.path.as_bytes();
    let made = match caller.lookup(path, WalkFlags::empty()) {
        Err(Errno::ENOENT) => {
            if let Some(end) = device.path.rfind('/').filter(|end| *end > 0) {
                place(context, &path[..end], FileType::Directory)?;
            }
            caller.mknod(path, kind, device.mode, make_dev(device.major, device.minor))?
        }
        // One of those that every container has: it stays, with the owner and mode that it is to have.
        Ok(found) if found.inode().attr()?.rdev == make_dev(device.major, device.minor) => {
            caller.chmod(&found, device.mode)?;
            found
        }
        Ok(_) => return Err(Errno::EEXIST),
        Err(errno) => return Err(errno),
    };
    caller.chown(&made, Some(device.uid), Some(device.gid))
}
