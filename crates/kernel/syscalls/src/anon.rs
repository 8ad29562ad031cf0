//! Files without a name: `pipe(2)`, `eventfd(2)`, `memfd_create(2)`; and how all of their kind become
//! descriptors.

use std::sync::Arc;

use abi::fs::{FileType, OpenFlags, Permissions};
use abi::limits::Resource;
use abi::{Errno, SysResult};
use anonfs::eventfd::EventFdMode;
use anonfs::{AnonAttr, EventFd, Pipe};
use guestmem::{MemExt, UserCStr, UserPtr};
use kernel::Task;
use vfs::{File, Inode, NewNode, OpenFile, Seals};

use crate::args::Fd;
use crate::cx::Cx;
use crate::services::Services;

/// What the kind of an anonymous inode and its owner are.
fn attr(task: &Task, services: &Services, kind: FileType) -> AnonAttr {
    let cred = task.cred();
    AnonAttr { kind, uid: cred.fsuid, gid: cred.fsgid, now: services.clock.realtime().into() }
}

/// Flags of a creation: `O_CLOEXEC` and `O_NONBLOCK`, which `SFD_*`, `TFD_*` and the like equal.
pub(crate) fn creation_flags(raw: u32, more: OpenFlags) -> SysResult<OpenFlags> {
    let allowed = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | more;
    Ok(OpenFlags::from_bits(raw).filter(|flags| allowed.contains(*flags)).ok_or(Errno::EINVAL)?)
}

/// Makes a descriptor of a file of the anonymous file system; `label` shows in `/proc/PID/fd`.
pub(crate) fn install(
    cx: &Cx<'_>,
    label: &'static str,
    file: Arc<dyn File>,
    flags: OpenFlags,
) -> SysResult<Fd> {
    Ok(install_for(cx.task, cx.services, label, file, flags)?)
}

/// As [`install`], where the thread is needed meanwhile.
pub(crate) fn install_for(
    task: &Task,
    services: &Services,
    label: &'static str,
    file: Arc<dyn File>,
    flags: OpenFlags,
) -> Result<Fd, Errno> {
    let inode = services.anon.inode(Some(label), attr(task, services, FileType::Regular));
    let name = inode.name();
    let open = OpenFile::anonymous(inode, &name, file, flags);
    let limit = task.group().limit(Resource::OpenFiles).cur;
    Ok(Fd(task.fd_table()?.insert(open, flags.contains(OpenFlags::CLOEXEC), 0, limit)?))
}

/// `pipe(2)`.
pub(crate) fn pipe(cx: &mut Cx<'_>, out: UserPtr<[i32; 2]>) -> SysResult<()> {
    pipe2(cx, out, 0)
}

/// `pipe2(2)`.
pub(crate) fn pipe2(cx: &mut Cx<'_>, out: UserPtr<[i32; 2]>, flags: u32) -> SysResult<()> {
    let flags = creation_flags(flags, OpenFlags::DIRECT)?;
    let (reader, writer) = Pipe::pair(flags);
    let inode: Arc<dyn Inode> = {
        let inode = cx.services.pipefs.inode(None, attr(cx.task, cx.services, FileType::Fifo));
        cx.services.openers.remember(&(inode.clone() as Arc<dyn Inode>), reader.pipe())?;
        inode
    };
    let name = format!("pipe:[{}]", inode.attr()?.ino).into_bytes();
    let files = [
        OpenFile::anonymous(Arc::clone(&inode), &name, Arc::new(reader), flags),
        OpenFile::anonymous(inode, &name, Arc::new(writer), flags | OpenFlags::WRONLY),
    ];
    let fds = cx.fds()?;
    let pair = fds.insert_pair(files, flags.contains(OpenFlags::CLOEXEC), cx.max_fds())?;
    if let Err(fault) = cx.mm().store(out, &pair) {
        for fd in pair {
            let _ = fds.remove(fd);
        }
        return Err(fault.into());
    }
    Ok(())
}

/// `eventfd(2)`.
pub(crate) fn eventfd(cx: &mut Cx<'_>, initial: u32) -> SysResult<Fd> {
    eventfd2(cx, initial, 0)
}

/// `eventfd2(2)`.
pub(crate) fn eventfd2(cx: &mut Cx<'_>, initial: u32, flags: u32) -> SysResult<Fd> {
    const SEMAPHORE: u32 = 1;
    let mode = if flags & SEMAPHORE != 0 { EventFdMode::Semaphore } else { EventFdMode::Counter };
    let flags = creation_flags(flags & !SEMAPHORE, OpenFlags::empty())?;
    install(cx, "[eventfd]", Arc::new(EventFd::new(initial, mode)), flags | OpenFlags::RDWR)
}

/// `memfd_create(2)`.
pub(crate) fn memfd_create(cx: &mut Cx<'_>, name: UserCStr, flags: u32) -> SysResult<Fd> {
    const CLOEXEC: u32 = 1;
    const ALLOW_SEALING: u32 = 2;
    const HUGETLB: u32 = 4;
    const NOEXEC: u32 = 8;
    const EXEC: u32 = 16;
    /// With the prefix Linux puts before it, a name is no longer than a file's.
    const NAME_MAX: usize = 249;
    if flags & HUGETLB != 0 {
        obs::stub!("memfd_create with MFD_HUGETLB", "no huge pages are set aside");
        return Err(Errno::ENOSYS.into());
    }
    if flags & !(CLOEXEC | ALLOW_SEALING | NOEXEC | EXEC) != 0 || flags & (NOEXEC | EXEC) == NOEXEC | EXEC {
        return Err(Errno::EINVAL.into());
    }
    let name = match cx.mm().load_cstr(name, NAME_MAX + 1) {
        Err(Errno::ENAMETOOLONG) => return Err(Errno::EINVAL.into()),
        name => name?,
    };
    let (who, mode) = (cx.who(), if flags & NOEXEC != 0 { 0o666 } else { 0o777 });
    let node = NewNode {
        kind: FileType::Regular,
        perm: Permissions::from_bits_truncate(mode),
        uid: who.cred.fsuid,
        gid: who.cred.fsgid,
        rdev: 0,
    };
    let seals = match flags {
        flags if flags & NOEXEC != 0 => Seals::EXEC,
        flags if flags & ALLOW_SEALING != 0 => Seals::empty(),
        _ => Seals::SEAL,
    };
    let inode = cx.services.memory_files.memfd(&node, seals)?;
    let mut open = OpenFlags::RDWR | OpenFlags::LARGEFILE;
    open.set(OpenFlags::CLOEXEC, flags & CLOEXEC != 0);
    let file = inode.open(&who.cx(), open)?;
    let shown = [b"/memfd:", name.as_slice(), b" (deleted)"].concat();
    cx.install(OpenFile::anonymous(inode, &shown, file, open), flags & CLOEXEC != 0)
}
